"""Numbers in arrays: what every modality asks of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.errors import DataError, InvalidTypeError

__all__ = ["as_array", "check_finite", "is_sparse"]


def as_array(X: Any) -> np.ndarray:
    """Return X as one array, or say that it is none.

    Raises
    ------
    DataError
    InvalidTypeError
        If it is sparse.
    """
    if is_sparse(X):
        raise InvalidTypeError(
            "X: Sparse data was passed, but dense data is required. Use '.toarray()' to convert "
            "to a dense numpy array."
        )
    try:
        return np.asarray(X)
    except ValueError as error:
        raise DataError(
            f"X: expected examples of one shape in one array. Received: a {type(X).__name__} that "
            f"makes no array ({error}). Bring them to one shape first."
        ) from error


def is_sparse(value: Any) -> bool:
    """Say whether a value is one of SciPy's sparse matrices or arrays."""
    import scipy.sparse

    return scipy.sparse.issparse(value)


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
    finite = np.isfinite(X).reshape(len(X), -1)
    rows = np.flatnonzero(~finite.all(axis=1))
    if len(rows):
        is_nan = bool(np.isnan(X[rows[0]]).any())
        found = "NaN" if is_nan else f"infinity or a value too large for {X.dtype!r}"
        raise DataError(  # with scikit-learn's own words
            f"X: expected finite numbers. Received: Input X contains {found} in {len(rows)} "
            f"{what}(s), the first at row {rows[0]}. Remove or repair them."
        )
