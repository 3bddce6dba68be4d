"""Which examples validate."""

import numpy as np
import pytest

from keras_transfer.errors import DataError
from keras_transfer.inputs.splits import deal_folds, has_enough, hold_out


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


# === Groups, labels and numbers ===


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_on_one_side(seed):
    classes = np.tile([0, 1, 2], 20)
    groups = np.repeat(np.arange(10), 6)
    train, held = hold_out(classes, 0.2, np.random.default_rng(seed), groups)
    assert sorted([*train, *held]) == list(range(60))
    assert set(groups[train]).isdisjoint(groups[held])
    assert len(set(groups[held])) == 2
    assert set(classes[train]) == set(classes[held]) == {0, 1, 2}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_groups_of_numbers(share):
    numbers, groups = np.arange(40.0)[:, np.newaxis], np.repeat(np.arange(8), 5)
    train, held = hold_out(numbers, share, np.random.default_rng(0), groups)
    assert set(groups[train]).isdisjoint(groups[held])
    assert len(held) == 40 * share


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_class_that_one_group_holds_stays_in_training():
    classes = np.array([0] * 10 + [1] * 10 + [2] * 5)
    groups = np.array([0, 1, 2, 3, 4] * 4 + [5] * 5)
    for seed in range(10):
        train, _ = hold_out(classes, 0.2, np.random.default_rng(seed), groups)
        assert set(classes[train]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("groups", "message"),
    [([7] * 4, "at least two groups"), ([0, 0, 1, 1], "leave every class in the training part")],
)
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_refuses_groups(groups, message):
    with pytest.raises(DataError, match=message):
        hold_out(np.array([0, 0, 1, 1]), 0.5, np.random.default_rng(0), np.array(groups))


def test_classes_of_fewer_examples_than_the_folds_of_groups():
    classes, groups = np.repeat(np.arange(5), 2), np.arange(10)
    # Two of a class can be parted, whatever the share that was asked for.
    for share in (0.2, 0.5):
        train, held = hold_out(classes, share, np.random.default_rng(0), groups)
        assert set(classes[train]) == set(classes[held]) == set(range(5))
    with pytest.raises(DataError, match=r"at least two examples of a class .* one of each"):
        hold_out(np.arange(4), 0.5, np.random.default_rng(0), np.arange(4))


def test_rows_of_labels_and_numbers():
    for targets in (np.zeros((10, 3), np.float32), np.zeros((10, 1))):
        train, held = hold_out(targets, 0.2, np.random.default_rng(0))
        assert (len(train), len(held)) == (8, 2)
    with pytest.raises(DataError, match="at least two examples to hold one out"):
        hold_out(np.zeros((1, 1)), 0.2, np.random.default_rng(0))


ENOUGH = {
    "classes": (np.repeat([0, 1], 50), None, True),
    "a small class": (np.repeat([0, 1], [90, 49]), None, False),
    "numbers": (np.zeros((100, 1)), None, True),
    "few numbers": (np.zeros((99, 2)), None, False),
    "labels": (np.tile([[1, 0], [0, 1]], (50, 1)).astype(np.float32), None, True),
    "a rare label": (np.repeat([[1, 0], [0, 1]], [49, 90], axis=0).astype(np.float32), None, False),
    "a constant label": (np.tile([[1, 1], [0, 1]], (50, 1)).astype(np.float32), None, True),
    "a label that few lack": ((np.arange(139) < [[90], [70]]).T.astype(np.float32), None, False),
    "groups": (np.repeat([0, 1], 50), np.tile(np.arange(5), 20), True),
    "few groups": (np.repeat([0, 1], 50), np.tile(np.arange(4), 25), False),
}


@pytest.mark.parametrize("case", ENOUGH)
def test_what_is_enough(case):
    targets, groups, expected = ENOUGH[case]
    assert has_enough(targets, groups) is expected


# === Folds ===


def deal(targets, n_folds=5, seed=0, **options):
    return deal_folds(np.asarray(targets), n_folds, np.random.default_rng(seed), **options)


def test_folds_are_alike():
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [20, 10, 3]))
    folds = deal(classes)
    assert [np.bincount(folds[classes == c], minlength=5).max() for c in range(3)] == [4, 2, 1]
    assert np.ptp(np.bincount(folds)) <= 1
    labels = np.stack([classes == 0, classes == 1], axis=1).astype(int)
    folds = deal(labels)
    assert np.bincount(folds, labels[:, 0]).tolist() == [4] * 5
    numbers = np.random.default_rng(0).normal(size=(50, 1))
    folds = deal(numbers)
    for low in (True, False):
        rows = (numbers[:, 0] < np.median(numbers)) == low
        assert np.bincount(folds[rows]).tolist() == [5] * 5


def test_folds_are_drawn():
    classes = np.arange(30) % 3
    assert (deal(classes, seed=1) == deal(classes, seed=1)).all()
    assert (deal(classes, seed=1) != deal(classes, seed=2)).any()
    # Not the lowest numbers in the first fold, and so on.
    numbers = np.arange(50.0)[:, np.newaxis]
    firsts = {deal(numbers, seed=seed)[0] for seed in range(20)}
    assert len(firsts) == 5


@pytest.mark.parametrize("kind", ["classes", "labels", "one example a class"])
def test_folds_do_not_part_groups(kind):
    groups = np.arange(40) % 8
    targets = {"classes": groups % 2, "labels": np.eye(2)[groups % 2].astype(int)}
    folds = deal(targets.get(kind, np.arange(40)), groups=groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(8))
    assert set(folds) == set(range(5))


@pytest.mark.parametrize("seed", range(3))
def test_folds_of_groups_hold_every_class(seed):
    groups = np.arange(40) % 10
    classes = groups % 2
    folds = deal(classes, seed=seed, groups=groups)
    assert all(set(classes[folds == fold]) == {0, 1} for fold in range(5))


def test_no_more_folds_than_examples_or_groups():
    assert sorted(deal([0, 1, 0])) == [0, 1, 2]
    assert set(deal([0, 1, 0, 1], groups=np.array([0, 0, 1, 1]))) == {0, 1}
    with pytest.raises(DataError, match="at least two examples"):
        deal([0])
