"""Flat graphs: calls inlined, variables as inputs and outputs, nothing else changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.backbones.flat_graph import GraphError, call_nodes, flatten


class Nested(tf.Module):
    """Calls within calls, one of them twice."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.arange(12.0).reshape(3, 4), dtype="float32")
        self.shift = tf.Variable(2.0)

    @tf.function(autograph=False)
    def scale(self, x):
        return x * self.shift

    @tf.function(autograph=False)
    def dense(self, x):
        return self.scale(x) @ self.kernel, self.scale(x + 1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 3))], autograph=False)
    def __call__(self, x):
        dense, scaled = self.dense(x)
        return {"dense": dense, "sum": tf.reduce_sum(scaled, axis=1)}


def run(function, graph, *inputs, values=None, seeds=()):
    """Compute a flat graph's output, and what it says that variables become."""
    values = [v.read_value() for v in graph.variables] if values is None else values

    @tf.function(autograph=False)
    def traced(given):
        names = [*graph.inputs, *graph.values, *graph.handles, *graph.seeds]
        known = dict(zip(names, given, strict=True))
        known |= {name: tf.identity(each) for name, each in graph.resources.items()}
        wanted = [graph.output, *graph.updates.values()]
        return call_nodes(graph.nodes.values(), graph.library, known, wanted)

    given = [*inputs, *(values[place] for place in graph.values.values())]
    given += [graph.variables[place].handle for place in graph.handles.values()]
    output, *updates = traced([*given, *seeds])
    return output, dict(zip(graph.updates, updates, strict=True))


X = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)


@pytest.mark.parametrize("number", [0, 1])
def test_calls_are_inlined(number):
    module = Nested()
    function = module.__call__.get_concrete_function()
    graph = flatten(function, number)
    assert not {node.op for node in graph.nodes.values()} & {
        "PartitionedCall",
        "StatefulPartitionedCall",
        "ReadVariableOp",
    }
    expected = module(X)[["dense", "sum"][number]]
    np.testing.assert_array_equal(run(function, graph, X)[0], expected)
    # What the output does not depend on is left out.
    assert len(graph.variables) == 2 - number


def test_values_take_the_place_of_variables():
    module = Nested()
    graph = flatten(module.__call__.get_concrete_function(), 0)
    zeros = [tf.zeros_like(variable) for variable in graph.variables]
    output, _ = run(None, graph, X, values=zeros)
    np.testing.assert_array_equal(output, np.zeros((5, 4)))


class Counting(tf.Module):
    """Reads a variable before and after it is written."""

    def __init__(self):
        super().__init__()
        self.mean = tf.Variable(1.0)
        self.sum = tf.Variable(10.0)
        self.set = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 3))], autograph=False)
    def __call__(self, x):
        before = self.mean.read_value()
        after = self.mean.assign_sub(0.25, read_value=True)
        self.sum.assign_add(tf.reduce_sum(x))
        self.set.assign(before + 5.0)
        return x * before + after


def test_what_is_written_is_put_out_and_nothing_moves():
    module = Counting()
    function = module.__call__.get_concrete_function()
    graph = flatten(function, 0, [module.mean, module.sum, module.set])
    output, updates = run(function, graph, X)
    np.testing.assert_allclose(output, X * 1.0 + 0.75)
    became = {id(graph.variables[place]): float(value) for place, value in updates.items()}
    total = float(tf.reduce_sum(X))
    assert became == {
        id(module.mean): 0.75,
        id(module.sum): pytest.approx(10 + total),
        id(module.set): 6.0,
    }
    assert [float(v) for v in (module.mean, module.sum, module.set)] == [1.0, 10.0, 0.0]
    in_inference = flatten(function, 0)
    assert in_inference.updates == {}
    np.testing.assert_allclose(run(function, in_inference, X)[0], output)


class Twice(tf.Module):
    def __init__(self):
        super().__init__()
        self.mean = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 3))], autograph=False)
    def __call__(self, x):
        self.mean.assign(2.0)
        self.mean.assign(3.0)
        return x * self.mean


def test_what_is_written_twice_cannot_be_told():
    module = Twice()
    with pytest.raises(GraphError, match="it writes Variable:0 twice"):
        flatten(module.__call__.get_concrete_function(), 0)


class Branching(tf.Module):
    def __init__(self):
        super().__init__()
        self.mean = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 3))], autograph=False)
    def __call__(self, x):
        def write():
            with tf.control_dependencies([self.mean.assign(2.0)]):
                return x * 1.0

        return tf.cond(tf.reduce_sum(x) > 0, write, lambda: x * self.mean)


def test_what_is_written_in_a_branch_cannot_be_told():
    module = Branching()
    with pytest.raises(GraphError, match="inside of loops or branches"):
        flatten(module.__call__.get_concrete_function(), 0)


class Random(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 3))], autograph=False)
    def __call__(self, x):
        return x + tf.random.uniform(tf.shape(x)) + 10 * tf.random.normal(tf.shape(x))


def test_random_numbers_follow_the_seeds_that_are_given():
    graph = flatten(Random().__call__.get_concrete_function(), 0)
    assert len(graph.seeds) == 2

    def draw(*seeds):
        return run(None, graph, X, seeds=[tf.constant((seed, 0), tf.int64) for seed in seeds])[0]

    np.testing.assert_array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(3, 2))


class Looking(tf.Module):
    """Looks variables and a table up, and asks for a shape."""

    def __init__(self):
        super().__init__()
        self.rows = tf.Variable(np.arange(20.0).reshape(10, 2), dtype="float32")
        keys, values = tf.range(10, dtype=tf.int64), tf.range(9, -1, -1, dtype=tf.int64)
        initial = tf.lookup.KeyValueTensorInitializer(keys, values)
        self.table = tf.lookup.StaticHashTable(initial, -1)

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.int64)], autograph=False)
    def __call__(self, x):
        found = tf.gather(self.rows, self.table.lookup(x))
        count = tf.raw_ops.VariableShape(input=self.rows.handle)[0]
        return found * tf.cast(count, tf.float32)


def test_what_is_looked_up():
    module = Looking()
    function = module.__call__.get_concrete_function()
    graph = flatten(function, 0)
    numbers = tf.constant([[0, 1, 9], [3, 3, 4]], tf.int64)
    np.testing.assert_array_equal(run(function, graph, numbers)[0], module(numbers))
    assert not graph.handles
    assert sorted(each.dtype.name for each in graph.resources.values()) == ["int64", "resource"]


def test_a_loop_reads_its_variables_itself():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Reshape((3, 1)), keras.layers.LSTM(4)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    cell = tf.Variable(np.eye(3), dtype="float32")

    @tf.function(input_signature=[tf.TensorSpec((None, 3))], autograph=False)
    def looped(x):
        def step(number, state):
            return number + 1, tf.tanh(state @ cell + 1.0)

        return model(tf.while_loop(lambda number, _: number < 3, step, (0, x))[1])

    function = looped.get_concrete_function()
    graph = flatten(function, 0)
    np.testing.assert_allclose(run(function, graph, X)[0], looped(X), atol=1e-6)
    assert any(graph.variables[place] is cell for place in graph.handles.values())
