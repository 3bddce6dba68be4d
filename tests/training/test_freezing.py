"""freeze_for: what trains, and that what is frozen computes as in inference."""

import contextlib

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Stage, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import UnknownNameError
from keras_transfer.training.freezing import freeze_for, frozen_weights, has_fresh_batch_norm

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture
def model():
    return tiny.classifier(tiny.settled(tiny.residual, SHAPE), 3)


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(0, 255, (8, *SHAPE)).astype("float32")


def test_a_frozen_block_is_a_fixed_function(model, x):
    """With its dropout on, what reaches the head would differ from what is served."""
    blocks = read_blocks(model)
    assert not np.array_equal(model(x, training=True), model(x, training=False))
    with freeze_for(model, blocks, Stage("head", {"head": 0.1}, 1)):
        np.testing.assert_array_equal(model(x, training=True), model(x, training=False))
    assert not np.array_equal(model(x, training=True), model(x, training=False))
    with freeze_for(model, blocks, Stage("unit", {"unit0_conv": 0.1, "head": 0.1}, 1)):
        assert not np.array_equal(model(x, training=True), model(x, training=False))


def test_layers_are_as_they_were_after_an_error(model, x):
    stage = Stage("s", {"head": 1}, 1)
    with contextlib.suppress(KeyError), freeze_for(model, read_blocks(model), stage):
        raise KeyError
    assert not np.array_equal(model(x, training=True), model(x, training=False))
    assert not any("call" in vars(layer) for layer in model.layers)


RESTLESS = {
    "augmentation": lambda: keras.layers.RandomFlip("horizontal", seed=0),
    "noise": lambda: keras.layers.GaussianNoise(0.9, seed=0),
    "spectral norm": lambda: keras.layers.SpectralNormalization(
        keras.layers.Conv2D(3, 3, name="inner")
    ),
    "a model with dropout": lambda: keras.Sequential([keras.layers.Dropout(0.5, seed=0)]),
}


@pytest.mark.parametrize("kind", RESTLESS)
def test_whatever_is_random_or_keeps_state_is_still_in_a_frozen_block(kind, x):
    source = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Conv2D(3, 3, name="low"), RESTLESS[kind]()]
    )
    model = tiny.classifier(get_backbone(source), 2)
    blocks = read_blocks(model)
    before = [w.numpy() for w in model.weights]
    with freeze_for(model, blocks, Stage("head", {"head": 0.1}, 1)):
        np.testing.assert_array_equal(model(x, training=True), model(x, training=False))
    for w, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(w.numpy(), value)


def test_momentum_holds_for_the_stage(model):
    stage = Stage(
        "s", {"unit1_conv": 1e-3, "head": 1e-3}, 1, batch_norm="train", batch_norm_momentum=0.5
    )
    with freeze_for(model, read_blocks(model), stage):
        assert model.get_layer("unit1_conv.unit1_bn").momentum == 0.5
        assert model.get_layer("unit0_conv.unit0_bn").momentum == 0.99
    assert model.get_layer("unit1_conv.unit1_bn").momentum == 0.99


def test_a_model_that_was_frozen_as_a_whole_trains_again(model):
    model.trainable = False
    with freeze_for(model, read_blocks(model), Stage("s", {"head": 1e-3}, 1)):
        paths = [w.path for w in model.trainable_weights]
    assert paths == ["head.logits/kernel", "head.logits/bias"]


def test_a_block_that_trained_is_frozen_again(model):
    """Its gamma and beta were set to train one by one; the layer's flag was False all along."""
    blocks = read_blocks(model)
    with freeze_for(
        model, blocks, Stage("s", {"unit1_conv": 1e-3, "head": 1}, 1, batch_norm="affine")
    ):
        assert model.get_layer("unit1_conv.unit1_bn").gamma.trainable
    with freeze_for(model, blocks, Stage("t", {"head": 1}, 1)):
        paths = [w.path for w in model.trainable_weights]
    assert paths == ["head.logits/kernel", "head.logits/bias"]


def test_frozen_weights_by_policy(model):
    blocks = read_blocks(model)
    names = {}
    for policy in ("frozen", "affine", "train"):
        stage = Stage("s", {"unit1_conv": 1e-3, "head": 1e-3}, 1, batch_norm=policy)
        with freeze_for(model, blocks, stage):
            frozen = frozen_weights(model, blocks, stage)
        names[policy] = {w.path for w in frozen if w.path.startswith("unit1_conv")}
    statistics = {"unit1_conv.unit1_bn/moving_mean", "unit1_conv.unit1_bn/moving_variance"}
    assert names["frozen"] == statistics | {"unit1_conv.unit1_bn/gamma", "unit1_conv.unit1_bn/beta"}
    assert names["affine"] == statistics
    assert names["train"] == set()


def test_composite_layers():
    """A layer that holds others, BatchNorm among them, is frozen as a whole and leaf by leaf."""

    @keras.saving.register_keras_serializable("test_freezing")
    class Unit(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense, self.norm = keras.layers.Dense(4), keras.layers.BatchNormalization()

        def build(self, shape):
            self.dense.build(shape)
            self.norm.build((*shape[:-1], 4))

        def call(self, x):
            return self.norm(self.dense(x))

        def get_config(self):  # without it Keras forgets the name
            return super().get_config()

    inputs = keras.Input((5,))
    source = keras.Model(inputs, Unit(name="two")(Unit(name="one")(inputs)))
    model = tiny.classifier(get_backbone(source), 2)
    blocks = read_blocks(model)
    assert [block.name for block in blocks] == ["one", "two", "head"]
    with freeze_for(model, blocks, Stage("s", {"two": 1.0, "head": 1.0}, 1, batch_norm="affine")):
        paths = [w.path for w in model.trainable_weights]
    assert len(paths) == 6
    assert all(path.startswith(("two.two/", "head.")) for path in paths)
    assert not any("moving" in path for path in paths)


def test_knows_statistics_that_were_never_trained(model):
    assert not has_fresh_batch_norm(model.layers)
    assert has_fresh_batch_norm(
        tiny.classifier(get_backbone(tiny.cnn), 2, input_shape=SHAPE).layers
    )
    assert not has_fresh_batch_norm(
        tiny.classifier(get_backbone(tiny.dense), 2, input_shape=(3,)).layers
    )


def test_a_block_that_does_not_exist(model):
    stage = Stage("s", {"unit1_cnov": 1e-3}, 1)
    with (
        pytest.raises(UnknownNameError, match="Did you mean 'unit1_conv'"),
        freeze_for(model, read_blocks(model), stage),
    ):
        pass
