"""Which values stand for black and white, decided in fit and held to afterwards."""

import warnings

import numpy as np
import pytest

from keras_transfer import TransferClassifier
from keras_transfer.errors import DataError, KerasTransferWarning
from keras_transfer.inputs.pictures import PictureInput
from keras_transfer.inputs.pixel_range import find_pixel_range

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 8, 6, 3), np.uint8)
RGB[0, 0, 0], RGB[0, 0, 1] = 0, 255
BYTES = (0.0, 255.0)


def as_it_is(X, pixel_range=BYTES):
    """Prepare without a change of size."""
    return PictureInput(np.shape(X)[1:3], pixel_range).load(X).inputs


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
    prepared = PictureInput.from_data(X, X.shape[1:3]).load(X).inputs
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
    prepared = PictureInput(X.shape[1:3], expected).load(X).inputs
    assert prepared.min() >= 0
    assert prepared.max() <= 255


def test_bytes_as_floats_in_a_range_of_16_bits():
    with pytest.raises(DataError, match="expected pixels of 0 to 65535"):
        PictureInput((4, 4), (0.0, 65535.0)).load(np.full((1, 5, 5), 250.0))


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
