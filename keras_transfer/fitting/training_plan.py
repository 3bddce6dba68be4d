"""TrainingPlan: the stages of a fit, to be run on all of its examples or on those of a fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import Block
from keras_transfer.choosing.fine_tuning import FineTuningCheck, check_fine_tuning
from keras_transfer.errors import DataError, DivergedError, FreezeError
from keras_transfer.graph.heads import set_feature_units, set_units
from keras_transfer.inputs.examples import Examples
from keras_transfer.inputs.targets import Targets
from keras_transfer.training.averaging import set_share
from keras_transfer.training.batches import ordered_batches
from keras_transfer.training.feeding import Feeder
from keras_transfer.training.inference import Inference
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.progress import Silent
from keras_transfer.training.run import run_stages
from keras_transfer.training.run_result import RunResult
from keras_transfer.training.stage import Stage
from keras_transfer.training.stored_outputs import StoredOutputs
from keras_transfer.training.validation import Score, Validation

__all__ = ["TrainingPlan"]


@dataclass(frozen=True)
class TrainingPlan:
    """The stages of a fit, to be run on all of its examples or on those of a fold.

    Attributes
    ----------
    network : LazyNetwork
    stored : StoredOutputs or None
    blocks : sequence of Block
    stages : sequence of Stage
    targets : Targets
    batch_size : int
    augmentation : sequence of str or callable
        As `as_augmentation` returns it.
    n_views : int or None
    score : callable
        As for `Validation`.
    steers : bool
        Whether examples that are held out steer the training, or only measure.
    batch_seed, augmentation_seed : int
    """

    network: LazyNetwork
    stored: StoredOutputs | None
    blocks: Sequence[Block]
    stages: Sequence[Stage]
    targets: Targets
    batch_size: int
    augmentation: Sequence[Any]
    n_views: int | None
    score: Score
    steers: bool
    batch_seed: int
    augmentation_seed: int

    def feeder(self, train: Examples, held: Examples | None, model: Any = None) -> Feeder:
        """Return what feeds the stages with examples; the model as for `Feeder`."""
        return Feeder(
            self.network,
            self.stored,
            self.stages,
            train,
            held,
            batch_size=self.batch_size,
            augmentation=self.augmentation,
            n_views=self.n_views,
            model=model,
        )

    def run(
        self,
        feeder: Feeder,
        targets: np.ndarray,
        weights: np.ndarray,
        held: Examples | None,
        *,
        feature_units: tuple[np.ndarray, np.ndarray] | None = None,
        is_long: Callable[[int], bool] = lambda n_batches: False,
        **options: Any,
    ) -> RunResult:
        """Train the feeder's model.

        Parameters
        ----------
        feeder : Feeder
        targets : numpy.ndarray of shape (n, ...)
            Of the training examples, as the loss reads them.
        weights : numpy.ndarray of shape (n,)
        held : Examples or None
            As the feeder has them.
        feature_units : (numpy.ndarray, numpy.ndarray), optional
            Features of examples, and how much each counts, that tell the scale of what the head of
            a regression reads.
        is_long : callable
            Whether so many batches are worth a forecast.
        **options
            Of `run_stages`.
        """
        units = self.targets.units
        if units is not None:
            set_units(feeder.model, *units)
        if feature_units is not None:
            set_feature_units(feeder.model, *feature_units)
        scale = np.ones(1) if units is None else np.asarray(units[1])

        def validate(inputs: Any) -> Validation | None:
            if held is None:
                return None
            return Validation(
                ordered_batches((inputs, held.targets, held.weights), self.batch_size),
                self.targets.task,
                self.score,
                scale=scale,
                steers=self.steers,
            )

        feeds = feeder.feeds(
            targets,
            weights,
            validate,
            task=self.targets.task,
            n_outputs=self.targets.n_outputs,
            batch_seed=self.batch_seed,
            augmentation_seed=self.augmentation_seed,
            is_long=is_long,
        )
        return run_stages(
            feeder.model,
            self.blocks,
            self.stages,
            feeds,
            task=self.targets.task,
            shared=True,
            **options,
        )

    def unseen_outputs(self, feeder: Feeder) -> np.ndarray:
        """Return logits, or standardised numbers, for the examples that are held out.

        Returns
        -------
        numpy.ndarray of shape (n, n_outputs)
            Float64.
        """
        inference = Inference(feeder.model)
        what = "logits" if self.targets.units is None else "outputs"
        outputs = inference.on_inputs(feeder.held_inputs, self.batch_size, what)
        return self.targets.standardise(outputs).astype(np.float64)

    def check_fine_tuning(
        self,
        feeder: Feeder,
        result: RunResult,
        held: Examples,
        weights: np.ndarray,
        shares: Sequence[float],
    ) -> FineTuningCheck | None:
        """Compare the feeder's model with the start of its fine-tuning, on what was held out.

        Parameters
        ----------
        feeder : Feeder
        result : RunResult
            Of its training, with a start.
        held : Examples
            As the feeder has them.
        weights : numpy.ndarray of shape (n,)
            How much each counts.
        shares : sequence of float
            Of the way, that are looked at.
        """
        model, start = feeder.model, result.start
        end = model.get_weights()
        assert start is not None

        def answer(share: float) -> np.ndarray:
            set_share(model, start, end, share)
            return self.unseen_outputs(feeder)

        targets = self.targets.standardise(held.targets)
        try:
            return check_fine_tuning(answer, targets, self.targets.task, weights, shares)
        finally:
            model.set_weights(end)

    def check_on_fold(
        self,
        feeder: Feeder,
        whole: RunResult,
        first: Sequence[np.ndarray],
        examples: Examples,
        targets: np.ndarray,
        weights: np.ndarray,
        is_held: np.ndarray,
        shares: Sequence[float],
        *,
        feature_units: tuple[np.ndarray, np.ndarray] | None = None,
        deadline: float | None = None,
    ) -> tuple[FineTuningCheck | None, bool]:
        """Run all stages without some of the examples, and compare as above on these.

        Parameters
        ----------
        feeder : Feeder
            Of all examples; its model ends as it was.
        whole : RunResult
            Of the training on all.
        first : sequence of numpy.ndarray
            The weights that its model began with.
        examples, targets, weights
            As for `run`.
        is_held : numpy.ndarray of bool, shape (n,)
        shares
            As above.
        feature_units, deadline
            As for `run`.

        Returns
        -------
        check : FineTuningCheck or None
            None if the time was up, or what is left does not train.
        interrupted : bool
            Whether Ctrl-C ended it.
        """
        # At the rates that a range test found for all: it is this training that is asked about.
        stages = [replace(record.stage, rate_test=False) for record in whole.records]
        plan = replace(self, stages=stages)
        model = feeder.model
        end = model.get_weights()
        rest, held = examples[np.flatnonzero(~is_held)], examples[np.flatnonzero(is_held)]
        try:
            model.set_weights(first)
            other = plan.feeder(rest, held, model)
            other.run(deadline, Silent())
            if other.boundary != feeder.boundary:  # the pass would have taken too long
                return None, False
            result = plan.run(
                other,
                targets[~is_held],
                weights[~is_held],
                None,  # the scores of each epoch are nobody's interest
                feature_units=feature_units,
                deadline=deadline,
            )
            is_whole = len(result.records) == len(stages)
            is_late = any(record.reason == "time budget" for record in result.records)
            if result.interrupted or is_late or not is_whole or result.start is None:
                return None, result.interrupted
            return plan.check_fine_tuning(other, result, held, weights[is_held], shares), False
        except KeyboardInterrupt:
            return None, True
        except (DivergedError, FreezeError, DataError):
            return None, False
        finally:
            model.set_weights(end)
