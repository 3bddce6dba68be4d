"""What a fit decided about y, and the way to the model's targets and back: one class a task."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets

from keras_transfer.errors import DataError, warn
from keras_transfer.inputs.arrays import is_sparse
from keras_transfer.inputs.labels import encode_labels, find_classes

__all__ = [
    "ClassTargets",
    "LabelTargets",
    "NumberTargets",
    "Targets",
    "class_or_label_targets",
    "find_units",
]


class Targets(abc.ABC):
    """What every kind of target has.

    Attributes
    ----------
    task : str
        As for `Head`.
    """

    task: ClassVar[str]

    @property
    @abc.abstractmethod
    def n_outputs(self) -> int:
        """Outputs of the model."""

    @property
    def units(self) -> tuple[Sequence[float], Sequence[float]] | None:
        """Of numbers: mean and scale of each, by which they are standardised."""
        return None

    @abc.abstractmethod
    def encode(self, y: Any) -> np.ndarray:
        """Turn y into the model's targets."""

    @abc.abstractmethod
    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Turn the model's outputs into what y was like."""

    def standardise(self, encoded: np.ndarray) -> np.ndarray:
        """Bring targets, or answers like them, to what the loss reads: numbers to one scale."""
        return encoded

    def restore(self, outputs: np.ndarray) -> np.ndarray:
        """Bring answers in the scale of the loss back to that of the targets."""
        return outputs

    def labels(self, encoded: np.ndarray) -> np.ndarray | None:
        """Return the label of each example; None where an example has not one of several."""
        return None


@dataclass(frozen=True)
class ClassTargets(Targets):
    """One class of several.

    Attributes
    ----------
    classes : numpy.ndarray of shape (n_classes,)
        Sorted labels of any hashable kind.
    """

    classes: np.ndarray
    task = "multiclass"

    @property
    def n_outputs(self) -> int:
        """Outputs of the model."""
        return len(self.classes)

    @classmethod
    def from_data(cls, y: Any) -> ClassTargets:
        """Find the classes in the training labels.

        Raises
        ------
        DataError
            If there are fewer than two, a label is missing, or y holds measurements.
        """
        classes = find_classes(y)
        if classes.dtype.kind == "f":
            # Numbers with a fraction are measurements; scikit-learn's words.
            try:
                check_classification_targets(classes)
            except ValueError as error:
                raise DataError(f"{error} For numbers use TransferRegressor.") from None
        return cls(classes)

    def encode(self, y: Any) -> np.ndarray:
        """Return the index of each label, int64 of shape (n,)."""
        return encode_labels(y, self.classes)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return the label of the largest output, of shape (n,)."""
        return self.classes[outputs.argmax(axis=1)]

    def labels(self, encoded: np.ndarray) -> np.ndarray:
        """Return the label of each example, of shape (n,)."""
        return self.classes[encoded]


@dataclass(frozen=True)
class LabelTargets(Targets):
    """Any number of labels at once, as an indicator matrix of 0 and 1.

    Attributes
    ----------
    n_labels : int
        Its columns.
    """

    n_labels: int
    task = "multilabel"

    @property
    def n_outputs(self) -> int:
        """Outputs of the model."""
        return self.n_labels

    @classmethod
    def from_data(cls, y: Any) -> LabelTargets:
        """Read the number of labels; warn of those that nothing can be learned of."""
        y = _as_indicators(y)
        for column in range(y.shape[1]):
            values = np.unique(y[:, column])
            if len(values) == 1:
                which = f"Label {column}" if values[0] else f"Label not {column}"
                # scikit-learn's words for the same.
                warn(
                    f"y: {which} is present in all training examples. The answer for it will "
                    f"always be that; leave the column out, or add examples of the other."
                )
        if y.shape[1] > 2 and (y.sum(axis=1) == 1).all():
            warn(
                "y: every row holds exactly one label. Each label is learned for itself; for one "
                "class of several pass y.argmax(axis=1)."
            )
        return cls(y.shape[1])

    def encode(self, y: Any) -> np.ndarray:
        """Return the indicators as float32 of shape (n, n_labels)."""
        y = _as_indicators(y)
        if y.shape[1] != self.n_labels:
            raise DataError(
                f"y: expected {self.n_labels} columns, as in fit. Received: {y.shape[1]}."
            )
        return y.astype(np.float32)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return 1 where a label is more probable than not, int64 of shape (n, n_labels)."""
        return (outputs > 0.5).astype(np.int64)


@dataclass(frozen=True)
class NumberTargets(Targets):
    """One number or several.

    Attributes
    ----------
    n_numbers : int
    is_column : bool
        Whether y had two axes.
    mean, scale : tuple of float
        Of each number in the training data: what it is standardised by.
    """

    n_numbers: int
    is_column: bool
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    task = "regression"

    @property
    def units(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and scale of each number."""
        return self.mean, self.scale

    @property
    def n_outputs(self) -> int:
        """Outputs of the model."""
        return self.n_numbers

    @classmethod
    def from_data(cls, y: Any, weights: np.ndarray | None = None) -> NumberTargets:
        """Read shape and units from the training targets.

        Raises
        ------
        DataError
        """
        y = _as_numbers(y)
        columns = y.reshape(len(y), -1)
        mean, scale = find_units(columns, weights)
        return cls(columns.shape[1], y.ndim == 2, tuple(mean.tolist()), tuple(scale.tolist()))

    def encode(self, y: Any) -> np.ndarray:
        """Return the numbers as float64 of shape (n, n_numbers)."""
        y = _as_numbers(y)
        columns = y.reshape(len(y), -1)
        if columns.shape[1] != self.n_numbers:
            raise DataError(
                f"y: expected {self.n_numbers} number(s) for each example, as in fit. Received: "
                f"{columns.shape[1]}."
            )
        return columns

    def standardise(self, encoded: np.ndarray) -> np.ndarray:
        """Bring numbers to mean 0 and deviation 1, as float32."""
        return ((encoded - np.array(self.mean)) / np.array(self.scale)).astype(np.float32)

    def restore(self, outputs: np.ndarray) -> np.ndarray:
        """Bring standardised numbers to the user's units."""
        return outputs * np.array(self.scale) + np.array(self.mean)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return the outputs in the shape that y had in fit, float64 as scikit-learn's are."""
        outputs = outputs.astype(np.float64)
        return outputs if self.is_column else outputs[:, 0]


def class_or_label_targets(y: Any) -> ClassTargets | LabelTargets:
    """Read from y of a classifier which of the two it is.

    Raises
    ------
    DataError
    """
    if y is None:
        raise DataError(
            "y: expected a label for each example; a classifier requires y to be passed, but the "
            "target y is None."
        )
    columns = _count_columns(y)
    if columns is not None:
        if columns > 1:
            return LabelTargets.from_data(y)
        warn(
            "A column-vector y was passed when a 1d array was expected. Please change the shape "
            "of y to (n_samples,), for example using ravel().",
            DataConversionWarning,
        )
    return ClassTargets.from_data(y)


def find_units(
    columns: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column; 1 where all are the same.

    Parameters
    ----------
    columns : numpy.ndarray of shape (n, n_numbers)
    weights : numpy.ndarray of shape (n,), optional

    Returns
    -------
    mean, scale : numpy.ndarray of shape (n_numbers,)
    """
    columns = np.asarray(columns, np.float64)
    mean = np.average(columns, axis=0, weights=weights)
    deviation = np.sqrt(np.average((columns - mean) ** 2, axis=0, weights=weights))
    # Of equal numbers rounding leaves a deviation that is none.
    negligible = deviation <= 1e-12 * np.maximum(1.0, np.abs(mean))
    return mean, np.where(negligible, 1.0, deviation)


def _count_columns(y: Any) -> int | None:
    """Return how many columns a table has; None for what is one label after the other."""
    if hasattr(y, "shape"):
        return int(y.shape[1]) if len(y.shape) == 2 else None
    if hasattr(y, "__array__"):
        return _count_columns(np.asarray(y))
    # Rows in a list are lists or arrays; tuples are labels.
    if isinstance(y, (list, tuple)) and y and all(isinstance(r, (list, np.ndarray)) for r in y):
        return len(y[0]) if len({len(row) for row in y}) == 1 else None
    return None


def _as_indicators(y: Any) -> np.ndarray:
    y = y.toarray() if is_sparse(y) else np.asarray(y)
    if len(y) == 0:
        raise DataError("y: expected at least one row. Received: none.")
    if y.ndim != 2:
        raise DataError(
            f"y: expected an indicator matrix of shape (n, n_labels), as in fit. Received: shape "
            f"{y.shape}."
        )
    try:
        numbers = y.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.array([[np.nan]])
    if not np.isin(numbers, (0, 1)).all():
        raise DataError(
            f"y: expected labels of shape (n,), or an indicator matrix of 0 and 1 of shape "
            f"(n, n_labels). Received: shape {y.shape} of {y.dtype} with other values "
            f"(multiclass-multioutput is not supported). Fit one classifier for each column."
        )
    return numbers.astype(np.int64)


def _as_numbers(y: Any) -> np.ndarray:
    if y is None:
        raise DataError(
            "y: expected numbers; a regressor requires y to be passed, but the target y is None."
        )
    try:
        y = check_array(y, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="y")
    except (ValueError, TypeError) as error:
        raise DataError(f"y: expected numbers. Received: {error}") from error
    if y.ndim not in (1, 2):
        raise DataError(
            f"y: expected numbers of shape (n,) or (n, n_outputs). Received: shape {y.shape}."
        )
    return y
