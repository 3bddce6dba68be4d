"""Run stages: freeze, compile, fit, in that order. The only place that compiles or fits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import Block
from keras_transfer.errors import DivergedError, FreezeError
from keras_transfer.training.audit import AuditRow, audit
from keras_transfer.training.freezing import freeze_for, frozen_weights, settle
from keras_transfer.training.inference import Inference
from keras_transfer.training.optimizers import build_optimizer, check_optimizer
from keras_transfer.training.progress import Silent
from keras_transfer.training.stage import Stage
from keras_transfer.training.validation import Validation

__all__ = ["RunResult", "StageRecord", "run_stages"]


@dataclass(frozen=True)
class StageRecord:
    """What happened in one stage.

    Attributes
    ----------
    stage : Stage
    rows : tuple of AuditRow
        What trained, block by block.
    weights : tuple of str
        Paths of the weights that the optimizer held.
    reason : str
        Why it ended: ``"epochs"``, ``"early stopping"``, ``"target score"``, ``"time budget"``.
    epochs : int
        How many were begun.
    seconds : float
        Compilation included.
    first_batch_seconds : float
        Of the batch that includes it.
    """

    stage: Stage
    rows: tuple[AuditRow, ...]
    weights: tuple[str, ...]
    reason: str
    epochs: int
    seconds: float
    first_batch_seconds: float


@dataclass
class RunResult:
    """What `run_stages` did.

    Attributes
    ----------
    records : list of StageRecord
        The stages that ran.
    history : dict of str to list
        One entry for each epoch, ``stage`` among the columns.
    score : float
        The validation score of the weights that were kept; NaN without validation.
    """

    records: list[StageRecord] = field(default_factory=list)
    history: dict[str, list[Any]] = field(default_factory=dict)
    score: float = math.nan


def run_stages(
    model: Any,
    blocks: Sequence[Block],
    stages: Sequence[Stage],
    dataset: Any,
    *,
    validation: Validation | None = None,
    inference: Inference | None = None,
    target_score: float | None = None,
    deadline: float | None = None,
    display: Silent | None = None,
) -> RunResult:
    """Train a model through stages.

    Parameters
    ----------
    model : keras.Model
        Flat; its weights are changed.
    blocks : sequence of Block
        The model's blocks.
    stages : sequence of Stage
    dataset : tf.data.Dataset
        Finite batches of (inputs, class indices) or (inputs, class indices, weights).
    validation : Validation, optional
        If it steers, each stage stops early and ends with the best weights so far, earlier stages'
        included.
    inference : Inference, optional
        The model's compiled forward pass, if there is one already.
    target_score : float, optional
        Stop as soon as the validation score reaches it, and skip later stages.
    deadline : float, optional
        On the clock of ``time.monotonic``: stop before it would pass, within one batch.
    display : Silent or Display, optional

    Returns
    -------
    RunResult

    Raises
    ------
    FreezeError
        If a frozen weight moved, none of the trained ones did, or the optimizer holds others.
    DivergedError
        If the loss is NaN or infinite.
    """
    display = display or Silent()
    result = RunResult()
    steering = _Steering(
        inference=(inference or Inference(model)) if validation is not None else None,
        validation=validation,
        target_score=target_score,
        deadline=deadline,
    )
    for number, stage in enumerate(stages):
        if number and steering.is_over(result.records[-1]):
            left = ", ".join(later.name for later in stages[number:])
            display.say(f"{steering.reason} reached: skipped {left}.")
            break
        record = _run_stage(model, blocks, stage, dataset, steering, display, result.history)
        result.records.append(record)
    if result.records:
        settle(model)
        # The last stage's optimizer may hold other weights than a reload of the model would train:
        # Keras then drops its state, with a warning.
        optimizer = build_optimizer(model, blocks, result.records[-1].stage)
        optimizer.build(model.trainable_weights)
        _compile(model, optimizer)
    result.score = steering.best_score
    return result


def _run_stage(
    model: Any,
    blocks: Sequence[Block],
    stage: Stage,
    dataset: Any,
    steering: _Steering,
    display: Silent,
    history: dict[str, list[Any]],
) -> StageRecord:
    started = time.monotonic()
    with freeze_for(model, blocks, stage):
        rows = tuple(audit(model, blocks, stage))
        frozen = frozen_weights(model, blocks, stage)
        before = [weight.numpy() for weight in frozen]
        trained_before = [weight.numpy() for weight in model.trainable_weights]
        optimizer = build_optimizer(model, blocks, stage)
        _compile(model, optimizer)
        display.start_stage(stage, rows, max(0, int(dataset.cardinality())))
        callback = _make_callback(stage, steering, display, history)
        steering.begin_stage()
        model.fit(dataset, epochs=stage.epochs, callbacks=[callback], shuffle=False, verbose=0)
        # === What must hold ===
        weights = check_optimizer(model, optimizer, stage)
        for weight, value in zip(frozen, before, strict=True):
            if not np.array_equal(weight.numpy(), value, equal_nan=True):
                raise FreezeError(
                    f"stage {stage.name!r}: expected the frozen weight {weight.path!r} to stay as "
                    f"it was. It moved. This is a defect of keras_transfer or of a custom layer "
                    f"that assigns to its weights; please report it with the model."
                )
        if all(
            np.array_equal(weight.numpy(), value)
            for weight, value in zip(model.trainable_weights, trained_before, strict=True)
        ):
            raise FreezeError(
                f"stage {stage.name!r}: expected the weights of {', '.join(stage.trained)} to "
                f"train. None moved in {callback.epochs} epoch(s). Is the learning rate 0, or do "
                f"no gradients reach these blocks?"
            )
        steering.end_stage(model)
    reason = callback.reason or "epochs"
    display.end_stage(reason)
    seconds = time.monotonic() - started
    first = callback.first_batch_seconds
    return StageRecord(stage, rows, weights, reason, callback.epochs, seconds, first)


def _compile(model: Any, optimizer: Any) -> None:
    model.compile(
        optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=_has_gpu(),
    )


@dataclass
class _Steering:
    """What decides when to stop and which weights to keep, across stages."""

    inference: Inference | None
    validation: Validation | None
    target_score: float | None
    deadline: float | None
    best_score: float = math.nan
    best_loss: float = math.inf
    best_weights: list[Any] | None = None
    reason: str = ""
    validation_seconds: float = 0.0

    def is_over(self, record: StageRecord) -> bool:
        """Say whether later stages are to be skipped: nothing is left to reach, or no time.

        The first batch of a stage includes compilation, and that of a later stage, which trains
        more, takes at least as long as that of the one before.
        """
        if not self.reason and self.deadline is not None:
            begun = time.monotonic() + record.first_batch_seconds + self.validation_seconds
            self.reason = "time budget" if begun > self.deadline else ""
        return bool(self.reason)

    def begin_stage(self) -> None:
        """Learn how long a validation takes, so that the last one ends in time."""
        if self.validation is not None and self.inference and self.deadline is not None:
            for _ in range(2 if not self.validation_seconds else 0):  # the first compiles
                started = time.monotonic()
                self.validation(self.inference)
                self.validation_seconds = time.monotonic() - started

    def score(self, model: Any) -> dict[str, float]:
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
            self.best_weights = model.get_weights()
        if self.target_score is not None and score >= self.target_score:
            self.reason = "target score"
        return {"val_loss": loss, "val_score": score}

    def end_stage(self, model: Any) -> None:
        """Put the best weights back."""
        if self.best_weights is not None:
            model.set_weights(self.best_weights)


def _rank(score: float, loss: float) -> tuple[float, float]:
    return (-math.inf if math.isnan(score) else score, -loss)


def _make_callback(
    stage: Stage, steering: _Steering, display: Silent, history: dict[str, list[Any]]
) -> Any:
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
                "accuracy": float(logs["accuracy"]),
                "learning_rate": max(stage.learning_rates.values()),
                **steering.score(self.model),
            }
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


def _has_gpu() -> bool:
    import tensorflow as tf

    # XLA on a CPU is several times slower, in training as in inference.
    return bool(tf.config.list_physical_devices("GPU"))
