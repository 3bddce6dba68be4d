"""The user's own labelled pictures as lists, and a split of any labels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_transfer.datasets.checks import whole_number
from keras_transfer.errors import DataError
from keras_transfer.inputs.labelled_files import read_labelled, shown

__all__ = ["load_pictures", "per_class_split"]


def load_pictures(path: str | os.PathLike[str]) -> Any:
    """List the user's labelled pictures, to split or search; none is opened.

    Parameters
    ----------
    path : str or path-like
        A folder of class folders, or a CSV (.csv, .tsv) of paths and labels.

    Returns
    -------
    data : sklearn.utils.Bunch
        With ``filenames``, absolute paths, object of shape (n_samples,); ``labels``, str of shape
        (n_samples,); ``target``, int64 of shape (n_samples,); ``target_names``, sorted, str of
        shape (n_classes,), in the order of the numbers in ``target``; ``DESCR``.

    Raises
    ------
    DataError
        If there is no such folder or CSV, or it cannot be used.

    Warns
    -----
    KerasTransferWarning
        If class folders without pictures, or lines that repeat another, are left out.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_transfer.datasets import load_pictures
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ["cat/1.png", "cat/2.png", "dog/1.png"]:
    ...         Path(folder, name).parent.mkdir(exist_ok=True)
    ...         Path(folder, name).touch()
    ...     data = load_pictures(folder)
    >>> data.target_names.tolist(), data.target.tolist()
    (['cat', 'dog'], [0, 0, 1])
    """
    from sklearn.utils import Bunch

    found = read_labelled(path)
    labels = np.array(found.labels)
    names, target = np.unique(labels, return_inverse=True)
    return Bunch(
        filenames=np.array(found.files, dtype=object),
        target=target.astype(np.int64),
        target_names=names,
        labels=labels,
        DESCR=f"{len(labels)} pictures in {len(names)} classes, of {shown(found.source)}",
    )


def per_class_split(
    y: npt.ArrayLike, n_train: int, *, random_state: int | np.random.RandomState | None = None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split into exactly ``n_train`` training examples of each class, and the rest for testing.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        The labels, of any kind.
    n_train : int
        Training examples of each class, at least 1.
    random_state : int, RandomState instance or None, default=None
        Which examples are taken, and their order. An int gives the same split every time.

    Returns
    -------
    train_index : ndarray of shape (n_classes * n_train,)
        Positions in ``y``, shuffled.
    test_index : ndarray of shape (n_samples - n_classes * n_train,)
        All other positions, shuffled.

    Raises
    ------
    InvalidParameterError
        If ``n_train`` is not an int of 1 or more.
    DataError
        If ``y`` is not one list of labels, or a class has fewer than ``n_train + 1`` examples.

    Examples
    --------
    >>> from keras_transfer.datasets import per_class_split
    >>> train, test = per_class_split(["cat", "cat", "cat", "dog", "dog"], 1, random_state=0)
    >>> len(train), len(test)
    (2, 3)
    """
    from sklearn.utils import check_random_state

    n_train = whole_number("n_train", n_train, 1)
    labels = np.asarray(y)
    if labels.ndim != 1 or not len(labels):
        raise DataError(
            "y cannot be split. Expected: at least one label, in shape (n_samples,). "
            f"Received: shape {labels.shape}."
        )
    classes, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    short = [
        f"{name!r} ({count})"
        for name, count in zip(classes.tolist(), counts.tolist(), strict=True)
        if count <= n_train
    ]
    if short:
        raise DataError(
            f"y has classes that are too small for n_train={n_train}. Expected: at least "
            f"{n_train + 1} examples of each class, one of them for testing. Received: "
            f"{', '.join(short)}. Lower n_train, or add examples."
        )
    order = check_random_state(random_state).permutation(len(labels))
    in_train = np.zeros(len(labels), dtype=bool)
    for index in range(len(classes)):
        in_train[order[class_of[order] == index][:n_train]] = True
    return order[in_train[order]], order[~in_train[order]]
