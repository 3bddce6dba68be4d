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
from keras_transfer.training.validation import (
    Validation,
    check_classes,
    check_targets,
    default_score,
    score_of,
    standard_error,
)


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


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        ("multilabel", [[0, 2], [1, 1]]),
        ("multilabel", [0, 1]),
        ("regression", ["a", "b"]),
        ("regression", np.zeros((2, 2, 2))),
    ],
)
def test_refuses_targets_of_another_task(task, targets):
    with pytest.raises(DataError, match=r"expected (rows of 0 and 1|numbers)"):
        check_targets(task, targets)


HALVES = [np.log(0.9) + np.log(0.8), np.log(0.4) + np.log(0.6)]
WEIGHTED = {
    # By hand: (outputs, targets, weights), and their loss and score.
    "multilabel": (
        ([[0.9, 0.2], [0.4, 0.6]], [[1, 0], [1, 1]], [3, 1]),
        (-(3 * HALVES[0] + HALVES[1]) / 8, 7 / 8),
    ),
    "regression": (
        ([[1], [2], [9]], [[1], [3], [5]], [1, 1, 2]),
        ((0.5**2 + 2 * 2.0**2) / 4, 1 - 33 / 11),
    ),
}


@pytest.mark.parametrize("task", WEIGHTED)
def test_labels_and_numbers_count_by_their_weights(task):
    (outputs, targets, weights), expected = WEIGHTED[task]
    inputs = keras.Input((len(outputs[0]),))
    handed_through = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    batches = ordered_batches(
        (np.array(outputs, "float32"), np.array(targets), np.array(weights, "float32")), 2
    )
    found = Validation(batches, task, scale=2.0)(Inference(handed_through))
    assert found == pytest.approx(expected, rel=1e-5)


# === How far a score is to be trusted ===


def some_answers(n, share=0.8, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    is_right = rng.uniform(size=n) < share
    outputs = np.eye(2)[np.where(is_right, targets, 1 - targets)]
    return targets, outputs, np.ones(n)


def test_the_standard_error_of_an_accuracy():
    accuracy = default_score("multiclass")
    found = standard_error(accuracy, some_answers(400))
    assert found == pytest.approx(np.sqrt(0.8 * 0.2 / 400), rel=0.25)
    assert standard_error(accuracy, some_answers(25)) > 2.5 * found
    assert standard_error(accuracy, some_answers(25, share=1.0)) == 0
    assert np.isnan(standard_error(accuracy, some_answers(1)))


def test_several_answers_to_an_example_are_not_several_examples():
    targets, outputs, weights = some_answers(200)
    accuracy = default_score("multiclass")
    repeated = targets, np.stack([outputs] * 3), weights
    assert score_of(accuracy, repeated) == score_of(accuracy, (targets, outputs, weights))
    assert standard_error(accuracy, repeated) == pytest.approx(
        standard_error(accuracy, (targets, outputs, weights))
    )


def test_draws_keep_the_classes():
    seen = []

    def score(targets, outputs, weights):
        seen.append(np.bincount(targets).tolist())
        return 0.0

    targets = np.array([0] * 20 + [1])
    standard_error(score, (targets, np.eye(2)[targets], np.ones(21)))
    assert seen == [[20, 1]] * 100


def test_the_answers_are_those_of_the_last_call():
    keras.utils.set_random_seed(0)
    model = tiny.classifier(get_backbone(tiny.dense), 2, input_shape=(5,))
    X, y = tiny.vectors()
    targets = np.unique(y, return_inverse=True)[1]
    validation = Validation(ordered_batches((X.astype("float32"), targets), 9))
    _, score = validation(Inference(model))
    assert score_of(validation.score, validation.answers) == score
    np.testing.assert_array_equal(validation.answers[0], targets)
