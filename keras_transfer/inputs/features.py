"""Features: plain vectors, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import DataError

__all__ = ["FeatureInput"]


@dataclass(frozen=True)
class FeatureInput:
    """What a fit decided about feature vectors, and the way to the model's input.

    Attributes
    ----------
    n_features : int
        Length of one vector.
    """

    n_features: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input."""
        return (self.n_features,)

    @classmethod
    def from_data(cls, X: Any) -> FeatureInput:
        """Read the number of features from the training data."""
        return cls(_check_features(X).shape[1])

    def prepare(self, X: Any) -> np.ndarray:
        """Check vectors and return them as float32.

        Parameters
        ----------
        X : array of shape (n, n_features)

        Returns
        -------
        numpy.ndarray of shape (n, n_features)

        Raises
        ------
        DataError
        """
        X = _check_features(X)
        if X.shape[1] != self.n_features:
            raise DataError(
                f"X: expected {self.n_features} features, as in fit. Received: {X.shape[1]}."
            )
        return X


def _check_features(X: Any) -> np.ndarray:
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind not in "uifb":
        raise DataError(
            f"X: expected numbers of shape (n, n_features). Received: shape {X.shape} of {X.dtype}."
        )
    if 0 in X.shape:
        raise DataError(f"X: expected at least one row and feature. Received: shape {X.shape}.")
    X = X.astype(np.float32)
    if not np.isfinite(X).all():
        row = np.flatnonzero(~np.isfinite(X).all(axis=1))[0]
        raise DataError(f"X: expected finite float32 values. Received: another in row {row}.")
    return X
