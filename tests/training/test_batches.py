"""Batches: every example once an epoch, in an order that the seed decides."""

import numpy as np
import pytest

from keras_transfer.training.batches import ordered_batches, shuffled_batches

X = np.arange(20, dtype="float32")[:, None]
Y = np.arange(20)


def epoch(dataset):
    batches = [(x.numpy(), y.numpy()) for x, y in dataset]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def test_every_example_once_in_a_new_order_each_epoch():
    dataset = shuffled_batches((X, Y), 6, seed=0)
    assert int(dataset.cardinality()) == 4
    one, two = epoch(dataset), epoch(dataset)
    for inputs, targets in (one, two):
        np.testing.assert_array_equal(inputs[:, 0], targets)
        np.testing.assert_array_equal(np.sort(targets), Y)
    assert not np.array_equal(one[1], two[1])


def test_augmented_first_and_mixed_then():
    dataset = shuffled_batches((X, Y), 6, 0, lambda x: x + 1, lambda x, y: (x * 2, x, y))
    for inputs, seen, targets in dataset:
        np.testing.assert_array_equal(seen[:, 0], targets + 1)
        np.testing.assert_array_equal(inputs, seen * 2)


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_the_seed_decides_the_order(seed, same):
    one, two = shuffled_batches((X, Y), 6, seed=0), shuffled_batches((X, Y), 6, seed=seed)
    assert [np.array_equal(epoch(one)[1], epoch(two)[1]) for _ in range(2)] == [same, same]


def test_ordered():
    inputs, targets = epoch(ordered_batches((X, Y), 6))
    np.testing.assert_array_equal(inputs, X)
    np.testing.assert_array_equal(targets, Y)
