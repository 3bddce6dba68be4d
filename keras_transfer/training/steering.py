"""Steering: when to stop, which weights to keep, and the history, across stages."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from keras_transfer.errors import DivergedError
from keras_transfer.graph.heads import METRIC
from keras_transfer.training.averaging import Averaging
from keras_transfer.training.inference import Inference
from keras_transfer.training.interrupts import Interrupts
from keras_transfer.training.optimizers import set_average, set_rates
from keras_transfer.training.progress import Silent
from keras_transfer.training.schedules import rate_factor
from keras_transfer.training.stage import Stage
from keras_transfer.training.validation import Answers, Validation

__all__ = ["Steering", "make_watch"]


@dataclass(frozen=True)
class _Best:
    """One value, not three: a second Ctrl-C between assignments would mix two epochs."""

    score: float = math.nan
    loss: float = math.inf
    weights: list[Any] | None = None
    answers: Answers | None = None


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
        Of the stage at hand, as its inference is.
    target_score, deadline : float or None
        As for `run_stages`.
    interrupts : Interrupts
    epochs : list of dict of str to object
        The figures of each epoch, all stages in one.
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
    interrupts: Interrupts = field(default_factory=Interrupts)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    validation_seconds: float = 0.0
    _best: _Best = field(default=_Best(), init=False)
    _has_moved: bool = field(default=False, init=False)

    @property
    def best_score(self) -> float:
        """Validation score of the best weights so far; of the last ones if it does not steer."""
        return self._best.score

    @property
    def best_loss(self) -> float:
        """Validation loss of the same weights."""
        return self._best.loss

    @property
    def kept_score(self) -> float:
        """Validation score of the weights as `end_stage` leaves them; NaN if not measured."""
        return math.nan if self._best.weights is None and self._has_moved else self._best.score

    @property
    def kept_answers(self) -> Answers | None:
        """Targets, outputs and weights that the same score is of."""
        return None if math.isnan(self.kept_score) else self._best.answers

    @property
    def history(self) -> dict[str, list[Any]]:
        """The epochs, as columns."""
        columns = self.epochs[0] if self.epochs else ("stage", "epoch")
        return {column: [epoch[column] for epoch in self.epochs] for column in columns}

    @property
    def may_stop_early(self) -> bool:
        """Whether a stage can end before its last epoch, time budgets apart."""
        steers = self.validation is not None and self.validation.steers
        return steers or self.target_score is not None

    def is_over(self, first_batch_seconds: float) -> bool:
        """Say whether later stages are to be skipped: nothing is left to reach, or no time.

        The first batch of a stage includes compilation, and that of a later stage, which trains
        more, takes at least as long as that of the one before.
        """
        if not self.reason and self.deadline is not None:
            begun = time.monotonic() + first_batch_seconds + self.validation_seconds
            self.reason = "time budget" if begun > self.deadline else ""
        return bool(self.reason)

    def attend(self, validation: Validation | None, inference: Inference | None) -> None:
        """Take up what the next stage is validated with."""
        if validation is not self.validation:
            self.validation_seconds = 0.0
        self.validation, self.inference = validation, inference

    def begin_stage(self) -> None:
        """Learn how long a validation takes, so that the last one ends in time."""
        if self.validation is not None and self.inference and self.deadline is not None:
            for _ in range(2 if not self.validation_seconds else 0):  # the first compiles
                started = time.monotonic()
                self.validation(self.inference)
                self.validation_seconds = time.monotonic() - started

    def end_step(self) -> None:
        """Note that the weights have moved since they were scored."""
        self._has_moved = True

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
            self._best = _Best(score, loss, None, self.validation.answers)
        elif self._best.weights is None or rank > best:
            # Across stages: a stage that does harm ends with the weights that it started from.
            weights = self.network.get_weights()
            self._best = _Best(score, loss, weights, self.validation.answers)
        self._has_moved = False
        if self.target_score is not None and score >= self.target_score:
            self.reason = "target score"
        return {"val_loss": loss, "val_score": score}

    def end_stage(self) -> None:
        """Put the best weights back."""
        if self._best.weights is not None:
            self.network.set_weights(self._best.weights)


def _rank(score: float, loss: float) -> tuple[float, float]:
    return (-math.inf if math.isnan(score) else score, -loss)


def make_watch(
    stage: Stage,
    steering: Steering,
    display: Silent,
    *,
    steps: int = 0,
    averaging: Averaging | None = None,
) -> Any:
    """Make the Keras callback that steers one stage.

    Parameters
    ----------
    stage : Stage
    steering : Steering
        Takes up the stage's epochs.
    display : Silent or Display
    steps : int, optional
        Batches of all epochs, where a schedule spreads over them.
    averaging : Averaging, optional
        Where not what trains is validated, but its moving average.

    Returns
    -------
    keras.callbacks.Callback
        With ``reason``, ``epochs``, ``steps`` and ``first_batch_seconds``.
    """
    import keras

    class Watch(keras.callbacks.Callback):
        """Steers one stage and writes its part of the history."""

        def __init__(self) -> None:
            super().__init__()
            self.reason = ""
            self.steps = 0
            self.first_batch_seconds = 0.0
            self._epochs_before = len(steering.epochs)
            self._since_best = 0
            self._best = (steering.best_score, -steering.best_loss)
            self._lowest_loss = math.inf
            self._epoch_began = self._batch_began = 0.0
            self._batch_seconds: list[float] = []

        @property
        def epochs(self) -> int:
            """How many ended."""
            return len(steering.epochs) - self._epochs_before

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._epoch_began = time.monotonic()
            if averaging is not None:
                averaging.take_out()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            steering.interrupts.check()
            if stage.is_scheduled:
                set_rates(self.model.optimizer, stage, self._factor(self.steps))
            if averaging is not None:
                set_average(self.model.optimizer, self.steps + 1)
            self._batch_began = time.monotonic()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if not self.steps:  # one that came while it was compiled: nothing is learned yet
                steering.interrupts.check()
            now = time.monotonic()
            self._batch_seconds.append(now - self._batch_began)
            self.first_batch_seconds = self._batch_seconds[0]
            steering.end_step()
            self.steps += 1
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
            steering.interrupts.check()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            steering.interrupts.check()  # from another callback, after the last batch
            if averaging is not None:  # and other callbacks, called after this, see what is scored
                averaging.put_in()
            figures: dict[str, Any] = {
                "stage": stage.name,
                "epoch": len(steering.epochs) + 1,
                "loss": float(logs["loss"]),
                **{key: float(value) for key, value in logs.items() if key == METRIC},
                "learning_rate": (
                    math.nan
                    if stage.solver == "exact"
                    else stage.highest_rate * self._factor(self.steps - 1)
                ),
                **steering.score(),
            }
            # For the callbacks of the user's, which Keras calls after this one.
            logs.update({key: figures[key] for key in ("val_loss", "val_score") if key in figures})
            figures["seconds"] = time.monotonic() - self._epoch_began
            steering.epochs.append(figures)
            display.end_epoch(figures)
            self._decide(figures.get("val_loss", math.nan))

        def _factor(self, step: int) -> float:
            """Return the factor on the rates of a step; a dataset may end after one began."""
            if not stage.is_scheduled:
                return 1.0
            # At the middle of a step: none of them, not even a single one, is at a rate of 0.
            return rate_factor(stage.schedule, (step + 0.5) / steps, stage.warm_up)

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
