"""Cuts between blocks: each operation in its place, and little that goes on."""

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.backbones.flat_graph import GraphError, call_nodes, flatten
from keras_transfer.backbones.graph_cuts import (
    INPUT,
    align_pieces,
    cut_graph,
    find_stretches,
)

X = tf.constant(np.random.default_rng(0).normal(size=(5, 4)), tf.float32)


class Net(tf.Module):
    """Three dense maps, put together by a function of a test."""

    def __init__(self, call):
        super().__init__()
        draw = np.random.default_rng(1).normal
        self.kernels = [tf.Variable(draw(size=(4, 4)), dtype="float32") for _ in range(3)]
        self.mean = tf.Variable(np.zeros(4), dtype="float32")
        self.call = call
        spec = tf.TensorSpec((None, 4))
        self.function = tf.function(lambda x: call(self, x), autograph=False)
        self.concrete = self.function.get_concrete_function(spec)

    def cut(self, updated=None):
        graph = flatten(self.concrete, 0, updated)
        place = {id(kernel): number for number, kernel in enumerate(self.kernels)}
        place[id(self.mean)] = 1
        return graph, cut_graph(graph, [place.get(id(v)) for v in graph.variables], 3)


def compute(graph, pieces):
    """Run the pieces one after the other."""
    made = []
    for piece in pieces:
        inputs = [X if block == INPUT else made[block][n] for block, n in piece.sources]
        values = [graph.variables[p].read_value() for p in piece.values.values()]
        made.append(compute_one(graph, piece, inputs + values))
    return made[-1][0]


def compute_one(graph, piece, given):
    names = [*piece.reads, *piece.values]

    @tf.function(autograph=False)
    def run(given):
        known = dict(zip(names, given, strict=True))
        return call_nodes(piece.nodes, graph.library, known, piece.gives)

    return run(given)


def chain(net, x):
    for kernel in net.kernels:
        x = tf.nn.relu(x @ kernel)
    return x


def skips(net, x):
    """The first block is read by the second and the third, and the input by the third."""
    one = tf.nn.relu(x @ net.kernels[0])
    two = one + tf.nn.relu(one @ net.kernels[1])
    return (two + one + x) @ net.kernels[2]


def normalised(net, x):
    """Each block begins with a normalisation of its own, which has no weights."""
    for kernel in net.kernels:
        mean, variance = tf.nn.moments(x, axes=[1], keepdims=True)
        x = x + (x - mean) * tf.math.rsqrt(variance + 1e-3) @ kernel
    return x


def sized(net, x):
    """Sizes of one block are asked for in another."""
    one = x @ net.kernels[0]
    count = tf.shape(one)[0]
    two = tf.reshape(tf.reshape(one, (count * 2, 2)), (count, 4)) @ net.kernels[1]
    return two @ net.kernels[2] + tf.zeros((count, 4))


def padded(net, x):
    """What prepares the input of a block stands in it."""
    for kernel in net.kernels:
        x = tf.pad(x + 1.0, [[0, 0], [0, 0]]) @ kernel
    return x


@pytest.mark.parametrize("call", [chain, skips, normalised, sized, padded])
def test_the_pieces_compute_what_the_whole_did(call):
    net = Net(call)
    graph, pieces = net.cut()
    np.testing.assert_array_equal(compute(graph, pieces), net.function(X))
    for number, piece in enumerate(pieces):
        assert [graph.variables[p] is net.kernels[number] for p in piece.values.values()] == [True]


@pytest.mark.parametrize(
    ("call", "gives"),
    [(chain, [1, 1, 1]), (skips, [1, 1, 1]), (normalised, [1, 1, 1]), (sized, [1, 1, 1])],
)
def test_as_little_as_can_be_goes_from_block_to_block(call, gives):
    _, pieces = Net(call).cut()
    assert [len(piece.gives) for piece in pieces] == gives


def test_what_closes_a_block_stands_in_it_and_what_opens_one_too():
    _, pieces = Net(chain).cut()
    assert all(any(node.op == "Relu" for node in piece.nodes) for piece in pieces)
    _, pieces = Net(padded).cut()
    assert all(any(node.op == "Pad" for node in piece.nodes) for piece in pieces)


def test_who_reads_what():
    _, pieces = Net(skips).cut()
    # The sum of all three is computed where the last of them is, and one tensor goes on.
    expected = [((INPUT, 0),), ((INPUT, 0), (0, 0)), ((1, 0),)]
    assert [piece.sources for piece in pieces] == expected


@pytest.mark.parametrize(
    ("call", "stretches"),
    [
        (chain, [0, 1, 2]),
        (skips, [0, 0, 1]),  # the input passes over the first two
        (normalised, [0, 1, 2]),
        (lambda net, x: (x @ net.kernels[0] + x @ net.kernels[1]) @ net.kernels[2], [0, 0, 1]),
    ],
)
def test_stretches_between_the_points_that_all_data_passes(call, stretches):
    net = Net(call)
    found = find_stretches(flatten(net.concrete, 0))
    assert [found.index(each) for each in found] == [stretches.index(each) for each in stretches]


def tied(net, x):
    return chain(net, x) @ net.kernels[0]


def turned(net, x):
    return x @ net.kernels[2] @ net.kernels[1] @ net.kernels[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (tied, "is used by several blocks"),
        (turned, "does not depend on its last block|is used by several|reads no data"),
        (lambda net, x: x @ net.kernels[0], "does not depend on its last block"),
    ],
)
def test_what_cannot_be_cut(call, message):
    with pytest.raises(GraphError, match=message):
        Net(call).cut()


def test_training_is_cut_as_inference_is():
    def in_training(net, x):
        one = tf.nn.relu(x @ net.kernels[0])
        mean = tf.reduce_mean(one, axis=0)
        net.mean.assign_sub(0.5 * (net.mean - mean))
        return tf.nn.relu((one - mean) @ net.kernels[1]) @ net.kernels[2]

    def in_inference(net, x):
        one = tf.nn.relu(x @ net.kernels[0])
        return tf.nn.relu((one - net.mean) @ net.kernels[1]) @ net.kernels[2]

    training, inference = Net(in_training), Net(in_inference)
    graph, pieces = training.cut([training.mean])
    _, like = inference.cut()
    aligned = align_pieces(pieces, like)
    assert [piece.sources for piece in aligned] == [piece.sources for piece in like]
    assert [len(piece.updates) for piece in aligned] == [0, 1, 0]
    np.testing.assert_array_equal(compute(graph, aligned), training.function(X))


def test_other_data_in_training_is_told():
    _, pieces = Net(skips).cut()
    _, like = Net(chain).cut()
    with pytest.raises(GraphError, match="in training it hands other data"):
        align_pieces(pieces, like)
