"""The frozen part as one function: the same outputs, and a digest that tells it."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer.graph.assembly import Assembly, graph_of_model
from keras_transfer.graph.heads import Head
from keras_transfer.training.boundary import find_boundary
from keras_transfer.training.frozen import FrozenPart, digest_graph

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X = np.random.default_rng(0).uniform(0, 1, (10, *SHAPE)).astype("float32")


@pytest.mark.parametrize("build", [tiny.cnn, tiny.residual, tiny.nested])
@pytest.mark.parametrize("folded", [True, False])
def test_computes_what_the_model_does(build, folded):
    graph = Assembly(tiny.settled(build, SHAPE), Head("multiclass", 3))
    cut = find_boundary(graph.nodes, ["head"]).cut
    model = graph.build()
    expected = keras.Model(model.input, model.get_layer(cut[0]).output)(X, training=False)
    (outputs,) = FrozenPart(graph, cut, folded=folded)(X)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())


def test_a_cut_inside_and_what_stands_above_it_make_the_model():
    graph = Assembly(tiny.settled(tiny.residual, SHAPE), Head("multiclass", 3))
    boundary = find_boundary(graph.nodes, ["unit1_conv", "head"])
    above = graph.build_above(boundary.cut, boundary.below)
    outputs = above(FrozenPart(graph, boundary.cut, folded=False)(X), training=False)
    np.testing.assert_allclose(outputs, graph.build()(X, training=False), atol=1e-6)
    assert not any(layer.name.startswith(("stem", "unit0")) for layer in above.layers)


def test_an_output_does_not_depend_on_the_batch():
    graph = Assembly(tiny.settled(tiny.residual, SHAPE), Head("multiclass", 3))
    part = FrozenPart(graph, find_boundary(graph.nodes, ["head"]).cut)
    (whole,), (some,) = part(X), part(X[[7, 2]])
    np.testing.assert_array_equal(whole[[7, 2]], some)
    batches = list(part.on_batches(X[start : start + 3] for start in range(0, 10, 3)))
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in batches]), whole)


def test_the_digest_tells_one_changed_weight_below_the_cut():
    model = tiny.classifier(tiny.settled(tiny.residual, SHAPE), 3)
    blocks = []

    def digest(folded=True):
        graph = graph_of_model(model, blocks)
        return digest_graph(graph, ["unit0_conv.unit0_add"], folded=folded)

    names = [layer.name for layer in model.layers]
    assert "unit0_conv.unit0_add" in names, names
    before = digest()
    assert digest() == before != digest(folded=False)
    kernel = model.get_layer("head.logits").kernel
    kernel.assign(kernel + 1)  # above the cut
    assert digest() == before
    bias = model.get_layer("stem.stem").bias if "stem.stem" in names else model.layers[1].bias
    value = bias.numpy()
    value[0] = np.nextafter(value[0], np.float32(1))
    bias.assign(value)
    assert digest() != before
