"""Heads: the new output layers for the target task."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import FEATURES, HEAD, LOGITS, STANDARDISED, TARGET
from keras_transfer.errors import InvalidParameterError, UnknownNameError

__all__ = [
    "LOGITS",
    "METRIC",
    "TASKS",
    "Head",
    "Task",
    "read_task",
    "set_feature_units",
    "set_units",
    "trained_output",
    "wants_feature_units",
]

PROBABILITIES = f"{HEAD}.probabilities"
# The layer that brings the standardised numbers of a regression to the user's units.
UNITS = f"{TARGET}.units"
# What the metric of a classification is called in the history.
METRIC = "accuracy"


@dataclass(frozen=True)
class Task:
    """What kind of answer a target task asks for.

    Attributes
    ----------
    fewest_outputs : int
    outputs : str
        What one output is, in words.
    activation : str
        Keras's name; what turns the last linear layer into the answer.
    loss : str
        Keras's name.
    metric : str or None
        Keras's name; of a regression the loss says all.
    """

    fewest_outputs: int
    outputs: str
    activation: str
    loss: str
    metric: str | None


# Adding a kind of task is adding a row here and one in training/validation.py.
TASKS: dict[str, Task] = {
    "multiclass": Task(
        2, "classes", "softmax", "sparse_categorical_crossentropy", "sparse_categorical_accuracy"
    ),
    "multilabel": Task(1, "labels", "sigmoid", "binary_crossentropy", "binary_accuracy"),
    "regression": Task(1, "numbers", "linear", "mean_squared_error", None),
}


@dataclass(frozen=True)
class Head:
    """A linear head for a target task.

    Parameters
    ----------
    task : {"multiclass", "multilabel", "regression"}
        One class of several; any number of labels at once; numbers.
    outputs : int
        Number of classes (at least 2), labels or numbers.
    dropout : float, default=0.0
        Share of the features left out at random in each training step.

    Raises
    ------
    UnknownNameError
    InvalidParameterError
    """

    task: str
    outputs: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UnknownNameError("task", self.task, TASKS)
        task, outputs = TASKS[self.task], self.outputs
        if (
            isinstance(outputs, bool)
            or not isinstance(outputs, numbers.Integral)
            or outputs < task.fewest_outputs
        ):
            raise InvalidParameterError(
                f"outputs: expected the number of {task.outputs}, an int of at least "
                f"{task.fewest_outputs}. Received: {outputs!r}."
            )

    def attach(self, features: Any) -> Any:
        """Put the head on features.

        Parameters
        ----------
        features : Keras tensor of shape (batch, n_features)

        Returns
        -------
        Keras tensor of shape (batch, outputs)
            Float32, whatever the precision of the backbone: probabilities, or numbers in the
            units of the target.
        """
        import keras

        if self.task == "regression":
            features = _affine(FEATURES, features.shape[-1])(features)
        if self.dropout:
            features = keras.layers.Dropout(self.dropout, name=f"{HEAD}.dropout")(features)
        # In half precision a softmax over many classes loses the small ones.
        if self.task != "regression":
            logits = keras.layers.Dense(int(self.outputs), name=LOGITS, dtype="float32")(features)
            activation = TASKS[self.task].activation
            return keras.layers.Activation(activation, name=PROBABILITIES, dtype="float32")(logits)
        dense = keras.layers.Dense(int(self.outputs), name=STANDARDISED, dtype="float32")
        return _affine(UNITS, int(self.outputs))(dense(features))


def _affine(name: str, length: int) -> Any:
    """Return a layer with a scale and an offset for each number, which do not train.

    A plain layer that every export knows; a Normalization would hold them as constants outside its
    weights.
    """
    import keras

    return keras.layers.EinsumDense(
        "bi,i->bi",
        output_shape=length,
        bias_axes="i",
        kernel_initializer="ones",
        name=name,
        dtype="float32",
        trainable=False,
    )


def read_task(model: Any) -> str | None:
    """Tell the task of a model that keras_transfer built; None for a foreign one."""
    activations = {layer.name: getattr(layer, "activation", None) for layer in model.layers}
    if UNITS in activations:
        return "regression"
    name = getattr(activations.get(PROBABILITIES), "__name__", "")
    return next((key for key, task in TASKS.items() if name == task.activation), None)


def trained_output(model: Any) -> Any:
    """Return what the loss reads: the output, or the standardised one of a regression.

    Returns
    -------
    Keras tensor of shape (batch, outputs)
    """
    is_standardised = any(layer.name == STANDARDISED for layer in model.layers)
    return model.get_layer(STANDARDISED).output if is_standardised else model.outputs[0]


def set_units(model: Any, mean: Any, scale: Any) -> None:
    """Tell a regression model the units of its target.

    Parameters
    ----------
    model : keras.Model
    mean, scale : array-like of shape (outputs,)
        For each output: what a standardised 0 stands for, and a standardised step of 1.
    """
    model.get_layer(UNITS).set_weights(
        [np.asarray(scale, np.float32), np.asarray(mean, np.float32)]
    )


def wants_feature_units(
    task: str | None, input_shape: Sequence[int | None], pretrained: bool
) -> bool:
    """Say whether the features that a head reads are to be brought to one scale before it trains.

    Not those of random weights, which will soon be others, nor of networks for vectors, of which
    hardly any is pretrained.

    Parameters
    ----------
    task : str or None
        As `read_task` tells it.
    input_shape : sequence of int
        Of one input of the whole model.
    pretrained : bool
    """
    return task == "regression" and pretrained and len(input_shape) == 3


def set_feature_units(model: Any, features: Any, weights: Any = None) -> None:
    """Bring what the head of a regression reads to one scale.

    Each feature gets a mean of 0, and all together a variance of 1, so that one learning rate
    serves a few averages and a grid of thousands alike. A model that has its scale keeps it: what
    it has learned is in that scale.

    Parameters
    ----------
    model : keras.Model
    features : array-like of shape (n, n_features)
        Of training examples.
    weights : array-like of shape (n,), optional
        How much each counts.
    """
    layer = model.get_layer(FEATURES)
    scale, offset = layer.get_weights()
    if not ((scale == 1).all() and (offset == 0).all()):
        return
    features = np.asarray(features, np.float64)
    mean = np.average(features, axis=0, weights=weights)
    spread = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
    if spread.mean() <= 1e-6 * np.abs(mean).mean():  # one example, or always the same one
        return
    # What hardly ever moves would otherwise count as much as the rest.
    scale = 1 / (np.maximum(spread, 0.1 * spread.mean()) * np.sqrt(len(mean)))
    values = [scale, -mean * scale]
    layer.set_weights([value.astype(np.float32) for value in values])
