"""The scenarios of sklearn_contract.py: each is written once, against what `Peer` says there."""

from __future__ import annotations

import functools
import io
import pickle
import random
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from unittest import SkipTest

import harness
import joblib
import keras
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    StratifiedShuffleSplit,
    TunedThresholdClassifierCV,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

RATE = 0.1  # at which the peers train
# scikit-learn excuses its own SGDClassifier and MLPClassifier from it: a row of weight 2 is not a
# row that comes twice, in mini-batches.
EXCUSED = "check_sample_weight_equivalence_on_dense_data"
CHECK_EVERY = 30 if harness.QUICK else 1
ONE_SPLIT = StratifiedShuffleSplit(1, test_size=0.3, random_state=0)
SECONDS = 120  # of a process that a scenario starts

SCENARIOS = {}  # the name of a row -> a function of a peer and two clouds


class Differs(Exception):
    """The peer answered, but otherwise than scikit-learn's rules say."""


def scenario(title):
    """Add a row: the function returns, what to add to "yes" or None, or raises."""

    def add(function):
        SCENARIOS[title] = function
        return function

    return add


def refused(title):
    """Add a row: a call of what the function returns raises what scikit-learn's callers expect."""

    def add(function):
        @scenario(title)
        @functools.wraps(function)
        def check(peer, X, y):
            call = function(peer, X, y)
            try:
                call()
            except (TypeError, ValueError):
                return
            raise Differs("it is accepted")

        return function

    return add


# === Data and helpers ===


def clouds(n_classes=2, n=60, spread=1.0, seed=0):
    """Vectors around a centre for each class, and the number of the class."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    centres = 3 * np.eye(n_classes, 5)
    return centres[y] + rng.normal(0, spread, (n, 5)), y


def words(y):
    return np.array(["no", "yes", "maybe"])[y]


@functools.cache
def fitted(peer, n_classes=2):
    """A classifier for words, fitted once; who uses it only asks it."""
    X, y = clouds(n_classes)
    return peer.classifier().fit(X, words(y))


def fitted_to_two_and_three(peer):
    """Classifiers of two and of three words, what they were fitted to, and how many words."""
    for n_classes in (2, 3):
        X, y = clouds(n_classes)
        yield fitted(peer, n_classes), X, words(y), n_classes


def answers(estimator, X):
    """The finest answer that an estimator gives."""
    for method in ("predict_proba", "decision_function", "predict", "transform"):
        if hasattr(estimator, method):
            return np.asarray(getattr(estimator, method)(X))
    raise Differs("no answer of any kind")


def weights(estimator):
    return [np.asarray(weight) for weight in estimator.model_.get_weights()]


def equal_weights(first, second):
    pairs = zip(weights(first), weights(second), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def expect(condition, what):
    if not condition:
        raise Differs(what)


def expect_score(estimator, X, y, at_least=0.9, name="score"):
    score = estimator.score(X, y)
    expect(score >= at_least, f"{name} {score:.2f}")


def expect_learns(estimator, X, y, at_least=0.9, **fit_arguments):
    estimator.fit(X, y, **fit_arguments)
    expect_score(estimator, X, y, at_least)
    return estimator


def expect_shape(answers, shape):
    expect(answers.shape == shape, f"shape {answers.shape}, not {shape}")


def expect_probabilities(probabilities, shape):
    probabilities = np.asarray(probabilities)
    expect_shape(probabilities, shape)
    expect(np.allclose(probabilities.sum(axis=1), 1, atol=1e-5), "rows do not sum to 1")


# === The rows ===


@scenario("`clone` keeps the settings of fit: as many epochs")
def clone_keeps_epochs(peer, X, y):
    epochs = peer.epochs_trained(clone(peer.classifier(epochs=5)).fit(X, y))
    expect(epochs == 5, f"{epochs} epoch instead of 5")


@scenario("`fit` leaves the parameters as given")
def fit_leaves_parameters(peer, X, y):
    estimator = peer.classifier(epochs=1)
    before = {name: repr(value) for name, value in estimator.get_params().items()}
    estimator.fit(X, y, sample_weight=np.ones(len(y)))
    after = {name: repr(value) for name, value in estimator.get_params().items()}
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    expect(not changed, f"changed: {', '.join(changed)}")


@scenario("`GridSearchCV` over epochs trains so many")
def grid_search_epochs(peer, X, y):
    search = GridSearchCV(
        peer.classifier(),
        peer.epochs_grid([1, 3]),
        scoring=lambda estimator, X, y: peer.epochs_trained(estimator),
        cv=ONE_SPLIT,
        error_score="raise",
    ).fit(X, y)
    trained = [*search.cv_results_["mean_test_score"], peer.epochs_trained(search.best_estimator_)]
    expect(trained == [1, 3, 3], f"epochs trained: {trained}")


@scenario("Pictures, X of 4 axes")
def pictures(peer, X, y):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 60, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2
    X[np.arange(40), ..., y] += 180  # red ones and green ones
    estimator = peer.picture_classifier().fit(X, words(y))
    expect_score(estimator, X, words(y))


@scenario("`predict_proba`: rows sum to 1, also for one row")
def predict_proba(peer, X, y):
    for estimator, X, _, n_classes in fitted_to_two_and_three(peer):
        expect_probabilities(estimator.predict_proba(X), (len(X), n_classes))
        expect_probabilities(estimator.predict_proba(X[:1]), (1, n_classes))


@scenario("`decision_function` agrees with `predict`")
def decision_function(peer, X, y):
    for estimator, X, _, n_classes in fitted_to_two_and_three(peer):
        decision = estimator.decision_function(X)
        shape = (len(X),) if n_classes == 2 else (len(X), n_classes)
        expect_shape(decision, shape)
        chosen = (decision > 0).astype(int) if n_classes == 2 else decision.argmax(axis=1)
        agrees = np.array_equal(estimator.classes_[chosen], estimator.predict(X))
        expect(agrees, f"other labels of {n_classes} classes")


@scenario("Labels of words come back")
def string_labels(peer, X, y):
    for estimator, X, y, _ in fitted_to_two_and_three(peer):
        expect(list(estimator.classes_) == sorted(set(y)), f"classes_ {estimator.classes_}")
        expect(np.mean(estimator.predict(X) == y) > 0.9, "other labels")
        expect_score(estimator, X, y)


@scenario("Labels of True and False come back")
def bool_labels(peer, X, y):
    predicted = peer.classifier().fit(X, y == 1).predict(X)
    expect(predicted.dtype == bool, f"dtype {predicted.dtype}")
    expect(np.mean(predicted == (y == 1)) > 0.9, "other labels")


@scenario("An indicator matrix, with `predict_proba` and roc_auc")
def multilabel(peer, X, y):
    y = (X[:, :3] > np.median(X[:, :3], axis=0)).astype(int)
    estimator = peer.classifier(epochs=8).fit(X, y)
    expect_shape(estimator.predict(X), y.shape)
    score = roc_auc_score(y, estimator.predict_proba(X))
    expect(score > 0.9, f"roc_auc {score:.2f}")
    expect(np.isclose(get_scorer("roc_auc")(estimator, X, y), score), "scorer differs")


@scenario("Regression on y = 1e4 + 500 x, not scaled before: R2 after 25 epochs")
def regression_units(peer, X, y):
    # What does not scale y itself spends some 400 epochs on the way to 1e4.
    X = np.random.default_rng(0).normal(size=(60, 5))
    y = 1e4 + 500 * X[:, 0]
    estimator = peer.regressor(epochs=25).fit(X, y)
    expect_shape(estimator.predict(X), y.shape)
    expect_score(estimator, X, y, name="R2")


@scenario("Regression with two outputs")
def regression_outputs(peer, X, y):
    X = np.random.default_rng(0).normal(size=(60, 5))
    y = np.stack([X[:, 0], X[:, 1] - X[:, 2]], axis=1)
    estimator = peer.regressor(epochs=25).fit(X, y)
    expect_shape(estimator.predict(X), y.shape)
    expect_score(estimator, X, y, 0.7)


@scenario("`sample_weight`: rows of weight 0 equal removed rows")
def zero_weights(peer, X, y):
    X, y = clouds(n=90)
    kept = np.arange(len(y)) % 3 > 0
    y[~kept] = 1 - y[~kept]  # wrong, to be seen if they count
    weighted = peer.classifier(epochs=3).fit(X, y, sample_weight=kept.astype(float))
    removed = peer.classifier(epochs=3).fit(X[kept], y[kept])
    difference = np.abs(answers(weighted, X) - answers(removed, X)).max()
    expect(difference < 1e-3, f"answers differ by {difference:.2g}")


def rare_answers(estimator):
    """How often a classifier answers with the rare of two classes that overlap."""
    X, y = clouds(n=90, spread=3)
    rows = np.flatnonzero((y == 0) | (np.arange(len(y)) % 5 == 0))
    return int((estimator.fit(X[rows], y[rows]).predict(X[rows]) == 1).sum())


def expect_weighted(peer, class_weight):
    count = rare_answers(peer.classifier(class_weight=class_weight))
    without = rare_answers(peer.classifier())
    expect(count > without, f"{count} of the rare class, {without} without")


@scenario('`class_weight="balanced"`')
def class_weight_balanced(peer, X, y):
    expect_weighted(peer, "balanced")


@scenario("`class_weight` as a dict")
def class_weight_dict(peer, X, y):
    expect_weighted(peer, {0: 1.0, 1: 20.0})


@scenario("Cross-validation with roc_auc and neg_log_loss")
def cross_validation(peer, X, y):
    scores = cross_validate(
        peer.classifier(),
        X,
        words(y),
        scoring=["roc_auc", "neg_log_loss"],
        cv=2,
        params=peer.fit_arguments(),
        error_score="raise",
    )
    auc, loss = scores["test_roc_auc"].mean(), -scores["test_neg_log_loss"].mean()
    expect(auc > 0.9, f"roc_auc {auc:.2f}")
    expect(0 < loss < 0.5, f"log loss {loss:.2f}")


@scenario("`Pipeline`")
def pipeline(peer, X, y):
    expect_learns(make_pipeline(StandardScaler(), peer.classifier()), X * 1e3, words(y))


@scenario("A network as transformer, in a `ColumnTransformer`")
def column_transformer(peer, X, y):
    columns = ColumnTransformer(
        [("network", peer.transformer(), [0, 1, 2]), ("rest", StandardScaler(), [3, 4])]
    )
    expect_learns(make_pipeline(columns, LogisticRegression()), X, y, 0.7)


@scenario('`set_output(transform="pandas")` of a transformer')
def named_columns(peer, X, y):
    table = peer.transformer().set_output(transform="pandas").fit(X, y).transform(X)
    expect(isinstance(table, pd.DataFrame), f"a {type(table).__name__}")
    expect(len(set(table.columns)) == table.shape[1], "columns without names of their own")


def members(peer):
    return [("network", peer.classifier()), ("linear", LogisticRegression())]


@scenario("`VotingClassifier`, soft")
def voting(peer, X, y):
    expect_learns(VotingClassifier(members(peer), voting="soft"), X, words(y))


@scenario("`StackingClassifier`")
def stacking(peer, X, y):
    expect_learns(StackingClassifier(members(peer), cv=2), X, words(y))


@scenario("`CalibratedClassifierCV`")
def calibrated(peer, X, y):
    estimator = expect_learns(CalibratedClassifierCV(peer.classifier(), cv=2), X, words(y))
    expect_probabilities(estimator.predict_proba(X), (len(X), 2))


@scenario("`TunedThresholdClassifierCV`")
def tuned_threshold(peer, X, y):
    tuned = TunedThresholdClassifierCV(peer.classifier(), cv=0.5, random_state=0)
    expect_learns(tuned, X, y)


@scenario("`FrozenEstimator`: `clone` and `fit` keep the fit")
def frozen(peer, X, y):
    estimator = fitted(peer)
    before = answers(estimator, X)
    kept = clone(FrozenEstimator(estimator)).fit(X[::-1], words(y))
    expect(np.array_equal(answers(kept, X), before), "other answers")


def expect_search(peer, X, y, kind, **settings):
    """Make sure that a search over two rates ends with a fit that learned; return it."""
    rates = peer.rate_grid([1e-6, RATE])
    search = kind(peer.classifier(), rates, cv=ONE_SPLIT, error_score="raise", **settings)
    return expect_learns(search, X, words(y), **peer.fit_arguments())


@scenario("`GridSearchCV(n_jobs=2)`")
def grid_search_processes(peer, X, y):
    search = expect_search(peer, X, y, GridSearchCV, n_jobs=2)
    low, high = search.cv_results_["mean_test_score"]
    expect(high > low, f"scores {low:.2f} and {high:.2f}")


@scenario("`HalvingGridSearchCV`")
def halving_search(peer, X, y):
    settings = {"factor": 2, "min_resources": 30, "random_state": 0}
    search = expect_search(peer, X, y, HalvingGridSearchCV, **settings)
    expect(search.n_iterations_ > 1, "one iteration")


@scenario("pickle before and after fit: answers equal to the bit")
def pickled(peer, X, y):
    estimator = fitted(peer)
    expected = answers(estimator, X)
    copy = pickle.loads(pickle.dumps(estimator))
    expect(np.array_equal(answers(copy, X), expected), "other answers, pickled after fit")
    copy = pickle.loads(pickle.dumps(peer.classifier())).fit(X, words(y))
    expect(np.array_equal(answers(copy, X), expected), "other answers, pickled before fit")


@scenario("joblib: answers equal to the bit")
def joblib_file(peer, X, y):
    file = io.BytesIO()
    joblib.dump(fitted(peer), file)
    file.seek(0)
    expect(np.array_equal(answers(joblib.load(file), X), answers(fitted(peer), X)), "other answers")


class EpochCounter(keras.callbacks.Callback):
    counted = 0

    def on_epoch_end(self, epoch, logs=None):
        EpochCounter.counted += 1


@scenario("Callbacks survive `clone` and a second fit")
def callbacks(peer, X, y):
    EpochCounter.counted = 0
    estimator = peer.classifier(epochs=2, callbacks=[peer.callback(EpochCounter)]).fit(X, y)
    expect(EpochCounter.counted == 2, f"{EpochCounter.counted} epochs of 2 seen")
    copy = clone(estimator).fit(X, y)
    expect(EpochCounter.counted == 4, "not called after clone")
    copy.fit(X, y)
    expect(EpochCounter.counted == 6, "not called in a second fit")


@scenario("The same `random_state`: the same weights to the bit")
def same_seed(peer, X, y):
    first, second = (peer.classifier(epochs=2, random_state=7).fit(X, y) for _ in range(2))
    expect(equal_weights(first, second), "weights differ")


@scenario("The random states of Python and NumPy are left alone")
def global_random_states(peer, X, y):
    before = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002 (global it is)
    peer.classifier(epochs=1, random_state=7).fit(X, y).predict(X)
    after = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    expect(after[0] == before[0], "Python's moved")
    expect(after[1] == before[1], "NumPy's moved")


@scenario("`random_state=None`, after a fit with a seed: two fits differ")
def no_seed(peer, X, y):
    peer.classifier(epochs=1, random_state=0).fit(X, y)
    first, second = (peer.classifier(epochs=1, random_state=None).fit(X, y) for _ in range(2))
    expect(not equal_weights(first, second), "the same weights")


@scenario("Two estimators fitted in turn leave each other alone")
def two_in_turn(peer, X, y):
    first = peer.classifier(epochs=2, random_state=1).fit(X, y)
    expected = answers(first, X)
    peer.classifier(epochs=2, random_state=2).fit(*clouds(3, seed=1))
    expect(np.array_equal(answers(first, X), expected), "the first answers otherwise")
    third = peer.classifier(epochs=2, random_state=1).fit(X, y)
    expect(equal_weights(first, third), "the second changed what the third learns")


@scenario("`feature_names_in_`, and wrong column names are told")
def column_names(peer, X, y):
    table = pd.DataFrame(X, columns=list("abcde"))
    estimator = peer.classifier(epochs=1).fit(table, y)
    expect(list(estimator.feature_names_in_) == list("abcde"), "other names")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.predict(table.rename(columns={"a": "z"}))
        except ValueError as error:
            expect("feature names" in str(error), "an error about something else")
        else:
            expect(any("feature names" in str(w.message) for w in caught), "no word of them")


@scenario("`NotFittedError` before fit")
def not_fitted(peer, X, y):
    for estimator in (peer.classifier(), peer.regressor()):
        for method in ("predict", "predict_proba", "decision_function"):
            if not hasattr(estimator, method):
                continue
            try:
                getattr(estimator, method)(X)
            except NotFittedError:
                continue
            raise Differs(f"{method} answers")


@scenario("Sparse X is read as dense X is, or refused by an error that names it")
def sparse(peer, X, y):
    try:
        estimator = peer.classifier(epochs=2).fit(csr_matrix(X), y)
    except (TypeError, ValueError) as error:
        expect("sparse" in str(error).lower(), "an error that does not name it")
        return
    dense = peer.classifier(epochs=2).fit(X, y)
    expect(np.allclose(answers(estimator, csr_matrix(X)), answers(dense, X), atol=1e-4), "differs")


@refused("`sample_weight` of another length is refused")
def short_weights(peer, X, y):
    return lambda: peer.classifier(epochs=1).fit(X, y, sample_weight=np.ones(len(y) - 1))


@refused("Negative `sample_weight` is refused")
def negative_weights(peer, X, y):
    sample_weight = np.where(np.arange(len(y)) == 0, -1.0, 1.0)
    return lambda: peer.classifier(epochs=1).fit(X, y, sample_weight=sample_weight)


@refused("A classifier refuses continuous targets")
def continuous_targets(peer, X, y):
    return lambda: peer.classifier(epochs=1).fit(X, X[:, 0])


@refused("A regressor refuses words")
def word_targets(peer, X, y):
    return lambda: peer.regressor(epochs=1).fit(X, words(y))


@refused("Another number of features at `predict` is refused")
def changed_features(peer, X, y):
    estimator = fitted(peer)
    return lambda: estimator.predict(X[:, :4])


LOAD = """
import sys

path, rows, out = sys.argv[1:]
{loader}
import numpy as np

X = np.load(rows)
method = getattr(estimator, "predict_proba", None) or estimator.decision_function
np.save(out, method(X))
"""


@scenario("Loads in a new process without the training script")
def new_process(peer, X, y):
    with tempfile.TemporaryDirectory() as folder:
        path, rows, out = (Path(folder, name) for name in ("estimator", "X.npy", "answers.npy"))
        peer.save(fitted(peer), path)
        np.save(rows, X)
        command = [sys.executable, "-c", LOAD.format(loader=peer.loader), path, rows, out]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            raise Differs(done.stderr.strip().splitlines()[-1])
        expect(np.array_equal(np.load(out), answers(fitted(peer), X)), "other answers")


@scenario("scikit-learn's own checks, classifier and regressor")
def own_checks(peer, X, y):
    ran, excused, failed = 0, 0, []
    for estimator in peer.check_estimators():
        for number, (instance, check) in enumerate(estimator_checks_generator(estimator)):
            if number % CHECK_EVERY:
                continue
            ran += 1
            try:
                check(instance)
            except SkipTest:
                pass
            except Exception:
                if check.func.__name__ == EXCUSED:
                    excused += 1
                else:
                    failed.append(check.func.__name__)
    counts = f"{len(failed)} of {ran} failed, {excused} excused"
    if failed:
        error = Differs(counts)
        error.add_note(", ".join(f"{name} x{n}" for name, n in Counter(failed).items()))
        raise error
    return counts
