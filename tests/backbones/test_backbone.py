"""What tells a network and its weights without building it."""

import os

import keras
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.backbones.applications import FAMILIES, ApplicationsSource
from keras_transfer.backbones.backbone import IMAGENET
from keras_transfer.errors import InvalidParameterError


def identity(backbone):
    return backbone.source.identity()


def touch(path, contents):
    path.write_bytes(contents)
    os.utime(path, ns=(0, len(contents)))  # the clock of a file system can be coarse


def test_a_models_weights_tell():
    model = tiny.cnn((16, 16, 3))
    before = identity(get_backbone(model))
    assert identity(get_backbone(model)) == before
    model.layers[1].bias.assign(model.layers[1].bias + 1)
    assert identity(get_backbone(model)) != before


def test_a_weights_file_tells(tmp_path):
    path = tmp_path / "w.weights.h5"
    touch(path, b"one")
    backbone = get_backbone("MobileNetV2", weights=path)
    before = identity(backbone)
    assert identity(get_backbone("MobileNetV2", weights=path)) == before
    touch(path, b"three")
    assert identity(backbone) not in (before, None)
    path.unlink()
    assert identity(backbone) is None


@pytest.mark.parametrize("size", ["224", "96"])
def test_published_weights_of_any_size_tell(tmp_path, monkeypatch, size):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    source = ApplicationsSource("MobileNetV2", IMAGENET)
    assert source.identity() is None  # not on this machine
    name = FAMILIES["MobileNetV2"].weights_file.replace("224", size)
    (tmp_path / "models").mkdir()
    touch(tmp_path / "models" / name, b"one")
    before = source.identity()
    assert before is not None
    touch(tmp_path / "models" / name, b"three")
    assert source.identity() not in (before, None)


def test_names_and_random_weights_tell():
    names = ["EfficientNetLite0", "MobileNetV2", "ResNet50"]
    known = [identity(get_backbone(name, weights=None)) for name in names]
    known.append(identity(get_backbone("EfficientNetLite0")))
    assert None not in known
    assert len(set(known)) == len(known)


def test_what_can_do_something_else_the_next_time_is_not_told():
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    inputs = keras.Input((4,))
    assert identity(get_backbone(tiny.dense)) is None
    own = keras.Model(inputs, keras.layers.Dense(2)(Own()(inputs)))
    assert identity(get_backbone(own)) is None


def test_a_callable_may_leave_the_building_to_us():
    def unbuilt(input_shape):
        return keras.Sequential([keras.layers.Dense(3, name="low")])

    assert get_backbone(unbuilt).load((5,)).count_params() == 18


def test_several_outputs_are_refused():
    def two(input_shape):
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(3)(inputs)])

    with pytest.raises(InvalidParameterError) as caught:
        get_backbone(two).load((5,))
    assert str(caught.value) == (
        "backbone 'two': expected a model with one input and one output. Received: 1 inputs and 2 "
        "outputs. Pass keras.Model(model.inputs[0], model.outputs[0])."
    )
