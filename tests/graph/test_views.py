"""Fixed views: the same for the same picture, whatever the order, the seed and who asks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer.graph.views import PictureViews
from keras_transfer.inputs.examples import row_keys
from keras_transfer.inputs.picture_files import load_encoded

X = np.random.default_rng(0).uniform(0, 255, (5, 12, 12, 3)).astype("float32")
STEPS = ("flip", "crop", "rotate", "colour")


def views(inputs=X, n_views=3, steps=STEPS):
    return PictureViews(inputs, row_keys(inputs), n_views, steps)


def shown(pictures, batch_size=4):
    return np.concatenate(list(pictures.batches(batch_size)))


def test_first_come_all_as_they_are_then_changed():
    found = shown(views())
    assert found.shape == (15, 12, 12, 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:5], X)
    assert all(not np.array_equal(found[row + 5], X[row]) for row in range(5))
    assert all(not np.array_equal(found[row + 5], found[row + 10]) for row in range(5))
    assert 0 <= found.min() <= found.max() <= 255


def jitter(pictures):
    return pictures + tf.random.uniform(tf.shape(pictures), -20, 20)


@pytest.mark.parametrize("steps", [STEPS, ("flip", jitter)], ids=["named", "of one's own"])
def test_a_view_depends_on_the_picture_alone(steps):
    keras.utils.set_random_seed(1)
    expected = shown(views(steps=steps))
    keras.utils.set_random_seed(2)
    order = np.array([3, 0, 4, 1, 2])
    permuted = shown(views(X[order], steps=steps), batch_size=15)
    for view in range(3):
        np.testing.assert_array_equal(permuted[view * 5 :][:5], expected[view * 5 :][:5][order])
    rows = np.array([14, 2, 7])
    np.testing.assert_array_equal(shown(views(steps=steps)[rows]), expected[rows])
    np.testing.assert_array_equal(views(steps=steps).take(rows)[0], expected[rows])


def test_keys_tell_what_a_view_shows():
    keys = views().keys()
    assert keys[:5] == row_keys(X)
    assert len(set(keys)) == 15
    assert views().keys() == keys
    # Of a step that changes nothing, views are the picture, under any number.
    assert views(steps=(lambda pictures: pictures,)).keys() == row_keys(X) * 3
    assert views(steps=("flip",)).keys()[5:] != keys[5:]


def test_files_are_decoded_when_they_are_needed(tmp_path):
    pictures, labels = tiny.pictures()
    paths = tiny.write_folder(tmp_path, pictures[:6], labels[:6])
    kept = load_encoded(paths, (12, 12), keep=True)
    later = load_encoded(paths, (12, 12), keep=False)
    of_kept = PictureViews(kept.inputs, kept.digests, 2, STEPS)
    of_later = PictureViews(later.inputs, later.digests, 2, STEPS)
    assert of_later.shapes == of_kept.shapes == [(12, 12, 3)]
    np.testing.assert_array_equal(shown(of_later), shown(of_kept))
    assert of_later.keys() == of_kept.keys()
