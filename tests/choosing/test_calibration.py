"""One temperature makes probabilities as sure as they are right; answers stay the same."""

import functools

import numpy as np
import pytest
import tiny

import keras_transfer
from keras_transfer import CompositeTransfer, StructureTransfer, TransferClassifier
from keras_transfer.choosing.calibration import (
    answer_losses,
    as_outputs,
    expected_calibration_error,
    find_temperature,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (4000, 3))
TARGETS = np.array([RNG.choice(3, p=p) for p in as_outputs(LOGITS, "multiclass")])
EVEN = np.ones(len(TARGETS))
LABELS = (RNG.uniform(size=LOGITS.shape) < as_outputs(LOGITS, "multilabel")).astype(float)


@pytest.mark.parametrize("factor", [0.5, 1.0, 5.0])
@pytest.mark.parametrize(("task", "targets"), [("multiclass", TARGETS), ("multilabel", LABELS)])
def test_the_temperature_that_was_taken_away_is_found(factor, task, targets):
    temperature, losses = find_temperature(factor * LOGITS[np.newaxis], targets, task, EVEN)
    assert temperature == pytest.approx(factor, rel=0.1)
    found = answer_losses(factor * LOGITS[np.newaxis] / temperature, targets, task)
    np.testing.assert_array_equal(losses, found)


def test_weights_count():
    too_sure = np.concatenate([LOGITS, 8 * LOGITS])[np.newaxis]
    targets = np.concatenate([TARGETS, TARGETS])
    first = np.concatenate([EVEN, 0 * EVEN])
    assert find_temperature(too_sure, targets, "multiclass", first)[0] == pytest.approx(1, rel=0.1)
    assert find_temperature(too_sure, targets, "multiclass", 1 - first)[0] > 6


def test_numbers_have_none():
    temperature, losses = find_temperature(LOGITS[np.newaxis], LOGITS + 2, "regression", EVEN)
    assert temperature == 1
    np.testing.assert_allclose(losses, 4)


def test_the_calibration_error():
    assert expected_calibration_error(as_outputs(LOGITS, "multiclass"), TARGETS) < 0.02
    assert expected_calibration_error(as_outputs(8 * LOGITS, "multiclass"), TARGETS) > 0.1
    # Four answers of 0.9, of which half are right.
    assert expected_calibration_error(
        np.array([[0.9, 0.1]] * 4), np.array([0, 0, 1, 1])
    ) == pytest.approx(0.4)
    # The last bin is up to 1, which is in it.
    last = np.array([[0.95, 0.05], [1.0, 0.0]])
    assert expected_calibration_error(last, np.array([0, 1])) == pytest.approx(0.475)


# === In an estimator ===

X, Y = tiny.pictures(n_per_class=10)
NEW_X, NEW_Y = tiny.pictures(n_per_class=60, seed=1)
NOISE = np.random.default_rng(0).integers(-60, 61, NEW_X.shape)
NEW_X = np.clip(NEW_X + NOISE, 0, 255).astype(np.uint8)


@functools.cache
def fit(calibration, recipe="structure", many=False, guard="warn"):
    backbone = tiny.settled(tiny.residual, X.shape[1:])
    recipe = {
        "structure": StructureTransfer(head_penalty=1e-4),  # too sure by far
        "composite": CompositeTransfer(epochs=1),
    }[recipe]
    options = {"calibration": calibration, "guard": guard, "validation": 0.2 if many else "auto"}
    clf = TransferClassifier(backbone, recipe, **options, random_state=0)
    # Not all of what is held out is to be told right.
    noisy = np.where(np.arange(len(NEW_Y)) % 6 == 0, np.roll(NEW_Y, 1), NEW_Y)
    return clf.fit(NEW_X, noisy) if many else clf.fit(X, Y)


@pytest.mark.filterwarnings("ignore:.*labels look wrong")
@pytest.mark.parametrize("data", [{}, {"many": True}], ids=["out of fold", "held out"])
def test_probabilities_are_less_sure_and_answers_the_same(data):
    plain, calibrated = fit(None, **data), fit("auto", **data)
    assert plain.temperature_ == 1
    assert calibrated.temperature_ != 1
    np.testing.assert_array_equal(plain.predict(NEW_X), calibrated.predict(NEW_X))
    np.testing.assert_allclose(
        plain.decision_function(NEW_X) / calibrated.temperature_,
        calibrated.decision_function(NEW_X),
        rtol=1e-4,
        atol=1e-4,
    )


def test_it_is_in_the_model_and_in_the_file(tmp_path):
    clf = fit("auto")
    clf.save(tmp_path / "clf.keras_transfer")
    loaded = keras_transfer.load(tmp_path / "clf.keras_transfer")
    assert loaded.temperature_ == clf.temperature_
    expected = clf.model_.predict(X.astype("float32"), verbose=0)
    np.testing.assert_allclose(loaded.predict_proba(X), expected, atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-5)


def test_fine_tuning_without_unseen_examples_is_left_alone():
    assert fit("auto", "composite", guard=None).temperature_ == 1


def test_a_few_right_answers_do_not_make_it_sure():
    logits = np.array([[[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]])
    targets, weights = np.array([0, 1, 0]), np.ones(3)
    assert find_temperature(logits, targets, "multiclass", weights)[0] == 0.25
    assert 0.6 < find_temperature(logits, targets, "multiclass", weights, spread=0.5)[0] < 1
    # Each counts by its weight over the mean: equal weights are no weights.
    found = [find_temperature(logits, targets, "multiclass", n * weights, 0.5)[0] for n in (1, 99)]
    assert found[0] == found[1]
    # Many examples overrule what was expected.
    many = np.tile(logits, (1, 1000, 1)), np.tile(targets, 1000), "multiclass", np.ones(3000)
    assert find_temperature(*many, spread=0.5)[0] == 0.25
