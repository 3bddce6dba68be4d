"""Augmentation: random, bounded, repeatable, outside the model."""

import numpy as np
import pytest
import tiny

from keras_transfer import CompositeTransfer, TransferClassifier
from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from keras_transfer.graph.augmentation import (
    AUGMENTATIONS,
    augmentation_names,
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
    assert augmentation_names(None) == ()
    assert augmentation_names("flip") == ("flip",)
    assert augmentation_names("all") == tuple(AUGMENTATIONS)
    with pytest.raises(UnknownNameError, match="Did you mean 'colour'"):
        augmentation_names(["flip", "color"])
    with pytest.raises(InvalidTypeError, match="Received: 3"):
        augmentation_names(3)


def test_belongs_to_pictures():
    X, y = tiny.vectors()
    clf = TransferClassifier(tiny.dense, CompositeTransfer(augmentation="flip"))
    with pytest.raises(InvalidParameterError, match="augmentation: expected None for vectors"):
        clf.fit(X, y)
