"""Calibration: one temperature that makes probabilities as sure as they are right."""

from __future__ import annotations

import numpy as np

__all__ = [
    "SPREAD",
    "answer_losses",
    "as_outputs",
    "expected_calibration_error",
    "find_temperature",
]

# Of the logarithms of temperatures that one set of held-out examples tells.
SPREAD = 0.5
_TEMPERATURES = np.geomspace(1 / 4, 16, 49)


def find_temperature(
    logits: np.ndarray,
    targets: np.ndarray,
    task: str,
    weights: np.ndarray,
    spread: float | None = None,
) -> tuple[float, np.ndarray]:
    """Find what logits are to be divided by for the least loss.

    Parameters
    ----------
    logits : numpy.ndarray of shape (n_repeats, n, n_outputs)
        For examples that the head has not seen.
    targets : numpy.ndarray of shape (n,) or (n, n_outputs)
        Class indices, or rows of 0 and 1.
    task : {"multiclass", "multilabel", "regression"}
        Numbers have no temperature: it is 1, as it is where no example counts.
    weights : numpy.ndarray of shape (n,)
    spread : float, optional
        By how much the logarithm of temperatures is expected to differ from 0, before any example
        is seen: a few that all are right would otherwise ask for the lowest. Each example then
        counts by its weight over the mean. By default the examples alone decide.

    Returns
    -------
    temperature : float
        From 1/4 to 16. Below 1 the answers were less sure than right.
    losses : numpy.ndarray of shape (n,)
        Of each example at this temperature, the mean over its repeats.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks" (2017, arXiv 1706.04599).

    Examples
    --------
    >>> import numpy as np
    >>> from keras_transfer.choosing.calibration import find_temperature
    >>> logits = np.array([[[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]])  # sure, and once wrong
    >>> targets = np.array([0, 1, 1])
    >>> temperature, losses = find_temperature(logits, targets, "multiclass", np.ones(3))
    >>> temperature > 4
    True
    """
    if task == "regression" or not weights.any():
        return 1.0, answer_losses(logits, targets, task)
    found = [answer_losses(logits / each, targets, task) for each in _TEMPERATURES]
    expected = np.zeros(len(found))
    if spread is not None:
        weights = weights / weights.mean()  # equal weights are no weights
        expected = np.square(np.log(_TEMPERATURES) / spread) / 2
    best = int(np.argmin(expected + [weights @ losses for losses in found]))
    return float(_TEMPERATURES[best]), found[best]


def answer_losses(outputs: np.ndarray, targets: np.ndarray, task: str) -> np.ndarray:
    """Return the loss of each example, the mean over repeats, as the exact head counts it.

    Parameters
    ----------
    outputs : numpy.ndarray of shape (n_repeats, n, n_outputs)
        Logits, or numbers.
    targets : numpy.ndarray of shape (n,) or (n, n_outputs)
    task : {"multiclass", "multilabel", "regression"}

    Returns
    -------
    numpy.ndarray of shape (n,)
        In nats; of numbers the squared error.
    """
    if task == "regression":
        losses = np.square(outputs - targets.reshape(outputs.shape[1:])).mean(axis=2)
    elif task == "multilabel":
        losses = np.logaddexp(0, -(2 * targets - 1) * outputs).mean(axis=2)
    else:
        logits = outputs - outputs.max(axis=2, keepdims=True)
        of_target = logits[:, np.arange(len(targets)), targets]
        losses = np.log(np.exp(logits).sum(axis=2)) - of_target
    return losses.mean(axis=0)


def as_outputs(logits: np.ndarray, task: str) -> np.ndarray:
    """Return what a model gives for these logits: probabilities, or numbers as they are."""
    if task == "regression":
        return logits
    if task == "multilabel":
        return 1 / (1 + np.exp(-logits))
    likelihood = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return likelihood / likelihood.sum(axis=-1, keepdims=True)


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 10
) -> float:
    """Return by how much sureness and share of right answers differ, the mean over examples.

    Parameters
    ----------
    probabilities : numpy.ndarray of shape (n, n_classes)
    targets : numpy.ndarray of shape (n,)
        Class indices.
    n_bins : int, default=10
        Of equal width, by the probability of the answer.

    References
    ----------
    Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"
    (AAAI 2015).

    Examples
    --------
    >>> import numpy as np
    >>> from keras_transfer.choosing.calibration import expected_calibration_error
    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    sureness = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == targets
    bins = np.minimum((sureness * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    gaps = np.bincount(bins, sureness - is_right, minlength=n_bins)
    return float(np.abs(gaps).sum() / max(1, counts.sum()))
