"""The frozen part as one function: the same outputs, and a digest that tells it."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import Head
from keras_transfer.graph.nodes import graph_of_model
from keras_transfer.inputs.picture_files import EncodedPictures
from keras_transfer.training.boundary import find_boundary
from keras_transfer.training.frozen import FrozenPart, digest_graph
from keras_transfer.training.random_state import isolated_seed

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


def compute(part, inputs):
    return np.concatenate([outputs[0] for outputs in part.on_inputs(inputs)])


X = np.random.default_rng(0).uniform(0, 1, (10, *SHAPE)).astype("float32")


@pytest.mark.parametrize("build", [tiny.cnn, tiny.residual, tiny.nested])
@pytest.mark.parametrize("folded", [True, False])
def test_computes_what_the_model_does(build, folded):
    graph = Assembly(tiny.settled(build, SHAPE), Head("multiclass", 3))
    cut = find_boundary(graph.nodes, graph.output, ["head"]).cut
    model = graph.build()
    expected = keras.Model(model.input, model.get_layer(cut[0]).output)(X, training=False)
    outputs = compute(FrozenPart(graph, cut, folded=folded), X)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())


def test_a_cut_inside_and_what_stands_above_it_make_the_model():
    graph = tiny.assembly(tiny.settled(tiny.residual, SHAPE), Head("multiclass", 3))
    boundary = find_boundary(graph.nodes, graph.output, ["unit1_conv", "head"])
    with isolated_seed(0):
        above, whole = graph.build_above(boundary.cut, boundary.below), graph.build()
    outputs = above(compute(FrozenPart(graph, boundary.cut, folded=False), X), training=False)
    np.testing.assert_allclose(outputs, whole(X, training=False), atol=1e-6)
    below = [layer.name for layer in above.layers if layer.name.startswith(("stem", "unit0"))]
    assert below == list(boundary.cut)  # what it reads


@pytest.mark.parametrize(("build", "shape"), [(tiny.residual, SHAPE), (tiny.dense, (5,))])
def test_an_output_does_not_depend_on_the_others(build, shape):
    graph = Assembly(tiny.settled(build, shape), Head("multiclass", 3))
    part = FrozenPart(graph, find_boundary(graph.nodes, graph.output, ["head"]).cut)
    inputs = np.random.default_rng(0).uniform(0, 1, (100, *shape)).astype("float32")
    whole = compute(part, inputs)
    assert len(whole) == 100
    for rows in ([7], [99, 2], list(range(60, 97))):
        np.testing.assert_array_equal(compute(part, inputs[rows]), whole[rows])


def test_files_are_decoded_on_the_way(tmp_path):
    pictures = tiny.pictures()[0]
    paths = tiny.write_folder(tmp_path, pictures, ["a"] * len(pictures))
    graph = Assembly(tiny.settled(tiny.cnn, SHAPE), None)
    part = FrozenPart(graph, [graph.output])
    expected = compute(part, pictures.astype("float32"))
    np.testing.assert_array_equal(compute(part, EncodedPictures(paths, SHAPE[:2])), expected)


def test_the_digest_tells_one_changed_weight_below_the_cut():
    model = tiny.classifier(tiny.settled(tiny.residual, SHAPE), 3)

    def digest(folded=True):
        graph = graph_of_model(model, [])
        return digest_graph(graph, ["unit0_conv.unit0_add"], folded=folded)

    before = digest()
    assert digest() == before != digest(folded=False)
    kernel = model.get_layer("head.logits").kernel
    kernel.assign(kernel + 1)  # above the cut
    assert digest() == before
    bias = next(layer for layer in model.layers if layer.name.startswith("stem.")).bias
    value = bias.numpy()
    value[0] = np.nextafter(value[0], np.float32(1))
    bias.assign(value)
    assert digest() != before


CONSTANTS = {
    "number": (lambda x: x * 2.0, lambda x: x * 3.0),
    "array": (lambda x: x + np.zeros(4, "float32"), lambda x: x + np.ones(4, "float32")),
    "slice": (lambda x: x[:, :2], lambda x: x[:, 2:]),
    "order": (lambda x: x[:, :2] - x[:, 2:], lambda x: x[:, 2:] - x[:, :2]),
    "output": (
        lambda x: keras.ops.split(x, 2, axis=1)[0],
        lambda x: keras.ops.split(x, 2, axis=1)[1],
    ),
}


@pytest.mark.parametrize("pair", CONSTANTS.values(), ids=CONSTANTS)
def test_the_digest_tells_what_an_operation_is_called_with(pair):
    """Constants stand in the graph, not in the operation's configuration."""

    def digest(change):
        inputs = keras.Input((4,))
        outputs = keras.layers.Dense(2, kernel_initializer="ones", name="dense")(change(inputs))
        graph = graph_of_model(keras.Model(inputs, outputs), [])
        return digest_graph(graph, ["dense"], folded=True)

    one, other = pair
    assert digest(one) == digest(one) != digest(other)


def test_the_digest_tells_what_a_layer_of_the_users_does():
    """Under its name it can be defined anew, and do something else."""

    def digest(factor):
        class Own(keras.layers.Layer):
            def call(self, x):
                return x * factor

        inputs = keras.Input((4,))
        model = keras.Model(inputs, Own(name="own")(inputs))
        return digest_graph(graph_of_model(model, []), ["own"], folded=True)

    assert digest(2.0) == digest(2.0) != digest(3.0)


def test_the_seeds_of_dropout_are_no_part_of_what_it_computes():
    digests = set()
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        graph = Assembly(tiny.settled(tiny.residual, SHAPE), Head("multiclass", 3), seed=seed)
        assert any(op.__class__.__name__ == "Dropout" for op in graph.operations.values())
        digests.add(digest_graph(graph, [graph.features], folded=True))
    assert len(digests) == 1
