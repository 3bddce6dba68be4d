"""A recipe on a model and a dataset of one's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
)
from keras_transfer.errors import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
)

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


def dataset(n_per_class=8):
    X, y = tiny.pictures(n_per_class)
    targets = np.unique(y, return_inverse=True)[1]
    return tf.data.Dataset.from_tensor_slices((X.astype("float32"), targets)).batch(8)


def test_fit_on_a_dataset_of_ones_own(tmp_path):
    recipe = CompositeTransfer(1, epochs=15, learning_rate=1e-2)
    model = recipe.build(tiny.settled(tiny.cnn, SHAPE), outputs=3)
    # The blocks are recovered from the names, also of a reloaded model.
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    result = recipe.fit(model, dataset(), validation_data=dataset(), verbose=False)
    assert list(dict.fromkeys(result.history["stage"])) == ["head", "fine-tuning"]
    model.compile(metrics=["accuracy"], loss="sparse_categorical_crossentropy")
    assert model.evaluate(dataset(), verbose=0)[1] == pytest.approx(result.score)
    assert result.score > 0.8


def test_a_score_on_a_dataset_has_a_standard_error():
    recipe = StructureTransfer()
    model = recipe.build(tiny.settled(tiny.cnn, SHAPE), outputs=3)
    result = recipe.fit(model, dataset(), validation_data=dataset(), verbose=False)
    n, share = 24, result.score
    assert 0 < share < 1
    # By theory, were all classes alike; the bootstrap draws within each.
    assert result.standard_error == pytest.approx((share * (1 - share) / n) ** 0.5, rel=0.3)
    assert np.isnan(recipe.fit(model, dataset(), verbose=False).standard_error)


def test_fit_on_a_foreign_model():
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(8, name="body"),
            keras.layers.Dense(3, activation="softmax", name="top"),
        ]
    )
    before = model.get_layer("body").get_weights()
    blocks = {"body": ["body"], "head": ["top"]}
    StructureTransfer(epochs=1).fit(model, dataset(), blocks=blocks, verbose=False)
    for one, other in zip(before, model.get_layer("body").get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    result = ParameterTransfer(epochs=1).fit(model, dataset(), blocks=blocks, verbose=False)
    assert result.records[0].stage.trained == ("body", "head")


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_augmentation_of_a_dataset(kind):
    """One epoch with a rate so small that only the data can change the loss."""

    def loss(recipe):
        keras.utils.set_random_seed(0)
        model = recipe.build(tiny.settled(tiny.cnn, SHAPE), outputs=3)
        data = dataset().map(lambda x, y: (tf.cast(x, kind), y))
        return recipe.fit(model, data, validation_data=data, verbose=False).history["loss"]

    options = {"epochs": 1, "learning_rate": 1e-9, "optimizer": "sgd"}
    still, again = (loss(StructureTransfer(**options)) for _ in range(2))
    assert still == again
    changed = loss(StructureTransfer(augmentation=["rotate", "colour"], **options))
    assert changed != still
    assert changed == loss(StructureTransfer(augmentation=["rotate", "colour"], **options))


def test_pretrained_can_be_said():
    model = StructureTransfer().build(tiny.dense, 3, input_shape=SHAPE[:1])
    rates = {}
    for pretrained in (True, False):
        data = tf.data.Dataset.from_tensors((np.ones((4, 16), "float32"), np.arange(4) % 3))
        result = ParameterTransfer(epochs=1).fit(model, data, pretrained=pretrained, verbose=False)
        rates[pretrained] = result.history["learning_rate"]
    assert rates[True] != rates[False]


def test_target_score_and_time_budget_of_a_dataset():
    recipe = StructureTransfer(epochs=500)
    model = recipe.build(tiny.cnn, outputs=3, input_shape=SHAPE)
    result = recipe.fit(
        model, dataset(), validation_data=dataset(), target_score=0.0, verbose=False
    )
    assert [(r.reason, r.epochs) for r in result.records] == [("target score", 1)]
    result = recipe.fit(model, dataset(), time_budget=1e-3, verbose=False)
    assert [(r.reason, r.epochs) for r in result.records] == [("time budget", 1)]


def infinite():
    return dataset().repeat()


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_mixing_a_dataset(mix, kind):
    """As above, only the data can change the loss."""

    def loss(recipe, seed=0):
        keras.utils.set_random_seed(0)
        model = recipe.build(tiny.settled(tiny.cnn, SHAPE), outputs=3)
        data = dataset().map(lambda x, y: (tf.cast(x, kind), y[:, tf.newaxis]))
        result = recipe.fit(model, data, validation_data=data, random_state=seed, verbose=False)
        assert result.records[-1].stored == f"not stored: {mix} makes new pictures in every step"
        assert model.loss == "sparse_categorical_crossentropy"
        assert result.score == pytest.approx(model.evaluate(data, verbose=0)[1])
        return result.history["loss"]

    options = {"epochs": 2, "learning_rate": 1e-9, "optimizer": "sgd", "mix": mix}
    one, two = loss(StructureTransfer(**options)), loss(StructureTransfer(**options), seed=1)
    assert one == loss(StructureTransfer(**options))
    assert one != two
    assert one[0] != one[1]  # new in every epoch


def test_a_dataset_that_cannot_be_mixed_or_smoothed():
    vectors = tf.data.Dataset.from_tensors((np.ones((4, 16), "float32"), np.arange(4) % 3))
    recipe = ParameterTransfer(epochs=1, mix="mixup")
    model = recipe.build(tiny.dense, 3, input_shape=(16,))
    with pytest.raises(InvalidParameterError, match="mix: expected None where X holds no pictures"):
        recipe.fit(model, vectors)
    recipe = StructureTransfer(1, epochs=1, focal_gamma=2.0)
    model = recipe.build(tiny.settled(tiny.cnn, SHAPE), 1, task="regression")
    with pytest.raises(InvalidParameterError, match="focal_gamma: expected None for a regression"):
        recipe.fit(model, dataset())


MISTAKES = {
    "no dataset": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE), tiny.pictures()
        ),
        InvalidTypeError,
        r"from_tensor_slices",
    ),
    "an infinite dataset": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE), infinite()
        ),
        InvalidParameterError,
        "Leave repeat",
    ),
    "a dataset without targets": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE),
            dataset().map(lambda x, y: x),
        ),
        InvalidParameterError,
        "batches of",
    ),
    "validation arrays": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE),
            dataset(),
            validation_data=tiny.pictures(),
        ),
        InvalidTypeError,
        "validation_data: expected a tf.data.Dataset",
    ),
    "one-hot targets": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE),
            dataset().map(lambda x, y: (x, tf.one_hot(y, 3))),
        ),
        DataError,
        "argmax",
    ),
    "a model that ends in logits": (
        lambda: StructureTransfer().fit(
            keras.Sequential(
                [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3, name="top")]
            ),
            dataset(),
            blocks={"head": "top"},
        ),
        InvalidParameterError,
        "ends in probabilities",
    ),
    "a target without validation": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE), dataset(), target_score=0.5
        ),
        InvalidParameterError,
        "Pass validation_data",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses(case):
    call, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        call()
