"""The learning rate range test: the rate is chosen on the training batches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras_transfer.errors import DivergedError
from keras_transfer.training.compiled import Trainer
from keras_transfer.training.optimizers import set_rates
from keras_transfer.training.stage import Stage
from keras_transfer.training.steering import Steering

__all__ = ["TEST_STEPS", "RateCurve", "find_rate"]

# From where Adam hardly moves a weight to where plain SGD diverges, too.
_LOWEST, _DECADES = 1e-6, 7
_STEPS_PER_DECADE = 10
# The most batches that a test takes.
TEST_STEPS = _DECADES * _STEPS_PER_DECADE + 1
# Weight of the past in the smoothed loss: over 5 batches, half a decade.
_SMOOTHING = 0.8
_EXPLODED = 4.0
# The rate is taken where the loss has come so much of the way from its level down to its lowest:
# there a step still helps more than it overshoots. A few labels are soon learned by heart, so that
# the loss goes on falling at rates that do harm.
_FALLEN = 3 / 4
# Of a time budget that is left when the first batch has ended.
_MOST_TIME = 0.25


@dataclass(frozen=True)
class RateCurve:
    """What a range test measured.

    Attributes
    ----------
    rates : tuple of float
        The highest learning rate of the stage at each batch; the others are in proportion.
    losses : tuple of float
        The smoothed loss at each, in nats for a classifier.
    chosen : float
        The highest learning rate that the stage takes: what it had before where the time budget
        ended the test, or the loss did not fall.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    chosen: float


def find_rate(
    trainer: Trainer,
    stage: Stage,
    sample: Any,
    steering: Steering,
    advance: Callable[[], None] = lambda: None,
) -> tuple[RateCurve, float]:
    """Choose the learning rate of a stage by a range test.

    The rates rise from batch to batch, ten batches a decade, the highest from 1e-6 to 10. The loss
    of each batch, before its step, is smoothed exponentially (over about 5 batches, corrected for
    the start). Its level is the median over the first decade, in which hardly a weight moves. The
    test stops when the loss is not finite, or more than 4 times what it was at the end of that.
    The rate is that at which the loss has fallen three quarters of the way to its lowest; where it
    falls by less than it varies over the first decade, the rates stay as they are.

    Where a time budget leaves too little time, the test stops after a quarter of what is left, and
    the rates stay as they are.

    Parameters
    ----------
    trainer : Trainer
        Of the stage; its weights, its optimizer's state and its random states move.
    stage : Stage
    sample : tf.data.Dataset
        Batches like those that the stage trains on; read again from the start where they are few.
    steering : Steering
        Whose deadline and Ctrl-C end the test.
    advance : callable, optional
        Called after each batch.

    Returns
    -------
    curve : RateCurve
    first_batch_seconds : float
        What the first batch took, compilation included.

    Raises
    ------
    DivergedError
        If the loss is not finite within the first decade.
    KeyboardInterrupt

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks" (2017, arXiv 1506.01186).
    """
    import keras

    class Rise(keras.callbacks.Callback):
        """Raises the rates from batch to batch, and notes the losses."""

        def __init__(self) -> None:
            super().__init__()
            self.rates: list[float] = []
            self.losses: list[float] = []
            self.is_late = False
            self.began = self.first_batch_seconds = 0.0
            self.until = math.inf
            self._mean = 0.0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            steering.interrupts.check()
            self.began = self.began or time.monotonic()
            # Else the logs hold the mean over all batches so far.
            self.model.reset_metrics()
            self.rates.append(_LOWEST * 10 ** (len(self.rates) / _STEPS_PER_DECADE))
            set_rates(trainer.optimizer, stage, self.rates[-1] / stage.highest_rate)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self._note_time()
            self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * float(logs["loss"])
            loss = self._mean / (1 - _SMOOTHING ** len(self.rates))
            self.losses.append(loss)
            advance()
            has_level = len(self.losses) > _STEPS_PER_DECADE
            if not math.isfinite(loss) or (
                has_level and loss > _EXPLODED * self.losses[_STEPS_PER_DECADE - 1]
            ):
                self.model.stop_training = True
            if self.is_late:
                self.model.stop_training = True
            steering.interrupts.check()

        def _note_time(self) -> None:
            now = time.monotonic()
            if not self.losses:
                self.first_batch_seconds = now - self.began
                if steering.deadline is not None:
                    self.until = now + _MOST_TIME * (steering.deadline - now)
            self.is_late = now >= self.until

    rise = Rise()
    trainer.model.fit(sample.repeat().take(TEST_STEPS), callbacks=[rise], shuffle=False, verbose=0)
    chosen = stage.highest_rate
    if not rise.is_late:
        chosen = _choose(stage, rise.rates, rise.losses)
    curve = RateCurve(tuple(rise.rates), tuple(rise.losses), chosen)
    return curve, rise.first_batch_seconds


def _choose(stage: Stage, rates: list[float], losses: list[float]) -> float:
    """Return the rate at which the loss has fallen far enough, or that of the stage."""
    first = losses[:_STEPS_PER_DECADE]
    if not all(map(math.isfinite, first)):
        raise DivergedError(
            f"stage {stage.name!r}: learning_rate='auto' expected finite losses at the lowest "
            f"rates, up to {rates[-1]:.0e}. Received: {losses[-1]}. Look for extreme values in X, "
            f"or set learning_rate."
        )
    level, noise = statistics.median(first), max(first) - min(first)
    fall = level - min(loss for loss in losses if math.isfinite(loss))
    goal = level - _FALLEN * fall if fall > noise else -math.inf
    fallen = [
        rate
        for rate, loss in zip(rates[_STEPS_PER_DECADE:], losses[_STEPS_PER_DECADE:], strict=True)
        if loss <= goal
    ]
    return fallen[0] if fallen else stage.highest_rate
