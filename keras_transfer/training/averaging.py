"""The moving average of the weights in the place of those that train."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.training.optimizers import held_weights

__all__ = ["Averaging"]


class Averaging:
    """Puts the moving average of the weights in the place of those that train, and takes it out.

    Keras's ``SwapEMAWeights`` exchanges the two: what a Ctrl-C leaves half exchanged, or what Keras
    assigns once more at the end of a fit, would then be the other one. Here the optimizer's average
    is only ever read.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        From `build_optimizer`, for a stage with ``average="ema"``; it has made a step.
    """

    def __init__(self, optimizer: Any):
        self._optimizer = optimizer
        self._weights = held_weights(optimizer)
        self._trained: list[np.ndarray] | None = None

    def put_in(self) -> None:
        """Put the average in; if it is in, once more."""
        if self._trained is None:
            self._trained = [weight.numpy() for weight in self._weights]
        self._optimizer.finalize_variable_values(self._weights)

    def take_out(self) -> None:
        """Put the weights that train back, if the average is in."""
        if self._trained is not None:
            for weight, value in zip(self._weights, self._trained, strict=True):
                weight.assign(value)
        self._trained = None
