"""Weights files of a network, saved with its old head or without, give the same weights."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_transfer import get_backbone
from keras_transfer.backbones.efficientnet_lite import build_efficientnet_lite0
from keras_transfer.backbones.weights_file import load_weights_file
from keras_transfer.errors import FileFormatError

SHAPE = (80, 80, 3)


def save(model, path):
    """Save a weights file, or the older file, which Keras writes of whole models only."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return str(path)


FORMATS = ["own.weights.h5", "own.h5"]
formats = pytest.mark.parametrize("file", FORMATS)


def stack(*filters, kernel=3, top=None):
    model = keras.Sequential([keras.Input((16, 16, 3))])
    for number in filters:
        model.add(layers.Conv2D(number, kernel, padding="same"))
        model.add(layers.BatchNormalization())
    if top:
        model.add(layers.Flatten())
        for units in top:
            model.add(layers.Dense(units))
            model.add(layers.Dropout(0.1))
    return model


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("MobileNetV3Small", 5),
        ("EfficientNetLite0", 1000),
        *[
            pytest.param(name, 5, marks=pytest.mark.slow)
            for name in ("ConvNeXtTiny", "EfficientNetB0", "InceptionV3", "NASNetMobile", "VGG16")
        ],
    ],
)
def test_a_file_saved_with_the_old_head(name, classes, tmp_path):
    keras.utils.set_random_seed(1)
    if name == "EfficientNetLite0":
        model = build_efficientnet_lite0(SHAPE, include_top=True)
    else:
        model = getattr(keras.applications, name)(weights=None, classes=classes, input_shape=SHAPE)
    for file in FORMATS:
        backbone = get_backbone(name, weights=save(model, tmp_path / file))
        loaded = backbone.load(SHAPE).get_weights()
        assert len(loaded) < len(model.get_weights())
        for one, other in zip(loaded, model.get_weights(), strict=False):
            np.testing.assert_array_equal(one, other)


@formats
def test_heads_of_any_depth(file, tmp_path):
    for top in [(), (3,), (7, 5, 3)]:
        model, network = stack(4, 6, top=top), stack(4, 6)
        load_weights_file(network, save(model, tmp_path / file), "Stack")
        for one, other in zip(network.get_weights(), model.get_weights(), strict=False):
            np.testing.assert_array_equal(one, other)


def test_more_names_than_a_file_holds_in_one_place(tmp_path):
    chain = keras.Sequential(
        [keras.Input((1,)), *[layers.Dense(1, name=f"{'x' * 1000}{n}") for n in range(70)]]
    )
    network = keras.Sequential([keras.Input((1,)), *[layers.Dense(1) for _ in range(69)]])
    load_weights_file(network, save(chain, tmp_path / "long.h5"), "Chain")
    for one, other in zip(network.get_weights(), chain.get_weights(), strict=False):
        np.testing.assert_array_equal(one, other)


OTHERS = {
    "a larger network": (lambda: stack(4, 6, 8), "neither the network's nor a head's"),
    "a larger network with a head": (lambda: stack(4, 6, 8, top=(3,)), "one of shape"),
    "a smaller network": (lambda: stack(4), "not be loaded|Model expected 4 layers"),
    "a wider network": (lambda: stack(4, 7), "one of shape"),
    "other kernels": (lambda: stack(4, 6, kernel=1), r"\(3, 3, 3, 4\)"),
    "only a head": (lambda: stack(top=(3,)), "not be loaded|Model expected 4 layers"),
}


@formats
@pytest.mark.parametrize("case", OTHERS)
def test_refuses_a_file_of_something_else(case, file, tmp_path):
    build, message = OTHERS[case]
    path = save(build(), tmp_path / file)
    network = stack(4, 6)
    network = keras.Model(network.inputs, network.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one error is enough
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(
            FileFormatError, match=rf"file of Stack, saved.*{file}.*({message})"
        ) as e:
            load_weights_file(network, path, "Stack")
    assert len(str(e.value)) < 700


@formats
def test_refuses_a_file_that_is_none(file, tmp_path):
    (tmp_path / file).write_text("no weights")
    with pytest.raises(FileFormatError, match=file):
        load_weights_file(stack(4), str(tmp_path / file), "Stack")


def test_refuses_a_file_of_no_kind(tmp_path):
    (tmp_path / "weights.bin").write_text("no weights")
    with pytest.raises(FileFormatError, match=r"weights\.bin.*not supported"):
        load_weights_file(stack(4), str(tmp_path / "weights.bin"), "Stack")
