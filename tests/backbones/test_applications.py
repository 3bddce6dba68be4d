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
from keras_transfer.backbones.partition import partition, read_blocks
from keras_transfer.errors import FileFormatError, InvalidParameterError, WeightsNotFoundError
from keras_transfer.graph.heads import LOGITS

SIZE = 64
# Name -> first and last block, number of blocks.
FIRST_AND_LAST = {
    "ConvNeXtTiny": ("stem", "stage_3_block_2", 19),
    "ConvNeXtSmall": ("stem", "stage_3_block_2", 37),
    "ConvNeXtBase": ("stem", "stage_3_block_2", 37),
    "ConvNeXtLarge": ("stem", "stage_3_block_2", 37),
    "ConvNeXtXLarge": ("stem", "stage_3_block_2", 37),
    "DenseNet121": ("stem", "conv5", 5),
    "DenseNet169": ("stem", "conv5", 5),
    "DenseNet201": ("stem", "conv5", 5),
    "EfficientNetB0": ("stem", "top", 18),
    "EfficientNetB1": ("stem", "top", 25),
    "EfficientNetB2": ("stem", "top", 25),
    "EfficientNetB3": ("stem", "top", 28),
    "EfficientNetB4": ("stem", "top", 34),
    "EfficientNetB5": ("stem", "top", 41),
    "EfficientNetB6": ("stem", "top", 47),
    "EfficientNetB7": ("stem", "top", 57),
    "EfficientNetV2B0": ("stem", "top", 23),
    "EfficientNetV2B1": ("stem", "top", 29),
    "EfficientNetV2B2": ("stem", "top", 30),
    "EfficientNetV2B3": ("stem", "top", 34),
    "EfficientNetV2S": ("stem", "top", 42),
    "EfficientNetV2M": ("stem", "top", 59),
    "EfficientNetV2L": ("stem", "top", 81),
    "InceptionResNetV2": ("mixed_5b", "top", 44),
    "InceptionV3": ("mixed0", "mixed10", 11),
    "MobileNet": ("stem", "block_13", 14),
    "MobileNetV2": ("stem", "top", 18),
    "MobileNetV3Large": ("stem", "top", 17),
    "MobileNetV3Small": ("stem", "top", 13),
    "NASNetLarge": ("stem", "cell_18", 23),
    "NASNetMobile": ("stem", "cell_12", 17),
    "ResNet50": ("stem", "conv5_block3", 17),
    "ResNet101": ("stem", "conv5_block3", 34),
    "ResNet152": ("stem", "conv5_block3", 51),
    "ResNet50V2": ("stem", "top", 18),
    "ResNet101V2": ("stem", "top", 35),
    "ResNet152V2": ("stem", "top", 52),
    "VGG16": ("block1", "block5", 5),
    "VGG19": ("block1", "block5", 5),
    "Xception": ("block1", "block14", 14),
}
# One of each kind is built whole, with a head, and compared with the family's own; of its larger
# sisters, which the same patterns describe, only the blocks are read.
EVERY_DAY = [
    *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "MobileNet", "MobileNetV2"),
    *("MobileNetV3Small", "ResNet50V2", "VGG16"),
]
WHOLE = [
    *EVERY_DAY,
    *("EfficientNetV2B0", "InceptionResNetV2", "InceptionV3", "NASNetMobile", "ResNet50"),
    "Xception",
]


def slow(names, except_for=()):
    """Mark what takes long: building a network of hundreds of layers."""
    return [
        name if name in except_for else pytest.param(name, marks=pytest.mark.slow) for name in names
    ]


@pytest.fixture
def asked_for(monkeypatch):
    """Names of the weights files that Keras asks for; none is downloaded or read."""
    names = []

    def get_file(fname, *args, **kwargs):
        names.append(fname)
        return fname

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    monkeypatch.setattr(keras.Model, "load_weights", lambda model, path: None)
    return names


def test_every_network_of_keras_has_a_row():
    builders = {
        name
        for name in dir(keras.applications)
        if name[0].isupper() and callable(getattr(keras.applications, name))
    }
    assert set(FAMILIES) == builders == set(FIRST_AND_LAST)


@pytest.mark.parametrize("name", slow([name for name in FAMILIES if name not in WHOLE]))
def test_blocks(name, asked_for):
    backbone = get_backbone(name)
    size = max(SIZE, backbone.min_size)
    own = backbone.load((size, size, 3))
    leaves = partition(own, backbone.blocks)
    names = list(dict.fromkeys(leaf.block for leaf in leaves))
    assert (names[0], names[-1], len(names)) == FIRST_AND_LAST[name]
    held = sum(getattr(leaf.operation, "count_params", int)() for leaf in leaves)
    assert held == own.count_params() == FAMILIES[name].parameters
    assert own.output_shape[-1] == FAMILIES[name].features
    assert asked_for == [FAMILIES[name].weights_file]


@pytest.mark.parametrize("name", slow(WHOLE, except_for=EVERY_DAY))
def test_family(name, asked_for):
    family = FAMILIES[name]
    size = max(SIZE, family.min_size)
    backbone = get_backbone(name)
    keras.utils.set_random_seed(0)
    model = tiny.classifier(backbone, 4, input_shape=(size, size, 3))
    blocks = read_blocks(model)

    # Blocks partition the weights.
    names = [block.name for block in blocks]
    assert (names[0], names[-2], len(names) - 1) == FIRST_AND_LAST[name]
    held = [w.path for b in blocks for layer in b.layers for w in model.get_layer(layer).weights]
    assert sorted(held) == sorted(w.path for w in model.weights)
    assert all(block.parameters for block in blocks)
    assert sum(block.parameters for block in blocks[:-1]) == family.parameters

    # Same weights, own preprocessing: the family's own features.
    keras.utils.set_random_seed(0)
    own = backbone.load((size, size, 3))
    preprocess = importlib.import_module(f"keras.applications.{family.module}").preprocess_input
    pixels = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    expected = own(preprocess(pixels.copy())).numpy().mean(axis=(1, 2))
    features = keras.Model(model.input, model.get_layer(LOGITS).input)(pixels).numpy()
    assert features.shape == (2, family.features)
    np.testing.assert_allclose(features, expected, atol=1e-5 * abs(expected).max())
    assert set(asked_for) == {family.weights_file}


@pytest.mark.parametrize(
    "names",
    [
        ("ResNet50V2", "ConvNeXtTiny"),
        pytest.param(
            ("InceptionV3", "InceptionResNetV2", "Xception", "NASNetMobile", "MobileNetV3Small"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["every day", "numbered"],
)
def test_layer_names_are_the_same_in_another_process(names):
    code = (
        "import keras; from keras_transfer import get_backbone\n"
        "[keras.layers.MaxPooling2D() for _ in range(3)]\n"
        f"for name in {names}:\n"
        "    for b in get_backbone(name, weights=None).list_blocks((80, 80, 3)): print(*b.layers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [
        " ".join(block.layers)
        for name in names
        for block in get_backbone(name, weights=None).list_blocks((80, 80, 3))
    ]
    assert done.stdout.splitlines() == here


def test_licences_are_those_of_published_weights(tmp_path):
    assert get_backbone("VGG16").licence == "CC-BY-4.0"
    assert get_backbone("ResNet50").licence == "MIT"
    assert get_backbone("DenseNet121").licence == "BSD-3-Clause"
    (tmp_path / "own.weights.h5").touch()
    for name in ("VGG16", "EfficientNetLite0"):
        published, own, random = (
            get_backbone(name, **options)
            for options in ({}, {"weights": tmp_path / "own.weights.h5"}, {"weights": None})
        )
        assert published.licence
        assert published.weights_from.endswith("ImageNet")
        assert (own.licence, own.weights_from) == ("", str(tmp_path / "own.weights.h5"))
        assert (random.licence, random.weights_from) == ("", "random")
    for family in FAMILIES.values():
        assert family.licence in ("Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "MIT")
        assert family.source


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
        raise Exception("URL fetch failure on https://somewhere/mobile_net.h5: None -- no route")

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", unreachable)
    with pytest.raises(WeightsNotFoundError) as caught:
        get_backbone("MobileNetV2").load((96, 96, 3))
    # Which file, where to, and what else.
    assert f"https://somewhere/mobile_net.h5 elsewhere and put it into {tmp_path}" in str(
        caught.value
    )
    assert "weights='file.weights.h5', weights=None" in str(caught.value)


def test_refuses_pictures_that_are_too_small():
    with pytest.raises(InvalidParameterError, match=r"at least 32 px for VGG16. Received: \(16"):
        get_backbone("VGG16", weights=None).load((16, 16, 3))
