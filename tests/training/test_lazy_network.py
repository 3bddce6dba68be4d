"""A network that is built no further than is asked for, and then is what it would have been."""

import functools
import json

import numpy as np
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.heads import Head
from keras_transfer.graph.readout import Readout
from keras_transfer.store.activation_store import Memory, open_store
from keras_transfer.training.boundary import Boundary
from keras_transfer.training.lazy_network import LazyNetwork, Outline
from keras_transfer.training.random_state import isolated_seed

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
BUILDS = [tiny.cnn, tiny.residual, tiny.nested]
NO_CUT = Boundary((), frozenset(), "")


@functools.cache
def settled(build):
    # Of two that are built, Keras numbers the inputs differently.
    return tiny.settled(build, SHAPE)


def blueprint(build=tiny.residual, task="multiclass", readout=None, seed=0):
    return Blueprint(settled(build), Head(task, 3), SHAPE, readout or Readout(), seed)


@pytest.mark.parametrize("build", BUILDS)
def test_the_outline_is_the_model(build):
    network = LazyNetwork(blueprint(build))
    expected = read_blocks(network.build_part(NO_CUT))
    found = network.outline.blocks
    assert [block.name for block in found] == [block.name for block in expected]
    assert [block.parameters for block in found] == [block.parameters for block in expected]
    assert [block.batch_norm for block in found] == [block.batch_norm for block in expected]
    assert network.outline.is_fresh == (build is tiny.nested)  # its inner ones are not settled
    plain = json.loads(json.dumps(network.outline.to_plain()))
    assert Outline.from_plain(plain) == network.outline


def test_random_statistics_are_told():
    backbone = get_backbone(tiny.cnn)
    assert LazyNetwork(Blueprint(backbone, None, SHAPE, Readout(), 0)).outline.is_fresh


def test_on_a_hit_nothing_is_loaded(tmp_path, monkeypatch):
    store = open_store(Memory(folder=tmp_path))
    first = LazyNetwork(blueprint(), store)
    expected = first.outline, first.build_part(first.boundary()).get_weights()
    monkeypatch.setattr(Assembly, "__init__", None)  # cannot be called
    again = LazyNetwork(blueprint(), store)
    assert again.outline == expected[0]
    for one, other in zip(
        again.build_part(again.boundary()).get_weights(), expected[1], strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert not again.is_built


@pytest.mark.parametrize("trained", [(), ("unit1_conv",), ("unit0_conv", "unit1_conv")])
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_part_begins_as_in_the_whole(trained, task):
    network = LazyNetwork(blueprint(task=task, seed=3))
    part = network.build_part(network.boundary(trained))
    whole = LazyNetwork(blueprint(task=task, seed=3)).build_part(NO_CUT)
    with_weights = [layer for layer in part.layers if layer.weights]
    assert {layer.name.partition(".")[0] for layer in with_weights} >= {"head", *trained}
    for layer in with_weights:
        for one, other in zip(
            layer.get_weights(), whole.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    # And once more, from what is kept of the first.
    again = LazyNetwork(blueprint(task=task, seed=3)).build_part(network.boundary(trained))
    for one, other in zip(part.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_head_alone_is_what_stands_above_the_features():
    network = LazyNetwork(blueprint(seed=5))
    boundary = network.boundary()
    with isolated_seed(5):
        above = network.graph.build_above(boundary.cut, boundary.below)
    head = LazyNetwork(blueprint(seed=5)).build_part(boundary)
    assert head.get_config() == above.get_config()
    for one, other in zip(head.get_weights(), above.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_whole_has_what_a_part_learned():
    network = LazyNetwork(blueprint())
    part = network.build_part(network.boundary(("unit1_conv",)))
    part.set_weights([weight + 1 for weight in part.get_weights()])
    whole = network.build_whole(part)
    plain = network.build_part(NO_CUT)
    for layer in whole.layers:
        learned = any(layer.name == other.name for other in part.layers)
        for one, other in zip(
            layer.get_weights(), plain.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other + 1 if learned else other)


def test_several_heads_share_what_is_noted_of_the_rest(tmp_path):
    store = open_store(Memory(folder=tmp_path))
    network = LazyNetwork(blueprint(), store)
    network.write_note("digest", "abc")
    other = LazyNetwork(blueprint(task="regression"), store)
    assert other.identity == network.identity
    assert other.read_note("digest") == "abc"
    assert "target.features" in other.outline.nodes  # not the outline of the first


def test_weights_that_changed_since_are_noticed(monkeypatch):
    network = LazyNetwork(blueprint())
    part = network.build_part(network.boundary())
    network.release()
    monkeypatch.setattr(Blueprint, "identity", lambda self: "a file of another time")
    with pytest.raises(ValueError, match=r"another file of weights. Fit again"):
        network.build_whole(part)


def test_what_no_identity_tells_is_kept():
    network = LazyNetwork(Blueprint(get_backbone(tiny.cnn), None, SHAPE, Readout(), 0))
    assert network.identity is None
    graph = network.graph
    network.release()
    assert network.graph is graph
    other = LazyNetwork(blueprint())
    assert other.graph is not None
    other.release()
    assert not other.is_built


# === Whether a source task speaks from the weights ===


def constant(shape):
    """Weights that are the same in each call, as those read from a file are."""
    model = tiny.dense(shape)
    model.set_weights([np.full(weight.shape, 0.1) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    ("source", "shape", "expected"),
    [
        (tiny.dense, (5,), True),
        (tiny.cnn, SHAPE, True),
        (constant, (5,), False),
        (lambda shape: constant(shape), (5,), False),
        (tiny.dense((5,)), (5,), False),  # a model: who knows where its weights are from
    ],
    ids=["dense function", "fresh statistics", "constant", "lambda", "model"],
)
def test_random_weights_are_told(source, shape, expected):
    network = LazyNetwork(Blueprint(get_backbone(source), None, shape, Readout(), 0))
    assert network.is_random == expected
    assert LazyNetwork(Blueprint(get_backbone(source), None, shape, Readout(), 7)).is_random == (
        expected
    )
