"""Out-of-fold answers: those of exact heads to examples that they were not solved for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_transfer.choosing.calibration import as_outputs, find_temperature
from keras_transfer.inputs.splits import deal_folds
from keras_transfer.training.exact_head import solve_head
from keras_transfer.training.validation import Answers

__all__ = ["OutOfFold", "out_of_fold", "some_examples", "why_not_answer"]

_FOLDS = 5
# Which examples share a fold is chance: with few of them the mean over some deals is steadier.
_REPEATS = 3
_MANY = 300
# More examples tell no better what is to be chosen.
_ENOUGH = 512
# In nats, or as a share of the variance of numbers.
_LEAST_GAIN = 0.05
# Standard errors; more say no more.
_MOST = 10.0


@dataclass(frozen=True)
class OutOfFold:
    """What heads answer to examples that they were not solved for.

    Attributes
    ----------
    outputs : numpy.ndarray of shape (n_repeats, n, n_outputs)
        Logits, or numbers. NaN for an example whose class is in no other fold.
    losses : numpy.ndarray of shape (n,)
        Of each example, over the repeats: in nats, at the temperature; of numbers the squared
        error. NaN as above.
    hits : numpy.ndarray of shape (n,)
        How many of the answers to each example are right, as a share; NaN for numbers.
    weights : numpy.ndarray of shape (n,)
        How much each example counts; 0 as above.
    temperature : float
        What logits are to be divided by, so that the loss is least: features that part the classes
        are not to lose by their sureness. 1 for numbers.
    """

    outputs: np.ndarray
    losses: np.ndarray
    hits: np.ndarray
    weights: np.ndarray
    temperature: float = 1.0

    @classmethod
    def of(
        cls,
        outputs: np.ndarray,
        targets: np.ndarray,
        task: str,
        weights: np.ndarray,
        spread: float | None = None,
    ) -> OutOfFold:
        """Judge what was answered to examples that were not seen.

        Parameters
        ----------
        outputs : numpy.ndarray of shape (n_repeats, n, n_outputs)
            NaN where nothing was.
        targets, task, weights
            As for `out_of_fold`.
        spread : float, optional
            As for `find_temperature`.
        """
        answered = np.isfinite(outputs).all(axis=(0, 2))
        counted = np.where(answered, weights, 0.0)
        temperature, found = find_temperature(
            outputs[:, answered], targets[answered], task, counted[answered], spread
        )
        losses = np.full(len(targets), np.nan)
        losses[answered] = found
        hits = np.full(len(targets), np.nan)
        if task == "multiclass":
            is_right = outputs[:, answered].argmax(axis=2) == targets[answered]
            hits[answered] = is_right.mean(axis=0)
        elif task == "multilabel":
            is_right = (outputs[:, answered] > 0) == (targets[answered] > 0)
            hits[answered] = is_right.mean(axis=(0, 2))
        return cls(outputs, losses, hits, counted, temperature)

    @property
    def loss(self) -> float:
        """The weighted mean; infinite where no example could be left out."""
        return float(_mean(self.losses, self.weights)[0])

    @property
    def standard_error(self) -> float:
        """Of the loss, over the examples."""
        return float(_mean(self.losses, self.weights)[1])

    def answers(self, targets: np.ndarray, task: str) -> Answers:
        """Return what scores read: targets, outputs as a model gives them, and weights.

        Parameters
        ----------
        targets : numpy.ndarray of shape (n,) or (n, n_outputs)
            Of a regression in the units of the outputs.
        task : {"multiclass", "multilabel", "regression"}

        Returns
        -------
        tuple of numpy.ndarray
            Of those that were answered for; outputs of shape (n_repeats, n, n_outputs).
        """
        kept = self.weights > 0
        outputs = as_outputs(self.outputs[:, kept] / self.temperature, task)
        return targets[kept], outputs, self.weights[kept]

    @property
    def right(self) -> float:
        """The weighted mean of the hits."""
        return float(_mean(self.hits, self.weights)[0])

    def evidence_over(self, other: OutOfFold) -> float:
        """Return by how many standard errors it is better than another, on the same examples.

        The mean of that of the loss and that of the right answers, each from -10 to 10; of numbers,
        for which nothing is right, half of that of the loss. Not above 0 unless more answers are
        right, or the loss is less by 0.05: a loss that is tiny can be many times another.
        """
        gain, error = other.difference(self)
        by_loss, by_hits = _standard_score(gain, error), 0.0
        if np.isfinite(self.hits).any():
            by_hits = _standard_score(*self.difference(other, "hits"))
        evidence = (by_loss + by_hits) / 2
        return evidence if by_hits > 0 or gain > _LEAST_GAIN else min(evidence, 0.0)

    def difference(self, other: OutOfFold, what: str = "losses") -> tuple[float, float]:
        """Return by how much losses or hits are above another's on the same examples.

        Returns the mean of the differences, and its standard error.
        """
        weights = np.minimum(self.weights, other.weights)
        return _mean(getattr(self, what) - getattr(other, what), weights)


def out_of_fold(
    features: np.ndarray,
    targets: np.ndarray,
    task: str,
    *,
    n_outputs: int,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    penalty: float | None = None,
    n_repeats: int | None = None,
    seed: int = 0,
) -> OutOfFold:
    """Solve a head for all folds but one, and let it answer for that; for each, some times over.

    Parameters
    ----------
    features : numpy.ndarray of shape (n, n_features)
    targets : numpy.ndarray of shape (n,) or (n, n_outputs)
        As for `solve_head`.
    task : {"multiclass", "multilabel", "regression"}
    n_outputs : int
    weights : numpy.ndarray of shape (n,), optional
    groups : numpy.ndarray of shape (n,), optional
        Examples of one group are never on both sides.
    penalty : float, optional
        By default chosen in each fold anew.
    n_repeats : int, optional
        By default 3 with few examples, else 1.
    seed : int, default=0
        Of the folds: equal seeds deal the same examples alike.

    Returns
    -------
    OutOfFold

    Raises
    ------
    DataError
        If there are no two examples, or groups.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_transfer.choosing.out_of_fold import out_of_fold
    >>> rng = np.random.default_rng(0)
    >>> targets = np.arange(60) % 2
    >>> features = rng.normal(size=(60, 3)) + 3 * targets[:, np.newaxis]
    >>> found = out_of_fold(features, targets, "multiclass", n_outputs=2)
    >>> found.outputs.shape, found.loss < 0.1
    ((3, 60, 2), True)
    """
    n = len(targets)
    weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    rng = np.random.default_rng(seed)
    if n_repeats is None:
        n_repeats = _REPEATS if n <= _MANY else 1
    outputs = np.full((n_repeats, n, n_outputs), np.nan)
    dealt = targets.astype(np.float64) if task == "regression" else targets
    for repeat in range(n_repeats):
        folds = deal_folds(dealt, _FOLDS, rng, groups)
        for fold in range(folds.max() + 1):
            held, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            if task == "multiclass":
                held = held[np.isin(targets[held], targets[train[weights[train] > 0]])]
            if not len(held) or not weights[train].any():
                continue
            head = solve_head(
                features[train],
                targets[train],
                task,
                n_outputs=n_outputs,
                weights=weights[train],
                penalty=penalty,
            )
            outputs[repeat, held] = features[held] @ head.kernel + head.bias
    return OutOfFold.of(outputs, targets, task, weights)


def why_not_answer(
    targets: np.ndarray, task: str, weights: np.ndarray, groups: np.ndarray | None
) -> str:
    """Say why nothing can be told from so few examples; empty if something can.

    Parameters
    ----------
    targets, task, weights, groups
        As for `out_of_fold`.
    """
    counted = weights > 0
    if not counted.any():
        return "no example that counts"
    if groups is not None and len(np.unique(groups[counted])) < 2:
        return "one group only"
    if task == "multiclass" and np.bincount(targets[counted]).max() < 2:
        return "one example of each class"
    if np.count_nonzero(counted) < 4:
        return "under four examples"
    return ""


def some_examples(
    targets: np.ndarray, task: str, groups: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Return the rows of as many examples as a choice takes: all, or about 512 that are alike.

    Parameters
    ----------
    targets, task, groups, seed
        As for `out_of_fold`.
    """
    if len(targets) <= _ENOUGH:
        return np.arange(len(targets))
    dealt = targets.astype(np.float64) if task == "regression" else targets
    n_parts = -(-len(targets) // _ENOUGH)
    return np.flatnonzero(deal_folds(dealt, n_parts, np.random.default_rng(seed), groups) == 0)


def _standard_score(difference: float, error: float) -> float:
    if not difference:
        return 0.0
    return float(np.clip(difference / error if error else np.inf * difference, -_MOST, _MOST))


def _mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return a weighted mean and its standard error."""
    kept = weights > 0
    if not kept.any():
        return np.inf, np.inf
    shares = weights[kept] / weights[kept].sum()
    mean = float(shares @ values[kept])
    n_effective = 1 / np.square(shares).sum()
    if n_effective <= 1:
        return mean, np.inf
    variance = float(shares @ np.square(values[kept] - mean)) * n_effective / (n_effective - 1)
    return mean, float(np.sqrt(variance / n_effective))
