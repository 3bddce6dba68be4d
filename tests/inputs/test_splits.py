"""Which examples validate."""

import numpy as np
import pytest

from keras_transfer.errors import DataError
from keras_transfer.inputs.splits import hold_out


def split(counts, fraction, seed=0):
    """Split shuffled classes of so many examples each."""
    classes = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(99).shuffle(classes)
    return classes, *hold_out(classes, fraction, np.random.default_rng(seed))


CASES = {
    "a fifth of 20": ([20, 20, 20], 0.2, [4, 4, 4]),
    "uneven classes": ([100, 10, 30], 0.2, [20, 2, 6]),
    "at least one": ([20, 3], 0.1, [2, 1]),
    "never all": ([2, 3], 0.9, [1, 2]),
    "pairs": ([2, 2, 2], 0.2, [1, 1, 1]),
    "half": ([7, 9], 0.5, [4, 4]),
    "next to nothing": ([50, 50], 1e-6, [1, 1]),
}


@pytest.mark.parametrize(("counts", "fraction", "held"), CASES.values(), ids=CASES)
def test_every_class_is_on_both_sides(counts, fraction, held):
    classes, train, validation = split(counts, fraction)
    assert np.bincount(classes[validation]).tolist() == held
    assert np.bincount(classes[train]).tolist() == [
        n - h for n, h in zip(counts, held, strict=True)
    ]


@pytest.mark.parametrize(("counts", "fraction", "held"), CASES.values(), ids=CASES)
def test_every_row_is_on_one_side(counts, fraction, held):
    classes, train, validation = split(counts, fraction)
    assert sorted([*train, *validation]) == list(range(len(classes)))
    assert train.tolist() == sorted(train)
    assert validation.tolist() == sorted(validation)


def test_the_seed_decides():
    _, *first = split([20, 20], 0.2)
    _, *again = split([20, 20], 0.2)
    _, *other = split([20, 20], 0.2, seed=1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[1].tolist() != other[1].tolist()


def test_every_row_has_its_chance():
    seen = {row for seed in range(60) for row in split([10, 10], 0.2, seed)[2]}
    assert seen == set(range(20))


def test_the_classes_are_not_touched():
    classes = np.repeat([0, 1], 10)
    classes.flags.writeable = False
    hold_out(classes, 0.2, np.random.default_rng(0))


def test_a_class_that_no_example_has():
    train, validation = hold_out(np.repeat([0, 2], 5), 0.2, np.random.default_rng(0))
    assert (len(train), len(validation)) == (8, 2)


@pytest.mark.parametrize("counts", [[5, 1], [1, 5], [1, 1]], ids=str)
def test_a_class_with_one_example(counts):
    alone = counts.index(1)
    with pytest.raises(DataError, match=rf"^validation: .*class number {alone}\. Pass validation="):
        split(counts, 0.2)
