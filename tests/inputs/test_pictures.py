"""Pictures on their way to the model: what is refused, which values mean white, how they shrink."""

import re
import warnings

import numpy as np
import pytest
import tiny

from keras_transfer import TransferClassifier
from keras_transfer.errors import DataError, InvalidParameterError, KerasTransferWarning
from keras_transfer.inputs import pictures
from keras_transfer.inputs.decoding import resize_pictures
from keras_transfer.inputs.pictures import PictureInput, check_pictures, resolve_image_size
from keras_transfer.inputs.pixel_range import find_pixel_range

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 8, 6, 3), np.uint8)
RGB[0, 0, 0], RGB[0, 0, 1] = 0, 255
BYTES = (0.0, 255.0)


def as_it_is(X, pixel_range=BYTES):
    """Prepare without a change of size."""
    return PictureInput(np.shape(X)[1:3], pixel_range).prepare(X)


# === Sizes ===


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        (None, None),
        (96, (96, 96)),
        (np.int64(96), (96, 96)),
        ((96, 128), (96, 128)),
        ([96, 128], (96, 128)),
        (np.array([96, 128]), (96, 128)),
        (1, (1, 1)),
    ],
)
def test_image_size(image_size, expected):
    sides = resolve_image_size(image_size)
    assert sides == expected
    assert sides is None or all(type(side) is int for side in sides)


@pytest.mark.parametrize(
    "image_size",
    [0, -1, 96.0, True, "96", (96,), (96, 96, 3), (96, 0), (96, "96"), (True, 96), (), {96, 128}],
    ids=repr,
)
def test_image_size_that_is_none(image_size):
    with pytest.raises(InvalidParameterError, match=r"image_size: expected a positive int") as e:
        resolve_image_size(image_size)
    assert repr(image_size) in str(e.value)


# === Channels ===


def test_rgb_bytes_come_through_unchanged():
    prepared = as_it_is(RGB)
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(prepared, RGB)


def test_shape_is_that_of_the_prepared():
    reader = PictureInput((4, 7), BYTES)
    assert reader.shape == reader.prepare(RGB).shape[1:] == (4, 7, 3)


@pytest.mark.parametrize("shape", [(5, 8, 6), (5, 8, 6, 1)], ids=str)
def test_grey_is_repeated(shape):
    grey = RGB[..., 0]
    prepared = as_it_is(grey.reshape(shape))
    assert prepared.shape == (5, 8, 6, 3)
    for channel in range(3):
        np.testing.assert_array_equal(prepared[..., channel], grey)


@pytest.mark.parametrize(
    ("scale", "pixel_range"),
    [(1, (0.0, 1.0)), (255, BYTES), (65535, (0.0, 65535.0))],
    ids=["0..1", "0..255", "0..65535"],
)
@pytest.mark.parametrize(
    ("rgba", "expected"),
    [
        ((0.2, 0.4, 0.6, 0.0), (255, 255, 255)),  # the hidden colour does not shine through
        ((0.2, 0.4, 0.6, 1.0), (51, 102, 153)),
        ((0.0, 0.4, 1.0, 0.5), (127.5, 178.5, 255)),
        ((0.0, 0.0, 0.0, 0.2), (204, 204, 204)),
    ],
    ids=["transparent", "opaque", "half", "a fifth of black"],
)
def test_rgba_stands_on_white(scale, pixel_range, rgba, expected):
    X = np.broadcast_to(np.array(rgba) * scale, (2, 3, 3, 4))
    np.testing.assert_allclose(as_it_is(X, pixel_range)[1, 2, 2], expected, atol=1e-3)


# === Value ranges ===

RANGES = {
    "float 0..1": (np.array([0, 0.5, 1]), (0.0, 1.0)),
    "float32 0..1": (np.array([0, 0.5, 1], np.float32), (0.0, 1.0)),
    "float, all dark": (np.array([0, 0.1]), (0.0, 1.0)),
    "float -1..1": (np.array([-1, 0, 1.0]), (-1.0, 1.0)),
    "float, a little negative": (np.array([-0.2, 0.1]), (-1.0, 1.0)),
    "float 0..255": (np.array([0, 0.5, 255]), BYTES),
    "float, up to 200": (np.array([3, 200.0]), BYTES),
    "float 0..65535": (np.array([0, 40000.0]), (0.0, 65535.0)),
    "uint8": (np.array([0, 255], np.uint8), BYTES),
    "uint8, binary": (np.array([0, 1], np.uint8), (0.0, 1.0)),
    "int64, binary": (np.array([0, 1]), (0.0, 1.0)),
    "int64 0..255": (np.array([0, 255]), BYTES),
    "uint16": (np.array([0, 65535], np.uint16), (0.0, 65535.0)),
    "uint16 of 8 bits": (np.array([0, 255], np.uint16), BYTES),
    "bool": (np.array([False, True]), (0.0, 1.0)),
    "bool, all black": (np.array([False, False]), (0.0, 1.0)),
}


@pytest.mark.parametrize(("values", "expected"), RANGES.values(), ids=RANGES)
def test_pixel_range(values, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_pixel_range(values.reshape(1, 1, -1)) == expected


@pytest.mark.parametrize(
    ("values", "pixel_range"),
    [(v, r) for name, (v, r) in RANGES.items() if "dark" not in name and "all" not in name],
    ids=[name for name in RANGES if "dark" not in name and "all" not in name],
)
def test_the_range_ends_at_black_and_white(values, pixel_range):
    low, high = pixel_range
    X = values.reshape(1, 1, -1, 1)
    prepared = PictureInput.from_data(X, X.shape[1:3]).prepare(X)
    expected = (values.astype(float) - low) / (high - low) * 255
    np.testing.assert_allclose(prepared[0, 0, :, 0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.array([0, 16.0]), 16.0),
        (np.array([0, 16]), 16.0),
        (np.array([0, 16], np.uint8), 16.0),
        (np.array([0, 4095], np.uint16), 4095.0),
    ],
    ids=["digits", "int digits", "digits in bytes", "12 bits"],
)
def test_a_small_part_of_a_range_gets_its_own_and_a_warning(values, white):
    with pytest.warns(KerasTransferWarning, match=rf"X: .*{white:g} is taken for white\. If"):
        pixel_range = find_pixel_range(values.reshape(1, 1, -1))
    assert pixel_range == (0.0, white)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([-0.02, 0.5, 1.0], (0.0, 1.0)), ([0, 1.03], (0.0, 1.0)), ([-1.05, 1.0], (-1.0, 1.0))],
)
def test_overshoot_is_no_range_of_its_own(values, expected):
    X = np.array(values).reshape(1, 1, -1, 1)
    assert find_pixel_range(X) == expected
    prepared = PictureInput(X.shape[1:3], expected).prepare(X)
    assert prepared.min() >= 0
    assert prepared.max() <= 255


def test_bytes_as_floats_in_a_range_of_16_bits():
    with pytest.raises(DataError, match="expected pixels of 0 to 65535"):
        PictureInput((4, 4), (0.0, 65535.0)).prepare(np.full((1, 5, 5), 250.0))


def test_the_warning_points_at_the_call_of_fit():
    def stop(input_shape):
        raise RuntimeError("far enough")

    digits = np.linspace(0, 16, 4 * 8 * 8).reshape(4, 8, 8)
    with pytest.warns(KerasTransferWarning) as caught, pytest.raises(RuntimeError, match="enough"):
        TransferClassifier(stop).fit(digits, [0, 1, 0, 1])
    assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize("values", [(-300.0, 5.0), (0.0, 70000.0), (-1.5, 0.5)], ids=str)
def test_no_range_holds_the_values(values):
    with pytest.raises(DataError, match=r"0\.\.1, -1\.\.1, 0\.\.255 or 0\.\.65535.*Scale X") as e:
        find_pixel_range(np.reshape(values, (1, 1, 2)))
    assert f"{values[0]:g} to {values[1]:g}" in str(e.value)


OTHER_RANGES = {
    "bytes, then 0..1": (BYTES, RGB / 255),
    "bytes, then -1..1": (BYTES, RGB / 127.5 - 1),
    "bytes, then dark 0..1": (BYTES, RGB / 2550),
    "bytes, then uint16": (BYTES, RGB.astype(np.uint16) * 257),
    "0..1, then bytes": ((0.0, 1.0), RGB),
    "0..1, then -1..1": ((0.0, 1.0), RGB / 127.5 - 1),
    "-1..1, then bytes": ((-1.0, 1.0), RGB),
    "digits, then bytes": ((0.0, 16.0), RGB),
    "digits, then 0..1": ((0.0, 16.0), RGB / 255),
    "uint16, then 0..1": ((0.0, 65535.0), RGB / 255),
    # Their type alone says that they have another range; they would be all but black.
    "uint16, then uint8": ((0.0, 65535.0), RGB),
    "bytes, then bool": (BYTES, RGB > 127),
}


@pytest.mark.parametrize(("pixel_range", "X"), OTHER_RANGES.values(), ids=OTHER_RANGES)
def test_another_range_than_in_fit(pixel_range, X):
    low, high = pixel_range
    with pytest.raises(DataError, match=f"{low:g} to {high:g}, as in fit.*Scale X") as e:
        as_it_is(X, pixel_range)
    assert str(X.dtype) in str(e.value)


@pytest.mark.parametrize(
    ("pixel_range", "values"),
    [
        ((0.0, 1.0), (-0.09, 1.09)),
        ((-1.0, 1.0), (-1.19, 1.19)),
        (BYTES, (-25.0, 280.0)),
        ((0.0, 16.0), (0.0, 17.0)),
    ],
    ids=str,
)
def test_a_little_overshoot_is_let_through(pixel_range, values):
    as_it_is(np.reshape(values, (1, 1, 2)), pixel_range)
    for value in values:
        middle = sum(pixel_range) / 2
        too_far = np.array([middle, middle + 1.3 * (value - middle)]).reshape(1, 1, 2)
        if value not in pixel_range:
            with pytest.raises(DataError, match="as in fit"):
                as_it_is(too_far, pixel_range)


@pytest.mark.parametrize(
    ("pixel_range", "X"),
    [
        (BYTES, np.zeros((1, 2, 2), np.uint8)),
        (BYTES, np.ones((1, 2, 2))),
        (BYTES, np.full((1, 2, 2), 40.5)),
        ((-1.0, 1.0), np.full((1, 2, 2), 0.5)),
        ((0.0, 1.0), np.zeros((1, 2, 2), bool)),
    ],
    ids=["black", "ones", "dark", "no negative", "bool"],
)
def test_what_the_range_holds_is_let_through(pixel_range, X):
    assert np.isfinite(as_it_is(X, pixel_range)).all()


# === What is no picture ===

NOT_PICTURES = {
    "one axis": (np.zeros(7), r"\(n, height, width\).*Received: \(7,\)"),
    "flattened": (np.zeros((3, 64)), r"Received: \(3, 64\)\. Reshape flattened pictures"),
    "five axes": (np.zeros((1, 2, 2, 2, 3)), r"Received: \(1, 2, 2, 2, 3\)"),
    "a number": (3, r"Received: \(\)"),
    "two channels": (np.zeros((2, 8, 8, 2)), r"1, 3 or 4 channels\. Received: \(2, 8, 8, 2\)"),
    "five channels": (np.zeros((2, 8, 8, 5)), r"1, 3 or 4 channels\. Received: \(2, 8, 8, 5\)"),
    "channels first": (np.zeros((2, 3, 8, 8)), r"1, 3 or 4 channels\. Received: \(2, 3, 8, 8\)"),
    "no pictures": (np.zeros((0, 8, 8, 3)), r"at least one picture\. Received: shape \(0, 8, 8"),
    "no pixels": (np.zeros((2, 0, 8, 3)), r"at least one picture\. Received: shape \(2, 0, 8"),
    "objects": (np.array([None, None]), r"expected numbers, or .* an array of object"),
    "complex": (np.zeros((1, 2, 2), complex), r"expected numbers, or .* complex128"),
}


@pytest.mark.parametrize(("X", "message"), NOT_PICTURES.values(), ids=NOT_PICTURES)
def test_what_is_no_picture(X, message):
    with pytest.raises(DataError, match=f"^X: .*{message}"):
        check_pictures(X)
    with pytest.raises(DataError, match=f"^X: .*{message}"):
        PictureInput.from_data(X, (8, 8))
    with pytest.raises(DataError, match=f"^X: .*{message}"):
        PictureInput((8, 8), BYTES).prepare(X)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_single_picture_is_no_stack_of_grey_ones(channels):
    with pytest.raises(DataError, match=r"For a single picture pass X\[np\.newaxis\]"):
        check_pictures(np.zeros((32, 48, channels)))


def test_the_advice_for_one_axis_would_help():
    with pytest.raises(DataError) as e:
        check_pictures(np.zeros(64))
    assert "X[np.newaxis]" not in str(e.value)  # a picture of one axis is none either


@pytest.mark.parametrize(
    ("X", "y"),
    [
        ([np.zeros((8, 8, 3)), np.zeros((9, 8, 2))], ["a", "b"]),
        (["no.png", "such.png"], ["a", "b"]),
        (np.zeros(4), ["a", "b", "a", "b"]),
        (3, ["a", "b"]),
    ],
    ids=["two sizes", "paths", "one axis", "a number"],
)
def test_fit_refuses_them_as_clearly(X, y):
    with pytest.raises(DataError, match=r"^X: expected"):
        TransferClassifier(tiny.cnn, image_size=8, modality="picture").fit(X, y)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pixels_that_are_not_finite(bad, dtype):
    X = np.zeros((6, 4, 4, 3), dtype)
    X[3, 1, 2, 0] = X[5, 0, 0, 0] = bad
    with pytest.raises(DataError, match=r"X: expected finite.* in 2 picture\(s\).* at row 3\."):
        PictureInput((4, 4), BYTES).prepare(X)


def test_infinities_that_cancel():
    X = np.zeros((3, 5, 5))
    X[1, 0, :2] = np.inf, -np.inf
    with pytest.raises(DataError, match=r"1 picture\(s\).* at row 1"):
        check_pictures(X)


def test_finite_pixels_with_an_infinite_sum():
    with pytest.raises(DataError, match=r"^X: expected pixels of"):
        PictureInput((4, 4), BYTES).prepare(np.full((2, 5, 5), 1.7e308))


# === Resizing ===


def test_the_right_size_is_left_alone():
    pixels = RGB.astype(np.float32)
    assert resize_pictures(pixels, (8, 6)) is pixels
    assert resize_pictures(pixels, [8, 6]) is pixels


@pytest.mark.parametrize("size", [(4, 3), (5, 5), (16, 12), (8, 3), (1, 1)], ids=str)
def test_resizing_is_row_wise(size, monkeypatch):
    reader = PictureInput(size, BYTES)
    whole = reader.prepare(RGB)
    np.testing.assert_array_equal(reader.prepare(RGB[2:4]), whole[2:4])
    np.testing.assert_array_equal(reader.prepare(RGB[::-1]), whole[::-1])
    for n_bytes in (1, 2 * RGB[:1].nbytes, 3 * RGB[:1].nbytes + 1):
        monkeypatch.setattr(pictures, "CHUNK_BYTES", n_bytes)
        np.testing.assert_array_equal(reader.prepare(RGB), whole)


def test_a_picture_is_resized_in_chunks_of_the_size_asked_for(monkeypatch):
    lengths = []

    def spy(pixels, size):
        lengths.append(len(pixels))
        return resize_pictures(pixels, size)

    monkeypatch.setattr(pictures, "resize_pictures", spy)
    monkeypatch.setattr(pictures, "CHUNK_BYTES", 2 * RGB[:1].nbytes)
    PictureInput((4, 3), BYTES).prepare(RGB)
    assert lengths == [2, 2, 1]


def test_a_fine_pattern_shrinks_to_grey():
    """Without antialiasing it would be black, white or a moire."""
    # A ratio of 7: each new pixel lies on the middle of an old one, black or white.
    board = (np.indices((63, 63)).sum(axis=0) % 2 * 255).astype(np.uint8)[np.newaxis]
    small = PictureInput((9, 9), BYTES).prepare(board)
    np.testing.assert_allclose(small, 127.5, atol=10)


def test_one_colour_stays_that_colour_at_any_size():
    X = np.full((1, 7, 5, 3), (10, 100, 200), np.uint8)
    for size in [(3, 3), (14, 10), (20, 2)]:
        prepared = PictureInput(size, BYTES).prepare(X)
        np.testing.assert_allclose(prepared, np.broadcast_to(X[0, 0, 0], (1, *size, 3)), rtol=1e-5)


@pytest.mark.parametrize("size", [(3, 5), (16, 12)], ids=str)
def test_what_comes_out_lies_in_0_to_255(size):
    prepared = PictureInput.from_data(RGB / 255, size).prepare(RGB / 255)
    assert prepared.dtype == np.float32
    assert prepared.shape == (5, *size, 3)
    assert prepared.min() >= 0
    assert prepared.max() <= 255 * (1 + 1e-6)


# === Arrays of every kind ===

CHANGED = {
    "as it is": lambda X: X,
    "read-only": lambda X: np.frombuffer(X.tobytes(), X.dtype).reshape(X.shape),
    "Fortran order": np.asfortranarray,
    "every second": lambda X: np.repeat(np.repeat(X, 2, axis=0), 2, axis=2)[::2, :, ::2],
    "reversed twice": lambda X: X[::-1].copy()[::-1],
    "transposed": lambda X: np.ascontiguousarray(X.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0),
    "big-endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "nested list": lambda X: X.tolist(),
}


@pytest.mark.parametrize("size", [(8, 6), (4, 5)], ids=["same size", "resized"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_any_memory_layout_and_type(change, dtype, size):
    expected = PictureInput(size, BYTES).prepare(RGB)
    X = change(RGB.astype(dtype))
    before = np.array(X)
    prepared = PictureInput.from_data(X, size).prepare(X)
    np.testing.assert_array_equal(prepared, expected)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_result_is_no_view_of_the_input(channels):
    X = RNG.uniform(0, 255, (2, 4, 4, channels)).astype(np.float32)
    before = X.copy()
    PictureInput((4, 4), BYTES).prepare(X)[:] = -1
    np.testing.assert_array_equal(X, before)


def test_a_reader_is_a_value():
    reader = PictureInput.from_data(RGB, (4, 4))
    assert reader == PictureInput((4, 4), BYTES)
    assert re.search(r"size=\(4, 4\), pixel_range=\(0\.0, 255\.0\)", repr(reader))
