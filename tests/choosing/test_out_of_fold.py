"""Out-of-fold answers come from heads that have not seen the example, nor its group."""

import numpy as np
import pytest

from keras_transfer.choosing import out_of_fold as module
from keras_transfer.choosing.out_of_fold import (
    OutOfFold,
    out_of_fold,
    some_examples,
    why_not_answer,
)
from keras_transfer.errors import DataError

RNG = np.random.default_rng(0)
TARGETS = np.arange(60) % 3
FEATURES = RNG.normal(size=(60, 5)) + 2 * np.eye(3, 5)[TARGETS]
CHANCE = np.log(3)


def answer(features=FEATURES, targets=TARGETS, task="multiclass", n_outputs=3, **options):
    return out_of_fold(features, targets, task, n_outputs=n_outputs, **options)


def test_what_is_learned_holds_for_others_and_noise_does_not():
    found = answer()
    assert found.outputs.shape == (3, 60, 3)
    assert found.loss < 0.6 * CHANCE
    assert np.mean(found.outputs.mean(axis=0).argmax(axis=1) == TARGETS) > 0.75
    # A head that had seen its examples would tell all of these apart: there are more features.
    noise = answer(RNG.normal(size=(60, 200)))
    assert noise.loss > 0.9 * CHANCE


def test_an_example_does_not_answer_for_itself():
    spike = np.zeros((60, 1))
    spike[7] = 1  # tells all of one example, and nothing of the others
    with_spike, without = answer(np.hstack([FEATURES, 1e3 * spike])), answer()
    assert with_spike.losses[7] > 0.3 * without.losses[7]


def test_groups_stay_together():
    voices = np.repeat(np.arange(12), 5)
    targets = np.repeat(RNG.permutation(np.arange(12) % 3), 5)
    features = RNG.normal(size=(12, 20))[voices] + 0.1 * RNG.normal(size=(60, 20))
    assert answer(features, targets).loss < 0.3  # it knows the voice again
    assert answer(features, targets, groups=voices).loss > 0.9 * CHANCE


def test_weights_count():
    wrong = TARGETS.copy()
    wrong[:30] = (wrong[:30] + 1) % 3
    for little in (0.0, 1e-6):
        weights = np.where(np.arange(60) < 30, little, 1.0)
        assert answer(targets=wrong, weights=weights).loss < 0.7 * CHANCE
    found = answer(targets=wrong, weights=weights)
    assert found.loss == pytest.approx(found.losses[30:].mean(), abs=1e-4)


def test_the_loss_is_the_mean_and_its_error_shrinks_with_the_examples():
    found = answer()
    assert found.loss == pytest.approx(found.losses.mean())
    assert found.standard_error == pytest.approx(found.losses.std(ddof=1) / np.sqrt(60))
    z = found.outputs / found.temperature
    logs = z - np.log(np.exp(z).sum(axis=2, keepdims=True))
    expected = -logs[:, np.arange(60), TARGETS].mean(axis=0)
    np.testing.assert_allclose(found.losses, expected)


def test_differences_are_paired():
    one, other = answer(), answer(FEATURES + 0.01 * RNG.normal(size=FEATURES.shape))
    above, error = one.difference(other)
    assert above == pytest.approx(one.loss - other.loss)
    assert error < 0.2 * one.standard_error


def test_a_class_of_one_example_is_not_answered_for():
    targets = TARGETS.copy()
    targets[targets == 2] = 0
    targets[5] = 2
    found = answer(targets=targets)
    assert found.weights[5] == 0
    assert np.isnan(found.losses[5])
    assert np.isfinite(found.loss)


def test_nor_is_a_class_whose_other_example_does_not_count():
    targets, weights = np.where(TARGETS == 2, 0, TARGETS), np.ones(60)
    targets[[5, 8]], weights[8] = 2, 0
    found = answer(targets=targets, weights=weights)
    assert found.weights[5] == 0
    assert np.count_nonzero(found.weights) == 58


def test_where_each_class_is_all_in_one_group_nothing_is_answered():
    found = answer(groups=TARGETS)
    assert np.isnan(found.outputs).all()
    assert np.isnan(found.losses).all()
    assert not found.weights.any()
    assert found.loss == found.standard_error == np.inf
    truth, outputs, weights = found.answers(TARGETS, "multiclass")
    assert (truth.shape, outputs.shape, weights.shape) == ((0,), (3, 0, 3), (0,))


def test_the_one_example_that_counts_is_not_answered_for():
    """Without it no head can be solved; with it all others are answered for, and do not count."""
    alone = np.eye(1, 60)[0]
    numbers = FEATURES[:, :1]
    found = answer(targets=numbers, task="regression", n_outputs=1, weights=alone)
    assert np.isnan(found.losses[0])
    assert np.isfinite(found.losses[1:]).sum() >= 48 - 2 * 11
    assert found.loss == np.inf


def test_one_example_of_nearly_all_the_weight_tells_no_error():
    found = answer(weights=np.r_[1.0, np.full(59, 1e-20)])
    assert found.loss == pytest.approx(found.losses[0])
    assert found.standard_error == np.inf
    assert found.evidence_over(answer()) == 0


def test_labels_and_numbers():
    labels = (FEATURES[:, :2] > 0).astype(float)
    assert answer(targets=labels, task="multilabel", n_outputs=2).loss < 0.5 * np.log(2)
    numbers = (FEATURES[:, :1] - FEATURES[:, 1:2]) / 3
    assert answer(targets=numbers, task="regression", n_outputs=1).loss < 0.01 * numbers.var()


def test_the_same_seed_deals_alike():
    assert (answer(seed=3).outputs == answer(seed=3).outputs).all()
    assert (answer(seed=3).outputs != answer(seed=4).outputs).any()


def test_many_examples_are_answered_for_once(monkeypatch):
    monkeypatch.setattr(module, "_MANY", 59)
    assert answer().outputs.shape == (1, 60, 3)


def test_one_group():
    with pytest.raises(DataError, match="at least two groups"):
        answer(groups=np.zeros(60, int))


def test_the_temperature_suits_the_answers_best():
    # Hardly any penalty: too sure.
    found = answer(penalty=1e-3)
    assert found.temperature > 1.5
    losses = {}
    for temperature in (1.0, 0.9 * found.temperature, found.temperature, 1.1 * found.temperature):
        z = found.outputs / temperature
        logs = z - np.log(np.exp(z).sum(axis=2, keepdims=True))
        losses[temperature] = -logs[:, np.arange(60), TARGETS].mean()
    assert min(losses, key=losses.get) == found.temperature
    # What is scored is as sure as that.
    _, outputs, _ = found.answers(TARGETS, "multiclass")
    picked = outputs[:, np.arange(60), TARGETS]
    np.testing.assert_allclose(-np.log(picked).mean(axis=0), found.losses)
    numbers = answer(targets=FEATURES[:, :1], task="regression", n_outputs=1)
    assert numbers.temperature == 1


def test_why_nothing_can_be_told():
    even, none = np.ones(6), np.zeros(6)
    classes = np.arange(6) % 2
    assert why_not_answer(classes, "multiclass", even, None) == ""
    assert why_not_answer(classes, "multiclass", none, None) == "no example that counts"
    assert why_not_answer(np.arange(6), "multiclass", even, None) == "one example of each class"
    assert why_not_answer(classes, "multiclass", even, np.zeros(6)) == "one group only"
    first = np.array([1, 0, 1, 1, 1, 1.0])  # what does not count tells nothing
    ones = np.array([0, 0, 1, 2, 3, 4])
    assert why_not_answer(ones, "multiclass", even, None) == ""
    assert why_not_answer(ones, "multiclass", first, None) == "one example of each class"
    assert why_not_answer(classes, "multiclass", even, np.eye(6)[1]) == ""
    assert why_not_answer(classes, "multiclass", first, np.eye(6)[1]) == "one group only"
    few = np.array([1, 1, 1, 0, 0, 0.0])
    assert why_not_answer(classes, "multiclass", few, None) == "under four examples"


def test_of_many_some_that_are_alike(monkeypatch):
    monkeypatch.setattr(module, "_ENOUGH", 20)
    rows = some_examples(TARGETS, "multiclass")
    assert len(rows) == 20
    assert np.ptp(np.bincount(TARGETS[rows])) <= 1
    voices = np.arange(60) % 12
    rows = some_examples(TARGETS, "multiclass", voices)
    assert not set(voices[rows]) & set(np.delete(voices, rows))


def test_evidence_wants_more_right_answers():
    targets, weights = np.arange(20) % 2, np.ones(20)

    def judged(sureness, n_wrong=0):
        signs = np.where(np.arange(20) < n_wrong, -1, 1) * (2 * targets - 1) * sureness
        return OutOfFold.of(
            np.stack([-signs, signs], 1)[np.newaxis], targets, "multiclass", weights
        )

    sure, surer = judged(np.linspace(3, 4, 20)), judged(np.linspace(5, 6, 20))
    assert surer.loss < sure.loss / 2
    assert surer.evidence_over(sure) == 0
    doubtful = judged(np.where(np.arange(20) < 5, 0.01, 4))
    assert sure.evidence_over(doubtful) > 0.45  # as many right, but less in doubt
    assert sure.evidence_over(judged(np.linspace(5, 6, 20), n_wrong=5)) > 1
    numbers = np.linspace(0, 1, 20)[:, np.newaxis]
    near, far = (
        OutOfFold.of((numbers + error)[np.newaxis], numbers, "regression", weights)
        for error in (0.1 * np.sin(np.arange(20))[:, np.newaxis], 0.5)
    )
    by_loss = np.clip(np.divide(*far.difference(near)), -10, 10)
    assert near.evidence_over(far) == pytest.approx(by_loss / 2)
