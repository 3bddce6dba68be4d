"""One fit of a classifier or regressor, from raw X and y to a trained model."""

from __future__ import annotations

import abc
import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import _safe_indexing, check_random_state

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.partition import LOGITS
from keras_transfer.backbones.registry import as_backbone
from keras_transfer.choosing.block_choice import choose_blocks
from keras_transfer.choosing.fine_tuning import FineTuningCheck
from keras_transfer.choosing.guard import GUARDS, SourceCheck, check_source
from keras_transfer.choosing.novelty import SeenExamples, choose_seen
from keras_transfer.choosing.out_of_fold import OutOfFold
from keras_transfer.choosing.readout_choice import AUTO, choose_readout, given_readout
from keras_transfer.choosing.trial import Trial
from keras_transfer.errors import DataError, InvalidParameterError, InvalidTypeError, warn
from keras_transfer.estimators.base import BaseTransfer, check_lengths, count_rows
from keras_transfer.estimators.scoring import output_score
from keras_transfer.estimators.training_plan import TrainingPlan
from keras_transfer.graph.augmentation import as_augmentation
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.heads import Head, wants_feature_units
from keras_transfer.graph.readout import Readout, as_readout
from keras_transfer.inputs.examples import Examples
from keras_transfer.inputs.features import FeatureInput
from keras_transfer.inputs.picture_files import Loaded, naming_broken_files
from keras_transfer.inputs.pictures import PictureInput
from keras_transfer.inputs.sources import is_source, open_labelled
from keras_transfer.inputs.splits import deal_folds, has_enough, hold_out
from keras_transfer.inputs.targets import ClassTargets, LabelTargets, NumberTargets
from keras_transfer.inputs.weights import check_sample_weight
from keras_transfer.modes import as_recipe
from keras_transfer.parameters import NONE, Constraint, instance_of, number, one_of, satisfying
from keras_transfer.recipe import AUTO_BLOCKS, Recipe
from keras_transfer.training.activation_store import as_memory
from keras_transfer.training.averaging import SHARES, WISE, set_share
from keras_transfer.training.callbacks import fresh_callbacks
from keras_transfer.training.data_look import look_at
from keras_transfer.training.data_report import DataReport
from keras_transfer.training.feeding import Feeder
from keras_transfer.training.fitted import FittedNetwork
from keras_transfer.training.inference import Inference
from keras_transfer.training.progress import Silent, open_display
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.run import RunResult
from keras_transfer.training.stored_outputs import StoredOutputs
from keras_transfer.training.validation import (
    Answers,
    score_of,
    standard_error,
)

__all__ = ["SupervisedTransfer"]

_SEED_RANGE = 2**31
# Batches from which on a forecast is worth the few that it takes.
_LONG = 200
# Share held out where there are enough examples, or where a target score asks for a validation.
HELD_OUT = 0.2
# One part of so many is left out to see what fine-tuning does for examples that it has not seen.
LEFT_OUT = 4
# Of the rest alone, fine-tuning on less would be another one.
_MOST_LEFT_OUT = 0.5


@dataclass(frozen=True)
class _Given:
    """What fit was given, read and checked."""

    reader: PictureInput | FeatureInput
    columns: dict[str, Any]
    targets: ClassTargets | LabelTargets | NumberTargets
    examples: Examples
    groups: np.ndarray | None
    loaded: Loaded


class SupervisedTransfer(BaseTransfer, abc.ABC):
    """Base of the estimators that train; its parameters are documented with each."""

    _constraints: Mapping[str, Constraint] = {
        **BaseTransfer._constraints,
        "recipe": satisfying(as_recipe, "'parameter', 'structure', 'composite' or a Recipe"),
        "validation": one_of("auto") | NONE | number(0, 0.9, above=True),
        "target_score": NONE | number(-np.inf),
        "time_budget": NONE | number(0, above=True),
        "callbacks": NONE | instance_of((list, tuple), "a list of callbacks"),
        "guard": NONE | one_of(*GUARDS),
        "on_error": one_of("raise", "skip"),
        "verbose": one_of("auto", True, False, 0, 1),
    }
    _private_state = (*BaseTransfer._private_state, "_seen", "_targets")

    def __init__(
        self,
        backbone: Any = "EfficientNetLite0",
        recipe: Any = "composite",
        *,
        readout: Any = AUTO,
        modality: str | None = None,
        image_size: Any = None,
        batch_size: int = 32,
        validation: Any = "auto",
        scoring: Any = None,
        target_score: float | None = None,
        time_budget: float | None = None,
        guard: str | None = "warn",
        memory: Any = None,
        on_error: str = "raise",
        callbacks: Any = None,
        random_state: Any = None,
        verbose: Any = "auto",
    ):
        self.backbone = backbone
        self.recipe = recipe
        self.readout = readout
        self.modality = modality
        self.image_size = image_size
        self.batch_size = batch_size
        self.validation = validation
        self.scoring = scoring
        self.target_score = target_score
        self.time_budget = time_budget
        self.guard = guard
        self.memory = memory
        self.on_error = on_error
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of the recipe as ``recipe__name``.

        Parameters
        ----------
        **params

        Returns
        -------
        Self
            Itself.

        Raises
        ------
        InvalidParameterError
            If a setting of the recipe is named while the recipe is a mode's name.
        """
        nested = [key for key in params if key.startswith("recipe__")]
        recipe = params.get("recipe", self.recipe)
        if nested and isinstance(recipe, str):
            mode = type(as_recipe(recipe)).__name__
            raise InvalidParameterError(
                f"{nested[0]}: expected a recipe whose settings can be set. Received: "
                f"recipe={recipe!r}, a name. Pass an instance: recipe={mode}()."
            )
        return super().set_params(**params)

    @abc.abstractmethod
    def _read_targets(self, y: Any, weights: np.ndarray | None) -> Any:
        """Decide from y what the model is to answer."""

    def _class_weights(
        self, targets: Any, encoded: np.ndarray, weights: np.ndarray | None
    ) -> np.ndarray | None:
        """Return a factor for each example; regressors have no classes."""
        return None

    def _temperature(
        self, task: str, logits: np.ndarray | None, held: Examples | None, unseen: float | None
    ) -> float:
        """Return what logits are to be divided by; numbers have none."""
        return 1.0

    def _check_fine_tuning(
        self,
        plan: TrainingPlan,
        feeder: Feeder,
        result: RunResult,
        first: Sequence[np.ndarray],
        trial: Trial,
        examples: Examples,
        held: Examples | None,
        *,
        shares: Sequence[float],
        feature_units: tuple[np.ndarray, np.ndarray] | None,
        deadline: float | None,
        seconds: float,
        display: Silent,
    ) -> tuple[FineTuningCheck | None, bool]:
        """Compare fine-tuning with its start, by what is held out or by a fold.

        Returns None where nothing can be told or there is no time, and whether Ctrl-C came.
        """
        if any(record.reason == "callback" for record in result.records):
            return None, False  # one of the user's ended it, which the fold would not see
        if held is not None:
            if deadline is not None and time.monotonic() > deadline:
                return None, False
            # As the training examples are weighted, so that a rare class counts as it did there.
            weights = self._example_weights(plan.targets, held)
            return plan.check_fine_tuning(feeder, result, held, weights, shares), False
        if self.validation != "auto" or trial.why_not:
            return None, False
        is_held = _left_out(trial)
        if not is_held.any() or (deadline is not None and time.monotonic() + seconds > deadline):
            return None, False
        display.say(
            f"fine-tuning without {is_held.mean():.0%} of the examples, to see what it does for "
            f"them"
        )
        return plan.check_on_fold(
            feeder,
            result,
            first,
            examples,
            trial.targets,
            trial.weights,
            is_held,
            shares,
            feature_units=feature_units,
            deadline=deadline,
        )

    def _share(self, tuning: FineTuningCheck | None, recipe: Recipe, display: Silent) -> float:
        """Return how far fine-tuning is followed, and say so where it does harm."""
        if tuning is None:
            return 1.0
        if recipe.average == WISE:
            return tuning.wisest
        if not tuning.has_lost:
            return 1.0
        if self.guard == "best":
            display.say(str(tuning))
            return 0.0
        warn(str(tuning))
        return 1.0

    def _check_parameters(self) -> None:
        if isinstance(self.recipe, str):  # its own message lists the names
            as_recipe(self.recipe)
        super()._check_parameters()
        as_recipe(self.recipe).check()

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        groups: Any = None,
        validation_data: Any = None,
    ) -> Self:
        """Transfer to the task that X and y show.

        Parameters
        ----------
        X : array, sequence of pictures, str, path or tf.data.Dataset
            Pictures as an array of shape (n, h, w) or (n, h, w, c), grey, RGB or RGBA, of 0..1,
            -1..1, 0..255 or 0..65535; or features of shape (n, n_features). Or a list, array,
            Series or one-column table of paths, of the contents of JPEG, PNG, BMP, GIF or WebP
            files, of Pillow pictures, or of arrays of different sizes. Or what brings its labels:
            a folder of class folders, a CSV of path and label, a dataset of (picture, label).
        y : array-like of shape (n,) or (n, n_outputs), optional
            For a classifier labels of any hashable kind, or an indicator matrix of 0 and 1, of
            which every column is learned. For a regressor numbers, in any units. Left out where X
            brings it.
        sample_weight : array-like of shape (n,), optional
            How much each example counts. A row of weight 0 is as if it were not there.
        groups : array-like of shape (n,), optional
            Examples of one group (a voice, a patient) stay on one side of the validation split.
        validation_data : (X, y), (X, y, sample_weight), str, path or tf.data.Dataset, optional
            Held-out data, as X and y; then none is split off.

        Returns
        -------
        Self
            Itself. If fitting fails, an earlier fit stays usable.

        Raises
        ------
        DataError
            If X, y or sample_weight cannot be used.
        InvalidParameterError
            If a parameter cannot.
        """
        started, groups_given = time.monotonic(), groups
        self._check_parameters()
        callbacks = fresh_callbacks(self.callbacks)
        recipe, backbone = as_recipe(self.recipe), as_backbone(self.backbone)
        with open_display(self.verbose) as display:
            # === What there is to learn from ===
            given = self._read_given(X, y, sample_weight, groups, backbone, display)
            reader, targets, examples = given.reader, given.targets, given.examples
            score = output_score(self.scoring, targets)
            self._check_measured(validation_data)
            if as_augmentation(recipe.augmentation) and not isinstance(reader, PictureInput):
                raise InvalidParameterError(
                    f"augmentation: expected None for vectors of features. Received: "
                    f"{recipe.augmentation!r}, which changes pictures."
                )
            recipe.check_task(targets.task, isinstance(reader, PictureInput))
            held = self._held_out(validation_data, given)

            # One stream of random numbers: whoever draws, draws in this order.
            random_state = check_random_state(self.random_state)
            weight_seed, split_seed, batch_seed, augmentation_seed, fold_seed = (
                int(n) for n in random_state.randint(_SEED_RANGE, size=5)
            )
            groups = given.groups
            enough = has_enough(examples.targets, groups)
            # A few examples held out for the sake of a target score only measure.
            steers = held is not None or self.validation != "auto" or enough
            fraction = self.validation
            if fraction == "auto":
                fraction = HELD_OUT if enough or self.target_score is not None else None
            if held is None and fraction is not None:
                rng = np.random.default_rng(split_seed)
                train, rows = hold_out(examples.targets, fraction, rng, groups)
                examples, held = examples[train], examples[rows]
                groups = None if groups is None else groups[train]

            # === The model, and its training ===
            names = as_augmentation(recipe.augmentation)
            memory = as_memory(self.memory)
            deadline = None if self.time_budget is None else started + self.time_budget
            inputs_read = (examples.inputs, None if held is None else held.inputs)
            with isolated_seed(weight_seed), naming_broken_files(*inputs_read):
                trained_targets = examples.targets
                if isinstance(targets, NumberTargets):
                    trained_targets = targets.standardise(examples.targets)
                weights = self._example_weights(targets, examples)
                head = Head(targets.task, targets.n_outputs, recipe.dropout)
                blueprint = Blueprint(backbone, head, reader.shape, Readout(), weight_seed)
                trial = Trial(
                    examples.inputs,
                    examples.keys(),
                    trained_targets,
                    targets.task,
                    targets.n_outputs,
                    weights,
                    groups,
                    memory,
                    repr(reader),
                    fold_seed,
                )
                choice, readout, reason = None, Readout(), "the last block: all is trained along"
                if self.readout != AUTO:
                    readout, reason = as_readout(self.readout), "given"
                elif recipe.chooses_readout:
                    with display.counting("where to read", len(examples)) as advance:
                        choice = choose_readout(
                            blueprint,
                            trial,
                            train_blocks=None if _is_auto(recipe) else recipe.train_blocks,
                            advance=advance,
                            deadline=deadline,
                        )
                    if choice.ranking:
                        display.say(f"read at {choice}")
                    readout = choice.readout
                network = trial.network(replace(blueprint, readout=readout))
                if choice is None:
                    choice = given_readout(readout, network, reason)
                blocks, pretrained = network.outline.blocks, not network.is_random
                trained_blocks = None
                if _is_auto(recipe):
                    trained_blocks = choose_blocks(network, trial, blocks, deadline)
                    display.say(f"trains {trained_blocks}")
                    recipe = clone(recipe).set_params(train_blocks=trained_blocks.names)

                stages = recipe.stages(
                    blocks,
                    len(examples) * (recipe.n_views or 1),
                    batch_size=self.batch_size,
                    pretrained=pretrained,
                )
                plan = TrainingPlan(
                    network=network,
                    stored=None if memory is None else StoredOutputs(network, memory, repr(reader)),
                    blocks=blocks,
                    stages=stages,
                    targets=targets,
                    batch_size=self.batch_size,
                    augmentation=names,
                    n_views=recipe.n_views,
                    score=score,
                    steers=steers,
                    batch_seed=batch_seed,
                    augmentation_seed=augmentation_seed,
                )
                feeder = plan.feeder(examples, held)
                feeder.run(deadline, display)

                # What exact heads answer for examples that they have not seen, by the pass above.
                folds, source = None, None
                reading = replace(blueprint, readout=readout)
                measures = held is not None and steers
                is_asked = self.guard is not None or (self.validation is not None and not measures)
                if is_asked and pretrained and not trial.why_not:
                    folds = trial.answer_from(reading, deadline)
                if folds is not None and self.guard is not None:
                    answer_from = functools.partial(trial.answer_from, deadline=deadline)
                    source = check_source(reading, folds, answer_from)
                    if source.best is not None and self.guard == "best":
                        display.say(str(source))
                        return self._take_rival(
                            source, deadline, X, y, sample_weight, groups_given, validation_data
                        )
                    if source.best is not None:
                        warn(str(source))

                report, (rows, features) = self._look_at(feeder, given, examples, held)
                feature_units = None
                if wants_feature_units(targets.task, reader.shape, pretrained):
                    feature_units = features, examples.weights[rows]

                # === Training ===
                began, model = time.monotonic(), feeder.model
                first = model.get_weights() if len(stages) > 1 else []
                result = plan.run(
                    feeder,
                    trained_targets,
                    weights,
                    held,
                    feature_units=feature_units,
                    is_long=lambda n_batches: display.is_shown and n_batches >= _LONG,
                    target_score=self.target_score,
                    deadline=deadline,
                    callbacks=callbacks,
                    display=display,
                )
                interrupted, tuning, seen = result.interrupted, None, None
                is_asked = self.guard is not None or recipe.average == WISE
                try:  # what was learned is there: a Ctrl-C ends what is asked about it, no more
                    if is_asked and pretrained and result.start is not None and not interrupted:
                        tuning, interrupted = self._check_fine_tuning(
                            plan,
                            feeder,
                            result,
                            first,
                            trial,
                            examples,
                            held,
                            shares=SHARES if recipe.average == WISE else SHARES[:: len(SHARES) - 1],
                            feature_units=feature_units,
                            deadline=deadline,
                            seconds=time.monotonic() - began,
                            display=display,
                        )
                    share = self._share(tuning, recipe, display)
                    if share != 1 and result.start is not None:
                        set_share(model, result.start, model.get_weights(), share)
                    if tuning is not None:
                        tuning = replace(tuning, taken=share)
                    elif recipe.average == WISE and result.start and not interrupted:
                        warn(
                            "average: expected unseen examples that tell how far fine-tuning is to "
                            "be followed. Nothing could be told: the weights are those at its end."
                        )
                    rows = choose_seen(examples.targets, targets.task, trial.keys)
                    seen = SeenExamples.from_features(
                        feeder.trained_features(rows), None if groups is None else groups[rows]
                    )
                except KeyboardInterrupt:
                    share, interrupted = 1.0 if tuning is None else tuning.taken, True
                network.release()
        last = result.records[-1].stage if result.records else stages[0]
        # === How sure it is, and how good ===
        logits, answers = None, result.answers
        if held is None and self.validation == "auto" and folds is not None:
            answers = self._decode(folds, trial, targets, examples)
        if answers is not None and steers and targets.task != "regression" and held is not None:
            logits = plan.unseen_outputs(feeder)
        unseen = None
        if (
            folds is not None
            and self.validation is not None
            and (last.solver == "exact" or share == 0)
        ):
            unseen = folds.temperature
        elif tuning is not None:
            unseen = tuning.temperature(share)
        temperature = self._temperature(targets.task, logits, held, unseen)
        if temperature != 1:
            head = model.get_layer(LOGITS)
            head.set_weights([weight / temperature for weight in head.get_weights()])
        if answers is not None and held is not None and (temperature != 1 or share != 1):
            outputs = Inference(model).on_inputs(feeder.held_inputs, self.batch_size)
            answers = held.targets, outputs, held.weights
        scored = math.nan, math.nan
        if answers is not None:
            scored = score_of(score, answers), standard_error(score, answers)
        self._set_fitted(
            {
                "backbone_": backbone,
                "readout_": choice,
                "guard_": source,
                "train_blocks_": trained_blocks,
                "fine_tuning_": tuning,
                "stages_": result.records,
                "history_": result.history,
                "n_iter_": len(result.history["epoch"]),
                **({} if targets.task == "regression" else {"temperature_": temperature}),
                "validation_score_": scored[0],
                "validation_standard_error_": scored[1],
                "data_report_": report,
                "_reader": reader,
                "_seen": seen,
                "_targets": targets,
                **given.columns,
            },
            FittedNetwork(
                network,
                model,
                feeder.lowest,
                len(examples),
                blocks=blocks,
                last=last,
                task=targets.task,
            ),
        )
        if interrupted:  # what was learned is there; whoever called is to stop as well
            raise KeyboardInterrupt
        return self

    def novelty(self, X: Any) -> np.ndarray:
        """Return how unlike the training examples inputs are.

        The distance of what the head reads of an input, from the mean and brought to length 1, to
        the nearest training example [1]_. `SeenExamples` says what was measured.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n,)
            Float32, 0 for a training example that is kept, of at most 1,000. 1 is the distance that
            95 % of the training examples lie within of their nearest other one (with ``groups``, in
            another group): above 1 an input is unlike what was seen, and an answer to it is a
            guess. New inputs of the same kind are so more often where they differ from the examples
            in other ways, as by another writer, or where fine-tuning drew these together.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If X cannot be used, or its values lie in another range than in `fit`.

        References
        ----------
        .. [1] Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors" (2022, arXiv
           2204.06507).
        """
        features = self._run(X, "features")
        if getattr(self, "_seen", None) is None:
            raise NotFittedError(
                "novelty: expected an estimator that keeps what it saw in training. Received: one "
                "from a file of an earlier version, or whose fit was interrupted. Fit it again."
            )
        return self._seen.distances(features)

    def _take_rival(
        self,
        source: SourceCheck,
        deadline: float | None,
        X: Any,
        y: Any,
        sample_weight: Any,
        groups: Any,
        validation_data: Any,
    ) -> Self:
        """Fit an exact head on what does better than the source, and take that over."""
        assert source.best is not None
        settings = {
            "backbone": source.best.backbone,
            "recipe": "structure",
            "readout": source.best.readout,
            "guard": None,
            "verbose": False,
        }
        if deadline is not None:
            settings["time_budget"] = max(1.0, deadline - time.monotonic())
        other = clone(self).set_params(**settings)
        given = {"sample_weight": sample_weight, "groups": groups}
        other.fit(X, y, **given, validation_data=validation_data)
        own = self.get_params(deep=False)
        fitted = {name: value for name, value in vars(other).items() if name not in own}
        network = fitted.pop("_network")
        self._set_fitted({**fitted, "guard_": source}, network)
        return self

    def _decode(
        self, folds: OutOfFold, trial: Trial, targets: Any, examples: Examples
    ) -> Answers | None:
        """Return what a score reads: out-of-fold answers in the user's units; None without any."""
        if not folds.weights.any():  # as where each class is all in one group
            return None
        truth, outputs, _ = folds.answers(examples.targets[trial.rows], targets.task)
        if isinstance(targets, NumberTargets):
            outputs = outputs * np.array(targets.scale) + np.array(targets.mean)
        return truth, outputs, examples.weights[trial.rows][folds.weights > 0]

    def _look_at(
        self, feeder: Feeder, given: _Given, examples: Examples, held: Examples | None
    ) -> tuple[DataReport, tuple[np.ndarray, np.ndarray]]:
        """Look at the data through the pretrained network, and say what is to be done about it.

        Returns the training examples that were looked at, too, and what the head reads of them: it
        is computed once.
        """
        parts = [examples] if held is None else [examples, held]
        is_picture = isinstance(given.reader, PictureInput)
        labels = None
        looked_at = np.arange(0), np.zeros((0, 0), np.float32)
        if isinstance(given.targets, ClassTargets):
            labels = given.targets.classes[np.concatenate([part.targets for part in parts])]

        def features_of(rows: np.ndarray) -> np.ndarray:
            if not is_picture:  # those of vectors are the user's own
                return np.zeros((len(rows), 0), np.float32)
            nonlocal looked_at
            start, seen = 0, []
            for held_out, part in enumerate(parts):
                of_part = rows[(rows >= start) & (rows < start + len(part))] - start
                seen.append(feeder.features(of_part, held_out))
                start += len(part)
            looked_at = rows[rows < len(examples)], seen[0]
            return np.concatenate(seen)

        report = look_at(
            features_of,
            labels,
            np.concatenate([part.names for part in parts]).tolist(),
            digests=np.concatenate([part.digests for part in parts]),
            n_train=len(examples),
            skipped=given.loaded.skipped,
            n_oriented=given.loaded.n_oriented,
        )
        if is_picture:
            for sentence in report.warnings(
                balanced=getattr(self, "class_weight", None) is not None
            ):
                warn(sentence)
        return report, looked_at

    def _read_given(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        groups: Any,
        backbone: Backbone,
        display: Silent,
    ) -> _Given:
        """Read what fit was given, and check all of it."""
        if is_source(X):
            X, y, sample_weight = self._open(X, y, sample_weight)
        check_lengths(X, y)
        if groups is not None:
            check_lengths(X, groups, "groups")
        weights = check_sample_weight(sample_weight, count_rows(y))
        rows = np.arange(count_rows(y)) if weights is None else np.flatnonzero(weights)
        if len(rows) < count_rows(y):
            # Before anything else looks at the data: a row of weight 0 is not there.
            X, y, weights, groups = _take(rows, X, y, weights, groups)
        targets = self._read_targets(y, weights)
        encoded = targets.encode(y)
        reader = self._read_input(X, backbone)
        columns = self._columns(X, reader)
        loaded = self._load(reader, X, display)
        if loaded.skipped:
            y, weights, groups = _take(loaded.kept, y, weights, groups)
            targets = self._read_targets(y, weights)  # a class may be gone
            encoded = targets.encode(y)
        if groups is not None:
            groups = np.unique(np.asarray(groups), return_inverse=True)[1]
        examples = Examples.from_loaded(loaded, encoded, weights)
        return _Given(reader, columns, targets, examples, groups, loaded)

    def _open(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Open a source that brings its labels with it."""
        if y is not None:
            raise InvalidTypeError(
                f"y: expected None with a folder, CSV or tf.data.Dataset, which brings its labels. "
                f"Received: y as well as X={X!r}. Leave y out, or pass a list of pictures."
            )
        source = open_labelled(X)
        if sample_weight is not None and source.sample_weight is not None:
            raise InvalidTypeError(
                "sample_weight: expected None with a tf.data.Dataset that brings weights. "
                "Received: both. Leave one out."
            )
        weights = sample_weight if source.sample_weight is None else source.sample_weight
        return source.X, self._read_labels(source.y), weights

    def _read_scored(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Return what `score` was given, a source opened."""
        if is_source(X):
            X, y, sample_weight = self._open(X, y, sample_weight)
        check_lengths(X, y)
        return X, y, sample_weight

    def _read_labels(self, y: np.ndarray) -> np.ndarray:
        """Turn the labels of a source, which are text where it is a folder or CSV, into y."""
        return y

    def _load(self, reader: Any, X: Any, display: Silent) -> Loaded:
        """Bring X to the model's input; of files perhaps not all."""
        if not isinstance(reader, PictureInput):
            return reader.load(X)
        with display.counting("reading pictures", count_rows(X)) as advance:
            loaded = reader.load(X, on_error=self.on_error, advance=advance)
        if loaded.skipped:
            name, problem = loaded.skipped[0]
            warn(
                f"X: {len(loaded.skipped)} of {count_rows(X)} pictures cannot be read and were "
                f"skipped, the first: {name}: {problem}. data_report_.skipped lists them."
            )
        if loaded.n_oriented:
            warn(
                f"X: {loaded.n_oriented} pictures carry an orientation in their EXIF data, which "
                f"is applied neither here nor in serving: TensorFlow has no operation for it. "
                f"Turn them once, with PIL.ImageOps.exif_transpose, if they lie on their side."
            )
        return loaded

    def _check_measured(self, validation_data: Any) -> None:
        if self.validation is not None or validation_data is not None:
            return
        asked = {"target_score": self.target_score is not None}
        asked["average"] = as_recipe(self.recipe).average == WISE
        for name in [name for name, is_asked in asked.items() if is_asked]:
            value = self.target_score if name == "target_score" else WISE
            raise InvalidParameterError(
                f"{name}: expected a validation to measure it on. Received: {name}={value!r} with "
                f"validation=None. Pass validation='auto', a share, or validation_data."
            )

    def _held_out(self, validation_data: Any, given: _Given) -> Examples | None:
        """Prepare the validation data that the user gave."""
        if validation_data is None:
            return None
        if is_source(validation_data):
            validation_data = self._open(validation_data, None, None)
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise InvalidTypeError(
                f"validation_data: expected a pair (X, y), (X, y, sample_weight), a folder, a CSV "
                f"or a tf.data.Dataset. Received: {type(validation_data).__name__}."
            )
        X, y, *rest = validation_data
        check_lengths(X, y, "validation_data")
        loaded = self._load(given.reader, X, Silent())
        weights = check_sample_weight(rest[0] if rest else None, count_rows(X))
        try:
            self._check_columns(X, given.reader, given.columns)
        except DataError as error:
            raise DataError(f"validation_data: {error}") from error
        y, weights = _take(loaded.kept, y, weights)
        return Examples.from_loaded(loaded, given.targets.encode(y), weights, "validation row")

    def _example_weights(self, targets: Any, examples: Examples) -> np.ndarray:
        """Multiply the weights of examples and classes."""
        factors = self._class_weights(targets, examples.targets, examples.weights)
        weights = examples.weights * (1.0 if factors is None else factors)
        if weights.mean() <= 0:
            raise InvalidParameterError(
                f"class_weight: expected a class in y whose weight is above 0. Received: "
                f"{getattr(self, 'class_weight', None)!r}."
            )
        return weights


def _is_auto(recipe: Recipe) -> bool:
    blocks = recipe.train_blocks
    return isinstance(blocks, str) and blocks == AUTO_BLOCKS


def _left_out(trial: Trial) -> np.ndarray:
    """Say which examples are left out, to see what fine-tuning does for them.

    About a quarter, and of classes that others stand for; none where groups do not let them be
    parted so.
    """
    dealt = trial.targets.astype(np.float64) if trial.task == "regression" else trial.targets
    folds = deal_folds(dealt, LEFT_OUT, np.random.default_rng(trial.seed), trial.groups)
    sizes = np.bincount(folds) / len(folds)
    fold = int(np.argmin(np.abs(sizes - 1 / LEFT_OUT)))
    is_held = folds == fold
    counted = trial.weights > 0
    if trial.task == "multiclass":
        is_held &= ~is_held | np.isin(trial.targets, trial.targets[~is_held & counted])
    is_fit = sizes[fold] <= _MOST_LEFT_OUT and (is_held & counted).any()
    return is_held if is_fit else np.zeros(len(folds), bool)


def _take(rows: np.ndarray, *values: Any) -> list[Any]:
    """Return these rows of each that is not None."""
    return [None if value is None else _safe_indexing(value, rows) for value in values]
