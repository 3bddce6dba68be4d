"""One pass over held-out data gives the loss and the score."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.graph.build import build_classifier
from keras_transfer.training.batches import ordered_batches
from keras_transfer.training.inference import Inference
from keras_transfer.training.validation import Validation


def test_equals_keras_own_evaluation():
    keras.utils.set_random_seed(0)
    model = build_classifier(get_backbone(tiny.cnn), 3, input_shape=(tiny.SIZE, tiny.SIZE, 3))
    X, y = tiny.pictures()
    targets = np.unique(y, return_inverse=True)[1]
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    batches = ordered_batches(X.astype("float32"), targets, 7)
    expected = model.evaluate(batches, verbose=0)
    assert Validation(batches)(Inference(model)) == pytest.approx(expected, rel=1e-5)


def test_scores_by_any_function_of_targets_and_outputs():
    keras.utils.set_random_seed(0)
    model = build_classifier(get_backbone(tiny.dense), 2, input_shape=(5,))
    X, y = tiny.vectors()
    targets = np.unique(y, return_inverse=True)[1]
    seen = []

    def score(given_targets, outputs):
        seen.extend([given_targets, outputs])
        return 0.25

    batches = ordered_batches(X.astype("float32"), targets, 9)
    assert Validation(batches, score)(Inference(model))[1] == 0.25
    np.testing.assert_array_equal(seen[0], targets)
    np.testing.assert_allclose(seen[1], model(X), atol=1e-6)
