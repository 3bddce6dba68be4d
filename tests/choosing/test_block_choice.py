"""Blocks are chosen by how hard the target task pulls at their weights, for their size."""

import functools

import keras
import numpy as np
import pytest
import tiny
from sklearn.linear_model import LogisticRegression

import keras_transfer
from keras_transfer import CompositeTransfer, StructureTransfer, TransferClassifier, get_backbone
from keras_transfer.errors import InvalidParameterError
from keras_transfer.training import stored_outputs

X, Y = tiny.vectors()


@functools.cache
def source():
    keras.utils.set_random_seed(0)
    return get_backbone(tiny.dense((5,)))


@functools.cache
def fitted(weights=None):
    clf = TransferClassifier(
        source(), StructureTransfer("auto", epochs=2), random_state=0, readout="last", guard=None
    )
    return clf.fit(X, Y)


def expected_signal(penalty):
    """By hand, with scikit-learn's head, on the same network."""
    model = source().load((5,))
    low, high = model.layers[-2:]
    features = model.predict(X.astype(np.float32), verbose=0)
    scale = np.sqrt(features.var(axis=0).mean())
    head = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10**5).fit(features / scale, Y)
    p = head.predict_proba(features / scale)[:, 1]
    at_features = (p - (Y == "yes"))[:, np.newaxis] * head.coef_ / scale
    at_high = at_features * (features > 0)
    hidden = np.maximum(X @ low.get_weights()[0] + low.get_weights()[1], 0)
    at_low = (at_high @ high.get_weights()[0].T) * (hidden > 0)
    signal = {}
    for name, layer, below, at in (("low", low, X, at_low), ("high", high, hidden, at_high)):
        pull = np.square(below.T @ at).sum() + np.square(at.sum(axis=0)).sum()
        size = sum(np.square(weight).sum() for weight in layer.get_weights())
        signal[name] = np.sqrt(pull / size)
    return signal


def test_the_signal_is_the_gradient_over_the_weights():
    signal = dict(fitted().train_blocks_.signal)
    assert list(signal) == ["low", "high"]
    # The penalty that the exact head chooses is not told: one of a wide range must fit both.
    ratios = [
        [signal[name] / value for name, value in expected_signal(penalty).items()]
        for penalty in np.geomspace(0.05, 500, 60)
    ]
    assert min(np.abs(np.log(pair)).max() for pair in ratios) < 0.1


def test_what_is_chosen_trains_and_the_rest_stays():
    clf = fitted()
    choice = clf.train_blocks_
    most = max(value for _, value in choice.signal)
    assert choice.names == tuple(name for name, value in choice.signal if value >= 0.5 * most)
    assert clf.stages_[0].stage.trained == (*choice.names, "head")
    first = source().load((5,))
    for name, weights in zip(("low", "high"), (first.layers[-2], first.layers[-1]), strict=True):
        now = [w for layer in clf.model_.layers if layer.name.startswith(f"{name}.")
               for w in layer.get_weights()]  # fmt: skip
        moved = not all(map(np.array_equal, now, weights.get_weights()))
        assert moved == (name in choice.names)
    assert clf.recipe.train_blocks == "auto"


def test_a_block_that_is_spoiled_is_found():
    """Low weights made small, as by another scale of the input: the pull is at them."""
    model = tiny.dense((5,))
    low, high = model.layers[-2:]
    rng = np.random.default_rng(0)
    low.set_weights([rng.normal(0, 0.02, (5, 16)), np.zeros(16)])
    high.set_weights([rng.normal(0, 1, (16, 8)), np.zeros(8)])
    clf = TransferClassifier(
        get_backbone(model),
        CompositeTransfer("auto", epochs=1),
        random_state=0,
        readout="last",
        guard=None,
    )
    clf.fit(X, Y)
    assert clf.train_blocks_.names == ("low",)
    assert "low 1.00" in str(clf.train_blocks_)


def test_random_weights_all_train():
    clf = TransferClassifier(tiny.dense, CompositeTransfer("auto", epochs=1), random_state=0)
    clf.fit(X, Y)
    assert clf.train_blocks_.names == ("low", "high")
    assert clf.train_blocks_.reason == "the weights are random"


def all_train(backbone, y=Y, **options):
    """Let the data choose, and return why they chose nothing, once all blocks are seen to train."""
    clf = TransferClassifier(
        backbone, CompositeTransfer("auto", epochs=1), random_state=0, readout="last", guard=None
    )
    clf.fit(X, y, **options)
    choice = clf.train_blocks_
    assert choice.signal == ()
    assert str(choice) == f"all blocks: {choice.reason}"
    assert clf.stages_[-1].stage.trained == (*choice.names, "head")
    return choice


def test_examples_that_tell_nothing_train_all():
    choice = all_train(source(), groups=np.zeros(len(X)))
    assert choice.names == ("low", "high")
    assert choice.reason == "one group only"
    assert all_train(source(), np.arange(len(X))).reason == "one example of each class"


def test_blocks_without_weights_have_nothing_to_tell():
    def raw(input_shape):
        return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten()])

    assert all_train(raw).reason == "no block has weights"


def test_a_network_that_no_gradient_passes_trains_whole():
    model = tiny.dense((5,))
    model.layers[-1].set_weights([np.zeros((16, 8)), np.full(8, -1.0)])  # relu gives 0 for all
    choice = all_train(get_backbone(model))
    assert choice.names == ("low", "high")
    assert choice.reason == "no gradient reaches them"


def test_the_statistics_of_a_normalization_are_no_weights():
    """Far from 0, they would make its block look large, and the gradient small for it."""

    def signal(model, x):
        clf = TransferClassifier(
            get_backbone(model),
            StructureTransfer("auto", epochs=1),
            random_state=0,
            readout="last",
            guard=None,
        )
        return dict(clf.fit(x, Y).train_blocks_.signal)

    far = X + 1000.0
    normalization = keras.layers.Normalization(name="low_normalization")
    normalization.adapt(far)
    plain = source().load((5,))
    inside = keras.Sequential([keras.Input((5,)), normalization, *tiny.dense((5,)).layers])
    inside.set_weights([*normalization.get_weights(), *plain.get_weights()])
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    expected = signal(plain, scaled)
    found = signal(inside, far)
    assert found["low"] / found["high"] == pytest.approx(
        expected["low"] / expected["high"], rel=0.05
    )


def test_without_time_all_train(computed, empty_store, monkeypatch):
    """Neither for the pass of the network, nor, where that is kept, for the gradients."""
    monkeypatch.setattr(stored_outputs, "_COMPILED", 0)  # these are few

    def fit(**parameters):
        recipe = CompositeTransfer("auto", epochs=1)
        options = {"random_state": 0, "readout": "last", "guard": None, **parameters}
        return TransferClassifier(source(), recipe, **options).fit(X, Y).train_blocks_

    late = fit(time_budget=1e-9)
    assert late.names == ("low", "high")
    assert late.reason == "no time to look at their gradients"
    assert fit().reason == ""
    computed.clear()
    assert fit(time_budget=1e-9) == late
    assert computed == []


def test_it_is_saved(tmp_path):
    fitted().save(tmp_path / "clf.keras_transfer")
    loaded = keras_transfer.load(tmp_path / "clf.keras_transfer")
    assert loaded.train_blocks_ == fitted().train_blocks_


def test_without_training_data_it_is_refused():
    with pytest.raises(InvalidParameterError, match=r"'auto', which an estimator chooses"):
        CompositeTransfer("auto").build(source(), outputs=2, input_shape=(5,))
