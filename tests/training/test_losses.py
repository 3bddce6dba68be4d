"""Losses: what they are by formula, and that the model that comes out has the plain one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    Stage,
    TransferClassifier,
    TransferRegressor,
    load,
)
from keras_transfer.errors import InvalidParameterError
from keras_transfer.training.losses import build_loss, build_metrics
from keras_transfer.training.optimizers import trace_key

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (6, 4)).astype("float32")
INDICES = RNG.integers(0, 4, 6)
SHARES = RNG.dirichlet(np.ones(4), 6).astype("float32")
LABELS = RNG.integers(0, 2, (6, 4))
SOFT = RNG.uniform(0, 1, (6, 4)).astype("float32")
X, Y = tiny.pictures()
SHAPE = X.shape[1:]


def stage(**options):
    return Stage("s", {"head": 1e-2}, 1, **options)


def softmax(logits):
    powers = np.exp(logits.astype("float64"))
    return powers / powers.sum(axis=1, keepdims=True)


def class_loss(shares, smoothing, gamma):
    """Lin et al. for one class, and its mean over shares; smoothed as Szegedy et al. do."""
    shares = shares * (1 - smoothing) + smoothing / shares.shape[1]
    probabilities = softmax(LOGITS)
    return -(shares * (1 - probabilities) ** gamma * np.log(probabilities)).sum(axis=1)


def label_loss(targets, smoothing, gamma):
    targets = targets * (1 - smoothing) + smoothing / 2
    yes = 1 / (1 + np.exp(-LOGITS.astype("float64")))
    entropy = -(targets * np.log(yes) + (1 - targets) * np.log(1 - yes))
    foreseen = targets * yes + (1 - targets) * (1 - yes)
    return ((1 - foreseen) ** gamma * entropy).mean(axis=1)


@pytest.mark.parametrize("gamma", [None, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mix", [None, "mixup"])
def test_values(smoothing, gamma, mix):
    asked = stage(label_smoothing=smoothing, focal_gamma=gamma, mix=mix)
    shares, soft = (np.eye(4)[INDICES], LABELS) if mix is None else (SHARES, SOFT)
    given = {"multiclass": INDICES if mix is None else SHARES, "multilabel": soft}
    expected = {
        "multiclass": class_loss(shares, smoothing, gamma or 0),
        "multilabel": label_loss(soft, smoothing, gamma or 0),
    }
    for task, activation in (("multiclass", "softmax"), ("multilabel", "sigmoid")):
        loss = keras.losses.get(build_loss(task, asked))
        outputs = keras.activations.get(activation)(tf.constant(LOGITS))
        np.testing.assert_allclose(loss(given[task], outputs), expected[task], rtol=2e-4)
        if task == "multiclass" and mix is None:
            np.testing.assert_allclose(
                loss(INDICES[:, None], outputs).numpy(), loss(INDICES, outputs)
            )


def test_the_plain_loss_is_named_as_ever():
    for asked in (None, stage(), stage(focal_gamma=0.0)):
        assert build_loss("multiclass", asked) == "sparse_categorical_crossentropy"
        assert build_loss("multilabel", asked) == "binary_crossentropy"
    assert build_loss("multiclass", stage(mix="cutmix")) == "categorical_crossentropy"
    assert build_loss("multilabel", stage(mix="cutmix")) == "binary_crossentropy"
    assert build_loss("regression", stage(mix="cutmix")) == "mean_squared_error"


@pytest.mark.parametrize("gamma", [None, 0.5, 2.0])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_of_sure_answers_the_gradient_is_a_number(task, gamma):
    # Smoothed, no answer is wholly foreseen: what is to be seen is where one is.
    asked = stage(focal_gamma=gamma) if gamma else stage(label_smoothing=0.1)
    loss = keras.losses.get(build_loss(task, asked))
    targets = np.array([0]) if task == "multiclass" else np.array([[1, 0]])
    activation = {"multiclass": keras.ops.softmax, "multilabel": keras.ops.sigmoid}[task]

    @tf.function
    def gradient(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(targets, activation(logits))
        return tape.gradient(value, logits)

    for logits in ([[60.0, -60.0]], [[-60.0, 60.0]]):
        assert np.isfinite(gradient(tf.constant(logits))).all()
    if gamma is None:  # no probability is cut off
        assert abs(gradient(tf.constant([[-60.0, 60.0]]))).numpy().max() > 0.4


def test_the_accuracy_of_soft_labels():
    def accuracy(task, targets, outputs):
        (metric,) = build_metrics(task, stage(mix="mixup"))
        assert metric.name == "accuracy"
        return float(metric(np.array(targets), np.array(outputs)))

    shares, answers = [[0.7, 0.3, 0.0], [0.4, 0.0, 0.6]], [[0.5, 0.2, 0.3], [0.5, 0.1, 0.4]]
    assert accuracy("multiclass", shares, answers) == 0.5
    assert accuracy("multilabel", [[0.7, 0.3], [0.4, 0.6]], [[0.9, 0.1], [0.9, 0.9]]) == 0.75
    assert build_metrics("regression", stage(mix="mixup")) == []
    (plain,) = build_metrics("multiclass", stage())
    assert isinstance(plain, keras.metrics.SparseCategoricalAccuracy)


def test_what_is_compiled_depends_on_it():
    asked = [{}, {"label_smoothing": 0.1}, {"focal_gamma": 1.0}, {"mix": "mixup"}]
    keys = [trace_key(stage(**each), "multiclass") for each in asked]
    assert len(set(keys)) == len(keys)
    same = [
        trace_key(stage(mix="cutmix"), "multiclass"),
        trace_key(stage(focal_gamma=0), "multiclass"),
    ]
    assert same == [keys[3], keys[0]]


# === In a fit ===


def fit(recipe, y=Y, seed=0, kind=TransferClassifier, **options):
    backbone = tiny.settled(tiny.residual, SHAPE)
    options = {"readout": "last", "guard": None, "validation": None, **options}
    return kind(backbone, recipe, random_state=seed, **options).fit(X, y)


SETTINGS = {
    "smoothed": {"label_smoothing": 0.1},
    "focal": {"focal_gamma": 2.0},
    "both": {"label_smoothing": 0.1, "focal_gamma": 0.5},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_fit(settings, task, tmp_path):
    y = Y if task == "multiclass" else np.stack([Y == "circle", Y != "square"], axis=1)
    plain = fit(CompositeTransfer(1, epochs=2), y)
    one, two = (fit(CompositeTransfer(1, epochs=2, **settings), y) for _ in range(2))
    assert [record.stored for record in one.stages_] == [
        "stored at readout",
        "stored at unit0_conv",
    ]
    values = [{w.path: w.numpy() for w in each.model_.weights} for each in (one, two, plain)]
    trained = {path for record in one.stages_ for path in record.weights}
    for path, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][path])
        assert np.array_equal(value, values[2][path]) == (path not in trained)
    # What comes out is plain Keras.
    one.model_.save(tmp_path / "it.keras")
    loaded = keras.models.load_model(tmp_path / "it.keras")
    assert loaded.loss == build_loss(task)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), one.model_.predict(X, verbose=0))
    one.save(tmp_path / "it.keras_transfer")
    again = load(tmp_path / "it.keras_transfer")
    np.testing.assert_array_equal(again.predict_proba(X), one.predict_proba(X))
    assert again.recipe.get_params() == one.recipe.get_params()


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.1}, {"focal_gamma": 2.0}])
def test_a_regression_has_neither(settings):
    (name,) = settings
    with pytest.raises(InvalidParameterError, match=f"{name}: expected .* for a regression"):
        fit(ParameterTransfer(**settings), np.arange(len(Y)) * 1.0, kind=TransferRegressor)
