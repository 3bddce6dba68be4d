"""Validation: one pass over held-out data gives the loss and the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_transfer.errors import DataError
from keras_transfer.training.inference import Inference

__all__ = ["Validation", "accuracy", "check_targets"]


def accuracy(targets: np.ndarray, outputs: np.ndarray) -> float:
    """Return the share of examples whose largest output is that of their class."""
    return float(np.mean(outputs.argmax(axis=1) == targets))


class Validation:
    """Held-out data and how to score on it.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Batches of (inputs, class indices), in any order.
    score : callable, optional
        ``score(targets, outputs) -> float``, higher is better; by default the accuracy.
    steers : bool, default=True
        Whether training may stop early and choose its weights by it. A few examples only measure.
    """

    def __init__(
        self,
        dataset: Any,
        score: Callable[[np.ndarray, np.ndarray], float] = accuracy,
        *,
        steers: bool = True,
    ):
        self.dataset = dataset
        self.score = score
        self.steers = steers

    def __call__(self, inference: Inference) -> tuple[float, float]:
        """Return (loss, score) of a model as it stands."""
        # In one pass: the next one over a shuffled dataset would come in another order.
        pairs = [(inference(batch[0]), check_targets(batch[1])) for batch in self.dataset]
        outputs, targets = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        likelihood = outputs[np.arange(len(outputs)), targets]
        # Keras computes its loss from the logits, without the usual floor of 1e-7; only what is
        # zero in float32 is kept from becoming infinite here.
        loss = float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean())
        return loss, float(self.score(targets, outputs))


def check_targets(targets: Any) -> np.ndarray:
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
