"""Run stages: freeze, compile, fit, in that order. The only place that compiles."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from keras_transfer.backbones.partition import HEAD, Block
from keras_transfer.backbones.walk import is_graph
from keras_transfer.errors import FreezeError, InvalidParameterError
from keras_transfer.graph.heads import trained_output
from keras_transfer.training.audit import audit
from keras_transfer.training.averaging import Averaging
from keras_transfer.training.compiled import (
    CompiledNetwork,
    Snapshot,
    Trainer,
    borrow,
    has_gpu,
    tensors_at,
)
from keras_transfer.training.exact_stage import solve_stage
from keras_transfer.training.feed import Feed
from keras_transfer.training.forecast import StageForecast, begins_after, forecast_stages
from keras_transfer.training.freezing import freeze_for, frozen_weights, settle
from keras_transfer.training.interrupts import Interrupts, StoppableInference
from keras_transfer.training.losses import build_loss, build_metrics
from keras_transfer.training.optimizers import (
    build_optimizer,
    check_optimizer,
    set_rates,
    trace_key,
)
from keras_transfer.training.progress import Silent
from keras_transfer.training.random_state import kept_random_states
from keras_transfer.training.rate_test import TEST_STEPS, RateCurve, find_rate
from keras_transfer.training.run_result import RunResult, StageRecord
from keras_transfer.training.stage import Stage
from keras_transfer.training.steering import Steering, make_watch

__all__ = ["hand_over", "run_stages"]


def run_stages(
    model: Any,
    blocks: Sequence[Block],
    stages: Sequence[Stage],
    feeds: Sequence[Feed],
    *,
    task: str = "multiclass",
    target_score: float | None = None,
    deadline: float | None = None,
    callbacks: Sequence[Any] = (),
    display: Silent | None = None,
    shared: bool = False,
) -> RunResult:
    """Train a model through stages.

    Ctrl-C ends the training after the batch at hand, or when the step at hand is compiled, and a
    second one at once. The KeyboardInterrupt is not raised here: the result says that it came. What
    was learned is kept: with a validation that steers the best weights so far, else the weights as
    they stand.

    Parameters
    ----------
    model : keras.Model
        Flat: the whole, or the part of it above the lowest freeze boundary; its weights are
        changed.
    blocks : sequence of Block
        The blocks of the whole.
    stages : sequence of Stage
    feeds : sequence of Feed
        One for each stage: what it trains on.
    task : {"multiclass", "multilabel", "regression"}, default="multiclass"
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
    InvalidParameterError
        If the batches of the sample are of another kind than the dataset's, or a stage spreads
        something over its steps, whose number is not known.
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
                inference=None,
                validation=None,
                target_score=target_score,
                deadline=deadline,
                interrupts=interrupts,
            )
            run = _Run(compiled, blocks, task, steering, display)
            if any(feed.sample is not None for feed in feeds):
                display.say("forecast: compiling the stages, and timing a few batches of each")
                with kept_random_states():
                    result.forecast = forecast_stages(
                        compiled, blocks, stages, feeds, steering, run.key, run.prepare
                    )
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                display.show_forecast(result.forecast, steering.may_stop_early, left)
            result.records = run.run_all(stages, feeds, callbacks, result.forecast)
            result.start = run.fine_tuning_start
        if result.records:
            hand_over(model, blocks, result.records[-1].stage, task)
    result.interrupted = interrupts.came
    result.history = steering.history
    result.score = steering.kept_score
    result.answers = steering.kept_answers
    if steering.validation is not None:
        result.score_function = steering.validation.score
    return result


def hand_over(model: Any, blocks: Sequence[Block], last: Stage, task: str) -> None:
    """Leave a model frozen as its last stage was, and compiled with the plain loss of its task.

    A loss of another kind would stand in the saved model as a function that is not Keras's.

    Not averaged: over how many steps of a training to come, that knows who trains. Its rates are
    the highest of the stage.

    Parameters
    ----------
    model : keras.Model
    blocks : sequence of Block
    last : Stage
    task : str
    """
    # Another network may have trained, or a later stage have begun.
    with freeze_for(model, blocks, last):
        pass
    settle(model)
    # The last stage's optimizer may hold other weights than a reload of the model would train:
    # Keras then drops its state, with a warning.
    optimizer = build_optimizer(model, blocks, replace(last, average=None))
    optimizer.build(model.trainable_weights)
    _compile(model, optimizer, task)


@dataclass
class _Run:
    """What all stages of a run have in common."""

    compiled: CompiledNetwork
    blocks: Sequence[Block]
    task: str
    steering: Steering
    display: Silent
    fine_tuning_start: list[Any] | None = None

    def run_all(
        self,
        stages: Sequence[Stage],
        feeds: Sequence[Feed],
        callbacks: Sequence[Any],
        forecast: Sequence[StageForecast],
    ) -> list[StageRecord]:
        """Run the stages, until nothing is left to reach or no time."""
        steering = self.steering
        records: list[StageRecord] = []
        for number, (stage, feed) in enumerate(zip(stages, feeds, strict=True)):
            if number:
                begun = begins_after(forecast, number, records[-1].first_batch_seconds)
                if steering.is_over(begun):
                    break
            is_first = self.fine_tuning_start is None and stage.trained != (HEAD,)
            if is_first and number and stages[number - 1].trained == (HEAD,):
                self.fine_tuning_start = self.compiled.network.get_weights()
            run = _StageRun(self, stage, feed)
            try:
                run.train(callbacks)
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

    def key(self, stage: Stage, feed: Feed) -> Hashable | None:
        """Return what tells the trainer of a stage from others; None if nothing does."""
        traced = trace_key(stage, self.task)
        return None if traced is None else (traced, feed.cut)

    def prepare(self, stage: Stage, feed: Feed) -> Trainer:
        """Return the trainer of a stage that the network is frozen for; attend to its feed."""
        self.attend(feed)
        trainer = self.compiled.trainer(
            self.key(stage, feed), lambda: self._make_trainer(stage, feed)
        )
        set_rates(trainer.optimizer, stage)
        return trainer

    def attend(self, feed: Feed) -> None:
        """Validate with what a feed holds, from now on."""
        inference = None
        if feed.validation is not None:
            inference = StoppableInference(self.compiled, self.steering.interrupts, feed.cut)
        self.steering.attend(feed.validation, inference)

    def _make_trainer(self, stage: Stage, feed: Feed) -> Trainer:
        import keras

        model = network = self.compiled.network
        if is_graph(network):
            # A model of its own, since a model has one optimizer and one compiled step at a time;
            # its layers and weights are the network's, from the cut on.
            read = tensors_at(network, feed.cut)
            model = keras.Model(
                read[0] if len(read) == 1 else read, trained_output(network), name=network.name
            )
        optimizer = build_optimizer(network, self.blocks, stage)
        optimizer.build(network.trainable_weights)
        _compile(model, optimizer, self.task, stage)
        return Trainer(model, optimizer)


class _StageRun:
    """One stage: what it starts from, its training, and what must hold at its end."""

    def __init__(self, run: _Run, stage: Stage, feed: Feed):
        self.run = run
        self.stage = stage
        self.feed = feed
        self.network = run.compiled.network
        self.started = time.monotonic()
        self.start: Any = None  # a Snapshot
        self.trainer: Trainer | None = None  # of a stage that is not solved
        self.watch: Any = None
        self.averaging: Averaging | None = None
        self.curve: RateCurve | None = None
        self.compiling = 0.0  # seconds of the range test's first batch

    def train(self, callbacks: Sequence[Any]) -> None:
        run, stage, feed, steering = self.run, self.stage, self.feed, self.run.steering
        steering.interrupts.check()
        _check_steps(stage, feed)
        self.start = Snapshot(self.network)
        with freeze_for(self.network, run.blocks, stage):
            if feed.solvable is None:
                self.trainer = run.prepare(stage, feed)
                if stage.rate_test:
                    stage = self._find_rate(self.trainer)
                if stage.average == "ema":
                    self.averaging = Averaging(self.trainer.optimizer)
            else:
                run.attend(feed)
            self.rows = tuple(audit(self.network, run.blocks, stage))
            self.watch = make_watch(
                stage,
                steering,
                run.display,
                steps=stage.epochs * feed.steps,
                averaging=self.averaging,
            )
            run.display.start_stage(stage, self.rows, feed.steps, feed.stored)
            steering.begin_stage()
            if self.trainer is None:
                self._solve(callbacks)
            else:
                done = len(steering.epochs)
                self.trainer.model.fit(
                    feed.dataset,
                    initial_epoch=done,
                    epochs=done + stage.epochs,
                    callbacks=[self.watch, *callbacks],
                    shuffle=False,
                    verbose=0,
                )
        steering.interrupts.check()

    def _find_rate(self, trainer: Trainer) -> Stage:
        """Put the rates of a range test in the stage's place, and all else back."""
        run, feed = self.run, self.feed
        sample = feed.dataset if feed.rate_sample is None else feed.rate_sample
        try:
            with kept_random_states(), run.display.counting("learning rate", TEST_STEPS) as advance:
                self.curve, self.compiling = find_rate(
                    trainer, self.stage, sample, run.steering, advance
                )
        finally:
            self.start.restore()
            trainer.reset()
        self.stage = self.stage.at_rate(self.curve.chosen)
        set_rates(trainer.optimizer, self.stage)
        run.display.say(f"{self.stage.name}: learning rate {self.curve.chosen:.2g} by a range test")
        return self.stage

    def _solve(self, callbacks: Sequence[Any]) -> None:
        """Solve the head; to whoever watches, that is one epoch of one step."""
        import keras

        assert self.feed.solvable is not None
        run = self.run
        inference = StoppableInference(run.compiled, run.steering.interrupts, self.feed.cut)
        done = len(run.steering.epochs)
        watchers = keras.callbacks.CallbackList([self.watch, *callbacks], model=self.network)
        watchers.on_train_begin()
        watchers.on_epoch_begin(done)
        watchers.on_train_batch_begin(0)
        data = self.feed.solvable(inference)
        logs = solve_stage(self.network, self.stage, run.task, data)
        watchers.on_train_batch_end(0, logs)
        watchers.on_epoch_end(done, logs)
        watchers.on_train_end(logs)

    def finish(self) -> StageRecord:
        """Check what must hold, and put the best weights back."""
        network, stage, watch = self.network, self.stage, self.watch
        if self.averaging is not None:  # a Ctrl-C may have come at any step
            self.averaging.put_in()
        if self.trainer is None:
            weights = tuple(weight.path for weight in network.trainable_weights)
        else:
            weights = check_optimizer(network, self.trainer.optimizer, stage)
        for weight in frozen_weights(network, self.run.blocks, stage):
            if self.start.differs(weight):
                raise FreezeError(
                    f"stage {stage.name!r}: expected the frozen weight {weight.path!r} to stay as "
                    f"it was. It moved. This is a defect of keras_transfer or of a custom layer "
                    f"that assigns to its weights; please report it with the model."
                )
        # What is solved may have been solved before.
        if self.trainer and not any(map(self.start.differs, network.trainable_weights)):
            raise FreezeError(
                f"stage {stage.name!r}: expected the weights of {', '.join(stage.trained)} to "
                f"train. None moved in {watch.epochs} epoch(s). Is the learning rate 0, or do "
                f"no gradients reach these blocks?"
            )
        self.run.steering.end_stage()
        whole = "epochs" if self.trainer else "solved"
        reason = watch.reason or (whole if watch.epochs == stage.epochs else "callback")
        self.run.display.end_stage(reason)
        return StageRecord(
            stage,
            self.rows,
            weights,
            reason,
            watch.epochs,
            time.monotonic() - self.started,
            max(self.compiling, watch.first_batch_seconds),
            self.feed.stored,
            self.curve,
        )

    def stop(self) -> bool:
        """End it after a KeyboardInterrupt; say whether a batch had ended. If not it is undone."""
        if not self.run.steering.interrupts.is_clean and self.feed.solvable is None:
            # It may have come at any line of Keras's.
            self.run.compiled.forget(self.run.key(self.stage, self.feed))
        if self.watch is not None and self.watch.steps:
            self.watch.reason = "interrupted"
            return True
        if self.start is not None:
            self.start.restore()
        self.run.display.end_stage("interrupted")
        return False


def _check_steps(stage: Stage, feed: Feed) -> None:
    if feed.steps == 0 and (stage.is_scheduled or stage.average == "ema"):
        raise InvalidParameterError(
            f"stage {stage.name!r}: expected a dataset that knows how many batches it has, over "
            f"which schedule, warm_up and average are spread. Received: one that does not. Tell "
            f"it with dataset.apply(tf.data.experimental.assert_cardinality(n))."
        )


def _compile(model: Any, optimizer: Any, task: str, stage: Stage | None = None) -> None:
    model.compile(
        optimizer,
        loss=build_loss(task, stage),
        metrics=build_metrics(task, stage),
        jit_compile=has_gpu(),
    )
