"""Numbers in arrays: what every modality asks of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.errors import DataError

__all__ = ["as_array", "check_finite"]


def as_array(X: Any) -> np.ndarray:
    """Return X as one array, or say that it is none.

    Raises
    ------
    DataError
    """
    try:
        return np.asarray(X)
    except ValueError as error:
        raise DataError(
            f"X: expected examples of one shape in one array. Received: a {type(X).__name__} that "
            f"makes no array ({error}). Bring them to one shape first."
        ) from error


def check_finite(X: np.ndarray, what: str) -> None:
    """Make sure that there is no NaN and no infinity.

    Parameters
    ----------
    X : numpy.ndarray of shape (n, ...)
    what : str
        What one row is called.

    Raises
    ------
    DataError
        With the first row.
    """
    if X.dtype.kind != "f":
        return
    with np.errstate(all="ignore"):
        if np.isfinite(X.sum(dtype=np.float64)):  # one pass, for the usual case
            return
    rows = np.flatnonzero(~np.isfinite(X).reshape(len(X), -1).all(axis=1))
    if len(rows):
        raise DataError(
            f"X: expected finite numbers. Received: NaN or infinity in {len(rows)} {what}(s), the "
            f"first at row {rows[0]}. Remove or repair them."
        )
