"""Which examples validate: so that every class is on both sides, and no group is."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from keras_transfer.errors import DataError

__all__ = ["FEW_GROUPS", "FEW_NUMBERS", "FEW_PER_CLASS", "deal_folds", "has_enough", "hold_out"]

# Under this many examples in the smallest class a held-out part is too small to steer by, and what
# is not trained on costs more: on development sets, composite transfer, training on all for a fixed
# number of steps was better than early stopping by 0.05 ± 0.04 on emoji at 20 a class, on digits by
# 0.003 ± 0.003 at 20 and 0.008 ± 0.004 at 40.
FEW_PER_CLASS = 50
# The same for numbers: a fifth is 20 examples, on which R2 has a standard error of about 0.1.
FEW_NUMBERS = 100
# Of fewer voices or patients a fifth is none, or one that stands for nobody else.
FEW_GROUPS = 5


def has_enough(targets: np.ndarray, groups: np.ndarray | None = None) -> bool:
    """Say whether there are examples enough for a held-out part to steer by.

    Parameters
    ----------
    targets : numpy.ndarray
        Class indices ``(n,)``, indicators ``(n, n_labels)`` or float64 numbers ``(n, n_numbers)``.
    groups : numpy.ndarray of shape (n,), optional
    """
    if groups is not None and len(np.unique(groups)) < FEW_GROUPS:
        return False
    if targets.ndim == 1:
        return int(np.bincount(targets).min()) >= FEW_PER_CLASS
    if targets.dtype == np.float64:
        return len(targets) >= FEW_NUMBERS
    held = targets.sum(axis=0)
    held = held[(held > 0) & (held < len(targets))]  # of a constant column nothing can be learned
    return bool((np.minimum(held, len(targets) - held) >= FEW_PER_CLASS).all())


def hold_out(
    targets: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split off a validation part.

    Parameters
    ----------
    targets : numpy.ndarray
        As for `has_enough`. Classes are stratified.
    fraction : float
        Share to hold out (of each class); at least one example, and never all.
    rng : numpy.random.Generator
    groups : numpy.ndarray of shape (n,), optional
        Examples of one group stay on one side.

    Returns
    -------
    train, validation : numpy.ndarray of int
        Sorted row numbers.

    Raises
    ------
    DataError
        If it cannot be done, such as of a class with one example only.
    """
    if groups is not None:
        return _hold_out_groups(targets, fraction, rng, groups)
    strata = targets if targets.ndim == 1 else np.zeros(len(targets), np.int64)
    held = []
    for index in np.unique(strata):
        rows = np.flatnonzero(strata == index)
        if len(rows) < 2:
            which = f"one of class number {index}" if targets.ndim == 1 else "one example"
            of_each = " of each class" if targets.ndim == 1 else ""
            raise DataError(
                f"validation: expected at least two examples{of_each} to hold one out. "
                f"Received: {which}. Pass validation=None or validation_data."
            )
        n_held = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held.append(rng.permutation(rows)[:n_held])
    return _both_sides(len(targets), np.concatenate(held))


def _hold_out_groups(
    targets: np.ndarray, fraction: float, rng: np.random.Generator, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise DataError(
            "validation: expected at least two groups to hold one out. Received: one. Pass "
            "validation=None or validation_data."
        )
    n_folds = min(max(2, round(1 / fraction)), n_groups)
    if targets.ndim == 1:
        largest = int(np.bincount(targets).max())
        if largest < 2:
            raise DataError(
                "validation: expected at least two examples of a class to hold one out. Received: "
                "one of each. Pass validation=None or validation_data."
            )
        n_folds = min(n_folds, largest)  # into more parts than it has no class can be dealt
    splitter: Any = GroupKFold if targets.ndim > 1 else StratifiedGroupKFold
    folds = splitter(n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
    rows = np.zeros((len(targets), 0))
    for train, held in folds.split(rows, targets if targets.ndim == 1 else None, groups):
        # A class that a single group holds must not leave the training part with it.
        if targets.ndim > 1 or len(np.unique(targets[train])) == len(np.unique(targets)):
            return _both_sides(len(targets), held)
    raise DataError(
        "validation: expected groups that leave every class in the training part. Received: "
        "classes that one group holds alone. Pass validation=None or validation_data."
    )


def _both_sides(n_examples: int, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    held = np.sort(held)
    return np.setdiff1d(np.arange(n_examples), held), held


def deal_folds(
    targets: np.ndarray,
    n_folds: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Deal examples to folds, each alike in its targets.

    Parameters
    ----------
    targets : numpy.ndarray
        As for `has_enough`. Every class is spread over as many folds as it can be; rows of labels
        and numbers that are alike too.
    n_folds : int
        At least 2; fewer where there are fewer examples, or groups.
    rng : numpy.random.Generator
    groups : numpy.ndarray of shape (n,), optional
        Examples of one group are in one fold.

    Returns
    -------
    numpy.ndarray of shape (n,)
        The fold of each example, from 0.

    Raises
    ------
    DataError
        If there are no two examples or groups to part.
    """
    n_units = len(targets) if groups is None else len(np.unique(groups))
    if n_units < 2:
        what = "examples" if groups is None else "groups"
        raise DataError(f"folds: expected at least two {what}. Received: {n_units}.")
    n_folds = min(n_folds, n_units)
    folds = np.zeros(len(targets), np.int64)
    if groups is not None:
        is_stratified = targets.ndim == 1 and np.bincount(targets).max() >= n_folds
        splitter: Any = StratifiedGroupKFold if is_stratified else GroupKFold
        parted = splitter(n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
        rows = np.zeros((len(targets), 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes with fewer examples than folds
            sides = list(parted.split(rows, targets if targets.ndim == 1 else None, groups))
        for number, (_, held) in enumerate(sides):
            folds[held] = number
        return folds
    # What is alike is dealt in turn, in no order of its own.
    chance = rng.permutation(len(targets))
    alike = targets if targets.ndim == 2 else targets[:, np.newaxis]
    order = np.lexsort((chance, *alike.T[::-1]))
    if targets.dtype == np.float64:  # numbers are hardly ever equal: the lowest of each few
        for start in range(0, len(order), n_folds):
            order[start : start + n_folds] = rng.permutation(order[start : start + n_folds])
    folds[order] = np.arange(len(order)) % n_folds
    return folds
