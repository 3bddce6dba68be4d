"""What the estimators share: parameters, input, and one fit from raw data to a trained model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from keras_transfer.backbones.backbone import MODALITIES, Backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.backbones.registry import as_backbone
from keras_transfer.errors import DataError, InvalidParameterError
from keras_transfer.graph.augmentation import augmentation_names, build_augmentation
from keras_transfer.graph.build import build_classifier
from keras_transfer.graph.readout import as_readout
from keras_transfer.inputs.arrays import as_array
from keras_transfer.inputs.features import FeatureInput
from keras_transfer.inputs.pictures import PictureInput, check_pictures, resolve_image_size
from keras_transfer.inputs.splits import has_enough
from keras_transfer.modes import as_recipe
from keras_transfer.parameters import (
    NONE,
    Constraint,
    check_parameters,
    integer,
    number,
    one_of,
    satisfying,
)
from keras_transfer.training.batches import ordered_batches, shuffled_batches
from keras_transfer.training.freezing import has_fresh_batch_norm
from keras_transfer.training.inference import Inference
from keras_transfer.training.progress import open_display
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.run import run_stages
from keras_transfer.training.validation import Validation

__all__ = ["BaseTransfer", "Examples"]

_SEED_RANGE = 2**31


@dataclass(frozen=True)
class Examples:
    """Prepared data: model inputs and class indices of the same length."""

    inputs: np.ndarray
    targets: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Examples:
        return Examples(self.inputs[rows], self.targets[rows])

    def __len__(self) -> int:
        return len(self.inputs)


class BaseTransfer(BaseEstimator):
    """Base of the estimators; its parameters are documented with each."""

    _constraints: Mapping[str, Constraint] = {
        "recipe": satisfying(as_recipe, "'parameter', 'structure', 'composite' or a Recipe"),
        "readout": satisfying(as_readout, "'last', a block's name or a Readout"),
        "modality": NONE | one_of(*MODALITIES),
        "image_size": satisfying(resolve_image_size, "a positive int, (height, width) or None"),
        "batch_size": integer(1),
        "validation": one_of("auto") | NONE | number(0, 0.9, above=True),
        "target_score": NONE | number(-np.inf),
        "time_budget": NONE | number(0, above=True),
        "verbose": one_of("auto", True, False, 0, 1),
    }

    def _check_parameters(self) -> None:
        values = self.get_params(deep=False)
        if isinstance(values["recipe"], str):  # its own message lists the names
            as_recipe(values["recipe"])
        check_parameters(type(self).__name__, values, self._constraints)
        as_recipe(self.recipe).check()

    def _fit_model(
        self,
        X: Any,
        n_outputs: int,
        targets: np.ndarray,
        validation_data: tuple[Any, np.ndarray] | None,
        split: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray] | None],
        score: Callable[[np.ndarray, np.ndarray], float],
    ) -> dict[str, Any]:
        """Build and train; return the fitted attributes, to be set once all went well."""
        started = time.monotonic()
        recipe = as_recipe(self.recipe)
        backbone = as_backbone(self.backbone)
        reader = self._read_input(X, backbone)
        if augmentation_names(recipe.augmentation) and not isinstance(reader, PictureInput):
            raise InvalidParameterError(
                f"augmentation: expected None for vectors of features. Received: "
                f"{recipe.augmentation!r}, which changes pictures."
            )
        examples = Examples(reader.prepare(X), targets)
        held: Examples | None = None
        if validation_data is not None:
            held = Examples(reader.prepare(validation_data[0]), validation_data[1])

        # One stream of random numbers: whoever draws, draws in this order.
        random_state = check_random_state(self.random_state)
        weight_seed, split_seed, batch_seed, augmentation_seed = (
            int(n) for n in random_state.randint(_SEED_RANGE, size=4)
        )
        is_split = held is None
        if held is None and (rows := split(np.random.default_rng(split_seed))) is not None:
            examples, held = examples[rows[0]], examples[rows[1]]

        with isolated_seed(weight_seed), open_display(self.verbose) as display:
            model = build_classifier(
                backbone,
                n_outputs,
                input_shape=reader.shape,
                readout=as_readout(self.readout),
                dropout=recipe.dropout,
            )
            blocks = read_blocks(model)
            stages = recipe.stages(
                blocks,
                len(examples),
                batch_size=self.batch_size,
                pretrained=backbone.weights is not None and not has_fresh_batch_norm(model),
            )
            names = augmentation_names(recipe.augmentation)
            dataset = shuffled_batches(
                examples.inputs,
                examples.targets,
                self.batch_size,
                batch_seed,
                build_augmentation(names, augmentation_seed) if names else None,
            )
            validation = None
            if held is not None:
                batches = ordered_batches(held.inputs, held.targets, self.batch_size)
                # The same rule that says when to hold out: a few examples only measure.
                steers = not is_split or self.validation != "auto" or has_enough(targets)
                validation = Validation(batches, score, steers=steers)
            inference = Inference(model)
            result = run_stages(
                model,
                blocks,
                stages,
                dataset,
                validation=validation,
                inference=inference,
                target_score=self.target_score,
                deadline=None if self.time_budget is None else started + self.time_budget,
                display=display,
            )
        return {
            "model_": model,
            "backbone_": backbone,
            "stages_": result.records,
            "history_": result.history,
            "n_iter_": len(result.history["epoch"]),
            "validation_score_": result.score,
            "_reader": reader,
            "_inference": inference,
            "_logits": None,
        }

    def _read_input(self, X: Any, backbone: Backbone) -> PictureInput | FeatureInput:
        """Decide how X is read, by the backbone's modality or else by its shape."""
        modality = self.modality or backbone.modality
        if modality is None:
            modality = "features" if as_array(X).ndim == 2 else "picture"
        if backbone.modality is not None and modality != backbone.modality:
            raise InvalidParameterError(
                f"modality: expected {backbone.modality!r}, which {backbone.name} reads. Received: "
                f"{modality!r}."
            )
        if modality == "features":
            if self.image_size is not None:
                raise InvalidParameterError(
                    f"image_size: expected None for vectors of features. Received: "
                    f"{self.image_size!r}."
                )
            return FeatureInput.from_data(X)
        size = resolve_image_size(self.image_size)
        if size is None and backbone.input_shape is None and backbone.default_shape is None:
            size = check_pictures(X).shape[1:3]  # a callable takes the pictures as they are
        own = backbone.input_shape
        if own is not None and (len(own) != 3 or own[2] != 3):
            raise InvalidParameterError(
                f"backbone: expected a network for pictures of three channels, (height, width, 3). "
                f"Received: {backbone.name}, which reads {own}. Put a layer before it that brings "
                f"three channels to its own, such as a 1x1 convolution."
            )
        shape = backbone.resolve_shape(None if size is None else (*size, 3))
        return PictureInput.from_data(X, (shape[0], shape[1]))

    def _set_fitted(self, fitted: dict[str, Any]) -> None:
        """Take over a fit that went well, in place of an earlier one."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        reader = fitted["_reader"]
        if isinstance(reader, PictureInput):
            fitted["pixel_range_"] = reader.pixel_range
        else:
            fitted["n_features_in_"] = reader.n_features
        self.__dict__.update(fitted)

    def _run(self, X: Any) -> np.ndarray:
        """Return the model's outputs for raw X."""
        check_is_fitted(self, "model_")
        if getattr(self, "_inference", None) is None:
            self._inference = Inference(self.model_)
        return self._inference.on_array(self._reader.prepare(X), self.batch_size)

    def __getstate__(self) -> dict[str, Any]:
        # A compiled function does not pickle; it is made again when needed.
        return {**super().__getstate__(), "_inference": None, "_logits": None}

    def save(self, path: Any, *, overwrite: bool = False) -> None:
        """Save the fitted estimator to one file, without pickle.

        Parameters
        ----------
        path : str or path
            Conventionally ending in ``.keras_transfer``.
        overwrite : bool, default=False
            Whether a file that exists is replaced.

        Raises
        ------
        OutputExistsError
            If the file exists and ``overwrite`` is not set.
        """
        from keras_transfer.persistence.native import save

        save(self, path, overwrite=overwrite)


def check_lengths(X: Any, y: Any, what: str = "y") -> None:
    """Make sure that there is a label for every example.

    Raises
    ------
    DataError
    """
    if not hasattr(X, "__len__") or isinstance(X, str):
        raise DataError(f"X: expected a list or array of examples. Received: {X!r}.")
    if not hasattr(y, "__len__") or isinstance(y, str):
        raise DataError(f"{what}: expected a list or array of labels. Received: {y!r}.")
    n_examples = len(X)
    if len(y) != n_examples:
        raise DataError(
            f"{what}: expected {n_examples} labels, one for each example. Received: {len(y)}."
        )
