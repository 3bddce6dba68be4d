"""Features: plain vectors, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import DataError
from keras_transfer.inputs.arrays import as_array, check_finite

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
                f"X: expected {self.n_features} features, as in fit. Received: {X.shape[1]}. "
                f"Pass the same columns."
            )
        return X


def _check_features(X: Any) -> np.ndarray:
    X = as_array(X)
    if X.ndim != 2 or X.dtype.kind not in "uifb":
        raise DataError(
            f"X: expected numbers of shape (n, n_features). Received: shape {X.shape} of "
            f"{X.dtype}. Encode text first; for pictures use a picture backbone."
        )
    if 0 in X.shape:
        raise DataError(f"X: expected at least one row and feature. Received: shape {X.shape}.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is named
        X = X.astype(np.float32)
    check_finite(X, "row")
    return X
