"""Feed: what one stage trains on and is validated with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.training.inference import Inference
from keras_transfer.training.validation import Validation

__all__ = ["Feed", "Solvable"]


@dataclass(frozen=True)
class Solvable:
    """All that a linear head is solved for at once.

    Attributes
    ----------
    features : numpy.ndarray of shape (n, n_features)
        What the head reads.
    targets : numpy.ndarray of shape (n, ...)
        As the loss reads them.
    weights : numpy.ndarray of shape (n,)
        How much each counts; their scale is that of the loss against the penalty.
    n_first : int, optional
        By so many of the first rows the penalty is chosen; by default by all.
    """

    features: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    n_first: int | None = None


@dataclass(frozen=True)
class Feed:
    """What one stage trains on and is validated with.

    Attributes
    ----------
    dataset : tf.data.Dataset or None
        Finite batches of (inputs, targets) or (inputs, targets, weights); targets of a regression
        standardised. None where the head is solved.
    validation : Validation, optional
        Its batches hold inputs of the same kind. If it steers, each stage stops early and ends with
        the best weights so far, earlier stages' included.
    sample : tf.data.Dataset, optional
        Batches like the dataset's, from a dataset of its own (the order of a shuffled one moves on
        whenever it is read): if given, the stages are timed on a few of them first, and compiled
        by that. The training is the same to the bit, unless a layer draws from TensorFlow's own
        operations without a seed.
    cut : tuple of str
        The operations of the network whose outputs the inputs are; by default those that the
        network itself reads.
    solvable : callable, optional
        For a stage that solves its head: from the inference of the network, which reads inputs like
        the dataset's, to a `Solvable`.
    stored : str
        ``"stored at block_12"``, or why what is frozen is computed again in every epoch.
    rate_sample : tf.data.Dataset, optional
        For a stage with a range test: batches like the dataset's, from a dataset of its own; by
        default the dataset itself, whose order then moves on.
    n_batches : int, optional
        How many batches an epoch has, where the dataset does not know.
    """

    dataset: Any = None
    validation: Validation | None = None
    sample: Any = None
    cut: tuple[str, ...] = ()
    solvable: Callable[[Inference], Solvable] | None = None
    stored: str = ""
    rate_sample: Any = None
    n_batches: int = 0

    @property
    def steps(self) -> int:
        """How many batches an epoch has; 0 if that is not known."""
        if self.dataset is None:
            return 1
        known = int(self.dataset.cardinality())
        return known if known > 0 else self.n_batches
