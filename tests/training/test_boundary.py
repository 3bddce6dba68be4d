"""Where a graph is cut: nothing that trains, or depends on it, is below."""

import pytest
import tiny

from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import Head
from keras_transfer.training.boundary import find_boundary

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture
def nodes():
    return Assembly(tiny.settled(tiny.residual, SHAPE), Head("multiclass", 3)).nodes


def test_below_the_head_where_only_that_trains(nodes):
    boundary = find_boundary(nodes, ["head"])
    assert [nodes[name].block for name in boundary.cut] == ["readout"]
    assert boundary.where == "readout"


def test_at_the_output_of_the_block_below_the_one_that_trains(nodes):
    boundary = find_boundary(nodes, ["unit1_conv", "head"])
    assert [nodes[name].block for name in boundary.cut] == ["unit0_conv"]
    for name, node in nodes.items():
        if name in boundary.below:
            assert node.block not in ("unit1_conv", "head", "readout")
            assert set(node.inputs) <= {"", *boundary.below}


def test_no_cut_where_the_first_block_trains(nodes):
    assert not find_boundary(nodes, ["stem"])
