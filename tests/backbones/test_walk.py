"""The walk calls every leaf of any nesting once a call, in the order of the data."""

import keras
import numpy as np
import tiny

from keras_transfer.backbones.walk import call_leaves, is_graph


def run(model, x):
    paths = []

    def call(path, operation, n_outputs, *args, **kwargs):
        paths.append(path)
        return operation(*args, **kwargs)

    return call_leaves(model, x, call), paths


def test_runs_a_nested_model():
    model = tiny.nested((8, 8, 3))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    y, paths = run(model, keras.ops.convert_to_tensor(x))
    np.testing.assert_array_equal(y, model(x))
    assert [path.partition("/")[0] for path in paths] == ["low", "low", "high", "high"]


def test_runs_a_sequential_model_and_shared_layers():
    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs, keras.layers.Add(name="sum")([shared(inputs), shared(shared(inputs))])
    )
    chain = keras.Sequential([keras.Input((4,)), model, keras.layers.Dense(2, name="last")])
    x = keras.ops.ones((3, 4))
    y, paths = run(chain, x)
    np.testing.assert_array_equal(y, chain(x))
    # Keras keeps one node for each call; shared(inputs) is called twice in this graph.
    assert set(paths) == {f"{model.name}/shared", f"{model.name}/sum", "last"}


def test_knows_a_graph():
    class Opaque(keras.Model):
        def call(self, x):
            return x

    assert is_graph(tiny.cnn((8, 8, 3)))
    assert is_graph(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    assert not is_graph(Opaque())
    assert not is_graph(keras.layers.Dense(1))
