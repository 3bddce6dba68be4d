"""Where a graph is cut: nothing that trains, or depends on it, is below."""

import keras
import pytest
import tiny

from keras_transfer.backbones.partition import Block
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import Head
from keras_transfer.graph.nodes import Node, graph_of_model
from keras_transfer.training.boundary import find_boundary

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture
def graph():
    return Assembly(tiny.settled(tiny.residual, SHAPE), Head("multiclass", 3))


@pytest.fixture
def nodes(graph):
    return graph.nodes


def test_below_the_head_where_only_that_trains(graph, nodes):
    boundary = find_boundary(nodes, graph.output, ["head"])
    assert [nodes[name].block for name in boundary.cut] == ["readout"]
    assert boundary.where == "readout"


def test_at_the_output_of_the_block_below_the_one_that_trains(graph, nodes):
    boundary = find_boundary(nodes, graph.output, ["unit1_conv", "head"])
    assert [nodes[name].block for name in boundary.cut] == ["unit0_conv"]
    for name, node in nodes.items():
        if name in boundary.below:
            assert node.block not in ("unit1_conv", "head", "readout")
            assert set(node.inputs) <= {"", *boundary.below}


def test_no_cut_where_the_first_block_trains(graph, nodes):
    assert not find_boundary(nodes, graph.output, ["stem"])


def test_several_where_there_is_no_single_one():
    inputs = keras.Input((4,))
    low = keras.layers.Dense(4, name="low")(inputs)
    side = keras.layers.Dense(4, name="side")(low)
    top = keras.layers.Dense(4, name="top")(low)
    model = keras.Model(inputs, keras.layers.Add(name="sum")([side, top]))
    graph = graph_of_model(model, [Block("a", ("low", "side"), 0), Block("b", ("top", "sum"), 0)])
    boundary = find_boundary(graph.nodes, graph.output, ["b"])
    assert boundary.cut == ("low", "side")
    assert boundary.where == "a"


def test_no_cut_where_what_trains_reads_the_input_too():
    inputs = keras.Input((4,))
    low = keras.layers.Dense(4, name="low")(inputs)
    model = keras.Model(inputs, keras.layers.Add(name="sum")([low, inputs]))
    graph = graph_of_model(model, [Block("a", ("low",), 0), Block("head", ("sum",), 0)])
    assert not find_boundary(graph.nodes, graph.output, ["head"])


def test_below_what_has_several_outputs_and_beside_what_leads_nowhere():
    def node(name, block, *inputs, outputs=1):
        return Node(name, block, inputs, outputs, (1,), 1, False)

    nodes = [
        node("low", "a", ""),
        node("two", "a", "low", outputs=2),
        node("end", "head", "two"),
        node("aside", "a", ""),
        node("lost", "head", "aside"),
    ]
    boundary = find_boundary({each.name: each for each in nodes}, "end", ["head"])
    assert boundary.cut == ("low",)
    assert boundary.below == {"low"}
