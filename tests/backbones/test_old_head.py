"""The old head of a classifier is found in its graph, left out, and named."""

import pickle

import keras
import numpy as np
import pytest
import tiny
from keras import layers
from sklearn.base import clone

from keras_transfer import get_backbone
from keras_transfer.errors import InvalidParameterError
from keras_transfer.persistence.plain import from_plain, to_plain

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


def pooled_classifier(activation="softmax"):
    inputs = keras.Input(SHAPE)
    x = kept = tiny.cnn(SHAPE)(inputs)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="drop")(x)
    return keras.Model(inputs, layers.Dense(4, activation, name="top")(x)), kept


def flattened():
    """As VGG ends: the last pooling leaves one pixel of a small picture."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, strides=8, padding="same", name="conv")(inputs)
    x = kept = layers.MaxPooling2D(name="block_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(6, "relu", name="fc1")(x)
    x = layers.BatchNormalization(name="fc1_bn")(x)
    return keras.Model(inputs, layers.Dense(4, "softmax", name="top")(x)), kept


def convolutional():
    """As MobileNetV3 ends: pooled to one pixel, then convolutions; and gates before that."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, strides=4, name="conv")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.Conv2D(4, 1, activation="sigmoid", name="excite")(gate)
    x = kept = layers.Multiply(name="gated")([x, gate])
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = layers.Conv2D(8, 1, name="conv_2")(x)
    x = layers.Activation("hard_swish", name="swish")(x)
    x = layers.Conv2D(4, 1, name="logits")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Activation("softmax", name="top")(x)), kept


def one_pixel_early():
    """A transition that pools to one pixel, before layers that were made for more."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, strides=8, padding="same", name="conv")(inputs)
    x = layers.AveragePooling2D(2, name="transition")(x)
    x = kept = layers.Conv2D(4, 3, padding="same", name="last")(x)
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(1, "sigmoid", name="top")(x)), kept


def maps_of_classes():
    """As SqueezeNet ends: the layer that knows the classes comes before the pooling."""
    inputs = keras.Input(SHAPE)
    x = kept = layers.Conv2D(6, 3, name="conv")(inputs)
    x = layers.Conv2D(4, 1, activation="relu", name="classes")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Softmax(name="top")(x)), kept


def of_two_depths():
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, name="low")(inputs)
    y = layers.Conv2D(4, 3, name="high")(x)
    kept = layers.Concatenate(name="both")(
        [layers.GlobalAveragePooling2D()(x), layers.GlobalAveragePooling2D()(y)]
    )
    return keras.Model(inputs, layers.Dense(4, "softmax", name="top")(kept)), kept


def patches():
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(6, 4, strides=4, name="patches")(inputs)
    x = layers.Reshape((16, 6), name="sequence")(x)
    x = layers.Dense(6, "relu", name="mix")(x)
    kept = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(4, name="top")(kept)), kept


def without_feature_maps():
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 255, name="scale")(inputs)
    kept = layers.Dense(5, "relu", name="hidden")(layers.Flatten(name="flatten")(x))
    return keras.Model(inputs, layers.Dense(4, "softmax", name="top")(kept)), kept


def vectors():
    inputs = keras.Input((5,))
    kept = layers.Dense(6, "relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(4, "sigmoid", name="top")(kept)), kept


def vectors_with_logits():
    inputs = keras.Input((5,))
    x = layers.Dense(6, "relu", name="first")(inputs)
    kept = layers.Dense(6, name="hidden")(x)
    x = layers.Dense(4, name="logits")(kept)
    return keras.Model(inputs, layers.Activation("softmax", name="top")(x)), kept


def sum_of_logits():
    inputs = keras.Input((5,))
    kept = layers.Add(name="sum")([layers.Dense(4)(inputs), layers.Dense(4)(inputs)])
    return keras.Model(inputs, layers.Softmax(name="top")(kept)), kept


def sequential():
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, name="conv"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(4, "softmax", name="top"),
        ]
    )
    return model, model.get_layer("relu").output


def inside():
    """A classifier inside another model."""
    inner, kept = pooled_classifier()
    model = keras.Sequential([keras.Input(SHAPE), layers.Rescaling(1 / 255, name="scale"), inner])
    below = keras.Model(inner.input, kept)
    return model, below(model.get_layer("scale").output)


def head_inside():
    """A head that is a model."""
    inputs = keras.Input(SHAPE)
    kept = tiny.nested(SHAPE)(inputs)
    head = keras.Sequential(
        [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(4, "softmax", name="top")],
        name="classify",
    )
    return keras.Model(inputs, head(kept)), kept


# How a classifier is built -> the layers that are left out.
CLASSIFIERS = {
    pooled_classifier: ("pool", "drop", "top"),
    lambda: pooled_classifier(None): ("pool", "drop", "top"),
    flattened: ("flatten", "fc1", "fc1_bn", "top"),
    convolutional: ("pool", "conv_2", "swish", "logits", "flatten", "top"),
    one_pixel_early: ("pool", "top"),
    maps_of_classes: ("classes", "pool", "top"),
    of_two_depths: ("top",),
    patches: ("top",),
    without_feature_maps: ("top",),
    vectors: ("top",),
    vectors_with_logits: ("logits", "top"),
    sum_of_logits: ("top",),
    sequential: ("flatten", "top"),
    inside: ("pool", "drop", "top"),
    head_inside: ("classify/pool", "classify/top"),
}


def name_of(build):
    return "logits" if build.__name__ == "<lambda>" else build.__name__


@pytest.mark.parametrize("build", CLASSIFIERS, ids=name_of)
def test_leaves_the_old_head_out(build):
    model, kept = build()
    before = model.to_json()
    backbone = get_backbone(model)
    prefix = f"{model.layers[-1].name}/" if build is inside else ""
    assert backbone.left_out == tuple(prefix + name for name in CLASSIFIERS[build])
    assert model.to_json() == before

    x = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    expected = keras.Model(model.inputs[0], kept)
    loaded = backbone.load()
    np.testing.assert_array_equal(loaded(x), expected(x))
    assert len(loaded.weights) == len(expected.weights)
    assert backbone.input_shape == model.input_shape[1:]
    assert get_backbone(model) == backbone


def ends_in_pooling():
    return keras.Sequential([tiny.cnn(SHAPE), layers.GlobalAveragePooling2D()])


def ends_in_embedding():
    return keras.Sequential([ends_in_pooling(), layers.Dense(8, "relu")])


def ends_in_normalisation():
    return keras.Sequential([ends_in_pooling(), layers.Dense(8), layers.BatchNormalization()])


def ends_in_a_linear_map_of_vectors():
    return keras.Sequential([keras.Input((5,)), layers.Dense(8, "relu"), layers.Dense(3)])


def ends_in_a_map_of_classes():
    return keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3, activation="softmax")])


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.top = layers.Dense(3, "softmax")

    def call(self, inputs):
        return self.top(inputs)


def shows_no_inside():
    model = Subclassed()
    model(np.zeros((1, 4)))
    return model


@pytest.mark.parametrize(
    "build",
    [
        ends_in_pooling,
        ends_in_embedding,
        ends_in_normalisation,
        ends_in_a_linear_map_of_vectors,
        ends_in_a_map_of_classes,
        shows_no_inside,
        lambda: tiny.residual(SHAPE),
    ],
)
def test_other_models_stay_whole(build):
    model = build()
    backbone = get_backbone(model)
    assert backbone.left_out == ()
    assert len(backbone.source.weights) == len(model.get_weights())


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("MobileNetV2", 2),
        ("MobileNetV3Small", 7),
        pytest.param("VGG16", 4, marks=pytest.mark.slow),
        pytest.param("EfficientNetB0", 3, marks=pytest.mark.slow),
        pytest.param("DenseNet121", 2, marks=pytest.mark.slow),
    ],
)
def test_networks_of_keras(name, left_out, tmp_path):
    """Also at 32 px, where their last feature map is one pixel."""
    build = getattr(keras.applications, name)
    model = build(weights=None, classes=7, input_shape=(32, 32, 3))
    model.save(tmp_path / "classifier.keras")
    own = build(weights=None, include_top=False, input_shape=(32, 32, 3))
    own.set_weights(model.get_weights()[: len(own.weights)])
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")

    backbone = get_backbone(tmp_path / "classifier.keras")
    assert len(backbone.left_out) == left_out
    np.testing.assert_array_equal(backbone.load()(pixels), own(pixels))
    assert backbone.list_blocks() == get_backbone(own).list_blocks()
    # The same value, whichever way it came.
    assert backbone == get_backbone(model)


def test_what_is_left_is_a_value():
    backbone = get_backbone(pooled_classifier()[0])
    assert clone(backbone) is backbone
    attachments = {}
    plain = to_plain(backbone, attachments)
    for restored in (pickle.loads(pickle.dumps(backbone)), from_plain(plain, attachments, {})):
        assert restored == backbone
        assert restored.left_out == ("pool", "drop", "top")
        for one, other in zip(
            restored.load().get_weights(), backbone.load().get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_a_new_head_stands_on_what_is_left():
    model, kept = pooled_classifier()
    new = tiny.classifier(get_backbone(model), 3)
    x = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype("float32")
    expected = keras.Model(model.input, layers.GlobalAveragePooling2D()(kept))(x)
    features = keras.Model(new.input, new.get_layer("head.logits").input)(x)
    np.testing.assert_array_equal(features, expected)


def test_names_the_head_of_our_own_models():
    model = tiny.classifier(get_backbone(tiny.residual(SHAPE)), 3)
    left_out = get_backbone(model).left_out
    assert left_out == ("readout.0_unit1_conv_average", "head.logits", "head.probabilities")


def test_refuses_a_model_that_is_only_a_head():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(9, "softmax", name="top")])
    with pytest.raises(InvalidParameterError, match=r"has none before 'top'.*pass a function"):
        get_backbone(model)
    assert get_backbone(lambda shape: model).load((4,)) is model
