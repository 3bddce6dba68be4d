"""Datasets and models of the user's own: what a recipe asks of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import get_backbone
from keras_transfer.errors import DataError, InvalidParameterError, InvalidTypeError
from keras_transfer.fitting import own_data
from keras_transfer.fitting.own_data import (
    check_outputs,
    measure_dataset,
    read_features,
    read_units,
    standardise,
)

X = tiny.vectors()[0].astype("float32")
Y = np.arange(len(X)) % 3


def batches(y=Y, size=7):
    return tf.data.Dataset.from_tensor_slices((X, y)).batch(size)


def test_counts_batches_of_known_and_unknown_number():
    first, n_batches = measure_dataset("dataset", batches(), "multiclass")
    assert (first[0].shape[0], n_batches) == (7, 6)
    unknown = batches().filter(lambda x, y: True)
    assert measure_dataset("dataset", unknown, "multiclass")[1] == 6


@pytest.mark.parametrize(
    ("dataset", "task", "error", "message"),
    [
        (X, "multiclass", InvalidTypeError, "validation_data: expected a tf.data.Dataset"),
        (batches().repeat(), "multiclass", InvalidParameterError, "Leave repeat"),
        (batches().take(0), "multiclass", InvalidParameterError, "batches of"),
        (batches(Y + 0.5), "multiclass", DataError, "class indices"),
        (batches(), "multilabel", DataError, "rows of 0 and 1"),
        (batches(Y.astype(str)), "regression", DataError, "expected numbers"),
    ],
    ids=["an array", "infinite", "empty", "numbers for classes", "classes for labels", "text"],
)
def test_refuses_datasets(dataset, task, error, message):
    with pytest.raises(error, match=message):
        measure_dataset("validation_data", dataset, task)


def test_features_of_the_first_examples_are_enough(monkeypatch):
    model = tiny.classifier(get_backbone(tiny.dense), 2, input_shape=(5,))
    every = read_features(model, batches())
    assert every.shape == (40, 8)
    monkeypatch.setattr(own_data, "MAX_LOOKED_AT", 20)
    first = read_features(model, batches())
    assert first.shape == (21, 8)  # three batches
    np.testing.assert_allclose(first, every[:21], rtol=1e-6)


def ends_in(activation):
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(3, activation=activation)(inputs))


def test_outputs_are_what_the_task_asks_for():
    for activation, task in (("softmax", "multiclass"), ("sigmoid", "multilabel")):
        check_outputs(ends_in(activation), X, task)
        with pytest.raises(InvalidParameterError, match=rf"Activation\('{activation}'\)"):
            check_outputs(ends_in("linear"), X * 100, task)
    check_outputs(ends_in("linear"), X, "regression")
    with pytest.raises(InvalidParameterError, match="rows that sum to 1"):
        check_outputs(ends_in("sigmoid"), X, "multiclass")


@pytest.mark.parametrize("columns", [None, 2])
def test_units(columns):
    numbers = np.random.default_rng(0).normal(50, 7, (len(X), columns) if columns else len(X))
    mean, scale = read_units(batches(numbers))
    np.testing.assert_allclose(mean, np.atleast_1d(numbers.mean(axis=0)))
    np.testing.assert_allclose(scale, np.atleast_1d(numbers.std(axis=0)))
    standardised = standardise(numbers, mean, scale).numpy()
    assert standardised.dtype == np.float32
    assert standardised.shape == (len(X), columns or 1)
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-5)
