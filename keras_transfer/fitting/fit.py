"""One fit: from a task to a trained network, and what can be said of it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.partition import LOGITS
from keras_transfer.choosing.block_choice import BlockChoice
from keras_transfer.choosing.calibration import SPREAD, find_temperature
from keras_transfer.choosing.fine_tuning import FineTuningCheck
from keras_transfer.choosing.guard import SourceCheck, check_source
from keras_transfer.choosing.novelty import SeenExamples, choose_seen
from keras_transfer.choosing.out_of_fold import OutOfFold
from keras_transfer.choosing.readout_choice import ReadoutChoice
from keras_transfer.choosing.trial import Trial
from keras_transfer.errors import warn
from keras_transfer.fitting.settings import FitSettings
from keras_transfer.fitting.structure import Structure, choose_structure
from keras_transfer.fitting.task import Task
from keras_transfer.fitting.training_plan import TrainingPlan
from keras_transfer.graph.augmentation import as_augmentation
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.heads import Head, wants_feature_units
from keras_transfer.graph.readout import Readout
from keras_transfer.inputs.data_look import look_at
from keras_transfer.inputs.data_report import DataReport
from keras_transfer.inputs.picture_files import naming_broken_files
from keras_transfer.training.averaging import SHARES, WISE, set_share
from keras_transfer.training.feeding import Feeder
from keras_transfer.training.fitted import FittedNetwork
from keras_transfer.training.inference import Inference
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.run_result import RunResult
from keras_transfer.training.stored_outputs import StoredOutputs
from keras_transfer.training.validation import Answers, score_of, standard_error

__all__ = ["FitResult", "run_fit"]

# Batches from which on a forecast is worth the few that it takes.
_LONG = 200


@dataclass(frozen=True)
class FitResult:
    """A trained network, and what can be said of it.

    Attributes
    ----------
    network : FittedNetwork
    backbone : Backbone
    readout : ReadoutChoice
    train_blocks : BlockChoice or None
    source : SourceCheck or None
        Whether the source helps.
    fine_tuning : FineTuningCheck or None
        Whether fine-tuning does.
    run : RunResult
    report : DataReport
    seen : SeenExamples or None
        None where Ctrl-C came before.
    temperature : float
        By which the logits are divided.
    score, standard_error : float
        Of the validation; NaN where nothing can be told.
    interrupted : bool
        Whether Ctrl-C ended it early.
    """

    network: FittedNetwork
    backbone: Backbone
    readout: ReadoutChoice
    train_blocks: BlockChoice | None
    source: SourceCheck | None
    fine_tuning: FineTuningCheck | None
    run: RunResult
    report: DataReport
    seen: SeenExamples | None
    temperature: float
    score: float
    standard_error: float
    interrupted: bool


def run_fit(task: Task, settings: FitSettings) -> FitResult:
    """Choose what is left open, train, and judge what came out.

    Parameters
    ----------
    task : Task
    settings : FitSettings

    Returns
    -------
    FitResult

    Raises
    ------
    KerasTransferError
        Before anything is learned also a KeyboardInterrupt; afterwards it is told in the result.
    """
    with isolated_seed(settings.seeds.weights), naming_broken_files(*task.inputs):
        fit = _Fit(task, settings)
        fit.feeder.run(settings.deadline, settings.display)
        fit.check_source()
        best = None if fit.source is None else fit.source.best
        if best is not None and settings.guard == "best":
            settings.display.say(str(fit.source))
            return replace(run_fit(task, settings.of_rival(best)), source=fit.source)
        if best is not None:
            warn(str(fit.source))
        fit.look_at_data()
        fit.train()
        try:  # what was learned is there: a Ctrl-C ends what is asked about it, no more
            fit.check_fine_tuning()
            fit.remember()
        except KeyboardInterrupt:
            fit.interrupted = True
        fit.structure.network.release()
        return fit.judge()


@dataclass
class _Fit:
    """A fit under way: its steps, in their order, and what each leaves to the next."""

    task: Task
    settings: FitSettings
    folds: OutOfFold | None = None
    source: SourceCheck | None = None
    report: DataReport = field(init=False)
    feature_units: tuple[np.ndarray, np.ndarray] | None = None
    initial_weights: Sequence[np.ndarray] = ()
    run: RunResult = field(init=False)
    seconds: float = 0.0
    fine_tuning: FineTuningCheck | None = None
    seen: SeenExamples | None = None
    interrupted: bool = False

    @functools.cached_property
    def trial(self) -> Trial:
        """The training examples, as choices are made on them."""
        task = self.task
        return Trial(
            inputs=task.train.inputs,
            keys=task.train.keys(),
            targets=task.trained_targets,
            task=task.targets.task,
            n_outputs=task.targets.n_outputs,
            weights=task.weights,
            groups=task.groups,
            memory=self.settings.memory,
            reader=repr(task.reader),
            seed=self.settings.seeds.folds,
        )

    @functools.cached_property
    def structure(self) -> Structure:
        """Where the network is read, and which of its blocks train."""
        task, settings = self.task, self.settings
        head = Head(task.targets.task, task.targets.n_outputs, settings.recipe.dropout)
        return choose_structure(
            Blueprint(
                settings.backbone, head, task.reader.shape, Readout(), settings.seeds.weights
            ),
            self.trial,
            settings.recipe,
            settings.readout,
            deadline=settings.deadline,
            display=settings.display,
        )

    @functools.cached_property
    def plan(self) -> TrainingPlan:
        """The stages, and all that they take."""
        task, settings, structure = self.task, self.settings, self.structure
        recipe, memory = structure.recipe, settings.memory
        return TrainingPlan(
            network=structure.network,
            stored=(
                None
                if memory is None
                else StoredOutputs(structure.network, memory, repr(task.reader))
            ),
            blocks=structure.blocks,
            stages=recipe.stages(
                structure.blocks,
                len(task.train) * (recipe.n_views or 1),
                batch_size=settings.batch_size,
                pretrained=structure.pretrained,
            ),
            targets=task.targets,
            batch_size=settings.batch_size,
            augmentation=as_augmentation(recipe.augmentation),
            n_views=recipe.n_views,
            score=settings.score,
            steers=task.steers,
            batch_seed=settings.seeds.batches,
            augmentation_seed=settings.seeds.augmentation,
        )

    @functools.cached_property
    def feeder(self) -> Feeder:
        """What feeds the stages."""
        return self.plan.feeder(self.task.train, self.task.held)

    @property
    def is_wise(self) -> bool:
        """Whether the weights are to stand where unseen examples are answered best."""
        return self.settings.recipe.average == WISE

    # === Before the training ===

    def check_source(self) -> None:
        """Let exact heads answer out of fold, by the pass that was made, and compare the source."""
        task, settings = self.task, self.settings
        measures = task.held is not None and task.steers
        guards = settings.guard is not None and self.structure.pretrained
        is_asked = guards or (settings.validation is not None and not measures)
        # Of random weights that train along, a head on them as they are tells nothing.
        tells = self.structure.pretrained or self.structure.recipe.is_solved
        if not is_asked or not tells or self.trial.why_not:
            return
        folds = self.trial.answer_from(self.structure.blueprint, settings.deadline)
        if folds is None or not folds.weights.any():  # as where each class is all in one group
            return
        self.folds = folds
        if guards:
            answer = functools.partial(self.trial.answer_from, deadline=settings.deadline)
            self.source = check_source(self.structure.blueprint, self.folds, answer)

    def look_at_data(self) -> None:
        """Look at the data through the pretrained network, and say what is to be done about it."""
        task, feeder = self.task, self.feeder
        parts = [task.train] if task.held is None else [task.train, task.held]
        labels = task.targets.labels(np.concatenate([part.targets for part in parts]))
        looked_at = np.arange(0), np.zeros((0, 0), np.float32)

        def features_of(rows: np.ndarray) -> np.ndarray:
            if task.reader.has_columns:  # they are the user's own features
                return np.zeros((len(rows), 0), np.float32)
            nonlocal looked_at
            start, seen = 0, []
            for number, part in enumerate(parts):
                of_part = rows[(rows >= start) & (rows < start + len(part))] - start
                seen.append(feeder.features(of_part, number))
                start += len(part)
            looked_at = rows[rows < len(task.train)], seen[0]
            return np.concatenate(seen)

        self.report = look_at(
            features_of,
            labels,
            np.concatenate([part.names for part in parts]).tolist(),
            digests=np.concatenate([part.digests for part in parts]),
            n_train=len(task.train),
        )
        if not task.reader.has_columns:
            for sentence in self.report.warnings(balanced=task.class_weight is not None):
                warn(sentence)
        # What the head of a regression reads is brought to one scale: it was computed just now.
        if wants_feature_units(task.targets.task, task.reader.shape, self.structure.pretrained):
            rows, features = looked_at
            self.feature_units = features, task.train.weights[rows]

    # === The training ===

    def train(self) -> None:
        """Run the stages."""
        task, settings, feeder = self.task, self.settings, self.feeder
        began = time.monotonic()
        if len(self.plan.stages) > 1:
            self.initial_weights = feeder.model.get_weights()
        self.run = self.plan.run(
            feeder,
            task.trained_targets,
            task.weights,
            task.held,
            feature_units=self.feature_units,
            is_long=lambda n_batches: settings.display.is_shown and n_batches >= _LONG,
            target_score=settings.target_score,
            deadline=settings.deadline,
            callbacks=settings.callbacks,
            display=settings.display,
        )
        self.seconds = time.monotonic() - began
        self.interrupted = self.run.interrupted

    def check_fine_tuning(self) -> None:
        """Ask what fine-tuning did for examples that it has not seen, and follow it so far."""
        run = self.run
        is_asked = self.settings.guard is not None or self.is_wise
        if not is_asked or not self.structure.pretrained or run.start is None or self.interrupted:
            return
        found = self._compare_with_start()
        if found is None:
            if self.is_wise and not self.interrupted:
                warn(
                    "average: expected unseen examples that tell how far fine-tuning is to be "
                    "followed. Nothing could be told: the weights are those at its end."
                )
            return
        share = self._share(found)
        if share != 1:
            model = self.feeder.model
            set_share(model, run.start, model.get_weights(), share)
        self.fine_tuning = replace(found, taken=share)

    @property
    def share(self) -> float:
        """How far fine-tuning is followed."""
        return 1.0 if self.fine_tuning is None else self.fine_tuning.taken

    def _compare_with_start(self) -> FineTuningCheck | None:
        """Compare by what is held out, or by a fold; None where nothing can be told."""
        task, settings, run = self.task, self.settings, self.run
        shares = SHARES if self.is_wise else (SHARES[0], SHARES[-1])
        if any(record.reason == "callback" for record in run.records):
            return None  # one of the user's ended it, which the fold would not see
        if task.held is not None:
            if settings.is_late:
                return None
            # As the training examples are weighted, so that a rare class counts as it did there.
            weights = task.weigh(task.held)
            return self.plan.check_fine_tuning(self.feeder, run, task.held, weights, shares)
        if settings.validation != "auto" or self.trial.why_not:
            return None
        is_held, deadline = self.trial.left_out, settings.deadline
        if not is_held.any() or (
            deadline is not None and time.monotonic() + self.seconds > deadline
        ):
            return None
        settings.display.say(
            f"fine-tuning without {is_held.mean():.0%} of the examples, to see what it does for "
            f"them"
        )
        found, self.interrupted = self.plan.check_on_fold(
            self.feeder,
            run,
            self.initial_weights,
            task.train,
            task.trained_targets,
            task.weights,
            is_held,
            shares,
            feature_units=self.feature_units,
            deadline=deadline,
        )
        return found

    def _share(self, found: FineTuningCheck) -> float:
        """Return how far fine-tuning is followed, and say so where it does harm."""
        if self.is_wise:
            return found.wisest
        if not found.has_lost:
            return 1.0
        if self.settings.guard == "best":
            self.settings.display.say(str(found))
            return 0.0
        warn(str(found))
        return 1.0

    def remember(self) -> None:
        """Keep what is needed to tell what was never seen."""
        task = self.task
        rows = choose_seen(task.train.targets, task.targets.task, self.trial.keys)
        groups = None if task.groups is None else task.groups[rows]
        self.seen = SeenExamples.from_features(self.feeder.trained_features(rows), groups)

    # === How sure it is, and how good ===

    def judge(self) -> FitResult:
        """Set the temperature, and score."""
        task, settings, structure, run = self.task, self.settings, self.structure, self.run
        last = run.records[-1].stage if run.records else self.plan.stages[0]
        temperature = self._temperature(is_exact=last.solver == "exact" or self.share == 0)
        model = self.feeder.model
        if temperature != 1:
            head = model.get_layer(LOGITS)
            head.set_weights([weight / temperature for weight in head.get_weights()])
        answers = self._answers(temperature)
        scored = math.nan, math.nan
        if answers is not None:
            scored = score_of(settings.score, answers), standard_error(settings.score, answers)
        return FitResult(
            network=FittedNetwork(
                structure.network,
                model,
                self.feeder.lowest,
                len(task.train),
                blocks=structure.blocks,
                last=last,
                task=task.targets.task,
            ),
            backbone=settings.backbone,
            readout=structure.readout,
            train_blocks=structure.train_blocks,
            source=self.source,
            fine_tuning=self.fine_tuning,
            run=run,
            report=self.report,
            seen=self.seen,
            temperature=temperature,
            score=scored[0],
            standard_error=scored[1],
            interrupted=self.interrupted,
        )

    def _temperature(self, *, is_exact: bool) -> float:
        """Return what logits are to be divided by, as examples tell that were not trained on."""
        task, settings = self.task, self.settings
        if settings.calibration is None or task.targets.task == "regression":
            return 1.0
        if task.held is not None and task.steers and self.run.answers is not None:
            logits = self.plan.unseen_outputs(self.feeder)[np.newaxis]
            held = task.held
            temperature, _ = find_temperature(
                logits, held.targets, task.targets.task, held.weights, SPREAD
            )
            return temperature
        if self.folds is not None and settings.validation is not None and is_exact:
            return self.folds.temperature
        if self.fine_tuning is not None:
            return self.fine_tuning.temperature
        return 1.0

    def _answers(self, temperature: float) -> Answers | None:
        """Return what the validation score is of; None where nothing can be told."""
        task, settings = self.task, self.settings
        if task.held is None and settings.validation == "auto" and self.folds is not None:
            return self._out_of_fold(self.folds)
        answers = self.run.answers
        if answers is not None and task.held is not None and (temperature != 1 or self.share != 1):
            inference = Inference(self.feeder.model)
            outputs = inference.on_inputs(self.feeder.held_inputs, settings.batch_size)
            return task.held.targets, outputs, task.held.weights
        return answers

    def _out_of_fold(self, folds: OutOfFold) -> Answers:
        """Return out-of-fold answers in the user's units."""
        examples, rows, targets = self.task.train, self.trial.rows, self.task.targets
        truth, outputs, _ = folds.answers(examples.targets[rows], targets.task)
        return truth, targets.restore(outputs), examples.weights[rows][folds.weights > 0]
