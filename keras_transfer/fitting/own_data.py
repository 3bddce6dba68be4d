"""Datasets and models of the user's own: looked at before a recipe trains on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.errors import InvalidParameterError, InvalidTypeError
from keras_transfer.inputs.data_look import MAX_LOOKED_AT
from keras_transfer.inputs.targets import find_units
from keras_transfer.training.compiled import CompiledNetwork
from keras_transfer.training.inference import Inference
from keras_transfer.training.validation import check_targets

__all__ = ["check_outputs", "measure_dataset", "read_features", "read_units", "standardise"]


def measure_dataset(name: str, dataset: Any, task: str) -> tuple[tuple[Any, ...], int]:
    """Return the first batch of a dataset, checked, and the number of batches.

    Parameters
    ----------
    name : str
        The parameter that it was passed as.
    dataset : tf.data.Dataset
    task : {"multiclass", "multilabel", "regression"}

    Raises
    ------
    InvalidTypeError
    InvalidParameterError
        If it is infinite, empty, or holds no targets.
    DataError
        If the targets are not those of the task.
    """
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        raise InvalidTypeError(
            f"{name}: expected a tf.data.Dataset of batches (inputs, targets). Received: "
            f"{type(dataset).__name__}. For arrays use an estimator, or "
            f"tf.data.Dataset.from_tensor_slices((X, y)).batch(32)."
        )
    n_batches = int(dataset.cardinality())
    if n_batches == tf.data.INFINITE_CARDINALITY:
        raise InvalidParameterError(
            f"{name}: expected a finite one. Received: an infinite one. Leave repeat() out."
        )
    if n_batches == tf.data.UNKNOWN_CARDINALITY:
        n_batches = sum(1 for _ in dataset)
    first = next(iter(dataset), None)
    if first is None or not isinstance(first, tuple) or len(first) < 2:
        raise InvalidParameterError(
            f"{name}: expected batches of (inputs, targets). Received: {dataset.element_spec}."
        )
    check_targets(task, first[1])
    return first, n_batches


def check_outputs(model: Any, inputs: Any, task: str) -> None:
    """Make sure that a classifier answers with probabilities: of logits the loss is nonsense.

    Raises
    ------
    InvalidParameterError
    """
    if task == "regression":
        return
    outputs = Inference(model, CompiledNetwork(model))(inputs)
    is_probable = outputs.ndim == 2 and outputs.min() >= 0 and outputs.max() <= 1 + 1e-2
    if task == "multiclass":
        is_probable = is_probable and np.allclose(outputs.sum(axis=1), 1, atol=1e-2)
    if not is_probable:
        is_multiclass = task == "multiclass"
        raise InvalidParameterError(
            f"model: expected one that ends in probabilities"
            f"{', rows that sum to 1' if is_multiclass else ''}. Received: "
            f"{model.name!r}, whose first row is {np.round(outputs.reshape(-1)[:4], 3).tolist()}. "
            f"End it with keras.layers.Activation({'softmax' if is_multiclass else 'sigmoid'!r})."
        )


def read_units(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each number, in one pass over the dataset."""
    batches = [check_targets("regression", batch[1]) for batch in dataset]
    return find_units(np.concatenate(batches))


def read_features(model: Any, dataset: Any) -> np.ndarray:
    """Return what the head reads of the first examples, in one pass over their batches.

    Parameters
    ----------
    model : keras.Model
        One that keras_transfer built.
    dataset : tf.data.Dataset
        Of (inputs, ...).
    """
    inference, rows, seen = Inference(model), 0, []
    for batch in dataset:
        seen.append(inference(batch[0], "features"))
        rows += len(seen[-1])
        if rows >= MAX_LOOKED_AT:
            break
    return np.concatenate(seen)


def standardise(targets: Any, mean: np.ndarray, scale: np.ndarray) -> Any:
    """Return a batch of numbers as float32 of shape (batch, n_numbers), standardised."""
    import tensorflow as tf

    numbers = tf.reshape(tf.cast(targets, "float32"), (tf.shape(targets)[0], -1))
    return (numbers - mean.astype("float32")) / scale.astype("float32")
