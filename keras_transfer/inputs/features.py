"""Features: plain vectors, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_array

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.errors import DataError, InvalidParameterError, InvalidTypeError
from keras_transfer.inputs.arrays import check_finite
from keras_transfer.inputs.reader import Loaded

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
    modality: ClassVar[str] = "features"
    has_columns: ClassVar[bool] = True
    input_tags: ClassVar[tuple[str, ...]] = ("two_d_array",)
    plural: ClassVar[str] = "rows"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input."""
        return (self.n_features,)

    @property
    def fitted(self) -> dict[str, Any]:
        """Nothing that scikit-learn does not show of the columns."""
        return {}

    @classmethod
    def for_backbone(cls, X: Any, backbone: Backbone, image_size: Any) -> FeatureInput:
        """Read the number of features; pictures alone have a size.

        Raises
        ------
        InvalidParameterError
        DataError
        """
        if image_size is not None:
            raise InvalidParameterError(
                f"image_size: expected None for vectors of features. Received: {image_size!r}."
            )
        return cls.from_data(X)

    @classmethod
    def from_data(cls, X: Any) -> FeatureInput:
        """Read the number of features from the training data."""
        return cls(_check_features(X).shape[1])

    def load(
        self, X: Any, *, on_error: str = "raise", advance: Callable[[], None] = lambda: None
    ) -> Loaded:
        """Check vectors and return them as float32.

        Whether the columns are those of the training data is for the estimator to say, which knows
        their names.

        Parameters
        ----------
        X : array of shape (n, n_features)
        on_error, advance
            Of files, of which there are none.

        Returns
        -------
        Loaded

        Raises
        ------
        DataError
        InvalidTypeError
            With scikit-learn's own words.
        """
        inputs = _check_features(X)
        return Loaded(inputs, np.arange(len(inputs)))


def _check_features(X: Any) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is named
            X = check_array(
                X, dtype=np.float32, order="C", copy=True, ensure_all_finite=False, input_name="X"
            )
    except TypeError as error:  # such as sparse data
        raise InvalidTypeError(f"X: expected numbers of shape (n, n_features). {error}") from error
    except ValueError as error:
        raise DataError(f"X: expected numbers of shape (n, n_features). {error}") from error
    check_finite(X, "row")
    return X
