"""Anything turned into a Backbone: an immutable value that estimators can hold."""

import copy
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import tiny
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from keras_transfer import Backbone, get_backbone, list_backbones, register_backbone
from keras_transfer.backbones.registry import as_backbone
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    InvalidTypeError,
    UnknownNameError,
    WeightsNotFoundError,
)

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return tiny.residual(SHAPE)


def test_describing_a_backbone_starts_nothing():
    code = (
        "import sys; from keras_transfer import get_backbone, list_backbones\n"
        "[get_backbone(name) for name in list_backbones()]\n"
        "print({'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_is_a_value(model):
    for backbone in (get_backbone("VGG16"), get_backbone(model), get_backbone(tiny.cnn)):
        assert copy.copy(backbone) is backbone
        assert copy.deepcopy(backbone) is backbone
        assert clone(backbone) is backbone
        restored = pickle.loads(pickle.dumps(backbone))
        assert restored == backbone
        assert hash(restored) == hash(backbone)
        with pytest.raises(AttributeError):
            backbone.name = "other"
    assert get_backbone("VGG16") != get_backbone("VGG16", weights=None)
    assert get_backbone("VGG16", weights=None, input_shape=(64, 64, 3)) != get_backbone(
        "VGG16", weights=None
    )


def test_a_model_is_copied_as_it_stands(model):
    backbone = pickle.loads(pickle.dumps(get_backbone(model)))
    before = model.get_weights()
    model.set_weights([w + 1 for w in before])
    for _ in range(2):
        loaded = backbone.load()
        for one, other in zip(loaded.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)
        loaded.set_weights([w * 0 for w in before])


def test_a_keras_file(model, tmp_path):
    model.save(tmp_path / "mine.keras")
    for path in (tmp_path / "mine.keras", str(tmp_path / "mine.keras")):
        loaded = get_backbone(path).load()
        for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_model_of_ours_leaves_its_old_head(model):

    built = tiny.classifier(get_backbone("MobileNetV2", weights=None), 7, input_shape=(32, 32, 3))
    again = get_backbone(built)
    names = [block.name for block in again.list_blocks()]
    assert names == [
        b.name for b in get_backbone("MobileNetV2", weights=None).list_blocks((32, 32, 3))
    ]
    new = tiny.classifier(again, 3)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    one, other = (
        keras.Model(m.input, m.get_layer("head.logits").input)(pixels) for m in (built, new)
    )
    np.testing.assert_array_equal(one, other)


def test_how_a_model_was_compiled_does_not_matter():
    model = tiny.dense((3,))
    plain = get_backbone(model)
    model.compile("adam", loss=lambda y, p: keras.ops.mean(p))
    assert get_backbone(model) == plain
    get_backbone(model).load()


def test_a_classifier_leaves_its_old_head():
    network = tiny.residual(SHAPE)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(network.output)
    classifier = keras.Model(network.input, keras.layers.Dense(9, "softmax", name="top")(x))
    backbone = get_backbone(classifier, blocks={"low": "stem", "high": "unit[01]"})
    assert backbone.left_out == ("pool", "top")
    assert [block.name for block in backbone.list_blocks()] == ["low", "high"]
    assert "left_out" not in repr(backbone)


def test_blocks_by_several_patterns():
    backbone = get_backbone(tiny.residual(SHAPE), blocks={"a": ["stem", "unit0"], "b": "unit1"})
    assert [block.name for block in backbone.list_blocks()] == ["a", "b"]


def test_registered_names():
    backbone = register_backbone(
        "Tiny", tiny.cnn, blocks={"low": "conv0", "high": "conv[12]"}, overwrite=True
    )
    assert "Tiny" in list_backbones()
    assert get_backbone("Tiny") is backbone
    assert [block.name for block in backbone.list_blocks(SHAPE)] == ["low", "high"]
    with pytest.raises(InvalidParameterError, match="overwrite=True"):
        register_backbone("Tiny", tiny.cnn)
    with pytest.raises(InvalidParameterError, match="Choose another name\\."):
        register_backbone("VGG16", tiny.cnn, overwrite=True)


class _Estimator(LogisticRegression):
    pass


def _registered(name, **options):
    register_backbone(name, tiny.cnn, overwrite=True)
    return get_backbone(name, **options)


MISTAKES = {
    "an unknown name": (
        lambda: get_backbone("MobilNetV2"),
        UnknownNameError,
        "Did you mean 'MobileNetV2'",
    ),
    "a model to register": (
        lambda: register_backbone("Model", tiny.dense((3,))),
        InvalidTypeError,
        "build: expected a callable .* get_backbone makes",
    ),
    "a number": (lambda: get_backbone(3), InvalidTypeError, "Received: 3"),
    "an estimator": (lambda: get_backbone(_Estimator()), InvalidTypeError, "Received: _Estimator"),
    "a bare model as a parameter": (
        lambda: as_backbone(tiny.dense((3,))),
        InvalidTypeError,
        r"Write backbone=get_backbone\(model\)",
    ),
    "a bare estimator as a parameter": (
        lambda: as_backbone(_Estimator()),
        InvalidTypeError,
        "bare _Estimator",
    ),
    "weights of a callable": (
        lambda: get_backbone(tiny.cnn, weights=None),
        InvalidParameterError,
        "weights: belong to a name",
    ),
    "blocks of a name": (
        lambda: get_backbone("VGG16", blocks={"a": "b"}),
        InvalidParameterError,
        "blocks belong",
    ),
    "a pattern that is none": (
        lambda: get_backbone(tiny.cnn, blocks={"a": "low("}),
        InvalidParameterError,
        "regular expression for 'a'",
    ),
    "a size for a shape": (
        lambda: get_backbone("VGG16", input_shape=96),
        InvalidParameterError,
        "expected a tuple",
    ),
    "a size left open": (
        lambda: get_backbone("VGG16", input_shape=(None, None, 3)),
        InvalidParameterError,
        "Fix every size",
    ),
    "an unknown modality": (
        lambda: get_backbone(tiny.cnn, modality="pictures"),
        UnknownNameError,
        "Did you mean 'picture'",
    ),
    "only a head": (
        lambda: get_backbone(
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(9, "softmax", name="top")])
        ),
        InvalidParameterError,
        "has none before 'top'",
    ),
    "a file that is none": (lambda: get_backbone("no.keras"), WeightsNotFoundError, "no.keras"),
    "another shape than fixed": (
        lambda: get_backbone(tiny.residual(SHAPE)).load((32, 32, 3)),
        InvalidParameterError,
        r"expected \(16, 16, 3\)",
    ),
    "no shape": (lambda: get_backbone(tiny.cnn).load(), InvalidParameterError, "Pass input_shape"),
    "no name": (
        lambda: register_backbone("", tiny.cnn),
        InvalidTypeError,
        "name: expected a non-empty string. Received: ''",
    ),
    "a number for a name": (
        lambda: register_backbone(3, tiny.cnn),
        InvalidTypeError,
        "name: expected a non-empty string. Received: 3",
    ),
    "a file to build from": (
        lambda: register_backbone("Mine", "mine.keras"),
        InvalidTypeError,
        r"build: expected a callable \(input_shape\) -> keras\.Model\. Received: 'mine\.keras'",
    ),
    "weights of a backbone": (
        lambda: get_backbone(get_backbone(tiny.cnn), weights=None),
        InvalidParameterError,
        r"weights: belong to a name\. Received with Backbone\(name='cnn'",
    ),
    "weights of a registered name": (
        lambda: _registered("Tiny", weights="file.weights.h5"),
        InvalidParameterError,
        r"weights: 'Tiny' was registered with its own\. Received: 'file\.weights\.h5'",
    ),
    "a callable that returns no model": (
        lambda: get_backbone(lambda shape: shape).load((3,)),
        InvalidTypeError,
        "Received: tuple",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses(case):
    call, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        call()


def test_refuses_a_broken_keras_file(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"PK not a zip")
    with pytest.raises(FileFormatError, match=r"broken\.keras"):
        get_backbone(tmp_path / "broken.keras")


def test_refuses_several_inputs():
    a, b = keras.Input((2,)), keras.Input((2,))
    two = keras.Model([a, b], keras.layers.Add()([a, b]))
    with pytest.raises(InvalidParameterError, match="one input"):
        get_backbone(two)


def test_shows_itself():
    assert isinstance(get_backbone("VGG16"), Backbone)
    assert repr(get_backbone("VGG16")) == (
        "Backbone(name='VGG16', modality='picture', weights='imagenet', input_shape=None)"
    )
