"""Pictures on their way to the model: what is refused, which values mean white, how they shrink."""

import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from keras_transfer import TransferClassifier
from keras_transfer.errors import DataError, InvalidParameterError
from keras_transfer.inputs import pictures
from keras_transfer.inputs.decoding import resize_pictures
from keras_transfer.inputs.pictures import PictureInput, check_pictures, resolve_image_size

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 8, 6, 3), np.uint8)
RGB[0, 0, 0], RGB[0, 0, 1] = 0, 255
BYTES = (0.0, 255.0)


def as_it_is(X, pixel_range=BYTES):
    """Prepare without a change of size."""
    return PictureInput(np.shape(X)[1:3], pixel_range).load(X).inputs


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
    assert reader.shape == reader.load(RGB).inputs.shape[1:] == (4, 7, 3)


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
        PictureInput((8, 8), BYTES).load(X)


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
        PictureInput((4, 4), BYTES).load(X)


def test_infinities_that_cancel():
    X = np.zeros((3, 5, 5))
    X[1, 0, :2] = np.inf, -np.inf
    with pytest.raises(DataError, match=r"1 picture\(s\).* at row 1"):
        check_pictures(X)


def test_finite_pixels_with_an_infinite_sum():
    with pytest.raises(DataError, match=r"^X: expected pixels of"):
        PictureInput((4, 4), BYTES).load(np.full((2, 5, 5), 1.7e308))


# === Resizing ===


def test_the_right_size_is_left_alone():
    pixels = RGB.astype(np.float32)
    assert resize_pictures(pixels, (8, 6)) is pixels
    assert resize_pictures(pixels, [8, 6]) is pixels


@pytest.mark.parametrize("size", [(4, 3), (5, 5), (16, 12), (8, 3), (1, 1)], ids=str)
def test_resizing_is_row_wise(size, monkeypatch):
    reader = PictureInput(size, BYTES)
    whole = reader.load(RGB).inputs
    np.testing.assert_array_equal(reader.load(RGB[2:4]).inputs, whole[2:4])
    np.testing.assert_array_equal(reader.load(RGB[::-1]).inputs, whole[::-1])
    for n_bytes in (1, 2 * RGB[:1].nbytes, 3 * RGB[:1].nbytes + 1):
        monkeypatch.setattr(pictures, "CHUNK_BYTES", n_bytes)
        np.testing.assert_array_equal(reader.load(RGB).inputs, whole)


def test_a_picture_is_resized_in_chunks_of_the_size_asked_for(monkeypatch):
    lengths = []

    def spy(pixels, size):
        lengths.append(len(pixels))
        return resize_pictures(pixels, size)

    monkeypatch.setattr(pictures, "resize_pictures", spy)
    monkeypatch.setattr(pictures, "CHUNK_BYTES", 2 * RGB[:1].nbytes)
    PictureInput((4, 3), BYTES).load(RGB)
    assert lengths == [2, 2, 1]


def test_a_fine_pattern_shrinks_to_grey():
    """Without antialiasing it would be black, white or a moire."""
    # A ratio of 7: each new pixel lies on the middle of an old one, black or white.
    board = (np.indices((63, 63)).sum(axis=0) % 2 * 255).astype(np.uint8)[np.newaxis]
    small = PictureInput((9, 9), BYTES).load(board).inputs
    np.testing.assert_allclose(small, 127.5, atol=10)


def test_one_colour_stays_that_colour_at_any_size():
    X = np.full((1, 7, 5, 3), (10, 100, 200), np.uint8)
    for size in [(3, 3), (14, 10), (20, 2)]:
        prepared = PictureInput(size, BYTES).load(X).inputs
        np.testing.assert_allclose(prepared, np.broadcast_to(X[0, 0, 0], (1, *size, 3)), rtol=1e-5)


@pytest.mark.parametrize("size", [(3, 5), (16, 12)], ids=str)
def test_what_comes_out_lies_in_0_to_255(size):
    prepared = PictureInput.from_data(RGB / 255, size).load(RGB / 255).inputs
    assert prepared.dtype == np.float32
    assert prepared.shape == (5, *size, 3)
    assert prepared.min() >= 0
    assert prepared.max() <= 255 * (1 + 1e-6)


# === Lists ===


@pytest.mark.parametrize(
    "single",
    ["picture.png", b"GIF89a", Path("picture.png"), Image.fromarray(RGB[0])],
    ids=["name", "contents", "path", "Pillow"],
)
def test_a_single_picture_is_no_list(single):
    with pytest.raises(DataError, match=r"Received: a single one, .*\. Pass \[picture\]\.$"):
        PictureInput((8, 6), BYTES).load(single)


def test_arrays_of_different_sizes_name_the_row_that_is_none():
    holed = RGB[1, :5].astype(float)
    holed[2, 2, 0] = np.nan
    words = RGB[1, :5].astype(str)
    for bad, problem in ((holed, "NaN"), (words, "an array of <U3")):
        with pytest.raises(DataError, match=f"^row 1 of X: expected .*numbers.*{problem}"):
            PictureInput((8, 6), BYTES).load([RGB[0], bad])


def test_nested_lists_of_no_one_shape_are_refused():
    with pytest.raises(DataError, match=r"of one shape in one array\. Received: a list .*Bring"):
        PictureInput((8, 6), BYTES).load([[[1, 2], [3, 4]], [[1, 2, 3], [4, 5, 6]]])


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
    expected = PictureInput(size, BYTES).load(RGB).inputs
    X = change(RGB.astype(dtype))
    before = np.array(X)
    prepared = PictureInput.from_data(X, size).load(X).inputs
    np.testing.assert_array_equal(prepared, expected)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_result_is_no_view_of_the_input(channels):
    X = RNG.uniform(0, 255, (2, 4, 4, channels)).astype(np.float32)
    before = X.copy()
    PictureInput((4, 4), BYTES).load(X).inputs[:] = -1
    np.testing.assert_array_equal(X, before)


def test_a_picture_of_rows_of_several_lengths_is_named():
    square, ragged = [[1, 2], [3, 4]], [[1, 2], [3]]
    for X in ([square, ragged], [ragged, ragged]):
        with pytest.raises(DataError, match=r"Received in row [01]: \[\[1, 2\], \[3\]\]"):
            PictureInput((8, 8), BYTES).load(X)


def test_a_reader_is_a_value():
    reader = PictureInput.from_data(RGB, (4, 4))
    assert reader == PictureInput((4, 4), BYTES)
    assert re.search(r"size=\(4, 4\), pixel_range=\(0\.0, 255\.0\)", repr(reader))
