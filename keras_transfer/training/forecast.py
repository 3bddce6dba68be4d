"""A forecast: what each stage will take on this machine, measured on a few batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.backbones.partition import Block
from keras_transfer.backbones.walk import is_graph
from keras_transfer.errors import InvalidParameterError
from keras_transfer.training.compiled import CompiledNetwork, Snapshot, Trainer
from keras_transfer.training.feed import Feed
from keras_transfer.training.freezing import freeze_for
from keras_transfer.training.rate_test import TEST_STEPS
from keras_transfer.training.stage import Stage
from keras_transfer.training.steering import Steering

__all__ = ["StageForecast", "begins_after", "forecast_stages"]

# What is timed after the batches that compile: so many batches at least, and of quick ones more, as
# on a machine that does other work too one takes twice as long as the next.
_TIMED_BATCHES, _TIMED_SECONDS, _MOST_EPOCHS = 4, 1.0, 100


@dataclass(frozen=True)
class StageForecast:
    """What one stage will take; NaN where that was not measured.

    Attributes
    ----------
    stage : str
        Its name.
    epochs : int
        The most that it may train.
    steps : int
        Batches in an epoch; 0 if the dataset does not know.
    first_batch_seconds : float
        Of the batch that compiled. The forecast has spent them: the stage does not compile again.
    batch_seconds : float
        Of each batch after that.
    validation_seconds : float
        Of the validation after each epoch; 0 without.
    seconds : float
        Of all epochs: if it does not stop early. A range test before them is included.
    """

    stage: str
    epochs: int
    steps: int
    first_batch_seconds: float = math.nan
    batch_seconds: float = math.nan
    validation_seconds: float = math.nan
    seconds: float = math.nan

    @property
    def is_measured(self) -> bool:
        """Whether it was timed, and so compiled."""
        return not math.isnan(self.first_batch_seconds)


def forecast_stages(
    compiled: CompiledNetwork,
    blocks: Sequence[Block],
    stages: Sequence[Stage],
    feeds: Sequence[Feed],
    steering: Steering,
    find_key: Callable[[Stage, Feed], Hashable | None],
    prepare: Callable[[Stage, Feed], Trainer],
) -> list[StageForecast]:
    """Time each stage on a few batches; weights and states are put back.

    Every stage is compiled by that, for good. With a deadline only those are that it leaves time
    for: to compile a stage which is never reached would cost the others.

    Parameters
    ----------
    compiled : CompiledNetwork
    blocks : sequence of Block
    stages : sequence of Stage
    feeds : sequence of Feed
        One for each stage. Of the dataset the number of its batches is asked for; it is never read.
    steering : Steering
    find_key : callable
        Gives that by which the trainer of a stage is kept; None if it is not.
    prepare : callable
        Gives the trainer of a stage for which the network is frozen, and tells the steering of it.

    Returns
    -------
    list of StageForecast
        One for each stage.

    Raises
    ------
    InvalidParameterError
        If the batches of the sample are of another kind than the dataset's.
    KeyboardInterrupt
    """
    network = compiled.network
    started = Snapshot(network)
    forecasts: list[StageForecast] = []
    for stage, feed in zip(stages, feeds, strict=True):
        if feed.dataset is None:  # a solved head takes no time to speak of
            forecasts.append(StageForecast(stage.name, 1, 1, seconds=0.0))
            continue
        sample, steps, key = feed.sample, feed.steps, find_key(stage, feed)
        _check_sample(feed)
        # An optimizer that is not Keras's own has no trainer that is kept, and a subclassed model
        # is its own trainer: one at a time.
        can_keep = key is not None and (is_graph(network) or not forecasts)
        can_keep = can_keep and sum(each.is_measured for each in forecasts) < compiled.n_kept
        forecast = StageForecast(stage.name, stage.epochs, steps)
        if can_keep and _has_time(forecasts, steering.deadline):
            try:
                with freeze_for(network, blocks, stage):
                    compiling, opening, pace = _time_batches(
                        prepare(stage, feed), sample, steps, steering
                    )
                known = [
                    each.validation_seconds
                    for each, other in zip(forecasts, feeds, strict=False)
                    if each.is_measured and other.validation is feed.validation
                ]
                validation = known[0] if known else _time_validation(steering)
                steering.validation_seconds = validation  # `begin_stage` need not measure it
            except BaseException:
                if not steering.interrupts.is_clean:
                    compiled.forget(key)
                raise
            finally:
                started.restore()
            epoch = opening + (steps - 1) * pace + validation if steps else math.nan
            whole = stage.epochs * epoch + (TEST_STEPS * pace if stage.rate_test else 0.0)
            forecast = StageForecast(
                stage.name, stage.epochs, steps, compiling, pace, validation, whole
            )
        forecasts.append(forecast)
    return forecasts


def _check_sample(feed: Feed) -> None:
    if feed.sample.element_spec != feed.dataset.element_spec:
        raise InvalidParameterError(
            f"sample: expected batches like the dataset's, {feed.dataset.element_spec}. Received: "
            f"{feed.sample.element_spec}. Make both in the same way."
        )


def begins_after(forecasts: Sequence[StageForecast], number: int, seconds: float) -> float:
    """Return the seconds until the first batch of a stage has ended, compilation included.

    Parameters
    ----------
    forecasts : sequence of StageForecast
        May be empty.
    number : int
        Of the stage.
    seconds : float
        What the first batch of the stage before took.
    """
    if not forecasts or forecasts[number].is_measured:
        return seconds
    # This one is to be compiled yet; the one before may have been compiled by the forecast.
    return max([seconds, *(each.first_batch_seconds for each in forecasts if each.is_measured)])


def _has_time(forecasts: Sequence[StageForecast], deadline: float | None) -> bool:
    """Say whether a deadline leaves time for a stage after those that are forecast."""
    if deadline is None:
        return True
    measured = [each for each in forecasts if each.is_measured]
    compiling = measured[-1].first_batch_seconds if measured else 0.0
    # Of batches without number nothing is known: as if they took no time.
    training = sum(each.seconds for each in measured if not math.isnan(each.seconds))
    return time.monotonic() + training + compiling < deadline


def _time_batches(
    trainer: Trainer, sample: Any, steps: int, steering: Steering
) -> tuple[float, float, float]:
    """Time the batch that compiles, the first one of an epoch, and those after it."""
    import keras

    class Clock(keras.callbacks.Callback):
        """Notes when epochs begin and batches end."""

        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[list[float]] = []
            self.began = time.monotonic()
            self.batches = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epochs.append([time.monotonic()])

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.epochs[-1].append(time.monotonic())
            self.batches += 1
            steering.interrupts.check()
            if _is_late(steering):
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training |= _is_enough(self.batches, self.began)

    def fit(batches: int, epochs: int) -> list[list[float]]:
        clock = Clock()
        trainer.model.fit(
            sample.repeat().take(batches),
            epochs=epochs,
            callbacks=[clock],
            shuffle=False,
            verbose=0,
        )
        return clock.epochs

    ((began, compiled),) = fit(1, 1)
    # Epochs as they will be, where these are short: to begin one takes its own time.
    batches = min(steps or _TIMED_BATCHES, _TIMED_BATCHES)
    epochs = fit(batches, _MOST_EPOCHS)
    openings = [ends[1] - ends[0] for ends in epochs]
    rest = [ends[-1] - ends[1] for ends in epochs]
    opening = sum(openings) / len(epochs)
    later = sum(len(ends) - 2 for ends in epochs)
    pace = sum(rest) / later if later else opening
    return compiled - began, opening, pace


def _time_validation(steering: Steering) -> float:
    validation, inference = steering.validation, steering.inference
    if validation is None or inference is None:
        return 0.0
    batches = int(validation.dataset.cardinality())
    if batches <= 0:  # it does not know
        batches = sum(1 for _ in validation.dataset)
    for batch in validation.dataset.take(1):
        inference(batch[0])
        # The last batch has another size, for which it compiles again.
        inference(
            tuple(each[:-1] for each in batch[0]) if isinstance(batch[0], tuple) else batch[0][:-1]
        )
    began, timed = time.monotonic(), 0
    if batches <= _TIMED_BATCHES:
        # As it will be: to begin to read takes its own time.
        while not timed or not (_is_enough(timed, began) or _is_late(steering)):
            validation(inference)
            timed += batches
    else:
        for batch in validation.dataset.repeat():
            inference(batch[0])
            timed += 1
            if _is_enough(timed, began) or _is_late(steering):
                break
    return (time.monotonic() - began) / timed * batches


def _is_late(steering: Steering) -> bool:
    return steering.deadline is not None and time.monotonic() >= steering.deadline


def _is_enough(batches: int, began: float) -> bool:
    return batches >= _TIMED_BATCHES and time.monotonic() - began >= _TIMED_SECONDS
