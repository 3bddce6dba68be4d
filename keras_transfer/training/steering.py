"""Steering: when to stop, which weights to keep, and the history, across stages."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from keras_transfer.errors import DivergedError
from keras_transfer.graph.heads import METRIC
from keras_transfer.training.inference import Inference
from keras_transfer.training.progress import Silent
from keras_transfer.training.stage import Stage
from keras_transfer.training.validation import Validation

__all__ = ["Steering", "make_watch"]


@dataclass
class Steering:
    """What decides when to stop and which weights to keep, across stages.

    Attributes
    ----------
    network : keras.Model
        What trains.
    inference : Inference or None
        Of the network.
    validation : Validation or None
    target_score, deadline : float or None
        As for `run_stages`.
    best_score, best_loss : float
        Of the weights that are kept.
    best_weights : list of numpy.ndarray or None
    reason : str
        Why nothing more is to be trained, if so.
    validation_seconds : float
        What the last validation took.
    """

    network: Any
    inference: Inference | None
    validation: Validation | None
    target_score: float | None
    deadline: float | None
    best_score: float = math.nan
    best_loss: float = math.inf
    best_weights: list[Any] | None = None
    reason: str = ""
    validation_seconds: float = 0.0

    def is_over(self, first_batch_seconds: float) -> bool:
        """Say whether later stages are to be skipped: nothing is left to reach, or no time.

        The first batch of a stage includes compilation, and that of a later stage, which trains
        more, takes at least as long as that of the one before.
        """
        if not self.reason and self.deadline is not None:
            begun = time.monotonic() + first_batch_seconds + self.validation_seconds
            self.reason = "time budget" if begun > self.deadline else ""
        return bool(self.reason)

    def begin_stage(self) -> None:
        """Learn how long a validation takes, so that the last one ends in time."""
        if self.validation is not None and self.inference and self.deadline is not None:
            for _ in range(2 if not self.validation_seconds else 0):  # the first compiles
                started = time.monotonic()
                self.validation(self.inference)
                self.validation_seconds = time.monotonic() - started

    def score(self) -> dict[str, float]:
        """Validate, and keep the weights if they are the best so far."""
        if self.validation is None or self.inference is None:
            return {}
        started = time.monotonic()
        loss, score = self.validation(self.inference)
        self.validation_seconds = time.monotonic() - started
        # A metric can be undefined, as the area under a curve for a class that is not there.
        rank, best = _rank(score, loss), _rank(self.best_score, self.best_loss)
        if not self.validation.steers:
            self.best_score, self.best_loss = score, loss
        elif self.best_weights is None or rank > best:
            # Across stages: a stage that does harm ends with the weights that it started from.
            self.best_score, self.best_loss = score, loss
            self.best_weights = self.network.get_weights()
        if self.target_score is not None and score >= self.target_score:
            self.reason = "target score"
        return {"val_loss": loss, "val_score": score}

    def end_stage(self) -> None:
        """Put the best weights back."""
        if self.best_weights is not None:
            self.network.set_weights(self.best_weights)


def _rank(score: float, loss: float) -> tuple[float, float]:
    return (-math.inf if math.isnan(score) else score, -loss)


def make_watch(
    stage: Stage, steering: Steering, display: Silent, history: dict[str, list[Any]]
) -> Any:
    """Make the Keras callback that steers one stage.

    Parameters
    ----------
    stage : Stage
    steering : Steering
    display : Silent or Display
    history : dict of str to list
        Takes up the stage's epochs.

    Returns
    -------
    keras.callbacks.Callback
        With ``reason``, ``epochs`` and ``first_batch_seconds``.
    """
    import keras

    class Watch(keras.callbacks.Callback):
        """Steers one stage and writes its part of the history."""

        def __init__(self) -> None:
            super().__init__()
            self.reason = ""
            self.epochs = 0
            self.first_batch_seconds = 0.0
            self._since_best = 0
            self._best = (steering.best_score, -steering.best_loss)
            self._lowest_loss = math.inf
            self._epoch_began = self._batch_began = 0.0
            self._batch_seconds: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._epoch_began = time.monotonic()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self._batch_began = time.monotonic()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            now = time.monotonic()
            self._batch_seconds.append(now - self._batch_began)
            self.first_batch_seconds = self._batch_seconds[0]
            display.end_step()
            if not math.isfinite(logs["loss"]):
                raise DivergedError(
                    f"stage {stage.name!r}: the loss is {logs['loss']} in epoch {self.epochs + 1}. "
                    f"Expected a finite loss. Lower learning_rate, or look for extreme values in X."
                )
            # The first batch includes compilation; the last few tell how long the next will take.
            next_batch = max(self._batch_seconds[1:][-8:], default=0.0)
            if steering.deadline is not None and (
                now + next_batch + steering.validation_seconds > steering.deadline
            ):
                self.reason = steering.reason = "time budget"
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.epochs += 1
            figures: dict[str, Any] = {
                "stage": stage.name,
                "epoch": len(history.get("epoch", [])) + 1,
                "loss": float(logs["loss"]),
                **{key: float(value) for key, value in logs.items() if key == METRIC},
                "learning_rate": max(stage.learning_rates.values()),
                **steering.score(),
            }
            # For the callbacks of the user's, which Keras calls after this one.
            logs.update({key: figures[key] for key in ("val_loss", "val_score") if key in figures})
            figures["seconds"] = time.monotonic() - self._epoch_began
            for column, value in figures.items():
                history.setdefault(column, []).append(value)
            display.end_epoch(figures)
            self._decide(figures.get("val_loss", math.nan))

        def _decide(self, loss: float) -> None:
            if steering.reason == "target score":
                self.reason = "target score"
            best = (steering.best_score, -steering.best_loss)
            # A score on few examples moves in jumps: while the loss still falls, it may yet rise.
            improved = best != self._best or loss < self._lowest_loss
            self._best, self._lowest_loss = best, min(loss, self._lowest_loss)
            self._since_best = 0 if improved else self._since_best + 1
            steers = steering.validation is not None and steering.validation.steers
            if steers and self._since_best >= stage.patience:
                self.reason = self.reason or "early stopping"
            if self.reason:
                self.model.stop_training = True

    return Watch()
