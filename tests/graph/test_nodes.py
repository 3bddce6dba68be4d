"""The flat graph: nodes, their edges, and walks."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Readout, get_backbone
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import Head
from keras_transfer.graph.nodes import INPUT, ancestors, graph_of_model

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture
def graph():
    return Assembly(tiny.settled(tiny.residual, SHAPE), Head("multiclass", 3))


def test_nodes_are_named_and_shaped_as_the_layers_of_the_model(graph):
    model = graph.build()
    assert list(graph.nodes) == [layer.name for layer in model.layers[1:]]
    for name, node in graph.nodes.items():
        layer = model.get_layer(name)
        assert node.shape == tuple(layer.output.shape[1:])
        assert node.parameters == layer.count_params()
        assert node.batch_norm == isinstance(layer, keras.layers.BatchNormalization)
    assert model.get_layer(graph.output).output is model.output


def test_edges_and_ancestors(graph):
    first = next(iter(graph.nodes))
    assert graph.nodes[first].inputs == (INPUT,)
    assert ancestors(graph.nodes, [first]) == {first}
    assert ancestors(graph.nodes, [graph.output]) == set(graph.nodes)
    merged = [name for name, node in graph.nodes.items() if len(node.inputs) == 2]
    assert len(merged) == 2  # the additions of the two residual units


def test_a_walk_computes_what_the_model_does():
    graph = Assembly(tiny.settled(tiny.residual, SHAPE), None)
    x = np.random.default_rng(0).uniform(0, 1, (2, *SHAPE)).astype("float32")
    made = graph.walk(x, lambda _, operation, *args, **kwargs: operation(*args, **kwargs))
    np.testing.assert_allclose(made[graph.output], graph.build()(x), atol=1e-6)
    assert made[INPUT] is x


def test_blocks_above_the_readout_are_not_there():
    backbone = tiny.settled(tiny.residual, SHAPE)
    graph = Assembly(backbone, Head("multiclass", 3), readout=Readout("stem"))
    assert {node.block for node in graph.nodes.values()} == {"stem", "readout", "head"}
    assert graph.nodes[graph.features].block == "readout"


def test_the_shapes_of_a_network_for_inputs_of_any_size():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, strides=2, name="low")(inputs))
    graph = Assembly(get_backbone(model), None, input_shape=(9, 9, 3))
    assert [node.shape for node in graph.nodes.values()] == [(4, 4, 2), (2,)]


def test_a_model_inside_another_is_one_node_of_a_model_that_is_built():
    model = tiny.nested(SHAPE)
    graph = graph_of_model(model, [])
    assert list(graph.nodes) == ["low", "high"]
    assert graph.nodes["low"].batch_norm


def test_a_layer_that_is_called_twice_has_two_outputs():
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    assert graph_of_model(model, []).nodes["shared"].outputs == 2
