"""Readout: what the head reads, and how it is pooled."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Readout, get_backbone
from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from keras_transfer.graph.heads import LOGITS
from keras_transfer.graph.readout import as_readout

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


def features(readout, x):
    """Return what the head reads, and the output of each block of the same network."""
    keras.utils.set_random_seed(0)
    backbone = get_backbone(tiny.settled(tiny.cnn, SHAPE).load())
    model = tiny.classifier(backbone, 3, readout=readout)
    source = backbone.load()
    taps = {
        f"conv{i}": keras.Model(source.input, source.get_layer(f"relu{i}").output)(x).numpy()
        for i in range(3)
    }
    return model, keras.Model(model.input, model.get_layer(LOGITS).input)(x).numpy(), taps


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype("float32")


def grid(tensor, rows, columns):
    parts = [np.array_split(r, columns, axis=2) for r in np.array_split(tensor, rows, axis=1)]
    return np.stack([[c.mean(axis=(1, 2)) for c in row] for row in parts])


def test_the_last_block_averaged_by_default(x):
    _, read, taps = features(None, x)
    np.testing.assert_allclose(read, taps["conv2"].mean(axis=(1, 2)), rtol=1e-5)


def test_a_grid_keeps_the_layout(x):
    _, read, taps = features(Readout("conv1", pooling=(2, 4)), x)
    expected = grid(taps["conv1"], 2, 4).transpose(2, 0, 1, 3).reshape(2, -1)
    np.testing.assert_allclose(read, expected, rtol=1e-5)


def test_a_grid_that_does_not_divide_the_map(x):
    _, read, taps = features(Readout("conv1", pooling=(3, 1)), x)
    assert taps["conv1"].shape[1] == 4
    # Cells overlap where they must: rows 0-1, 1-2, 2-3.
    rows = [taps["conv1"][:, i : i + 2].mean(axis=(1, 2)) for i in range(3)]
    np.testing.assert_allclose(read, np.concatenate(rows, axis=1), rtol=1e-5)


def test_a_grid_of_a_map_that_is_not_square():
    """Keras 3.15's adaptive pooling fails here."""
    model = tiny.classifier(
        get_backbone(tiny.cnn), 3, input_shape=(24, 20, 3), readout=Readout("conv1", (2, 1))
    )
    assert model.get_layer("readout.0_conv1_grid_2x1").output.shape == (None, 2, 1, 6)
    assert model(np.zeros((1, 24, 20, 3), "float32")).shape == (1, 3)


def test_several_are_concatenated_in_order(x):
    _, read, taps = features(Readout(["last", "conv0"], pooling=["average", (1, 2)]), x)
    left_and_right = grid(taps["conv0"], 1, 2)[0]
    expected = [taps["conv2"].mean(axis=(1, 2)), *left_and_right]
    np.testing.assert_allclose(read, np.concatenate(expected, axis=1), rtol=1e-5)


def test_blocks_above_are_left_out(x):
    model, _, _ = features(Readout("conv1"), x)
    names = {layer.name.partition(".")[0] for layer in model.layers}
    assert "conv1" in names
    assert "conv2" not in names
    whole, _, _ = features(None, x)
    assert model.count_params() < whole.count_params()


def test_vectors_are_read_as_they_are():
    model = tiny.classifier(get_backbone(tiny.dense), 2, input_shape=(5,), readout=Readout("low"))
    assert [layer.name for layer in model.layers] == [
        "features",
        "low.low",
        "head.logits",
        "head.probabilities",
    ]


def sequence(input_shape):
    """Six steps of four features; one convolution over the steps."""
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Conv1D(4, 3, padding="same", name="steps")]
    )


def test_a_sequence_is_averaged():
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    backbone = get_backbone(sequence((6, 4)))
    model = tiny.classifier(backbone, 2)
    read = keras.Model(model.input, model.get_layer(LOGITS).input)(x)
    np.testing.assert_allclose(read, backbone.load()(x).numpy().mean(axis=1), rtol=1e-5, atol=1e-6)


def boxes(input_shape):
    """Ends in five axes."""
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Reshape((2, 8, 16, 3), name="boxes")]
    )


def test_is_a_value():
    readout = Readout(["a", "b"], pooling=["average", [2, 3]])
    assert readout.pooling == ("average", (2, 3))
    assert copy.deepcopy(readout) == pickle.loads(pickle.dumps(readout)) == readout
    assert hash(readout) == hash(Readout(("a", "b"), ("average", (2, 3))))
    assert as_readout("last") == Readout()
    assert as_readout(readout) is readout


MISTAKES = {
    "an unknown block": (
        lambda x: features(Readout("cnov1"), x),
        UnknownNameError,
        "Expected one of: conv0, conv1, conv2. Did you mean 'conv1'",
    ),
    "a grid larger than the map": (
        lambda x: features(Readout("conv2", pooling=(3, 3)), x),
        InvalidParameterError,
        "at most 2 x 2",
    ),
    "a grid of a sequence": (
        lambda x: tiny.classifier(
            get_backbone(sequence), 2, input_shape=(6, 4), readout=Readout("steps", (2, 2))
        ),
        InvalidParameterError,
        r"expected 'average' for a sequence of shape \(None, 6, 4\)\. Received: \(2, 2\)",
    ),
    "an output of five axes": (
        lambda x: tiny.classifier(get_backbone(boxes), 2, input_shape=SHAPE),
        InvalidParameterError,
        r"a block output of 2 to 4 axes\. Received: \(None, 2, 8, 16, 3\)",
    ),
    "another pooling": (lambda x: Readout("a", "max"), InvalidParameterError, "Received: 'max'"),
    "a grid of nothing": (lambda x: Readout("a", (0, 2)), InvalidParameterError, r"\(0, 2\)"),
    "a number": (lambda x: Readout("a", 4), InvalidParameterError, "Received: 4"),
    "too few poolings": (
        lambda x: Readout(["a", "b", "c"], ["average", "average"]),
        InvalidParameterError,
        "each of the 3. Received: 2",
    ),
    "no block": (lambda x: Readout([]), InvalidTypeError, "one or more"),
    "no readout": (lambda x: as_readout(3), InvalidTypeError, "Received: 3"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses(case, x):
    call, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        call(x)
