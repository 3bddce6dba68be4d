"""Which examples validate: chosen so that every class is on both sides."""

from __future__ import annotations

import numpy as np

from keras_transfer.errors import DataError

__all__ = ["FEW_PER_CLASS", "has_enough", "hold_out"]

# Under this many examples in the smallest class a held-out part is too small to steer by: a score
# on six pictures moves by a sixth when one flips, which is more than what training changes.
FEW_PER_CLASS = 20


def has_enough(classes: np.ndarray) -> bool:
    """Say whether every class has examples enough for a held-out part to steer by."""
    return int(np.bincount(classes).min()) >= FEW_PER_CLASS


def hold_out(
    classes: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split off a stratified validation part.

    Parameters
    ----------
    classes : numpy.ndarray of shape (n,)
        Class index of each example.
    fraction : float
        Share of each class to hold out; at least one example, and never all.
    rng : numpy.random.Generator

    Returns
    -------
    train, validation : numpy.ndarray of int
        Sorted row numbers.

    Raises
    ------
    DataError
        If a class has one example only.
    """
    held = []
    for index in np.unique(classes):
        rows = np.flatnonzero(classes == index)
        if len(rows) < 2:
            raise DataError(
                f"validation: expected at least two examples of each class to hold one out. "
                f"Received: one of class number {index}. Pass validation=None or validation_data."
            )
        n_held = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held.append(rng.permutation(rows)[:n_held])
    validation = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(classes)), validation), validation
