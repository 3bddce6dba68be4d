"""Run stages: freeze, compile, fit, in that order. The only place that compiles."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from keras_transfer.backbones.partition import Block
from keras_transfer.backbones.walk import is_graph
from keras_transfer.errors import FreezeError
from keras_transfer.graph.heads import METRIC, TASKS, trained_output
from keras_transfer.training.audit import AuditRow, audit
from keras_transfer.training.compiled import CompiledNetwork, Snapshot, Trainer, borrow, has_gpu
from keras_transfer.training.forecast import StageForecast, begins_after, forecast_stages
from keras_transfer.training.freezing import freeze_for, frozen_weights, settle
from keras_transfer.training.optimizers import (
    build_optimizer,
    check_optimizer,
    set_rates,
    trace_key,
)
from keras_transfer.training.progress import Silent
from keras_transfer.training.random_state import kept_random_states
from keras_transfer.training.stage import Stage
from keras_transfer.training.steering import (
    Interrupts,
    Steering,
    make_watch,
    stoppable_inference,
)
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
        Why it ended: ``"epochs"``, ``"early stopping"``, ``"target score"``, ``"time budget"``,
        ``"interrupted"`` by Ctrl-C, or ``"callback"`` where one of the user's ended it.
    epochs : int
        How many are in the history: also one that the time budget cut short, but not one that was
        interrupted.
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
        The validation score of the weights that were kept; NaN if they were not validated.
    interrupted : bool
        Whether Ctrl-C ended the training.
    forecast : list of StageForecast
        One for each stage, if a forecast was asked for.
    """

    records: list[StageRecord] = field(default_factory=list)
    history: dict[str, list[Any]] = field(default_factory=dict)
    score: float = math.nan
    interrupted: bool = False
    forecast: list[StageForecast] = field(default_factory=list)


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
    sample: Any = None,
) -> RunResult:
    """Train a model through stages.

    Ctrl-C ends the training after the batch at hand, or when the step at hand is compiled, and a
    second one at once. The KeyboardInterrupt is not raised here: the result says that it came. What
    was learned is kept: with a validation that steers the best weights so far, else the weights as
    they stand.

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
    sample : tf.data.Dataset, optional
        Batches like the dataset's, from a dataset of its own (the order of a shuffled one moves on
        whenever it is read): if given, the stages are timed on a few of them first, and compiled
        by that. The training is the same to the bit, unless a layer draws from TensorFlow's own
        operations without a seed.

    Returns
    -------
    RunResult

    Raises
    ------
    FreezeError
        If a frozen weight moved, none of the trained ones did, or the optimizer holds others.
    DivergedError
        If the loss is NaN or infinite.
    InvalidParameterError
        If the batches of the sample are of another kind than the dataset's.
    KeyboardInterrupt
        If it comes before the first batch has ended, the weights being as they were; or a second
        time while what was learned is put into the model.
    """
    display = display or Silent()
    result = RunResult()
    interrupts = Interrupts(display.show_stopping)
    with interrupts.held():
        with borrow(model) if shared else nullcontext(CompiledNetwork(model)) as compiled:
            steering = Steering(
                network=compiled.network,
                inference=None if validation is None else stoppable_inference(compiled, interrupts),
                validation=validation,
                target_score=target_score,
                deadline=deadline,
                interrupts=interrupts,
            )
            if sample is not None:
                display.say("forecast: compiling the stages, and timing a few batches of each")
                with kept_random_states():
                    result.forecast = forecast_stages(
                        compiled,
                        blocks,
                        stages,
                        dataset,
                        sample,
                        steering,
                        task,
                        lambda stage: _trainer(compiled, blocks, stage, task),
                    )
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                display.show_forecast(result.forecast, steering.may_stop_early, left)
            result.records = _run_all(
                compiled,
                blocks,
                stages,
                dataset,
                task,
                steering,
                callbacks,
                display,
                result.forecast,
            )
        if result.records:
            _hand_over(model, blocks, result.records[-1].stage, task)
    result.interrupted = interrupts.came
    result.history = steering.history
    result.score = steering.kept_score
    return result


def _run_all(
    compiled: CompiledNetwork,
    blocks: Sequence[Block],
    stages: Sequence[Stage],
    dataset: Any,
    task: str,
    steering: Steering,
    callbacks: Sequence[Any],
    display: Silent,
    forecast: Sequence[StageForecast],
) -> list[StageRecord]:
    records: list[StageRecord] = []
    for number, stage in enumerate(stages):
        if number:
            begun = begins_after(forecast, number, records[-1].first_batch_seconds)
            if steering.is_over(begun):
                break
        run = _StageRun(compiled, blocks, stage, task, steering, display)
        try:
            run.train(dataset, callbacks)
        except BaseException as error:
            # The second Ctrl-C can come out as another error, from inside TensorFlow.
            if not isinstance(error, KeyboardInterrupt) and not steering.interrupts.is_forced:
                raise
            steering.interrupts.came = True  # where another handler raises it
            if run.stop():
                records.append(run.finish())
            elif not records:
                raise KeyboardInterrupt from None
            break
        records.append(run.finish())
    return records


def _hand_over(model: Any, blocks: Sequence[Block], last: Stage, task: str) -> None:
    """Leave the model frozen and compiled as its last stage was."""
    # Another network may have trained, or a later stage have begun.
    with freeze_for(model, blocks, last):
        pass
    settle(model)
    # The last stage's optimizer may hold other weights than a reload of the model would train:
    # Keras then drops its state, with a warning.
    optimizer = build_optimizer(model, blocks, last)
    optimizer.build(model.trainable_weights)
    _compile(model, optimizer, task)


class _StageRun:
    """One stage: what it starts from, its training, and what must hold at its end."""

    def __init__(
        self,
        compiled: CompiledNetwork,
        blocks: Sequence[Block],
        stage: Stage,
        task: str,
        steering: Steering,
        display: Silent,
    ):
        self.compiled = compiled
        self.blocks = blocks
        self.stage = stage
        self.task = task
        self.steering = steering
        self.display = display
        self.started = time.monotonic()
        self.start: Any = None  # a Snapshot
        self.watch: Any = None

    def train(self, dataset: Any, callbacks: Sequence[Any]) -> None:
        network, stage = self.compiled.network, self.stage
        self.steering.interrupts.check()
        self.start = Snapshot(network)
        with freeze_for(network, self.blocks, stage):
            self.rows = tuple(audit(network, self.blocks, stage))
            self.trainer = _trainer(self.compiled, self.blocks, stage, self.task)
            self.watch = make_watch(stage, self.steering, self.display)
            self.display.start_stage(stage, self.rows, max(0, int(dataset.cardinality())))
            self.steering.begin_stage()
            done = len(self.steering.epochs)
            self.trainer.model.fit(
                dataset,
                initial_epoch=done,
                epochs=done + stage.epochs,
                callbacks=[self.watch, *callbacks],
                shuffle=False,
                verbose=0,
            )
        self.steering.interrupts.check()

    def finish(self) -> StageRecord:
        """Check what must hold, and put the best weights back."""
        network, stage, watch = self.compiled.network, self.stage, self.watch
        weights = check_optimizer(network, self.trainer.optimizer, stage)
        for weight in frozen_weights(network, self.blocks, stage):
            if self.start.differs(weight):
                raise FreezeError(
                    f"stage {stage.name!r}: expected the frozen weight {weight.path!r} to stay as "
                    f"it was. It moved. This is a defect of keras_transfer or of a custom layer "
                    f"that assigns to its weights; please report it with the model."
                )
        if not any(map(self.start.differs, network.trainable_weights)):
            raise FreezeError(
                f"stage {stage.name!r}: expected the weights of {', '.join(stage.trained)} to "
                f"train. None moved in {watch.epochs} epoch(s). Is the learning rate 0, or do "
                f"no gradients reach these blocks?"
            )
        self.steering.end_stage()
        reason = watch.reason or ("epochs" if watch.epochs == stage.epochs else "callback")
        self.display.end_stage(reason)
        seconds = time.monotonic() - self.started
        first = watch.first_batch_seconds
        return StageRecord(stage, self.rows, weights, reason, watch.epochs, seconds, first)

    def stop(self) -> bool:
        """End it after a KeyboardInterrupt; say whether a batch had ended. If not it is undone."""
        if not self.steering.interrupts.is_clean:
            # It may have come at any line of Keras's.
            self.compiled.forget(trace_key(self.stage, self.task))
        if self.watch is not None and self.watch.steps:
            self.watch.reason = "interrupted"
            return True
        if self.start is not None:
            self.start.restore()
        self.display.end_stage("interrupted")
        return False


def _trainer(
    compiled: CompiledNetwork, blocks: Sequence[Block], stage: Stage, task: str
) -> Trainer:
    trainer = compiled.trainer(
        trace_key(stage, task), lambda: _make_trainer(compiled.network, blocks, stage, task)
    )
    set_rates(trainer.optimizer, stage)
    return trainer


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
    model.compile(optimizer, loss=kind.loss, metrics=metrics, jit_compile=has_gpu())
