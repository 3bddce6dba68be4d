"""How much each example counts: weights of examples and of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

# scikit-learn's own check, with its words; it has no public name, and third parties use it.
from sklearn.utils.validation import _check_sample_weight

from keras_transfer.errors import DataError, InvalidParameterError
from keras_transfer.inputs.targets import ClassTargets, Targets
from keras_transfer.parameters import number

__all__ = ["check_sample_weight", "class_weights"]

_WEIGHT = number(0)


def check_sample_weight(sample_weight: Any, n_examples: int) -> np.ndarray | None:
    """Return the weights of examples as float64, or say what is wrong with them.

    Parameters
    ----------
    sample_weight : array-like of shape (n_examples,), float or None
    n_examples : int

    Returns
    -------
    numpy.ndarray of shape (n_examples,) or None

    Raises
    ------
    DataError
        If the number of weights differs, one is negative or not finite, or all are 0.
    """
    if sample_weight is None:
        return None
    try:
        return _check_sample_weight(
            sample_weight,
            np.empty((n_examples, 0)),
            dtype=np.float64,
            copy=True,
            ensure_non_negative=True,
        )
    except (ValueError, TypeError) as error:
        raise DataError(
            f"sample_weight: expected {n_examples} weights of at least 0, not all 0. Received: "
            f"{error}"
        ) from error


def class_weights(
    class_weight: Any,
    targets: Targets,
    encoded: np.ndarray,
    sample_weight: np.ndarray | None,
) -> np.ndarray | None:
    """Turn a ``class_weight`` parameter into a factor for each example.

    Parameters
    ----------
    class_weight : "balanced", mapping of label to float, list of mappings, or None
        A list has one mapping for each column of an indicator matrix.
    targets : Targets
        A column each of an indicator matrix, or one class of several.
    encoded : numpy.ndarray of shape (n,) or (n, n_labels)
    sample_weight : numpy.ndarray of shape (n,) or None
        Counts in what is balanced.

    Returns
    -------
    numpy.ndarray of shape (n,) or None

    Raises
    ------
    InvalidParameterError
    """
    if class_weight is None:
        return None
    if not isinstance(targets, ClassTargets):
        try:
            return compute_sample_weight(class_weight, encoded.astype(int))
        except ValueError as error:
            raise InvalidParameterError(f"class_weight: {error}") from error
    n_classes = len(targets.classes)
    if isinstance(class_weight, str):
        counts = np.bincount(encoded, weights=sample_weight, minlength=n_classes)
        return (counts.sum() / (n_classes * counts))[encoded]
    if not isinstance(class_weight, Mapping):
        raise InvalidParameterError(
            f"class_weight: expected 'balanced', a mapping of class to weight, or None (a list "
            f"belongs to an indicator matrix). Received: {class_weight!r}."
        )
    index = {label: number for number, label in enumerate(targets.classes.tolist())}
    factors = np.ones(n_classes)
    for label, weight in class_weight.items():
        if label not in index:
            raise InvalidParameterError(
                f"class_weight: expected classes of y, {targets.classes.tolist()}. Received: "
                f"{label!r}."
            )
        if not _WEIGHT.allows(weight):
            raise InvalidParameterError(
                f"class_weight[{label!r}]: expected {_WEIGHT.expected}. Received: {weight!r}."
            )
        factors[index[label]] = weight
    return factors[encoded]
