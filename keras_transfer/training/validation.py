"""Validation: one pass over held-out data gives the loss and the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_transfer.training.inference import Inference

__all__ = ["Validation", "accuracy"]


def accuracy(targets: np.ndarray, outputs: np.ndarray) -> float:
    """Return the share of examples whose largest output is that of their class."""
    return float(np.mean(outputs.argmax(axis=1) == targets))


class Validation:
    """Held-out data and how to score on it.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Batches of (inputs, class indices), in an order that does not change.
    score : callable, optional
        ``score(targets, outputs) -> float``, higher is better; by default the accuracy.
    """

    def __init__(self, dataset: Any, score: Callable[[np.ndarray, np.ndarray], float] = accuracy):
        self.dataset = dataset
        self.score = score
        self.targets = np.concatenate([np.asarray(batch[1]) for batch in dataset])

    def __call__(self, inference: Inference) -> tuple[float, float]:
        """Return (loss, score) of a model as it stands."""
        outputs = inference.on_dataset(self.dataset)
        likelihood = outputs[np.arange(len(outputs)), self.targets]
        # Keras computes its loss from the logits, without the usual floor of 1e-7; only what is
        # zero in float32 is kept from becoming infinite here.
        loss = float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean())
        return loss, float(self.score(self.targets, outputs))
