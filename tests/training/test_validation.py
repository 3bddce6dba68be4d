"""One pass over held-out data gives the loss and the score."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import get_backbone
from keras_transfer.errors import DataError
from keras_transfer.training.batches import ordered_batches
from keras_transfer.training.inference import Inference
from keras_transfer.training.validation import Validation, check_classes


def test_equals_keras_own_evaluation():
    keras.utils.set_random_seed(0)
    model = tiny.classifier(get_backbone(tiny.cnn), 3, input_shape=(tiny.SIZE, tiny.SIZE, 3))
    X, y = tiny.pictures()
    targets = np.unique(y, return_inverse=True)[1]
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    batches = ordered_batches((X.astype("float32"), targets), 7)
    expected = model.evaluate(batches, verbose=0)
    assert Validation(batches)(Inference(model)) == pytest.approx(expected, rel=1e-5)


def test_scores_by_any_function_of_targets_and_outputs():
    keras.utils.set_random_seed(0)
    model = tiny.classifier(get_backbone(tiny.dense), 2, input_shape=(5,))
    X, y = tiny.vectors()
    targets = np.unique(y, return_inverse=True)[1]
    seen = []

    def score(given_targets, outputs, weights):
        seen.extend([given_targets, outputs])
        return 0.25

    batches = ordered_batches((X.astype("float32"), targets), 9)
    assert Validation(batches, score=score)(Inference(model))[1] == 0.25
    np.testing.assert_array_equal(seen[0], targets)
    np.testing.assert_allclose(seen[1], model(X), atol=1e-6)


def perfect():
    """A model that always finds the class: its input is one-hot."""
    inputs = keras.Input((3,))
    return Inference(keras.Model(inputs, keras.layers.Softmax()(inputs * 50)))


@pytest.mark.parametrize("form", ["shuffled", "a column", "bytes"])
def test_forms_of_data_of_ones_own(form):
    targets = np.random.default_rng(0).integers(0, 3, 40)
    rows = np.eye(3)[targets]
    dataset = tf.data.Dataset.from_tensor_slices(
        (
            rows.astype("uint8" if form == "bytes" else "float32"),
            targets[:, None] if form == "a column" else targets,
        )
    )
    if form == "shuffled":  # anew in every pass, as image_dataset_from_directory does
        dataset = dataset.shuffle(40)
    validation = Validation(dataset.batch(7))
    for _ in range(3):
        assert validation(perfect()) == (pytest.approx(0, abs=1e-6), 1.0)


@pytest.mark.parametrize("targets", [np.eye(3), np.array([0.5, 1.0]), np.array(["a"])])
def test_refuses_targets_that_are_no_indices(targets):
    with pytest.raises(DataError, match="expected class indices"):
        check_classes(targets)
