"""One fit of a classifier or regressor, from raw X and y to a trained model."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.utils import _safe_indexing, check_random_state

from keras_transfer.backbones.partition import read_blocks
from keras_transfer.backbones.registry import as_backbone
from keras_transfer.errors import DataError, InvalidParameterError, InvalidTypeError
from keras_transfer.estimators.base import BaseTransfer, check_lengths, count_rows
from keras_transfer.estimators.scoring import output_score
from keras_transfer.graph.augmentation import augmentation_names, build_augmentation
from keras_transfer.graph.build import build_model
from keras_transfer.graph.heads import Head, set_units
from keras_transfer.graph.readout import as_readout
from keras_transfer.inputs.pictures import PictureInput
from keras_transfer.inputs.splits import has_enough, hold_out
from keras_transfer.inputs.targets import ClassTargets, LabelTargets, NumberTargets
from keras_transfer.inputs.weights import check_sample_weight
from keras_transfer.modes import as_recipe
from keras_transfer.parameters import NONE, Constraint, instance_of, number, one_of, satisfying
from keras_transfer.training.batches import ordered_batches, shuffled_batches
from keras_transfer.training.callbacks import fresh_callbacks
from keras_transfer.training.freezing import has_fresh_batch_norm
from keras_transfer.training.progress import open_display
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.run import run_stages
from keras_transfer.training.validation import Validation

__all__ = ["SupervisedTransfer"]

_SEED_RANGE = 2**31
# Share held out where there are enough examples, or where a target score asks for a validation.
HELD_OUT = 0.2


@dataclass(frozen=True)
class Examples:
    """Prepared data: arrays of the same length.

    Attributes
    ----------
    inputs : numpy.ndarray of shape (n, ...)
    targets : numpy.ndarray of shape (n, ...)
    weights : numpy.ndarray of shape (n,)
    """

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Examples:
        return Examples(self.inputs[rows], self.targets[rows], self.weights[rows])

    def __len__(self) -> int:
        return len(self.inputs)


class SupervisedTransfer(BaseTransfer, abc.ABC):
    """Base of the estimators that train; its parameters are documented with each."""

    _constraints: Mapping[str, Constraint] = {
        **BaseTransfer._constraints,
        "recipe": satisfying(as_recipe, "'parameter', 'structure', 'composite' or a Recipe"),
        "validation": one_of("auto") | NONE | number(0, 0.9, above=True),
        "target_score": NONE | number(-np.inf),
        "time_budget": NONE | number(0, above=True),
        "callbacks": NONE | instance_of((list, tuple), "a list of callbacks"),
        "verbose": one_of("auto", True, False, 0, 1),
    }
    _private_state = (*BaseTransfer._private_state, "_targets")

    def __init__(
        self,
        backbone: Any = "EfficientNetLite0",
        recipe: Any = "composite",
        *,
        readout: Any = "last",
        modality: str | None = None,
        image_size: Any = None,
        batch_size: int = 32,
        validation: Any = "auto",
        scoring: Any = None,
        target_score: float | None = None,
        time_budget: float | None = None,
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

    def _check_parameters(self) -> None:
        if isinstance(self.recipe, str):  # its own message lists the names
            as_recipe(self.recipe)
        super()._check_parameters()
        as_recipe(self.recipe).check()

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        groups: Any = None,
        validation_data: Any = None,
    ) -> Self:
        """Transfer to the task that X and y show.

        Parameters
        ----------
        X : array of shape (n, h, w), (n, h, w, c) or (n, n_features)
            Pictures, grey, RGB or RGBA, of 0..1, -1..1, 0..255 or 0..65535; or features.
        y : array-like of shape (n,) or (n, n_outputs)
            For a classifier labels of any hashable kind, or an indicator matrix of 0 and 1, of
            which every column is learned. For a regressor numbers, in any units.
        sample_weight : array-like of shape (n,), optional
            How much each example counts. A row of weight 0 is as if it were not there.
        groups : array-like of shape (n,), optional
            Examples of one group (a voice, a patient) stay on one side of the validation split.
        validation_data : (X, y) or (X, y, sample_weight), optional
            Held-out data; then none is split off.

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
        self._check_parameters()
        callbacks = fresh_callbacks(self.callbacks)
        recipe, backbone = as_recipe(self.recipe), as_backbone(self.backbone)

        # === What there is to learn from ===
        check_lengths(X, y)
        if groups is not None:
            check_lengths(X, groups, "groups")
        weights = check_sample_weight(sample_weight, count_rows(y))
        if weights is not None and not weights.all():
            # Before anything else looks at the data: a row of weight 0 is not there.
            rows = np.flatnonzero(weights)
            X, y, weights = _safe_indexing(X, rows), _safe_indexing(y, rows), weights[rows]
            groups = None if groups is None else _safe_indexing(groups, rows)
        targets = self._read_targets(y, weights)
        encoded = targets.encode(y)
        score = output_score(self.scoring, targets)
        self._check_target_score(validation_data)
        reader = self._read_input(X, backbone)
        if augmentation_names(recipe.augmentation) and not isinstance(reader, PictureInput):
            raise InvalidParameterError(
                f"augmentation: expected None for vectors of features. Received: "
                f"{recipe.augmentation!r}, which changes pictures."
            )
        columns = self._columns(X, reader)
        counted = np.ones(len(encoded)) if weights is None else weights
        examples = Examples(reader.prepare(X), encoded, counted)
        held = self._held_out(validation_data, reader, targets, columns)

        # One stream of random numbers: whoever draws, draws in this order.
        random_state = check_random_state(self.random_state)
        weight_seed, split_seed, batch_seed, augmentation_seed = (
            int(n) for n in random_state.randint(_SEED_RANGE, size=4)
        )
        grouped = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        enough = has_enough(encoded, grouped)
        # A few examples held out for the sake of a target score only measure.
        steers = held is not None or self.validation != "auto" or enough
        fraction = self.validation
        if fraction == "auto":
            fraction = HELD_OUT if enough or self.target_score is not None else None
        if held is None and fraction is not None:
            rng = np.random.default_rng(split_seed)
            train, validation_rows = hold_out(encoded, fraction, rng, grouped)
            examples, held = examples[train], examples[validation_rows]

        # === The model, and its training ===
        with isolated_seed(weight_seed), open_display(self.verbose) as display:
            model = build_model(
                backbone,
                Head(targets.task, targets.n_outputs, recipe.dropout),
                input_shape=reader.shape,
                readout=as_readout(self.readout),
            )
            trained_targets = examples.targets
            if isinstance(targets, NumberTargets):
                set_units(model, targets.mean, targets.scale)
                trained_targets = targets.standardise(examples.targets)
            blocks = read_blocks(model)
            stages = recipe.stages(
                blocks,
                len(examples),
                batch_size=self.batch_size,
                pretrained=backbone.weights is not None and not has_fresh_batch_norm(model),
            )
            names = augmentation_names(recipe.augmentation)
            dataset = shuffled_batches(
                (examples.inputs, trained_targets, self._train_weights(targets, examples)),
                self.batch_size,
                batch_seed,
                build_augmentation(names, augmentation_seed) if names else None,
            )
            validation = None
            if held is not None:
                validation = Validation(
                    ordered_batches((held.inputs, held.targets, held.weights), self.batch_size),
                    targets.task,
                    score,
                    scale=np.array(getattr(targets, "scale", 1.0)),
                    steers=steers,
                )
            result = run_stages(
                model,
                blocks,
                stages,
                dataset,
                task=targets.task,
                validation=validation,
                target_score=self.target_score,
                deadline=None if self.time_budget is None else started + self.time_budget,
                callbacks=callbacks,
                display=display,
                shared=True,
            )
        self._set_fitted(
            {
                "model_": model,
                "backbone_": backbone,
                "stages_": result.records,
                "history_": result.history,
                "n_iter_": len(result.history["epoch"]),
                "validation_score_": result.score,
                "_reader": reader,
                "_targets": targets,
                **columns,
            }
        )
        return self

    def _check_target_score(self, validation_data: Any) -> None:
        if self.target_score is not None and self.validation is None and validation_data is None:
            raise InvalidParameterError(
                f"target_score: expected a validation to measure it on. Received: "
                f"target_score={self.target_score!r} with validation=None. Pass validation='auto', "
                f"a share, or validation_data."
            )

    def _held_out(
        self,
        validation_data: Any,
        reader: Any,
        targets: ClassTargets | LabelTargets | NumberTargets,
        columns: Mapping[str, Any],
    ) -> Examples | None:
        """Prepare the validation data that the user gave."""
        if validation_data is None:
            return None
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise InvalidTypeError(
                f"validation_data: expected a pair (X, y), or (X, y, sample_weight). Received: "
                f"{type(validation_data).__name__}."
            )
        X, y, *rest = validation_data
        check_lengths(X, y, "validation_data")
        inputs, encoded = reader.prepare(X), targets.encode(y)
        try:
            self._check_columns(X, reader, columns)
        except DataError as error:
            raise DataError(f"validation_data: {error}") from error
        weights = check_sample_weight(rest[0] if rest else None, len(inputs))
        return Examples(inputs, encoded, np.ones(len(inputs)) if weights is None else weights)

    def _train_weights(self, targets: Any, examples: Examples) -> np.ndarray:
        """Multiply the weights of examples and classes, and bring them to a mean of 1.

        So their scale changes neither the loss nor, with an optimizer other than Adam, the step.
        """
        factors = self._class_weights(targets, examples.targets, examples.weights)
        weights = examples.weights * (1.0 if factors is None else factors)
        mean = weights.mean()
        if mean <= 0:
            raise InvalidParameterError(
                f"class_weight: expected a class in y whose weight is above 0. Received: "
                f"{getattr(self, 'class_weight', None)!r}."
            )
        return (weights / mean).astype(np.float32)
