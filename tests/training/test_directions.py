"""Features along their own directions: the same features, in another basis."""

import numpy as np
import pytest

from keras_transfer.training import directions
from keras_transfer.training.directions import Directions

SIZES = {"wide": (20, 50), "tall": (50, 6)}


@pytest.fixture(autouse=True)
def no_memo():
    directions._bases.clear()


def data(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(3, 2, (n, d)).astype("float32")
    return X, rng.uniform(0.5, 2, n)


@pytest.mark.parametrize(("n", "d"), SIZES.values(), ids=SIZES)
def test_the_same_features_in_another_basis(n, d):
    X, weights = data(n, d)
    found = Directions.of(X, weights)
    inner = np.random.default_rng(1).normal(size=(found.rows.shape[1], 2))
    kernel = found.unfold(inner)
    np.testing.assert_allclose((X - found.mean) @ kernel, found.rows @ inner, atol=1e-5)
    np.testing.assert_allclose(weights @ found.rows, 0, atol=1e-9)
    squares = found.rows.T @ (weights[:, np.newaxis] * found.rows)
    np.testing.assert_allclose(squares, np.diag(found.variances), atol=1e-6)
    assert found.rows.shape[1] == min(n - 1, d)


def test_what_is_too_large_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(directions, "LARGEST", 10)
    X, weights = data(20, 30)
    found = Directions.of(X, weights)
    assert not found.is_decomposed
    assert found.rows.shape == X.shape
    np.testing.assert_allclose(weights @ np.square(found.rows), found.variances)
    # Of more features than examples each has a floor under its variance.
    variances = np.average(
        (X - np.average(X, axis=0, weights=weights)) ** 2, axis=0, weights=weights
    )
    expected = variances / (variances + 0.1 * np.median(variances))
    np.testing.assert_allclose(found.variances / weights.sum(), expected)


def test_the_memo_is_bounded(monkeypatch):
    monkeypatch.setattr(directions, "_KEPT_BYTES", 10_000)
    for seed in range(9):
        X, weights = data(20, 4, seed)
        assert Directions.of(X, weights) is Directions.of(X, weights)
    kept = [each.size() for each in directions._bases.values()]
    assert 0 < sum(kept) <= 10_000
    assert len(kept) <= directions._KEPT


def test_an_example_that_is_there_twice_is_one_that_counts_twice():
    X, _ = data(20, 30)
    weights = np.repeat([1.0, 2.0], 10)
    twice = np.repeat(np.arange(20), weights.astype(int))
    counted = Directions.of(X, weights)
    repeated = Directions.of(X[twice], np.ones(30))
    np.testing.assert_allclose(counted.variances, repeated.variances[-len(counted.variances) :])
    np.testing.assert_allclose(Directions.of(X, 2 * weights).variances, 2 * counted.variances)
