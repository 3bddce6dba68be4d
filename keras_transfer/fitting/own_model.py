"""A recipe on a model and a dataset of the user's own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import InvalidParameterError
from keras_transfer.fitting.own_data import (
    check_outputs,
    measure_dataset,
    read_features,
    read_units,
    standardise,
)
from keras_transfer.graph.augmentation import as_augmentation, build_augmentation
from keras_transfer.graph.heads import (
    read_task,
    set_feature_units,
    set_units,
    wants_feature_units,
)
from keras_transfer.recipe import Recipe
from keras_transfer.store.activation_store import as_memory
from keras_transfer.training.averaging import WISE, follow_wisely
from keras_transfer.training.batches import augmented
from keras_transfer.training.freezing import has_fresh_batch_norm
from keras_transfer.training.inference import Inference
from keras_transfer.training.progress import open_display
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.run import run_stages
from keras_transfer.training.run_result import RunResult
from keras_transfer.training.stored_datasets import feed_datasets
from keras_transfer.training.validation import Validation

__all__ = ["fit_own_model"]


def fit_own_model(
    recipe: Recipe,
    model: Any,
    dataset: Any,
    *,
    validation_data: Any,
    task: str | None,
    blocks: Mapping[str, Sequence[str]] | None,
    target_score: float | None,
    time_budget: float | None,
    pretrained: bool | None,
    memory: Any,
    callbacks: Sequence[Any],
    random_state: int,
    verbose: bool | str,
) -> RunResult:
    """Run the stages of a recipe on a model and a dataset of the user's own.

    Parameters
    ----------
    recipe : Recipe
    model, dataset, validation_data, task, blocks, target_score, time_budget, pretrained, memory, \
            callbacks, random_state, verbose
        As for `Recipe.fit`.

    Returns
    -------
    RunResult
    """
    started = time.monotonic()
    recipe.check()
    if target_score is not None and validation_data is None:
        raise InvalidParameterError(
            f"target_score: expected validation_data to measure it on. Received: "
            f"target_score={target_score!r} without. Pass validation_data."
        )
    if recipe.average == WISE and validation_data is None:
        raise InvalidParameterError(
            "average: expected validation_data by which 'wise' finds how far to go. Received: "
            "'wise' without. Pass validation_data, or take average='ema'."
        )
    found = read_blocks(model, blocks)
    own_task = read_task(model)
    if own_task is not None and task not in (None, own_task):
        raise InvalidParameterError(
            f"task: expected {own_task!r}, which {model.name!r} was built for. Received: "
            f"{task!r}. Leave it out."
        )
    task = own_task or task or "multiclass"
    first, n_batches = measure_dataset("dataset", dataset, task)
    if validation_data is not None:
        measure_dataset("validation_data", validation_data, task)
    recipe.check_task(task, has_pictures=len(first[0].shape) == 4)
    check_outputs(model, first[0], task)
    mean, scale = np.zeros(1), np.ones(1)
    if own_task == "regression":
        mean, scale = read_units(dataset)
        set_units(model, mean, scale)
    if pretrained is None:
        pretrained = not has_fresh_batch_norm(model.layers)
    shape = model.inputs[0].shape[1:] if own_task else ()
    if wants_feature_units(own_task, shape, pretrained):
        set_feature_units(model, read_features(model, dataset))
    if task == "regression":
        dataset = dataset.map(lambda x, y, *w: (x, standardise(y, mean, scale), *w))
    batch_size = int(first[0].shape[0])
    n_examples = batch_size * n_batches
    planned = recipe if own_task is not None else recipe.for_foreign_head()
    stages = planned.stages(found, n_examples, batch_size=batch_size, pretrained=pretrained)
    with isolated_seed(random_state), open_display(verbose) as display:
        # Its changes are drawn from states of their own, too.
        sample = dataset
        if names := as_augmentation(recipe.augmentation):
            dataset = augmented(dataset, build_augmentation(names, random_state))
            if recipe.tests_rate:
                sample = augmented(sample, build_augmentation(names, random_state))
        feeds = feed_datasets(
            model,
            found,
            stages,
            dataset,
            validation_data,
            as_memory(memory),
            n_examples=n_examples,
            augmented=bool(names),
            task=task,
            seed=random_state,
            validate=lambda held: Validation(held, task, scale=scale),
            sample=sample,
            n_batches=n_batches,
        )
        result = run_stages(
            model,
            found,
            stages,
            feeds,
            task=task,
            target_score=target_score,
            deadline=None if time_budget is None else started + time_budget,
            callbacks=callbacks,
            display=display,
        )
        if recipe.average == WISE and result.start is not None and not result.interrupted:
            validation = feeds[-1].validation
            assert validation is not None  # it was asked for
            inference = Inference(model, cut=feeds[-1].cut)
            result.share = follow_wisely(model, result.start, lambda: validation(inference)[0])
            result.score = validation(inference)[1]
            result.answers = validation.answers
        return result
