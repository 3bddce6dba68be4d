"""Activations of some examples: in memory, or read when they are needed."""

import numpy as np
import pytest

from keras_transfer.training import activations
from keras_transfer.training.activations import Activations

MAPS = np.random.default_rng(0).normal(size=(6, 2, 3)).astype("float32")
VECTORS = np.arange(6, dtype="float32")[:, np.newaxis]


def make(rows, asked=None):
    def read(numbers):
        if asked is not None:
            asked.append(len(numbers))
        return [MAPS[numbers], VECTORS[numbers]]

    return Activations(read, np.asarray(rows), [(2, 3), (1,)])


@pytest.mark.parametrize("held", [0, 1 << 30])
def test_rows(held, monkeypatch):
    monkeypatch.setattr(activations, "HELD_BYTES", held)
    found = make([5, 0, 0, 3])
    assert len(found) == 4
    assert found.is_held == bool(held)
    for taken in (found.take(np.array([3, 0])), found[np.array([3, 0])].arrays):
        np.testing.assert_array_equal(taken[0], MAPS[[3, 5]])
        np.testing.assert_array_equal(taken[1], VECTORS[[3, 5]])
    np.testing.assert_array_equal(found[1:].take(np.array([0]))[0], MAPS[[0]])


def test_what_is_held_is_read_once():
    asked = []
    found = make([1, 2], asked)
    found.take(np.array([0]))
    found[:1].take(np.array([0]))
    assert found.arrays is found.arrays
    assert asked == [2]


def test_its_size():
    assert make([0]).row_bytes == 4 * 7
    assert not make([0]).is_vector
    assert Activations(lambda rows: [VECTORS[rows]], np.arange(2), [(1,)]).is_vector
    assert not Activations(lambda rows: [MAPS[rows]], np.arange(2), [(2, 3)]).is_vector
