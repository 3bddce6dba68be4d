"""X that brings its y: a folder of class folders, a CSV of path and label, a tf.data.Dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import DataError, InvalidTypeError
from keras_transfer.inputs.labelled_files import list_pictures, read_labelled

__all__ = ["LabelledSource", "is_source", "open_labelled", "open_unlabelled"]

# A dataset of TensorFlow's cannot be indexed: its pictures are taken into memory, up to here.
DATASET_BYTES = 4 << 30
_LABEL_TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class LabelledSource:
    """What a source holds.

    Attributes
    ----------
    X : list of str, list of numpy.ndarray or numpy.ndarray
        Paths or pictures.
    y : numpy.ndarray of shape (n, ...)
    sample_weight : numpy.ndarray of shape (n,) or None
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None = None


def is_source(X: Any) -> bool:
    """Say whether X may bring its own y."""
    return isinstance(X, (str, os.PathLike)) or _is_dataset(X)


def open_labelled(X: Any) -> LabelledSource:
    """Read the examples and labels of a source.

    Parameters
    ----------
    X : str, path or tf.data.Dataset
        A folder of class folders, a CSV file of paths and labels, or a dataset of (picture, label)
        or (picture, label, weight), one by one or in batches.

    Returns
    -------
    LabelledSource
        The labels of files are text. Those of a dataset that Keras read from folders are the names
        of its classes, where it still knows them; of other datasets they are as they come.

    Raises
    ------
    DataError
    """
    if not _is_dataset(X):
        files = read_labelled(X)
        return LabelledSource(list(files.files), np.array(files.labels))
    pictures, *rest = _read_dataset(X)
    if not rest:
        raise DataError(
            f"X: expected a tf.data.Dataset of (picture, label). Received one without labels: "
            f"{X.element_spec}. Zip it with its labels."
        )
    y = np.stack(rest[0])
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.dtype.kind in "SO":
        y = np.array([label.decode() if isinstance(label, bytes) else label for label in y])
    names = getattr(X, "class_names", None)
    if names is not None and y.ndim == 1 and y.dtype.kind in "iu":
        y = np.array(names)[y]
    return LabelledSource(pictures, y, np.stack(rest[1]) if rest[1:] else None)


def open_unlabelled(X: Any) -> Any:
    """Return the pictures of a source: those of a folder at any depth, or of a dataset."""
    if _is_dataset(X):
        return _read_dataset(X)[0]
    if os.path.splitext(X)[1].lower() in _LABEL_TABLES and os.path.isfile(X):
        return list(read_labelled(X).files)
    if os.path.isdir(X):
        return list_pictures([os.fspath(X)])
    raise DataError(
        f"X: expected a list of pictures, or a folder or CSV of them. Received: {os.fspath(X)!r}, "
        f"{'a single file' if os.path.exists(X) else 'no such file or folder'}. For one picture "
        f"pass [path]."
    )


def _is_dataset(X: Any) -> bool:
    # Without importing TensorFlow for what cannot be one.
    if not any(base.__module__.startswith("tensorflow.") for base in type(X).__mro__):
        return False
    import tensorflow as tf

    return isinstance(X, tf.data.Dataset)


def _read_dataset(dataset: Any) -> tuple[list[Any], ...]:
    """Take the examples of a dataset into memory: pictures, and labels and weights if it has any.

    Once, and in one pass: a dataset that shuffles gives another order each time, and its examples
    could not be split into training and validation.
    """
    import tensorflow as tf

    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise DataError("X: expected a finite tf.data.Dataset. Received: an infinite one.")
    columns: list[list[Any]] = []
    n_bytes = 0
    for element in dataset.as_numpy_iterator():
        parts = element if isinstance(element, tuple) else (element,)
        if not 1 <= len(parts) <= 3 or not all(map(_is_numeric_or_text, parts)):
            raise InvalidTypeError(
                f"X: expected a tf.data.Dataset of (picture, label). Received: "
                f"{dataset.element_spec}."
            )
        if not _is_batch(parts):
            parts = tuple([part] for part in parts)
        if not columns:
            columns = [[] for _ in parts]
        for column, part in zip(columns, parts, strict=True):
            column.extend(part)
        n_bytes += sum(getattr(picture, "nbytes", len(picture)) for picture in parts[0])
        if n_bytes > DATASET_BYTES:
            raise DataError(
                f"X: expected a tf.data.Dataset of at most {DATASET_BYTES >> 30} GiB, since its "
                f"pictures are kept in memory. Received: a larger one. Pass the paths of the "
                f"files, which are read when they are needed, make the pictures smaller in the "
                f"dataset, or train with Recipe.fit(model, dataset), which reads it in a stream."
            )
    if not columns:
        raise DataError("X: expected at least one picture. Received: an empty tf.data.Dataset.")
    return tuple(columns)


def _is_numeric_or_text(part: Any) -> bool:
    return isinstance(part, (np.ndarray, np.generic, bytes, int, float))


def _is_batch(parts: tuple[Any, ...]) -> bool:
    """Say whether an element of a dataset is a batch; a picture alone has at most three axes."""
    pictures = np.asarray(parts[0])
    if pictures.ndim == 4 or (pictures.ndim == 1 and pictures.dtype == object):
        return True
    if len(parts) == 1 or (pictures.ndim == 3 and pictures.shape[2] in (1, 3, 4)):
        return False
    labels = np.asarray(parts[1])
    return bool(pictures.ndim in (2, 3) and labels.ndim and len(labels) == len(pictures))
