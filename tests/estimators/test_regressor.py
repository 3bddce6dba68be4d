"""TransferRegressor: numbers in the user's units, from the model as from the estimator."""

import keras
import numpy as np
import pandas as pd
import pytest
import tiny
from sklearn.exceptions import NotFittedError

from keras_transfer import ParameterTransfer, StructureTransfer, TransferRegressor, load
from keras_transfer.backbones.partition import read_blocks

X, _ = tiny.vectors(n_per_class=60)
RECIPE = ParameterTransfer(epochs=30, learning_rate=1e-2)
Y = {
    "small": 1e-6 * X[:, 0],
    "far from 0": 1e6 + 10 * X[:, 0],
    "ints": (100 * X[:, 0]).astype(int),
    "a column": 5 + X[:, :1],
    "two of unlike size": np.stack([1e5 * X[:, 0], -1e-3 * X[:, 1] + 7], axis=1),
    "a table": pd.DataFrame({"a": X[:, 0], "b": 1000 * X[:, 1]}),
    "a list": X[:, 0].tolist(),
}


def make(recipe=RECIPE, **parameters):
    return TransferRegressor(tiny.dense, recipe, **{"random_state": 0, **parameters})


@pytest.mark.parametrize("kind", Y)
def test_answers_in_the_users_units(kind):
    y = Y[kind]
    model = make().fit(X, y)
    answer = model.predict(X)
    assert answer.shape == np.shape(y)
    assert answer.dtype == np.float64
    assert model.score(X, y) > 0.7
    # The model alone does the same: what is saved or served knows the units.
    plain = model.model_.predict(X.astype("float32"), verbose=0)
    scale = np.abs(answer).max()
    np.testing.assert_allclose(plain, answer.reshape(plain.shape), atol=1e-6 * scale)


def test_the_unit_changes_nothing_but_the_unit():
    one, other = make().fit(X, X[:, 0]), make().fit(X, 1000 * X[:, 0] + 3000)
    np.testing.assert_allclose(other.predict(X), 1000 * one.predict(X) + 3000, rtol=1e-3)
    np.testing.assert_allclose(one.history_["loss"], other.history_["loss"], rtol=1e-3)


def test_equal_numbers_are_learned():
    model = make(validation=None).fit(X, np.full(len(X), 4.5))
    np.testing.assert_allclose(model.predict(X), 4.5, atol=0.3)


def test_validation_is_r2_on_what_is_held_out():
    model = make().fit(X, Y["far from 0"], validation_data=(X[:50], Y["far from 0"][:50]))
    expected = model.score(X[:50], Y["far from 0"][:50])
    assert model.validation_score_ == pytest.approx(expected, abs=1e-6)
    # The loss of held-out numbers is that of training: standardised.
    assert model.history_["val_loss"][-1] < 1
    assert "accuracy" not in model.history_
    few = make().fit(X[:99], Y["small"][:99])
    assert np.isnan(few.validation_score_)


def test_the_layer_of_the_units_never_trains():
    model = make().fit(X, Y["two of unlike size"])
    kernel, bias = model.model_.get_layer("target.units").get_weights()
    train = Y["two of unlike size"]
    np.testing.assert_allclose(kernel, train.std(axis=0), rtol=0.2)
    np.testing.assert_allclose(bias, train.mean(axis=0), rtol=0.3)
    assert not any("units" in weight.path for weight in model.model_.trainable_weights)
    assert "target" not in [block.name for block in read_blocks(model.model_)]


def test_pictures():
    pictures, _ = tiny.pictures(n_per_class=12)
    brightness = pictures.mean(axis=(1, 2, 3))
    recipe = ParameterTransfer(epochs=40, learning_rate=1e-2)
    model = TransferRegressor(tiny.cnn, recipe, random_state=0)
    assert model.fit(pictures, brightness).score(pictures, brightness) > 0.7


def test_a_dataset_of_pictures_and_numbers():
    import tensorflow as tf

    pictures, _ = tiny.pictures(n_per_class=6)
    brightness = pictures.mean(axis=(1, 2, 3))
    recipe = ParameterTransfer(epochs=2, learning_rate=1e-2)
    expected = TransferRegressor(tiny.cnn, recipe, random_state=0).fit(pictures, brightness)
    for numbers in (brightness, brightness.astype(str)):  # text, as of a CSV, is read
        dataset = tf.data.Dataset.from_tensor_slices((pictures, numbers)).batch(4)
        model = TransferRegressor(tiny.cnn, recipe, random_state=0).fit(dataset)
        np.testing.assert_array_equal(model.predict(pictures), expected.predict(pictures))
        assert model.score(dataset) == expected.score(pictures, brightness)


def test_saved_and_loaded(tmp_path):
    model = make().fit(X, Y["two of unlike size"])
    model.save(tmp_path / "numbers")
    again = load(tmp_path / "numbers")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.validation_score_ == pytest.approx(model.validation_score_, nan_ok=True)


def test_in_existing_keras_code():
    """The recipe reads the units from the dataset."""
    import tensorflow as tf

    recipe = ParameterTransfer(epochs=30, learning_rate=1e-2)
    model = recipe.build(tiny.dense, 2, task="regression", input_shape=(5,))
    y = Y["two of unlike size"].astype("float32")
    data = tf.data.Dataset.from_tensor_slices((X.astype("float32"), y)).batch(16)
    result = recipe.fit(model, data, validation_data=data, verbose=False)
    assert result.score > 0.7
    residuals = model.predict(X, verbose=0) - y
    assert (residuals.std(axis=0) < 0.6 * y.std(axis=0)).all()
    labels = recipe.build(tiny.dense, 3, task="multilabel", input_shape=(5,))
    data = data.map(lambda x, y: (x, tf.cast(x[:, :3] > 0, "float32")))
    result = recipe.fit(labels, data, validation_data=data, verbose=False)
    assert result.score > 0.8
    with pytest.raises(ValueError, match="expected 'multilabel', which"):
        recipe.fit(labels, data, task="regression")


def test_a_foreign_model_of_numbers():
    import tensorflow as tf

    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(8, "relu", name="body"), keras.layers.Dense(1)]
    )
    blocks = {"body": ["body"], "head": [model.layers[-1].name]}
    data = tf.data.Dataset.from_tensor_slices((X.astype("float32"), X[:, 0])).batch(16)
    recipe = ParameterTransfer(epochs=30, learning_rate=1e-2)
    result = recipe.fit(
        model, data, validation_data=data, task="regression", blocks=blocks, verbose=False
    )
    assert result.score > 0.7


def test_makes_its_estimator():
    recipe = StructureTransfer(1)
    assert recipe.regressor("MobileNetV2").recipe is recipe


def test_before_fit():
    with pytest.raises(NotFittedError):
        make().predict(X)
    with pytest.raises(NotFittedError):
        make().score(X, X[:, 0])
