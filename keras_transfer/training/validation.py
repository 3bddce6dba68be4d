"""Validation: one pass over held-out data gives the loss and the score."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import DataError
from keras_transfer.training.inference import Inference

__all__ = ["Answers", "Score", "Validation", "default_score", "score_of", "standard_error"]

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
# Targets, outputs and weights of some examples.
Answers = tuple[np.ndarray, np.ndarray, np.ndarray]
_DRAWS = 100


class Validation:
    """Held-out data and how to score on it.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Batches of (inputs, targets) or (inputs, targets, weights), in any order. Targets are class
        indices, rows of 0 and 1, or numbers.
    task : {"multiclass", "multilabel", "regression"}, default="multiclass"
    score : callable, optional
        ``score(targets, outputs, weights) -> float``, higher is better; by default
        `default_score` of the task.
    scale : numpy.ndarray of shape (n_outputs,), optional
        Of a regression: what counts as one in its loss, as in training.
    steers : bool, default=True
        Whether training may stop early and choose its weights by it. A few examples only measure.

    Attributes
    ----------
    answers : tuple of numpy.ndarray or None
        Targets, outputs and weights of the last call.
    """

    def __init__(
        self,
        dataset: Any,
        task: str = "multiclass",
        score: Score | None = None,
        *,
        scale: Any = 1.0,
        steers: bool = True,
    ):
        self.dataset = dataset
        self.score = default_score(task) if score is None else score
        self.steers = steers
        self.answers: Answers | None = None
        self._task = _TASKS[task]
        self._scale = scale

    def __call__(self, inference: Inference) -> tuple[float, float]:
        """Return (loss, score) of a model as it stands."""
        # In one pass: the next one over a shuffled dataset would come in another order.
        rows = []
        for batch in self.dataset:
            targets = self._task.check(batch[1])
            weights = np.asarray(batch[2]) if len(batch) > 2 else np.ones(len(targets))
            rows.append((inference(batch[0]), targets, weights.reshape(-1)))
        outputs, targets, weights = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        self.answers = targets, outputs, weights
        losses = self._task.losses(targets, outputs, self._scale)
        score = float(self.score(targets, outputs, weights))
        return float(np.average(losses, weights=weights)), score


def default_score(task: str) -> Score:
    """Return what a task is scored by: the accuracy, or R2."""
    return _TASKS[task].score


def standard_error(score: Score, answers: Answers) -> float:
    """Return by how much a score would differ on other examples of the same kind.

    Parameters
    ----------
    score : callable
        As for `Validation`.
    answers : tuple of numpy.ndarray
        Targets, outputs and weights. Outputs of shape (n_repeats, n, n_outputs) are several
        answers to the same examples.

    Returns
    -------
    float
        The standard deviation over 100 draws of as many examples with replacement, of each class
        as many as there are. NaN for fewer than two examples.

    References
    ----------
    Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979).
    """
    targets, outputs, weights = answers
    if len(targets) < 2:
        return math.nan
    rng = np.random.default_rng(0)
    is_classes = targets.ndim == 1 and targets.dtype.kind in "iu"
    strata = targets if is_classes else np.zeros(len(targets), np.int64)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics, where a draw leaves a label out
        for _ in range(_DRAWS):
            rows = np.concatenate([rng.choice(each, len(each)) for each in members])
            scores.append(score_of(score, (targets[rows], outputs[..., rows, :], weights[rows])))
    return float(np.nanstd(scores, ddof=1))


def score_of(score: Score, answers: Answers) -> float:
    """Return the score of answers, or of several to the same examples taken together."""
    targets, outputs, weights = answers
    if outputs.ndim == 3:
        n_repeats = len(outputs)
        targets = np.concatenate([targets] * n_repeats)
        weights = np.concatenate([weights] * n_repeats)
        outputs = outputs.reshape(-1, outputs.shape[-1])
    return float(score(targets, outputs, weights))


# === The kinds of task ===

# Keras computes its losses from the logits, without the usual floor of 1e-7; only what is zero in
# float32 is kept from becoming infinite here.
_TINY = np.finfo(np.float32).tiny


def _class_losses(targets: np.ndarray, outputs: np.ndarray, scale: Any) -> np.ndarray:
    return -np.log(np.maximum(outputs[np.arange(len(outputs)), targets], _TINY))


def _label_losses(targets: np.ndarray, outputs: np.ndarray, scale: Any) -> np.ndarray:
    likelihood = np.where(targets > 0, outputs, 1 - outputs)
    return -np.log(np.maximum(likelihood, _TINY)).mean(axis=1)


def _number_losses(targets: np.ndarray, outputs: np.ndarray, scale: Any) -> np.ndarray:
    return np.mean(((outputs - targets) / scale) ** 2, axis=1)


def _class_accuracy(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(outputs.argmax(axis=1) == targets, weights=weights))


def _label_accuracy(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average((outputs > 0.5) == (targets > 0), axis=0, weights=weights).mean())


def _r2(targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> float:
    from sklearn.metrics import r2_score

    return float(r2_score(targets, outputs, sample_weight=weights))


def check_classes(targets: Any) -> np.ndarray:
    """Return the class indices of a batch, or say why they are none.

    Parameters
    ----------
    targets : tensor of shape (n,) or (n, 1)

    Returns
    -------
    numpy.ndarray of shape (n,)

    Raises
    ------
    DataError
    """
    targets = np.asarray(targets)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise DataError(
            f"dataset: expected class indices, whole numbers of shape (n,). Received: shape "
            f"{targets.shape} of {targets.dtype}. Of one-hot rows take argmax(axis=-1); cast "
            f"others to int."
        )
    return targets


def check_labels(targets: Any) -> np.ndarray:
    """Return the rows of 0 and 1 of a batch, or say why they are none.

    Raises
    ------
    DataError
    """
    targets = np.asarray(targets)
    if targets.ndim != 2 or not np.isin(targets, (0, 1)).all():
        raise DataError(
            f"dataset: expected rows of 0 and 1, one column for each label. Received: shape "
            f"{targets.shape} of {targets.dtype}."
        )
    return targets


def check_numbers(targets: Any) -> np.ndarray:
    """Return the numbers of a batch as a column for each output.

    Raises
    ------
    DataError
    """
    targets = np.asarray(targets)
    if targets.ndim not in (1, 2) or targets.dtype.kind not in "iufb":
        raise DataError(
            f"dataset: expected numbers of shape (n,) or (n, n_outputs). Received: shape "
            f"{targets.shape} of {targets.dtype}."
        )
    return targets.reshape(len(targets), -1)


@dataclass(frozen=True)
class _TaskChecks:
    check: Callable[[Any], np.ndarray]
    losses: Callable[[np.ndarray, np.ndarray, Any], np.ndarray]
    score: Score


_TASKS = {
    "multiclass": _TaskChecks(check_classes, _class_losses, _class_accuracy),
    "multilabel": _TaskChecks(check_labels, _label_losses, _label_accuracy),
    "regression": _TaskChecks(check_numbers, _number_losses, _r2),
}


def check_targets(task: str, targets: Any) -> np.ndarray:
    """Return the targets of a batch as a task has them, or say why they are none.

    Raises
    ------
    DataError
    """
    return _TASKS[task].check(targets)
