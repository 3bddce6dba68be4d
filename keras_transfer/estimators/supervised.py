"""What classifiers and regressors share: parameters, reading X and y, fit, novelty."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import _safe_indexing, check_random_state

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.registry import as_backbone
from keras_transfer.choosing.guard import GUARDS
from keras_transfer.choosing.readout_choice import AUTO
from keras_transfer.errors import DataError, InvalidParameterError, InvalidTypeError, warn
from keras_transfer.estimators.base import BaseTransfer, check_lengths, count_rows
from keras_transfer.estimators.scoring import output_score
from keras_transfer.fitting.fit import run_fit
from keras_transfer.fitting.settings import FitSettings, Seeds
from keras_transfer.fitting.task import Task
from keras_transfer.inputs.examples import Examples
from keras_transfer.inputs.reader import Loaded, Reader
from keras_transfer.inputs.readers import read_input
from keras_transfer.inputs.sources import is_source, open_labelled
from keras_transfer.inputs.targets import Targets
from keras_transfer.inputs.weights import check_sample_weight
from keras_transfer.modes import as_recipe
from keras_transfer.parameters import NONE, Constraint, instance_of, number, one_of
from keras_transfer.recipe import Recipe
from keras_transfer.store.activation_store import as_memory
from keras_transfer.training.averaging import WISE
from keras_transfer.training.callbacks import fresh_callbacks
from keras_transfer.training.progress import Silent, open_display

__all__ = ["SupervisedTransfer"]


@dataclass(frozen=True)
class _Given:
    """What fit was given, read and checked."""

    reader: Reader
    columns: dict[str, Any]
    targets: Targets
    examples: Examples
    groups: np.ndarray | None
    loaded: Loaded


class SupervisedTransfer(BaseTransfer, abc.ABC):
    """Base of the estimators that train; its parameters are documented with each."""

    _constraints: Mapping[str, Constraint] = {
        **BaseTransfer._constraints,
        "validation": one_of("auto") | NONE | number(0, 0.9, above=True),
        "target_score": NONE | number(-np.inf),
        "time_budget": NONE | number(0, above=True),
        "callbacks": NONE | instance_of((list, tuple), "a list of callbacks"),
        "guard": NONE | one_of(*GUARDS),
        "on_error": one_of("raise", "skip"),
        "verbose": one_of("auto", True, False, 0, 1),
    }
    _private_state = (*BaseTransfer._private_state, "_seen", "_targets")
    # Parameters of a classifier; numbers know neither classes nor sureness.
    class_weight: Any = None
    calibration: str | None = None

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
    def _read_targets(self, y: Any, weights: np.ndarray | None) -> Targets:
        """Decide from y what the model is to answer."""

    def _checked_recipe(self) -> Recipe:
        """Check all parameters, and return the recipe."""
        recipe = as_recipe(self.recipe)
        self._check_parameters()
        recipe.check()
        return recipe

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
        started = time.monotonic()
        recipe = self._checked_recipe()
        callbacks = fresh_callbacks(self.callbacks)
        backbone = as_backbone(self.backbone)
        with open_display(self.verbose) as display:
            given = self._read_given(X, y, sample_weight, groups, backbone, display)
            score = output_score(self.scoring, given.targets)
            self._check_measured(recipe, validation_data)
            recipe.check_task(given.targets.task, given.reader.modality == "picture")
            held = self._held_out(validation_data, given)
            seeds = Seeds.draw(check_random_state(self.random_state))
            task = Task.part(
                given.examples,
                held,
                given.groups,
                targets=given.targets,
                validation=self.validation,
                has_target_score=self.target_score is not None,
                is_solved=recipe.is_solved,
                seed=seeds.split,
                reader=given.reader,
                class_weight=self.class_weight,
            )
            found = run_fit(
                task,
                FitSettings(
                    backbone=backbone,
                    recipe=recipe,
                    readout=self.readout,
                    batch_size=self.batch_size,
                    validation=self.validation,
                    score=score,
                    target_score=self.target_score,
                    deadline=None if self.time_budget is None else started + self.time_budget,
                    calibration=self.calibration,
                    guard=self.guard,
                    memory=as_memory(self.memory),
                    callbacks=callbacks,
                    seeds=seeds,
                    display=display,
                ),
            )
        is_regression = task.targets.task == "regression"
        self._set_fitted(
            {
                "backbone_": found.backbone,
                "readout_": found.readout,
                "guard_": found.source,
                "train_blocks_": found.train_blocks,
                "fine_tuning_": found.fine_tuning,
                "stages_": found.run.records,
                "history_": found.run.history,
                "n_iter_": len(found.run.history["epoch"]),
                **({} if is_regression else {"temperature_": found.temperature}),
                "validation_score_": found.score,
                "validation_standard_error_": found.standard_error,
                "data_report_": replace(
                    found.report,
                    skipped=given.loaded.skipped,
                    n_oriented=given.loaded.n_oriented,
                ),
                "_reader": task.reader,
                "_seen": found.seen,
                "_targets": task.targets,
                **given.columns,
            },
            found.network,
        )
        if found.interrupted:  # what was learned is there; whoever called is to stop as well
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
        reader = read_input(X, backbone, self.modality, self.image_size)
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

    def _load(self, reader: Reader, X: Any, display: Silent) -> Loaded:
        """Bring X to the model's input; of files perhaps not all."""
        if reader.has_columns:
            return reader.load(X)
        with display.counting(f"reading {reader.plural}", count_rows(X)) as advance:
            loaded = reader.load(X, on_error=self.on_error, advance=advance)
        if loaded.skipped:
            name, problem = loaded.skipped[0]
            warn(
                f"X: {len(loaded.skipped)} of {count_rows(X)} {reader.plural} cannot be read and "
                f"were skipped, the first: {name}: {problem}. data_report_.skipped lists them."
            )
        if loaded.n_oriented:
            warn(
                f"X: {loaded.n_oriented} pictures carry an orientation in their EXIF data, which "
                f"is applied neither here nor in serving: TensorFlow has no operation for it. "
                f"Turn them once, with PIL.ImageOps.exif_transpose, if they lie on their side."
            )
        return loaded

    def _check_measured(self, recipe: Recipe, validation_data: Any) -> None:
        if self.validation is not None or validation_data is not None:
            return
        asked = {"target_score": self.target_score is not None}
        asked["average"] = recipe.average == WISE
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


def _take(rows: np.ndarray, *values: Any) -> list[Any]:
    """Return these rows of each that is not None."""
    return [None if value is None else _safe_indexing(value, rows) for value in values]
