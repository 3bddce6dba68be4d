"""Newton's method on losses whose least is known."""

import numpy as np
import pytest
from scipy.optimize import minimize

from keras_transfer.errors import KerasTransferWarning
from keras_transfer.training import newton
from keras_transfer.training.directions import Directions
from keras_transfer.training.newton import minimise

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, :1] + np.random.default_rng(1).normal(size=(40, 1)) > 0) * 2.0 - 1


def loss_of(logits):
    losses = np.logaddexp(0, -Y * logits)
    wrong = np.exp(-Y * logits - losses)
    spread = wrong * (1 - wrong)
    return float(losses.sum()), -Y * wrong, lambda change: spread * change, spread


def test_the_least_that_another_method_finds():
    directions = Directions.of(X, np.ones(40))
    inner, offset, loss, iterations = minimise(directions, loss_of, np.zeros(1), 0.5)

    def whole(values):
        values = np.asarray(values)
        logits = directions.rows @ values[:3, np.newaxis] + values[3]
        return loss_of(logits)[0] + 0.25 * np.square(values[:3]).sum()

    found = minimize(whole, np.zeros(4), tol=1e-12)
    assert whole([*inner[:, 0], *offset]) == pytest.approx(found.fun, rel=1e-8)
    assert loss == pytest.approx(loss_of(directions.rows @ inner + offset)[0] / 40)
    assert iterations < 10


def test_rough_steps_come_to_the_same_least(monkeypatch):
    directions = Directions.of(X, np.ones(40))
    inner, offset, loss, iterations = minimise(directions, loss_of, np.zeros(1), 0.5)
    monkeypatch.setattr(newton, "_MAX_INNER", 1)
    rough = minimise(directions, loss_of, np.zeros(1), 0.5)
    np.testing.assert_allclose(rough[0], inner, atol=1e-3)
    np.testing.assert_allclose(rough[1], offset, atol=1e-3)
    assert rough[2] == pytest.approx(loss, rel=1e-4)
    assert rough[3] > iterations


def test_it_ends_where_no_step_lowers_the_loss():
    """At a kink: a slope of 1 upwards, and no way down."""

    def kinked(logits):
        up = np.where(logits >= 0, 1.0, -1.0)
        return float(np.abs(logits).sum()), up, lambda change: change, np.ones_like(logits)

    directions = Directions.of(X, np.ones(40))
    inner, offset, loss, iterations = minimise(directions, kinked, np.zeros(1), 0.5)
    assert not inner.any()
    assert (offset, loss, iterations) == (0, 0, 0)


def test_without_any_curvature_it_says_that_it_came_nowhere():
    """So sure and so wrong that a little less of it changes nothing; and no feature to go by."""
    directions = Directions.of(np.ones((40, 3)), np.ones(40))
    with pytest.warns(KerasTransferWarning, match="expected to be solved in 100 iterations"):
        _, offset, _, iterations = minimise(directions, loss_of, np.full(1, 1e4), 0.5)
    assert (offset, iterations) == (1e4, 100)


def test_too_few_steps_are_said(monkeypatch):
    monkeypatch.setattr(newton, "MAX_ITERATIONS", 1)
    with pytest.warns(KerasTransferWarning, match="penalty of 0.001: the loss may be"):
        minimise(Directions.of(X, np.ones(40)), loss_of, np.zeros(1), 1e-3)
