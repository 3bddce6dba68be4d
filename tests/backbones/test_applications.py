"""Every row of keras.applications: blocks, names, preprocessing and weights as the family's."""

import importlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.backbones.applications import FAMILIES
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import FileFormatError, InvalidParameterError, WeightsNotFoundError
from keras_transfer.graph.heads import LOGITS

SIZE = 64
FIRST_AND_LAST = {
    "MobileNetV2": ("stem", "top", 18),
    "ResNet50V2": ("stem", "top", 18),
    "EfficientNetB0": ("stem", "top", 18),
    "DenseNet121": ("stem", "conv5", 5),
    "VGG16": ("block1", "block5", 5),
    "ConvNeXtTiny": ("stem", "stage_3_block_2", 19),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name):
    family = FAMILIES[name]
    backbone = get_backbone(name, weights=None)
    keras.utils.set_random_seed(0)
    model = tiny.classifier(backbone, 4, input_shape=(SIZE, SIZE, 3))
    blocks = read_blocks(model)

    # Blocks partition the weights.
    names = [block.name for block in blocks]
    assert (names[0], names[-2], len(names) - 1) == FIRST_AND_LAST[name]
    held = [w.path for b in blocks for layer in b.layers for w in model.get_layer(layer).weights]
    assert sorted(held) == sorted(w.path for w in model.weights)
    assert all(block.parameters for block in blocks)

    # Same weights, own preprocessing: the family's own features.
    keras.utils.set_random_seed(0)
    own = backbone.load((SIZE, SIZE, 3))
    preprocess = importlib.import_module(f"keras.applications.{family.module}").preprocess_input
    pixels = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    expected = own(preprocess(pixels.copy())).numpy().mean(axis=(1, 2))
    features = keras.Model(model.input, model.get_layer(LOGITS).input)(pixels).numpy()
    assert features.shape == (2, family.features)
    np.testing.assert_allclose(features, expected, atol=1e-5 * abs(expected).max())


def test_layer_names_are_the_same_in_another_process():
    code = (
        "import keras; from keras_transfer import get_backbone\n"
        "[keras.layers.MaxPooling2D() for _ in range(3)]\n"
        "for name in ('ResNet50V2', 'ConvNeXtTiny'):\n"
        "    for b in get_backbone(name, weights=None).list_blocks((64, 64, 3)): print(*b.layers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [
        " ".join(block.layers)
        for name in ("ResNet50V2", "ConvNeXtTiny")
        for block in get_backbone(name, weights=None).list_blocks((64, 64, 3))
    ]
    assert done.stdout.splitlines() == here


def test_weights_from_a_file(tmp_path):
    keras.utils.set_random_seed(3)
    own = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    own.save_weights(tmp_path / "own.weights.h5")
    loaded = get_backbone("MobileNetV2", weights=tmp_path / "own.weights.h5").load((32, 32, 3))
    for one, other in zip(own.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_weights_file_of_something_else(tmp_path):
    tiny.cnn((32, 32, 3)).save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    for name in ("other", "text"):
        for family in ("MobileNetV2", "EfficientNetLite0"):
            backbone = get_backbone(family, weights=tmp_path / f"{name}.weights.h5")
            with pytest.raises(FileFormatError, match=rf"weights file of {family}.*{name}"):
                backbone.load((32, 32, 3))


def test_says_what_to_do_without_weights(tmp_path, monkeypatch):
    with pytest.raises(WeightsNotFoundError, match="no_such_file"):
        get_backbone("MobileNetV2", weights="no_such_file.h5")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def unreachable(*args, **kwargs):
        raise Exception("URL fetch failure on https://...: None -- no route")

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", unreachable)
    with pytest.raises(WeightsNotFoundError, match=r"weights='file\.weights\.h5', weights=None"):
        get_backbone("MobileNetV2").load((96, 96, 3))


def test_refuses_pictures_that_are_too_small():
    with pytest.raises(InvalidParameterError, match=r"at least 32 px for VGG16. Received: \(16"):
        get_backbone("VGG16", weights=None).load((16, 16, 3))
