"""What a run did, as `Recipe.fit` gives it back."""

import math

import pytest
import tensorflow as tf
import tiny

from keras_transfer import StructureTransfer, get_backbone

X, Y = tiny.vectors(n_per_class=100)
X = (X / 8).astype("float32")  # so that some are answered wrong
CODES = (Y == "yes").astype("int64")


def fit(**options):
    recipe = StructureTransfer(epochs=2)
    model = recipe.build(get_backbone(tiny.dense), outputs=2, input_shape=(5,))
    dataset = tf.data.Dataset.from_tensor_slices((X, CODES)).batch(20)
    return recipe.fit(model, dataset, random_state=0, verbose=False, **options), model


def test_the_score_has_a_standard_error():
    held = tf.data.Dataset.from_tensor_slices((X[:80], CODES[:80])).batch(20)
    result, model = fit(validation_data=held)
    is_right = model.predict(X[:80], verbose=0).argmax(axis=1) == CODES[:80]
    assert result.score == pytest.approx(is_right.mean())
    # As many of each class as there are.
    classes = [is_right[CODES[:80] == code] for code in (0, 1)]
    expected = math.sqrt(sum(len(each) * each.var() for each in classes)) / 80
    assert expected > 0
    assert result.standard_error == pytest.approx(expected, rel=0.25)


def test_without_a_validation_nothing_is_told():
    result, _ = fit()
    assert math.isnan(result.score)
    assert math.isnan(result.standard_error)
