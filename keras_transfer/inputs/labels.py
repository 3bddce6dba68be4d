"""Labels of any hashable kind to class indices, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.errors import DataError

__all__ = ["encode_labels", "find_classes"]


def find_classes(y: Any) -> np.ndarray:
    """List the classes in labels, sorted.

    Parameters
    ----------
    y : array-like of shape (n,)
        Strings, numbers, or any hashable objects, such as tuples.

    Returns
    -------
    numpy.ndarray of shape (n_classes,)
        In scikit-learn's order where the labels can be sorted, else by type and text.

    Raises
    ------
    DataError
        If there is no label, one is missing, or all are the same.
    """
    labels = as_labels(y)
    if labels.dtype != object:
        classes = np.unique(labels)
    else:
        distinct = list(dict.fromkeys(labels.tolist()))
        try:
            distinct.sort()
        except TypeError:
            distinct.sort(key=lambda label: (type(label).__name__, repr(label)))
        classes = _object_array(distinct)
        if all(isinstance(label, str) for label in distinct):
            classes = np.array(distinct, dtype=labels.dtype)
    if len(classes) < 2:
        raise DataError(
            f"y: expected at least two classes. Received: only one class, "
            f"{classes.tolist()[0]!r}. A classifier needs examples of each."
        )
    return classes


def encode_labels(y: Any, classes: np.ndarray) -> np.ndarray:
    """Return the index of each label in ``classes``.

    Parameters
    ----------
    y : array-like of shape (n,)
    classes : numpy.ndarray of shape (n_classes,)

    Returns
    -------
    numpy.ndarray of shape (n,)
        int64.

    Raises
    ------
    DataError
        If a label is not among the classes.
    """
    index = {label: i for i, label in enumerate(classes.tolist())}
    labels = as_labels(y)
    try:
        return np.fromiter((index[label] for label in labels.tolist()), np.int64, len(labels))
    except KeyError as error:
        raise DataError(
            f"y: expected labels of the classes {classes.tolist()}. Received: {error.args[0]!r}."
        ) from None


def as_labels(y: Any) -> np.ndarray:
    """Return labels as an array of one axis, or say why they are none."""
    if isinstance(y, (list, tuple)) and any(isinstance(label, (tuple, frozenset)) for label in y):
        labels = _object_array(list(y))  # NumPy would make a table of them
    else:
        try:
            labels = np.asarray(y)
        except ValueError as error:
            raise DataError(f"y: expected one label for each example ({error}).") from error
        if isinstance(y, (list, tuple)) and len({type(label) for label in y}) > 1:
            # NumPy would turn [1, "a"] into strings.
            plain = all(isinstance(label, (int, float, np.number)) for label in y)
            labels = labels if plain and labels.ndim == 1 else _object_array(list(y))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"y: expected labels of shape (n,). Received: shape {labels.shape}. Of one-hot rows "
            f"take argmax(axis=1)."
        )
    if len(labels) == 0:
        raise DataError("y: expected at least two classes. Received: no labels.")
    missing = [_is_missing(label) for label in labels] if labels.dtype.kind in "OfmM" else []
    if any(missing):
        raise DataError(
            f"y: expected a label for every example. Received: None or NaN in {sum(missing)} "
            f"row(s), the first at row {missing.index(True)}. Remove these rows."
        )
    try:
        hash(tuple(labels.tolist()))
    except TypeError as error:
        raise DataError(f"y: expected labels that can be hashed ({error}).") from error
    return labels


def _is_missing(label: Any) -> bool:
    if label is None:
        return True
    try:
        return bool(label != label)
    except TypeError:  # pandas' NA is neither equal nor different
        return True


def _object_array(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
