"""Run stages: freeze, compile, fit, in that order. The only place that compiles or fits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import Block
from keras_transfer.backbones.walk import is_graph
from keras_transfer.errors import FreezeError
from keras_transfer.graph.heads import METRIC, TASKS, trained_output
from keras_transfer.training.audit import AuditRow, audit
from keras_transfer.training.compiled import CompiledNetwork, Trainer, borrow
from keras_transfer.training.freezing import freeze_for, frozen_weights, settle
from keras_transfer.training.inference import Inference
from keras_transfer.training.optimizers import (
    build_optimizer,
    check_optimizer,
    set_rates,
    trace_key,
)
from keras_transfer.training.progress import Silent
from keras_transfer.training.stage import Stage
from keras_transfer.training.steering import Steering, make_watch
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
        Why it ended: ``"epochs"``, ``"early stopping"``, ``"target score"``, ``"time budget"``, or
        ``"callback"`` where one of the user's ended it.
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
    task: str = "multiclass",
    validation: Validation | None = None,
    target_score: float | None = None,
    deadline: float | None = None,
    callbacks: Sequence[Any] = (),
    display: Silent | None = None,
    shared: bool = False,
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
        Finite batches of (inputs, targets) or (inputs, targets, weights); targets of a regression
        standardised.
    task : {"multiclass", "multilabel", "regression"}, default="multiclass"
    validation : Validation, optional
        If it steers, each stage stops early and ends with the best weights so far, earlier stages'
        included.
    target_score : float, optional
        Stop as soon as the validation score reaches it, and skip later stages.
    deadline : float, optional
        On the clock of ``time.monotonic``: stop before it would pass, within one batch.
    callbacks : sequence of keras.callbacks.Callback
        Called in every stage; epochs are counted over all stages.
    display : Silent or Display, optional
    shared : bool, default=False
        Whether to train on the compiled network that all models of this structure share, and take
        the weights from there. The result is the same to the bit.

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
    with borrow(model) if shared else nullcontext(CompiledNetwork(model)) as compiled:
        steering = Steering(
            network=compiled.network,
            inference=None if validation is None else Inference(compiled.network, compiled),
            validation=validation,
            target_score=target_score,
            deadline=deadline,
        )
        for number, stage in enumerate(stages):
            if number and steering.is_over(result.records[-1].first_batch_seconds):
                break
            record = _run_stage(
                compiled, blocks, stage, dataset, task, steering, callbacks, display, result.history
            )
            result.records.append(record)
    if result.records:
        last = result.records[-1].stage
        if compiled.network is not model:
            with freeze_for(model, blocks, last):
                pass
        settle(model)
        # The last stage's optimizer may hold other weights than a reload of the model would train:
        # Keras then drops its state, with a warning.
        optimizer = build_optimizer(model, blocks, last)
        optimizer.build(model.trainable_weights)
        _compile(model, optimizer, task)
    result.score = steering.best_score
    return result


def _run_stage(
    compiled: CompiledNetwork,
    blocks: Sequence[Block],
    stage: Stage,
    dataset: Any,
    task: str,
    steering: Steering,
    callbacks: Sequence[Any],
    display: Silent,
    history: dict[str, list[Any]],
) -> StageRecord:
    started = time.monotonic()
    network = compiled.network
    with freeze_for(network, blocks, stage):
        rows = tuple(audit(network, blocks, stage))
        frozen = frozen_weights(network, blocks, stage)
        before = [weight.numpy() for weight in frozen]
        trained_before = [weight.numpy() for weight in network.trainable_weights]
        trainer = compiled.trainer(
            trace_key(stage, task), lambda: _make_trainer(network, blocks, stage, task)
        )
        set_rates(trainer.optimizer, stage)
        display.start_stage(stage, rows, max(0, int(dataset.cardinality())))
        watch = make_watch(stage, steering, display, history)
        steering.begin_stage()
        done = len(history.get("epoch", []))
        trainer.model.fit(
            dataset,
            initial_epoch=done,
            epochs=done + stage.epochs,
            callbacks=[watch, *callbacks],
            shuffle=False,
            verbose=0,
        )
        # === What must hold ===
        weights = check_optimizer(network, trainer.optimizer, stage)
        for weight, value in zip(frozen, before, strict=True):
            if not np.array_equal(weight.numpy(), value, equal_nan=True):
                raise FreezeError(
                    f"stage {stage.name!r}: expected the frozen weight {weight.path!r} to stay as "
                    f"it was. It moved. This is a defect of keras_transfer or of a custom layer "
                    f"that assigns to its weights; please report it with the model."
                )
        if all(
            np.array_equal(weight.numpy(), value)
            for weight, value in zip(network.trainable_weights, trained_before, strict=True)
        ):
            raise FreezeError(
                f"stage {stage.name!r}: expected the weights of {', '.join(stage.trained)} to "
                f"train. None moved in {watch.epochs} epoch(s). Is the learning rate 0, or do "
                f"no gradients reach these blocks?"
            )
        steering.end_stage()
    reason = watch.reason or ("epochs" if watch.epochs == stage.epochs else "callback")
    display.end_stage(reason)
    seconds = time.monotonic() - started
    first = watch.first_batch_seconds
    return StageRecord(stage, rows, weights, reason, watch.epochs, seconds, first)


def _make_trainer(network: Any, blocks: Sequence[Block], stage: Stage, task: str) -> Trainer:
    import keras

    model = network
    if is_graph(network):
        # A model of its own, since a model has one optimizer and one compiled step at a time; its
        # layers and weights are the network's.
        model = keras.Model(network.inputs[0], trained_output(network), name=network.name)
    optimizer = build_optimizer(network, blocks, stage)
    optimizer.build(network.trainable_weights)
    _compile(model, optimizer, task)
    return Trainer(model, optimizer)


def _compile(model: Any, optimizer: Any, task: str) -> None:
    import keras

    kind = TASKS[task]
    metrics = [] if kind.metric is None else [keras.metrics.get(kind.metric)]
    for metric in metrics:
        metric.name = METRIC
    model.compile(optimizer, loss=kind.loss, metrics=metrics, jit_compile=_has_gpu())


def _has_gpu() -> bool:
    import tensorflow as tf

    # XLA on a CPU is several times slower, in training as in inference.
    return bool(tf.config.list_physical_devices("GPU"))
