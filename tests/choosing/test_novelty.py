"""Inputs unlike anything seen in training are told by their distance to it."""

import pickle

import keras
import numpy as np
import pytest
import tiny
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    Readout,
    StructureTransfer,
    TransferClassifier,
    TransferRegressor,
    datasets,
)
from keras_transfer.choosing.novelty import MAX_SEEN, SeenExamples, choose_seen
from keras_transfer.errors import DataError

RNG = np.random.default_rng(0)


def circle(*turns, radius=1.0):
    """Points on a circle, in turns."""
    angles = 2 * np.pi * np.array(turns)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


# === Known geometry ===

EIGHT = SeenExamples.from_features(circle(*np.arange(8) / 8))
CHORD = 2 * np.sin(np.pi / 8)  # from each to the next


@pytest.mark.parametrize("centre", [0.0, 3.0])
def test_distances_in_units_of_the_examples_own(centre):
    seen = SeenExamples.from_features(circle(*np.arange(8) / 8) + centre)
    assert seen.unit == pytest.approx(CHORD, rel=1e-3)
    asked = np.concatenate(
        [
            circle(0, 1 / 8),  # examples
            circle(1 / 16),  # half way between two
            circle(1 / 8, radius=0.4),  # nearer to the middle: the direction counts
            circle(1 / 8, radius=3.0),  # farther out than any
        ]
    )
    expected = np.array([0, 0, 2 * np.sin(np.pi / 16), 0, 2]) / CHORD
    np.testing.assert_allclose(seen.distances(asked + centre), expected, atol=2e-3)


def test_a_training_example_lies_at_0_and_most_within_1():
    X = RNG.normal(size=(500, 6)) @ RNG.normal(size=(6, 40)) + 5
    seen = SeenExamples.from_features(X)
    np.testing.assert_array_equal(seen.distances(X), np.zeros(500))
    left_out = [
        np.linalg.norm(np.delete(seen.directions, row, 0).astype(float) - one, axis=1).min()
        for row, one in enumerate(seen.directions.astype(float))
    ]
    within = np.mean(np.array(left_out) <= seen.unit + 1e-9)
    assert 0.95 <= within < 0.96


def test_new_examples_of_the_same_kind_are_mostly_within_1():
    mixed = RNG.normal(size=(6, 40))
    X, new = (RNG.normal(size=(800, 6)) @ mixed for _ in range(2))
    seen = SeenExamples.from_features(X)
    assert 0.02 < np.mean(seen.distances(new) > 1) < 0.09
    others = RNG.normal(size=(100, 40)) * X.std()  # in directions that no example took
    assert (seen.distances(others) > 1).all()


def test_units_of_the_features_do_not_matter():
    X, new = RNG.normal(size=(50, 8)), RNG.normal(size=(20, 8))
    expected = SeenExamples.from_features(X).distances(new)
    for scale, shift in [(1e-3, 0), (1e4, 0), (1, 100)]:
        found = SeenExamples.from_features(scale * X + shift).distances(scale * new + shift)
        np.testing.assert_allclose(found, expected, atol=5e-3)


# === Where distances could be 0, or nothing is there ===


@pytest.mark.parametrize("n", [1, 2, 30])
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_all_alike(n, value):
    seen = SeenExamples.from_features(np.full((n, 4), value, np.float32))
    same = np.full((3, 4), value * (1 + 1e-6), np.float32)  # but for rounding
    assert (seen.distances(same) < 1).all()
    assert (seen.distances(same + np.array([0, 0, 0, 0.5])) > 1).all()


def test_many_of_equal_features_leave_a_unit():
    X = np.concatenate([np.ones((60, 3)), -np.ones((60, 3))])
    seen = SeenExamples.from_features(X)
    assert seen.unit > 0
    np.testing.assert_array_equal(seen.distances(X), np.zeros(120))
    assert seen.distances(np.array([[1.0, -1.0, 0.0]]))[0] > 1


def test_what_is_not_finite_is_unlike_anything():
    X = RNG.normal(size=(30, 3))
    broken = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 1]])
    seen = SeenExamples.from_features(np.concatenate([broken[:2], X]))
    np.testing.assert_array_equal(seen.mean, X.mean(axis=0).astype(np.float32))
    found = seen.distances(broken)
    assert np.isinf(found).tolist() == [True, True, False]
    assert np.isinf(SeenExamples.from_features(broken[:2]).distances(X)).all()
    assert EIGHT.distances(np.zeros((0, 2))).shape == (0,)


def test_groups_are_measured_from_other_groups():
    """A new patient lies as far as patients lie from each other, not as pictures of one do."""
    patients = RNG.normal(size=(40, 10))
    X = np.repeat(patients, 5, axis=0) + 0.01 * RNG.normal(size=(200, 10))
    groups = np.repeat(np.arange(40), 5)
    plain, grouped = SeenExamples.from_features(X), SeenExamples.from_features(X, groups)
    new = RNG.normal(size=(200, 10))
    assert np.mean(plain.distances(new) > 1) == 1
    assert np.mean(grouped.distances(new) > 1) < 0.2
    assert SeenExamples.from_features(X, np.zeros(200)).unit == plain.unit  # nothing to tell


# === Which examples are kept ===


def test_all_of_few_but_each_content_once():
    rows = choose_seen(np.array([0, 1, 0, 1, 1]), "multiclass", [b"a", b"b", b"a", b"c", b"b"])
    assert sorted(rows.tolist()) == [0, 1, 3]


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_many_are_dealt_by_class(task):
    targets = np.repeat([0, 1, 2], [4000, 30, 600])
    if task == "multilabel":
        targets = np.array([[0, 0], [0, 1], [1, 1]])[targets]
    rows = choose_seen(targets, task, range(4630))
    assert len(np.unique(rows)) == MAX_SEEN
    counts = np.bincount(np.repeat([0, 1, 2], [4000, 30, 600])[rows])
    assert counts[1] == 30
    assert abs(counts[0] - counts[2]) <= 1
    np.testing.assert_array_equal(rows, choose_seen(targets, task, range(4630)))


def test_of_numbers_any():
    rows = choose_seen(np.arange(5000.0)[:, np.newaxis], "regression", range(5000))
    assert len(rows) == MAX_SEEN
    assert 2200 < rows.mean() < 2800


def test_of_long_ones_fewer_are_kept():
    assert len(SeenExamples.from_features(np.zeros((300, 10_000), np.float32)).directions) == 200
    assert len(SeenExamples.from_features(np.zeros((300, 90_000), np.float32)).directions) == 100


# === In an estimator ===

X, Y = tiny.pictures(n_per_class=8)
NOISE = RNG.integers(0, 256, X.shape).astype(np.uint8)
RECIPES = {
    "head": StructureTransfer(),
    "head by gradient": StructureTransfer(epochs=2, head_solver="gradient"),
    "blocks": StructureTransfer(train_blocks=1, epochs=2, learning_rate=1e-2),
    "all": ParameterTransfer(epochs=2, learning_rate=1e-2),
    "composite": CompositeTransfer(epochs=2, learning_rate=1e-2),
    "views": StructureTransfer(train_blocks=1, epochs=2, augmentation=["flip"], n_views=2),
}


def make(recipe="head", kind=TransferClassifier, **options):
    backbone = tiny.settled(tiny.residual, X.shape[1:])
    options = {"readout": Readout("last", (4, 4)), "guard": None, "random_state": 0, **options}
    return kind(backbone, RECIPES[recipe], **options)


@pytest.mark.parametrize("memory", [None, False], ids=["stored", "not stored"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_of_the_features_after_the_fit(recipe, memory):
    clf = make(recipe, memory=memory).fit(X, Y)
    np.testing.assert_array_equal(clf.novelty(X), np.zeros(len(X)))
    reads = keras.Model(clf.model_.input, clf.model_.get_layer("head.logits").input)
    features = [reads(each.astype("float32")).numpy() for each in (X, NOISE)]
    expected = SeenExamples.from_features(features[0]).distances(features[1])
    found = clf.novelty(NOISE)
    assert (found.dtype, found.shape) == (np.float32, (len(X),))
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_held_out_examples_were_not_seen():
    clf = make(validation=0.25).fit(X, Y)
    assert np.count_nonzero(clf.novelty(X)) == 6
    assert np.count_nonzero(make().fit(X, Y, validation_data=(NOISE, Y)).novelty(NOISE)) == len(X)


def test_rows_of_weight_0_and_copies_were_not_seen():
    weights = np.repeat([1.0, 0.0], len(X))
    clf = make().fit(np.concatenate([X, NOISE]), np.tile(Y, 2), sample_weight=weights)
    assert (clf.novelty(NOISE) > 1).all()
    twice = make().fit(np.concatenate([X, X]), np.tile(Y, 2))
    assert len(twice._seen.directions) == len(X)
    assert twice._seen.unit == pytest.approx(clf._seen.unit, rel=1e-3)


def test_groups_count():
    copies = np.clip(X.astype(int) + RNG.integers(0, 3, X.shape), 0, 255).astype(np.uint8)
    many, labels, groups = np.concatenate([X, copies]), np.tile(Y, 2), np.tile(np.arange(len(X)), 2)
    plain = make().fit(many, labels)
    grouped = make().fit(many, labels, groups=groups)
    assert grouped._seen.unit > 2 * plain._seen.unit


VECTORS, ANSWERS = tiny.vectors(30)


@pytest.mark.parametrize(
    ("kind", "y"),
    [
        (TransferClassifier, ANSWERS),
        (TransferClassifier, np.stack([ANSWERS == "yes", VECTORS[:, 0] > 0], 1).astype(int)),
        (TransferRegressor, VECTORS[:, 0] * 100),
        (TransferRegressor, VECTORS[:, :2]),
    ],
    ids=["classes", "labels", "numbers", "two numbers"],
)
def test_vectors_and_all_tasks(kind, y):
    estimator = kind(tiny.dense, ParameterTransfer(epochs=1), validation=None, random_state=0)
    estimator.fit(VECTORS, y)
    np.testing.assert_array_equal(estimator.novelty(VECTORS), np.zeros(len(VECTORS)))
    assert (estimator.novelty(50 * VECTORS) > 1).mean() > 0.95
    assert estimator.novelty(VECTORS[:1]).shape == (1,)


def test_numbers_of_pictures():
    regressor = make("blocks", TransferRegressor).fit(X, X.mean(axis=(1, 2, 3)))
    np.testing.assert_array_equal(regressor.novelty(X), np.zeros(len(X)))
    assert (regressor.novelty(NOISE) > 1).all()


def test_the_same_errors_as_predict():
    clf = make()
    with pytest.raises(NotFittedError):
        clf.novelty(X)
    clf.fit(X, Y)
    for wrong in (X / 255, X[:, 0, 0, 0], []):
        with pytest.raises(DataError) as of_predict:
            clf.predict(wrong)
        with pytest.raises(DataError) as of_novelty:
            clf.novelty(wrong)
        assert str(of_novelty.value) == str(of_predict.value)


def test_pickled_cloned_and_fitted_again():
    clf = make("blocks").fit(X, Y)
    before = clf.novelty(NOISE)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).novelty(NOISE), before)
    with pytest.raises(NotFittedError):
        clone(clf).novelty(NOISE)
    with pytest.raises(DataError):
        clf.fit(X, Y[:-1])
    np.testing.assert_array_equal(clf.novelty(NOISE), before)
    clf.fit(NOISE, Y)
    np.testing.assert_array_equal(clf.novelty(NOISE), np.zeros(len(X)))
    assert clf.novelty(X).min() > 0


def test_a_fit_that_fails_late_leaves_the_earlier_one(monkeypatch):
    clf = make().fit(X, Y)
    before = clf.novelty(NOISE)
    monkeypatch.setattr(SeenExamples, "from_features", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clf.fit(NOISE, Y)
    np.testing.assert_array_equal(clf.novelty(NOISE), before)


def test_written_digits_and_what_is_none():
    images, target = datasets.load_digit_pictures(return_X_y=True)
    images, target = images[::2], target[::2]
    rng = np.random.default_rng(0)  # by chance: they are in the order of who wrote them
    chosen = [rng.permutation(np.flatnonzero(target == digit)) for digit in range(10)]
    train = np.concatenate([rows[:10] for rows in chosen[:5]])
    known = np.concatenate([rows[10:30] for rows in chosen[:5]])
    novel = np.concatenate([rows[:20] for rows in chosen[5:]])
    readout = Readout("block3a", (4, 4))
    clf = StructureTransfer().classifier(image_size=64, readout=readout, guard=None, random_state=0)
    clf.fit(images[train], target[train])
    distances = clf.novelty(images[np.concatenate([known, novel])])
    assert np.mean(distances[:100] > 1) < 0.15
    assert roc_auc_score(np.repeat([0, 1], 100), distances) > 0.85
    assert (clf.novelty(255 - images[known]) > 1).all()  # black on white
