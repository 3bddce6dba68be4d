"""Heads: what each kind of task ends in."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import InvalidParameterError, UnknownNameError
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import (
    TASKS,
    Head,
    read_task,
    set_feature_units,
    set_units,
    trained_output,
)

X = tiny.vectors()[0].astype("float32")


def build(task, outputs=3, **options):
    return Assembly(
        get_backbone(tiny.dense), Head(task, outputs, **options), input_shape=(5,), seed=0
    ).build()


@pytest.mark.parametrize("task", TASKS)
def test_layers_and_outputs(task):
    model = build(task)
    assert model.output_shape == (None, 3)
    assert model.output.dtype == "float32"
    assert read_task(model) == task
    assert [block.name for block in read_blocks(model)] == ["low", "high", "head"]
    outputs = model(X).numpy()
    if task == "multiclass":
        np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)
    if task == "multilabel":
        assert ((outputs > 0) & (outputs < 1)).all()
        logits = keras.Model(model.input, model.get_layer("head.logits").output)(X).numpy()
        np.testing.assert_allclose(outputs, 1 / (1 + np.exp(-logits)), rtol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_read_from_a_reloaded_model(task, tmp_path):
    model = build(task)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert read_task(again) == task
    np.testing.assert_array_equal(again(X), model(X))


def test_units():
    model = build("regression", 2)
    standardised = keras.Model(model.input, trained_output(model))(X).numpy()
    np.testing.assert_array_equal(model(X), standardised)  # until the units are known
    set_units(model, [10.0, -3.0], [2.0, 500.0])
    expected = standardised * [2.0, 500.0] + [10.0, -3.0]
    np.testing.assert_allclose(model(X), expected, rtol=1e-6)
    assert not any("units" in weight.path for weight in model.trainable_weights)


def test_features_of_a_regression_come_to_one_scale():
    model = build("regression", 1)
    read = keras.Model(model.input, model.get_layer("target.features").input)(X).numpy()
    weights = np.arange(1.0, len(X) + 1)
    set_feature_units(model, read, weights)
    scaled = keras.Model(model.input, model.get_layer("target.features").output)(X).numpy()
    np.testing.assert_allclose(np.average(scaled, axis=0, weights=weights), 0, atol=1e-5)
    variance = np.average(scaled**2, axis=0, weights=weights) * scaled.shape[1]
    spread = read.std(axis=0)
    moves = spread > 0.3 * spread.mean()  # a relu may be off for all of them
    assert moves.any()
    np.testing.assert_allclose(variance[moves], 1, rtol=1e-4)
    assert (variance <= 1.0001).all()
    assert np.abs(np.asarray(model(X))).max() < 3  # it starts near the mean of the targets
    assert not any("features" in weight.path for weight in model.trainable_weights)
    before = model.get_weights()
    set_feature_units(model, read * 100)  # what was learned is in the scale that it has
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_constant_features_are_no_problem():
    model = build("regression", 1)
    n_features = model.get_layer("target.features").input.shape[-1]
    before = model.get_weights()
    for same in (
        np.ones((4, n_features)),
        np.zeros((4, n_features)),
        X[:1, :1] * np.ones(n_features),
    ):
        set_feature_units(model, same)
        for one, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_trained_of_a_classifier_is_its_output():
    for task in ("multiclass", "multilabel"):
        model = build(task)
        assert trained_output(model) is model.output


def test_dropout_is_before_the_last_linear_layer():
    for task in TASKS:
        names = [layer.name for layer in build(task, dropout=0.5).layers]
        before = "target.features" if task == "regression" else "high.high"
        assert names.index("head.dropout") == names.index(before) + 1
        assert not any("dropout" in layer.name for layer in build(task).layers)


def test_in_half_precision_the_head_stays_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        models = [build(task) for task in TASKS]
    finally:
        keras.config.set_dtype_policy("float32")
    for model in models:
        assert model.output.dtype == "float32"
        assert model.layers[-1].compute_dtype == "float32"


def test_a_foreign_model_has_no_task():
    assert read_task(tiny.dense((3,))) is None


def test_no_head_ends_in_features():
    model = Assembly(get_backbone(tiny.dense), None, input_shape=(5,)).build()
    assert model.output_shape == (None, 8)
    assert read_task(model) is None


@pytest.mark.parametrize(
    ("task", "outputs"),
    [("multiclass", 1), ("multilabel", 0), ("regression", 0), ("regression", 1.0)],
)
def test_refuses_a_number_of_outputs(task, outputs):
    with pytest.raises(InvalidParameterError, match=rf"{TASKS[task].outputs}, an int of at least"):
        Head(task, outputs)


def test_refuses_a_task():
    with pytest.raises(UnknownNameError, match="Did you mean 'multilabel'"):
        Head("multilable", 3)
