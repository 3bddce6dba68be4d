"""Augmentation: random, bounded, repeatable, outside the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from sklearn.base import clone

from keras_transfer import CompositeTransfer, ParameterTransfer, TransferClassifier, load
from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from keras_transfer.graph.augmentation import (
    AUGMENTATIONS,
    as_augmentation,
    build_augmentation,
)
from keras_transfer.training.batches import shuffled_batches


@pytest.fixture
def x():
    return tiny.pictures()[0].astype("float32")


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_changes_pictures_within_their_range(name, x):
    changed = np.asarray(build_augmentation([name], 0)(x))
    assert changed.shape == x.shape
    assert changed.dtype == x.dtype
    assert not np.array_equal(changed, x)
    assert changed.min() >= -1e-3
    assert changed.max() <= 255 + 1e-3
    # It is the same picture still.
    assert np.corrcoef(changed.ravel(), x.ravel())[0, 1] > 0.3


def epochs(x, seed, n_epochs):
    augment = build_augmentation(tuple(AUGMENTATIONS), seed)
    dataset = shuffled_batches((x, np.arange(len(x))), 8, 0, augment)
    return [np.concatenate([batch[0] for batch in dataset]) for _ in range(n_epochs)]


def test_is_new_in_every_epoch_and_the_same_for_a_seed(x):
    one, two = epochs(x, 7, 2), epochs(x, 7, 2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(np.sort(one[0], axis=0), np.sort(one[1], axis=0))
    assert not np.array_equal(one[0], epochs(x, 8, 1)[0])


def test_names():
    assert as_augmentation(None) == ()
    assert as_augmentation("flip") == ("flip",)
    assert as_augmentation("all") == tuple(AUGMENTATIONS)
    with pytest.raises(UnknownNameError, match="Did you mean 'colour'"):
        as_augmentation(["flip", "color"])
    assert as_augmentation(noise) == (noise,)
    assert as_augmentation(["flip", noise]) == ("flip", noise)
    for wrong in (3, [3], [None], keras.layers.RandomFlip):  # a class is no function of pictures
        with pytest.raises(InvalidTypeError, match="Received: "):
            as_augmentation(wrong)


# === The user's own ===


def noise(pictures):
    return pictures + tf.random.normal(tf.shape(pictures), stddev=5.0)


def test_a_function_of_the_users_takes_its_turn(x):
    darker = np.asarray(build_augmentation([lambda pictures: pictures / 2], 0)(x))
    np.testing.assert_array_equal(darker, x / 2)
    brighter = np.asarray(build_augmentation([lambda pictures: pictures * 100], 0)(x))
    assert brighter.max() == 255  # kept within the range
    whole = np.asarray(build_augmentation([lambda pictures: tf.cast(pictures, tf.uint8)], 0)(x))
    assert whole.dtype == np.float32
    order = [lambda pictures: pictures * 0, lambda pictures: pictures + 7]
    assert (np.asarray(build_augmentation(order, 0)(x)) == 7).all()


def test_it_trains_the_same_with_the_same_seed_and_is_saved(tmp_path):
    X, y = tiny.pictures()
    seen = []

    def fit(seed):
        recipe = ParameterTransfer(epochs=2, augmentation=["flip", noise])
        clf = TransferClassifier(tiny.cnn, recipe, random_state=seed).fit(X, y)
        seen.append(clf)
        return clf.history_["loss"]

    assert fit(0) == fit(0) != fit(1)
    plain = TransferClassifier(tiny.cnn, ParameterTransfer(epochs=2), random_state=0).fit(X, y)
    assert plain.history_["loss"] != seen[0].history_["loss"]
    clone(seen[0]).fit(X, y)
    seen[0].save(tmp_path / "it.keras_transfer")
    loaded = load(tmp_path / "it.keras_transfer", custom_objects={"noise": noise, "cnn": tiny.cnn})
    np.testing.assert_array_equal(loaded.predict_proba(X), seen[0].predict_proba(X))
    assert loaded.recipe.augmentation[1] is noise


def test_one_that_changes_the_shape_is_named():
    X, y = tiny.pictures()

    def halve(pictures):
        return pictures[:, ::2]

    recipe = ParameterTransfer(epochs=1, augmentation=halve)
    with pytest.raises(InvalidTypeError, match=r"'halve' to return .*\(None, 8, 16, 3\)"):
        TransferClassifier(tiny.cnn, recipe).fit(X, y)


# === Where it belongs ===


def test_belongs_to_pictures():
    X, y = tiny.vectors()
    clf = TransferClassifier(tiny.dense, CompositeTransfer(augmentation="flip"))
    with pytest.raises(
        InvalidParameterError, match="augmentation: expected None where X holds no pictures"
    ):
        clf.fit(X, y)
