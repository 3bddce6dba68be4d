"""A fold tells of a fine-tuning only if it trains as all examples did; the fit is left as it is."""

import dataclasses
import os
import signal
import time
import warnings

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import CompositeTransfer, TransferClassifier
from keras_transfer.fitting.training_plan import TrainingPlan
from keras_transfer.store.activation_store import Memory, open_store
from keras_transfer.training import stored_outputs

X, Y = tiny.striped(32)
CHECK_ON_FOLD = TrainingPlan.check_on_fold


def make(train_blocks="all", **parameters):
    options = {"readout": "last", "random_state": 0, "batch_size": 16, **parameters}
    return TransferClassifier(tiny.edges(), CompositeTransfer(train_blocks, epochs=2), **options)


def fit_asking(monkeypatch, clf, ask):
    """Fit, the question put to the fold as it is or otherwise; return what it answered."""
    answers = []

    def check_on_fold(self, *given, **options):
        answers.append(ask(CHECK_ON_FOLD, self, *given, **options))
        return answers[-1]

    monkeypatch.setattr(TrainingPlan, "check_on_fold", check_on_fold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(X, Y)
    (answer,) = answers
    return answer


def with_last_stage(result, **changes):
    """Let the fold train otherwise than all examples did."""
    *first, last = result.records
    stage = dataclasses.replace(last.stage, **changes)
    return dataclasses.replace(result, records=[*first, dataclasses.replace(last, stage=stage)])


@pytest.fixture(scope="module")
def plain():
    """What each way to ask leaves: the same fit, of which nothing was asked."""
    return make(guard=None, calibration=None).fit(X, Y)


def assert_same_answers(clf, plain):
    expected = plain.decision_function(X)
    np.testing.assert_allclose(clf.decision_function(X), expected, rtol=1e-6, atol=1e-6)


def test_a_fold_answers(monkeypatch, plain):
    clf = make(calibration=None)
    check, interrupted = fit_asking(
        monkeypatch, clf, lambda whole, *given, **options: whole(*given, **options)
    )
    assert (check.shares, check.n_examples, interrupted) == ((0.0, 1.0), 8, False)
    assert_same_answers(clf, plain)


@pytest.mark.parametrize("is_lost", [False, True], ids=["kept", "lost"])
def test_a_fold_whose_pass_does_not_end_in_time_does_not_train(is_lost, monkeypatch):
    """Of a network whose lower block is frozen; what is kept of it needs no pass."""
    monkeypatch.setattr(stored_outputs, "_COMPILED", 0)  # these are few
    runs = []
    run = TrainingPlan.run

    def count(self, *given, **options):
        runs.append(len(self.stages))
        return run(self, *given, **options)

    def ask(whole, *given, **options):
        if is_lost:  # as where others needed the room
            open_store(Memory()).clear()
        return whole(*given, **{**options, "deadline": time.monotonic() - 1})

    expected = make(1, guard=None, calibration=None).fit(X, Y)
    monkeypatch.setattr(TrainingPlan, "run", count)
    clf = make(1, calibration=None)
    assert fit_asking(monkeypatch, clf, ask) == (None, False)
    assert len(runs) == 1 + (not is_lost)
    assert clf.fine_tuning_ is None
    assert_same_answers(clf, expected)


def test_a_fold_that_does_not_train_to_the_end_in_time(monkeypatch, plain):
    def ask(whole, plan, feeder, result, *given, **options):
        long = with_last_stage(result, epochs=10**6)
        return whole(plan, feeder, long, *given, **{**options, "deadline": time.monotonic() + 4})

    clf = make(calibration=None)
    assert fit_asking(monkeypatch, clf, ask) == (None, False)
    assert clf.fine_tuning_ is None
    assert_same_answers(clf, plain)


def test_a_fold_that_diverges(monkeypatch, plain):
    def ask(whole, plan, feeder, result, *given, **options):
        rates = dict.fromkeys(result.records[-1].stage.learning_rates, 1e30)
        wild = with_last_stage(result, learning_rates=rates)
        return whole(plan, feeder, wild, *given, **options)

    clf = make(calibration=None)
    assert fit_asking(monkeypatch, clf, ask) == (None, False)
    assert clf.fine_tuning_ is None
    assert_same_answers(clf, plain)


def test_a_ctrl_c_while_the_fold_trains_ends_the_fit(monkeypatch, plain):
    class Press(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGINT)

    def ask(whole, *given, **options):
        run = TrainingPlan.run

        def run_pressing(self, *data, **others):
            return run(self, *data, **{**others, "callbacks": [Press()]})

        monkeypatch.setattr(TrainingPlan, "run", run_pressing)
        answers.append(whole(*given, **options))
        return answers[-1]

    clf, answers = make(calibration=None), []
    with pytest.raises(KeyboardInterrupt):
        fit_asking(monkeypatch, clf, ask)
    assert answers == [(None, True)]
    assert clf.fine_tuning_ is None
    assert_same_answers(clf, plain)
