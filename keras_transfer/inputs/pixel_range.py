"""Which values stand for black and white: decided in fit, and held to afterwards."""

from __future__ import annotations

import numpy as np

from keras_transfer.errors import DataError, warn

__all__ = ["check_pixel_range", "find_pixel_range"]

# How far a value may lie outside the range, as a share of it: bicubic resizing overshoots.
SLACK = 0.1
FULL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))


def check_pixel_range(X: np.ndarray, pixel_range: tuple[float, float]) -> None:
    """Make sure that pixels lie in the range of the training pictures.

    Parameters
    ----------
    X : numpy.ndarray
        Of any shape.
    pixel_range : (float, float)

    Raises
    ------
    DataError
    """
    low, high = pixel_range
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
