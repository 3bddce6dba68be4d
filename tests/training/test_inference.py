"""The compiled forward pass answers as the model does."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.training.inference import Inference


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return tiny.classifier(get_backbone(tiny.cnn), 3, input_shape=(tiny.SIZE, tiny.SIZE, 3))


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
def test_equals_the_model(model, batch_size):
    X = tiny.pictures()[0].astype("float32")
    expected = model.predict(X, verbose=0)
    inference = Inference(model)
    np.testing.assert_allclose(inference.on_inputs(X, batch_size), expected, atol=1e-6)
    for kind in ("float32", "uint8", "float64"):
        np.testing.assert_allclose(inference(X.astype(kind)), expected, atol=1e-6)


def test_follows_the_weights(model):
    X = tiny.pictures()[0].astype("float32")
    inference = Inference(model)
    before = inference.on_inputs(X, 8)
    layer = model.get_layer("head.logits")
    layer.bias.assign_add([5.0, 0, 0])
    after = inference.on_inputs(X, 8)
    assert (after[:, 0] > before[:, 0]).all()
    np.testing.assert_allclose(after, model(X), atol=1e-6)
