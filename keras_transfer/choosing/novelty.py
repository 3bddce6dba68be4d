"""Novelty: how far an input lies from all that was seen in training."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.metrics.pairwise import euclidean_distances

__all__ = ["SeenExamples", "choose_seen"]

MAX_SEEN = 1_000
# Of examples with thousands of features fewer are kept: 4 MB of float16.
_MAX_VALUES, _MIN_SEEN = 2_000_000, 100
_WITHIN = 0.95
# A difference of less than this share of the features' own length is rounding: a network whose
# frozen part runs apart from the rest gives answers that are up to 1e-5 different.
_ROUNDING = 1e-4
# Directions closer than this are one and the same in float16.
_RESOLUTION = 1e-3


@dataclass(frozen=True, eq=False)
class SeenExamples:
    """What a model's head read of its training examples, to tell what is unlike them.

    Attributes
    ----------
    mean : numpy.ndarray of shape (n_features,)
        Float32.
    longest : float
        The length of the longest example, from the mean.
    directions : numpy.ndarray of shape (n_seen, n_features)
        The examples from the mean, brought to length 1; float16.
    unit : float
        The distance that 95 % of them lie within of their nearest other one.

    Notes
    -----
    The distance to the k-th nearest training example, of features brought to length 1, is from
    [1]_. What differs was measured on EfficientNet-Lite0 with 5 to 20 labels a class, every second
    of scikit-learn's digits and emoji that are in no benchmark, 3 to 5 draws of 36 cases:

    - k is 1: of few examples of a class the next ones already belong to others. The mean AUROC was
      0.866, 0.862, 0.859 and 0.846 for k of 1, 2, 3 and 5.
    - Features are centred first: those of a ReLU network all point one way, and what two of them
      have in common tells nothing. Of known inputs 4 % came out above 1 then, and 8 % without.
    - No example is divided by more than the longest of training: what lies farther out than any of
      them, in whichever direction, stays far. Of novel inputs 62 % came out above 1 then, and 58 %
      with all at length 1.

    References
    ----------
    .. [1] Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors" (2022, arXiv
       2204.06507).

    Examples
    --------
    >>> import numpy as np
    >>> from keras_transfer.choosing.novelty import SeenExamples
    >>> seen = SeenExamples.from_features(np.random.default_rng(0).normal(size=(200, 3)))
    >>> seen.distances(np.array([[0.0, 1.0, 0.0], [0.0, 50.0, 0.0]])) > 1
    array([False,  True])
    """

    mean: np.ndarray
    longest: float
    directions: np.ndarray
    unit: float

    @classmethod
    def from_features(cls, features: np.ndarray, groups: np.ndarray | None = None) -> Self:
        """Keep what is needed of the features of training examples.

        Parameters
        ----------
        features : numpy.ndarray of shape (n, n_features)
            Of distinct examples, the most telling first, as `choose_seen` gives them: of very long
            ones only as many are kept as fit in 4 MB. What is not finite is left out.
        groups : numpy.ndarray of shape (n,), optional
            The nearest other example is looked for in other groups: what is new comes from a group
            of its own.
        """
        n_kept = int(np.clip(_MAX_VALUES // max(1, features.shape[1]), _MIN_SEEN, MAX_SEEN))
        is_number = np.isfinite(features).all(axis=1)
        features = features[is_number][:n_kept]
        if not len(features):
            return cls(np.zeros(features.shape[1], np.float32), 0.0, _no_rows(features), 1.0)
        mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        longest = float(_lengths(features - mean).max())
        directions = _directions(features, mean, longest)
        unit = 1.0  # where all are alike: as far as rounding goes
        if longest > _rounding(mean):
            unit = _find_unit(directions, None if groups is None else groups[is_number][:n_kept])
        return cls(mean, longest, directions, unit)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return how far inputs lie from the nearest training example, in units of ``unit``.

        Parameters
        ----------
        features : numpy.ndarray of shape (n, n_features)

        Returns
        -------
        numpy.ndarray of shape (n,)
            Float32. Infinite for what is not finite, or where nothing was seen.
        """
        found = np.full(len(features), np.inf, np.float32)
        rows = np.flatnonzero(np.isfinite(features).all(axis=1))
        if not len(rows) or not len(self.directions):
            return found
        # In the same precision as those that are kept, so that a copy of one lies at 0; float64
        # for the distances, which are differences of squares.
        directions = _directions(features[rows], self.mean, self.longest).astype(np.float64)
        seen = self.directions.astype(np.float64)
        parts = pairwise_distances_chunked(directions, seen, reduce_func=_nearest)
        found[rows] = np.concatenate(list(parts)) / self.unit
        return found


def choose_seen(targets: np.ndarray, task: str, keys: Sequence[Hashable]) -> np.ndarray:
    """Return the rows of the training examples to keep, at most 1,000.

    Of copies the first counts: the others would lie at a distance of 0 of it. Where there are
    more, they are dealt from the classes in turn.

    Parameters
    ----------
    targets : numpy.ndarray of shape (n,) or (n, n_outputs)
        Class indices, rows of 0 and 1, or numbers.
    task : {"multiclass", "multilabel", "regression"}
    keys : sequence of hashable, length n
        Equal for equal content.

    Returns
    -------
    numpy.ndarray of int
        In the order in which they were dealt.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_transfer.choosing.novelty import choose_seen
    >>> sorted(choose_seen(np.array([0, 0, 1]), "multiclass", ["a", "a", "b"]).tolist())
    [0, 2]
    """
    first: dict[Any, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    # A choice of its own: what a fit draws must not depend on how many examples are kept.
    rows = np.random.default_rng(0).permutation(list(first.values()))
    classes = np.zeros(len(rows), np.int64)
    if task != "regression":
        classes = np.unique(targets[rows], axis=0, return_inverse=True)[1].reshape(-1)
    by_class = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[by_class], classes[by_class])
    turn = np.empty(len(rows), np.int64)
    turn[by_class] = np.arange(len(rows)) - starts
    return rows[np.argsort(turn, kind="stable")[:MAX_SEEN]]


def _directions(features: np.ndarray, mean: np.ndarray, longest: float) -> np.ndarray:
    """Return what points from the mean to each, divided by its length where that was seen."""
    offsets = features.astype(np.float64) - mean
    least = _rounding(mean)
    divisors = np.clip(_lengths(offsets), least, max(least, longest))
    limit = float(np.finfo(np.float16).max)  # as far as float16 goes, and farther than needed
    return np.clip(offsets / divisors[:, np.newaxis], -limit, limit).astype(np.float16)


def _rounding(mean: np.ndarray) -> float:
    """Return what examples differ by where they are equal but for rounding."""
    return max(_ROUNDING * float(np.linalg.norm(mean.astype(np.float64))), 1e-12)


def _lengths(offsets: np.ndarray) -> np.ndarray:
    return np.linalg.norm(offsets.astype(np.float64), axis=1)


def _no_rows(features: np.ndarray) -> np.ndarray:
    return np.zeros((0, features.shape[1]), np.float16)


def _find_unit(directions: np.ndarray, groups: np.ndarray | None) -> float:
    """Return what 95 % of the examples lie within of their nearest other one."""
    if groups is None or len(np.unique(groups)) < 2:
        groups = np.arange(len(directions))
    between = euclidean_distances(directions.astype(np.float64))
    between[groups[:, np.newaxis] == groups] = np.inf
    nearest = np.quantile(between.min(axis=1), _WITHIN, method="higher")
    return max(float(nearest), _RESOLUTION)


def _nearest(distances: np.ndarray, start: int) -> np.ndarray:
    return distances.min(axis=1)
