"""The model that is built: flat, functional, plain Keras."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.errors import InvalidParameterError, InvalidTypeError
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import LOGITS, PROBABILITIES, Head
from keras_transfer.training.random_state import isolated_seed

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.mark.parametrize("build", [tiny.cnn, tiny.residual, tiny.nested])
def test_computes_what_the_source_computes(build):
    backbone = tiny.settled(build, SHAPE)
    model = tiny.classifier(backbone, 3)
    x = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype("float32")
    expected = backbone.load()(x).numpy().mean(axis=(1, 2))
    read = keras.Model(model.input, model.get_layer(LOGITS).input)(x)
    np.testing.assert_allclose(read, expected, rtol=1e-5)


def test_is_flat_and_named():
    model = tiny.classifier(get_backbone(tiny.nested), 3, input_shape=SHAPE, dropout=0.5)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    names = [layer.name for layer in model.layers]
    assert names[0] == "picture"
    assert names[-3:] == ["head.dropout", LOGITS, PROBABILITIES]
    assert all("." in name for name in names[1:])


def test_takes_and_gives_float32_whatever_the_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny.classifier(get_backbone(tiny.cnn), 3, input_shape=SHAPE)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.input.dtype == model.output.dtype == "float32"
    assert model.get_layer(LOGITS).compute_dtype == "float32"
    np.testing.assert_allclose(model(np.ones((2, *SHAPE), "float32")).numpy().sum(axis=1), 1, 1e-6)


def test_shared_layers_stay_shared():
    def siamese(input_shape):
        shared = keras.layers.Dense(4, name="shared")
        inputs = keras.Input(input_shape)
        x = keras.layers.Dense(4, name="first")(inputs)
        return keras.Model(inputs, keras.layers.Add(name="sum")([shared(x), shared(x * 2)]))

    backbone = get_backbone(siamese((5,)))
    model = tiny.classifier(backbone, 2)
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    read = keras.Model(model.input, model.get_layer(LOGITS).input)(x)
    np.testing.assert_allclose(read, backbone.load()(x), rtol=1e-5)
    assert model.count_params() == backbone.load().count_params() + 10


def test_an_adapted_normalization_goes_on():
    """It computes with what it derives from its weights, which set_weights does not tell it."""
    x = np.random.default_rng(0).normal(100, 20, (64, 3)).astype("float32")
    normalization = keras.layers.Normalization(name="normalization_layer")
    normalization.adapt(x)
    source = keras.Sequential(
        [keras.Input((3,)), normalization, keras.layers.Dense(4, name="dense")]
    )
    for backbone in (get_backbone(source), get_backbone(lambda shape: source)):
        model = tiny.classifier(backbone, 2, input_shape=(3,))
        read = keras.Model(model.input, model.get_layer(LOGITS).input)(x)
        np.testing.assert_allclose(read, source(x), rtol=1e-5)


def test_refuses_layers_that_cannot_be_built_anew():
    def lambda_layer(input_shape):
        return keras.Sequential(
            [keras.Input(input_shape), keras.layers.Lambda(lambda x: x * 2, name="double")]
        )

    with pytest.raises(InvalidTypeError, match=r"'double' \(Lambda\).*replace Lambda"):
        tiny.classifier(get_backbone(lambda_layer), 2, input_shape=(3,))


def test_outputs_as_numpy_counts_them():
    model = tiny.classifier(get_backbone(tiny.dense), np.int64(3), input_shape=(3,))
    assert model.output_shape == (None, 3)


def test_a_subclassed_backbone():
    @keras.saving.register_keras_serializable("test_build")
    class Opaque(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.layer = keras.layers.Dense(4)

        def call(self, x):
            return self.layer(x)

    source = Opaque(name="opaque")
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    expected = source(x)

    def build(input_shape):
        return source

    model = tiny.classifier(get_backbone(build), 2, input_shape=(5,))
    read = keras.Model(model.input, model.get_layer(LOGITS).input)(x)
    np.testing.assert_array_equal(read, expected)


def test_reloads_without_keras_transfer(tmp_path):
    model = tiny.classifier(get_backbone("VGG16", weights=None), 3, input_shape=(32, 32, 3))
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=model(x))
    code = (
        "import sys; sys.modules['keras_transfer'] = None\n"
        "import keras, numpy as np; data = np.load('data.npz')\n"
        "model = keras.models.load_model('model.keras')\n"
        "assert np.array_equal(model(data['x']), data['y'])\n"
        "print(*dict.fromkeys(layer.name.partition('.')[0] for layer in model.layers))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    blocks = [name for name in done.stdout.split() if name.startswith("block")]
    assert blocks == [f"block{number}" for number in range(1, 6)]


@pytest.mark.parametrize("outputs", [1, 0, True, 2.5])
def test_refuses_a_head_without_classes(outputs):
    with pytest.raises(InvalidParameterError, match="number of classes"):
        tiny.classifier(get_backbone(tiny.dense), outputs, input_shape=(3,))


def test_with_a_seed_all_that_is_built_begins_alike():
    backbone = tiny.settled(tiny.residual, SHAPE)
    graph = tiny.assembly(backbone, Head("multiclass", 3, dropout=0.5), seed=1)
    other = tiny.assembly(backbone, Head("multiclass", 3, dropout=0.5), seed=2)
    cut = [name for name, node in graph.nodes.items() if node.block == "readout"]
    below = [name for name, node in graph.nodes.items() if node.block != "head"]
    with isolated_seed(0):
        whole, above, of_other = graph.build(), graph.build_above(cut, below), other.build()
    for name in ("head.dropout", LOGITS):
        state, same = (model.get_layer(name).variables for model in (above, whole))
        for one, two in zip(state, same, strict=True):
            np.testing.assert_array_equal(one, two)
    kernels = [model.get_layer(LOGITS).kernel.numpy() for model in (whole, of_other)]
    assert not np.array_equal(*kernels)


def test_without_a_seed_each_build_draws_a_head():
    graph = Assembly(tiny.settled(tiny.residual, SHAPE), Head("multiclass", 3))
    kernels = [graph.build().get_layer(LOGITS).kernel.numpy() for _ in range(2)]
    assert not np.array_equal(*kernels)


class NoConfig(keras.layers.Layer):
    """Cannot be built anew: its argument is not in its configuration."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def call(self, inputs):
        return inputs * self.by


@pytest.mark.parametrize(
    "make", [lambda: NoConfig(2.0), lambda: keras.layers.Lambda(lambda x: 2 * x)], ids=["own", "λ"]
)
def test_what_cannot_be_built_anew_is_known_before_anything_trains(make):
    def backbone(input_shape):
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, keras.layers.Conv2D(4, 3)(make()(inputs)))

    with pytest.raises(TypeError, match="expected layers that Keras can build anew"):
        Assembly(get_backbone(backbone), Head("multiclass", 3), input_shape=(16, 16, 3))


def test_refuses_to_read_a_layer_of_several_outputs():
    def recurrent(input_shape):
        inputs = keras.Input(input_shape)
        last, *_ = keras.layers.LSTM(4, return_state=True, name="memory")(inputs)
        return keras.Model(inputs, last)

    with pytest.raises(InvalidParameterError, match=r"Received: 'memory\.memory', with several"):
        Assembly(get_backbone(recurrent), Head("multiclass", 2), input_shape=(6, 4))
