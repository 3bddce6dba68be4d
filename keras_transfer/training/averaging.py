"""Averages of weights: moving ones in training, and those between a start and an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_transfer.training.optimizers import held_weights

__all__ = ["SHARES", "WISE", "Averaging", "follow_wisely", "set_share"]

# What an average between the start of fine-tuning and its end is called in a recipe.
WISE = "wise"
# How much of the way from the start to the end is gone, where unseen examples are asked.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


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


def set_share(
    model: Any, start: Sequence[np.ndarray], end: Sequence[np.ndarray], share: float
) -> None:
    """Give a model the weights at a share of the way from a start to an end.

    Parameters
    ----------
    model : keras.Model
    start, end : sequence of numpy.ndarray
        As its ``get_weights`` gives them.
    share : float
        From 0 to 1; at both ends the weights are theirs to the bit.
    """
    if share in (0, 1):
        model.set_weights(end if share else start)
        return
    model.set_weights(
        [
            old if np.array_equal(old, new) else (1 - share) * old + share * new
            for old, new in zip(start, end, strict=True)
        ]
    )


def follow_wisely(model: Any, start: Sequence[np.ndarray], loss: Callable[[], float]) -> float:
    """Leave a model at the share of the way from a start that has the least loss.

    Parameters
    ----------
    model : keras.Model
        Where the way ends.
    start : sequence of numpy.ndarray
        As its ``get_weights`` gives them.
    loss : callable
        Of the model as it stands.

    Returns
    -------
    float
        The share, one of `SHARES`.

    References
    ----------
    Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models" (2022, arXiv 2109.01903).
    """
    end = model.get_weights()
    losses = []
    for share in SHARES:
        set_share(model, start, end, share)
        losses.append(loss())
    wisest = SHARES[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]
    set_share(model, start, end, wisest)
    return wisest
