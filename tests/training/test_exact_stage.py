"""A stage that is solved: what it puts into the network, and what it says of it."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Stage
from keras_transfer.errors import InvalidParameterError
from keras_transfer.graph.heads import Head, set_feature_units
from keras_transfer.training.exact_head import solve_head
from keras_transfer.training.exact_stage import solve_stage
from keras_transfer.training.feed import Solvable

X, LABELS = tiny.vectors()
X = X.astype("float32")
Y = (LABELS == "yes").astype(int)
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2, len(Y))


def network(task, outputs):
    backbone = tiny.settled(tiny.dense, (5,))
    return tiny.assembly(backbone, Head(task, outputs), input_shape=(5,)).build()


def features(model, layer):
    return keras.Model(model.input, model.get_layer(layer).input)(X).numpy()


def solve(model, task, read, targets, **options):
    stage = Stage("head", {"head": 1.0}, 1, solver="exact", **options)
    return solve_stage(model, stage, task, Solvable(read, targets, WEIGHTS))


@pytest.mark.parametrize("targets", [Y, Y[:, np.newaxis]], ids=["row", "column"])
def test_classes(targets):
    model = network("multiclass", 2)
    logs = solve(model, "multiclass", features(model, "head.logits"), targets, penalty=1.0)
    answers = model(X).numpy()
    assert logs["accuracy"] == pytest.approx(np.mean(answers.argmax(axis=1) == Y))
    loss = -np.average(np.log(answers[np.arange(len(Y)), Y]), weights=WEIGHTS)
    assert logs["loss"] == pytest.approx(loss, rel=1e-3)


def test_labels():
    model = network("multilabel", 2)
    targets = np.stack([Y, 1 - Y], axis=1)
    logs = solve(model, "multilabel", features(model, "head.logits"), targets)
    assert logs["accuracy"] == pytest.approx(np.mean((model(X).numpy() > 0.5) == targets))


def test_numbers_in_the_features_own_scale():
    model = network("regression", 1)
    read = features(model, "target.features")
    set_feature_units(model, read)
    targets = (X[:, :1] - X[:, :1].mean()) / X[:, :1].std()
    logs = solve(model, "regression", read, targets, penalty=0.1)
    loss = np.average(np.square(model(X).numpy() - targets)[:, 0], weights=WEIGHTS)
    assert logs == {"loss": pytest.approx(loss, rel=1e-3)}
    assert loss < 0.7


def test_of_views_the_first_ones_tell_the_penalty():
    model = network("multiclass", 2)
    read = features(model, "head.logits")
    first = solve_head(read, Y, "multiclass", n_outputs=2, weights=WEIGHTS).penalty
    other = read + np.random.default_rng(0).normal(size=read.shape)
    stage = Stage("head", {"head": 1.0}, 1, solver="exact")
    twice = [np.concatenate(pair) for pair in ((read, other), (Y, Y), (WEIGHTS, WEIGHTS))]
    solve_stage(model, stage, "multiclass", Solvable(*twice, n_first=len(Y)))
    expected = solve_head(*twice[:2], "multiclass", n_outputs=2, weights=twice[2], penalty=first)
    kernel = model.get_layer("head.logits").get_weights()[0]
    np.testing.assert_allclose(kernel, expected.kernel, rtol=1e-5)


def test_blocks_cannot_be_solved():
    with pytest.raises(InvalidParameterError, match=r"expected the head alone to train"):
        Stage("s", {"block": 1.0, "head": 1.0}, 1, solver="exact")
