"""Pictures: checked, brought to RGB of 0..255 and to one size, the same in training and serving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import DataError, InvalidParameterError, warn
from keras_transfer.inputs.arrays import as_array, check_finite

__all__ = ["PictureInput", "resize_pictures", "resolve_image_size"]

# How far a value may lie outside the range, as a share of it: bicubic resizing overshoots.
SLACK = 0.1
# Largest float32 block resized at once, in bytes of the original pictures.
CHUNK_BYTES = 64 << 20
FULL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))


def resolve_image_size(image_size: Any) -> tuple[int, int] | None:
    """Turn an ``image_size`` parameter into (height, width) in pixels.

    Parameters
    ----------
    image_size : int, (int, int) or None

    Raises
    ------
    InvalidParameterError
    """
    if image_size is None:
        return None
    sides = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    if len(sides) != 2 or any(
        isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in sides
    ):
        raise InvalidParameterError(
            f"image_size: expected a positive int, (height, width) or None. Received: "
            f"{image_size!r}."
        )
    return int(sides[0]), int(sides[1])


def resize_pictures(pixels: Any, size: tuple[int, int]) -> Any:
    """Resize RGB pictures: the one function that training and serving share.

    Parameters
    ----------
    pixels : tensor of shape (batch, height, width, 3)
        Float32.
    size : (int, int)
        Height and width in pixels.

    Returns
    -------
    tensor of shape (batch, *size, 3)
        Float32. Bilinear, with antialiasing where it shrinks: without it, fine patterns of a large
        picture turn into noise.
    """
    import tensorflow as tf

    if tuple(pixels.shape[1:3]) == tuple(size):
        return pixels
    return tf.image.resize(pixels, size, method="bilinear", antialias=True)


@dataclass(frozen=True)
class PictureInput:
    """What a fit decided about pictures, and the way from raw arrays to the model's input.

    Attributes
    ----------
    size : (int, int)
        Height and width of the model's input in pixels.
    pixel_range : (float, float)
        The values that stand for black and white.
    """

    size: tuple[int, int]
    pixel_range: tuple[float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input."""
        return (*self.size, 3)

    @classmethod
    def from_data(cls, X: Any, size: tuple[int, int]) -> PictureInput:
        """Decide the value range from the training pictures.

        Parameters
        ----------
        X : array of shape (n, h, w), (n, h, w, 1), (n, h, w, 3) or (n, h, w, 4)
        size : (int, int)
            Height and width of the model's input in pixels.
        """
        return cls(size, find_pixel_range(check_pictures(X)))

    def prepare(self, X: Any) -> np.ndarray:
        """Bring pictures to the model's input.

        Parameters
        ----------
        X : array of shape (n, h, w), (n, h, w, 1), (n, h, w, 3) or (n, h, w, 4)
            Grey pictures are repeated over the channels, transparent ones put over white.

        Returns
        -------
        numpy.ndarray of shape (n, height, width, 3)
            Float32, RGB of 0..255.

        Raises
        ------
        DataError
            If the shape is not that of pictures, a value is not finite, or the values lie in
            another range than the training pictures' did.
        """
        X = check_pictures(X)
        self._check_range(X)
        prepared = np.empty((len(X), *self.size, 3), np.float32)
        step = max(1, CHUNK_BYTES // max(1, X[:1].nbytes))
        for start in range(0, len(X), step):
            rgb = self._to_rgb(X[start : start + step])
            prepared[start : start + step] = resize_pictures(rgb, self.size)
        return prepared

    def _to_rgb(self, X: np.ndarray) -> np.ndarray:
        low, high = self.pixel_range
        pixels = (X.astype(np.float32) - low) * np.float32(255 / (high - low))
        np.clip(pixels, 0, 255, out=pixels)  # what resizing overshot
        if X.ndim == 3:
            pixels = pixels[..., np.newaxis]
        if pixels.shape[-1] == 4:
            opacity = pixels[..., 3:] / 255
            pixels = pixels[..., :3] * opacity + 255 * (1 - opacity)
        if pixels.shape[-1] == 1:
            pixels = np.repeat(pixels, 3, axis=-1)
        return np.ascontiguousarray(pixels)

    def _check_range(self, X: np.ndarray) -> None:
        low, high = self.pixel_range
        smallest, largest = float(X.min()), float(X.max())
        slack = SLACK * (high - low)
        # Float pictures of 0..1 would be all but black in a range of 0..255, and bytes in one of
        # 0..65535.
        fractions = X.dtype.kind == "f" and largest <= 1 and bool(np.any(np.rint(X) != X))
        narrow = X.dtype.kind in "bu" and _white(X.dtype) * 4 < high
        # A picture whose white is a 256th of what it was can only be of another range.
        faint = X.dtype.kind == "f" and high > 1 and 0 < largest * 256 <= high
        too_dark = (high > 1 and fractions) or narrow or faint
        if smallest < low - slack or largest > high + slack or too_dark:
            raise DataError(
                f"X: expected pixels of {low:g} to {high:g}, as in fit. Received: {smallest:g} to "
                f"{largest:g} ({X.dtype}). Scale X as the training pictures were."
            )


def check_pictures(X: Any) -> np.ndarray:
    """Return X as an array of pictures, or say why it is none.

    Raises
    ------
    DataError
    """
    X = as_array(X)
    if X.dtype.kind not in "uifb":
        raise DataError(f"X: expected numbers. Received: an array of {X.dtype}.")
    channels = X.ndim > 0 and X.shape[-1] in (1, 3, 4)
    # (height, width, 3) would pass for grey pictures that are three pixels wide.
    if X.ndim not in (3, 4) or (X.ndim == 3) == channels:
        hint = {
            2: " Reshape flattened pictures to (n, height, width).",
            3: " For a single picture pass X[np.newaxis].",
        }.get(X.ndim, "")
        raise DataError(
            f"X: expected pictures of shape (n, height, width) or (n, height, width, channels) "
            f"with 1, 3 or 4 channels. Received: {X.shape}.{hint}"
        )
    if len(X) == 0 or 0 in X.shape:
        raise DataError(f"X: expected at least one picture. Received: shape {X.shape}.")
    check_finite(X, "picture")
    return X


def _overshoots(X: np.ndarray, smallest: float, largest: float, low: float, high: float) -> bool:
    """Say whether pixels use a range and leave it by what bicubic resizing adds."""
    slack = SLACK / 2 * (high - low)
    uses = X.dtype.kind == "f" and largest > (low + high) / 2
    return uses and low - slack <= smallest and largest <= high + slack


def _white(dtype: np.dtype) -> float:
    """Return what white is to a type of whole numbers."""
    return 1.0 if dtype.kind == "b" else float(np.iinfo(dtype).max)


def find_pixel_range(X: np.ndarray) -> tuple[float, float]:
    """Decide which values stand for black and white.

    Parameters
    ----------
    X : numpy.ndarray
        Pictures, checked.

    Returns
    -------
    (float, float)
        The narrowest of the common ranges that holds the values. Values that reach only a small
        part of it get a range of their own, with a warning.
    """
    smallest, largest = float(X.min()), float(X.max())
    fitting = [
        (low, high)
        for low, high in FULL_RANGES
        if (low <= smallest and largest <= high) or _overshoots(X, smallest, largest, low, high)
    ]
    if not fitting:
        raise DataError(
            f"X: expected pixels of 0..1, -1..1, 0..255 or 0..65535. Received: {smallest:g} to "
            f"{largest:g} ({X.dtype}). Scale X to one of these."
        )
    low, high = fitting[0]
    if high > 1 and largest < 0.25 * high:
        warn(
            f"X: pixels reach from {smallest:g} to {largest:g}; {largest:g} is taken for white. If "
            f"white is {high:g}, scale X or add a picture that holds it."
        )
        return 0.0, largest
    return low, high
