"""What scikit-learn asks of an estimator: here, in Keras's own wrapper, and in scikeras.

    python benchmarks/sklearn_contract.py [--peer NAME] [--only TEXT] [--quick]

One list of scenarios, run against all three; each is written once, against an adapter that builds
the peer's estimators as its documentation does, with the same two layers and the same epochs. A
cell is "yes", "no" with what went wrong, or "not run". Two of scikit-learn's rules are measured as
a whole: its own checks (about 120 for a classifier and a regressor), and the memory that one small
model after the other costs, beside bare Keras. `--quick` runs every 30th check, for keras_transfer
alone, no memory, and of the peers nothing that starts processes.

Prints a table in Markdown, and exits with 1 if a cell of keras_transfer is not "yes". scikeras
(`pip install scikeras`) is measured if it is installed. On two CPU cores: six minutes, with
`--quick` one and a half.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib.metadata
import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from unittest import SkipTest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import joblib
import keras
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, clone
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
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.estimator_checks import estimator_checks_generator

from keras_transfer import (
    ParameterTransfer,
    TransferClassifier,
    TransferEncoder,
    TransferRegressor,
)

OURS = "keras_transfer"
# One batch an epoch, few epochs: enough for the clouds below, and quick.
EPOCHS = 5
RATE = 0.1
BATCH = 64
UNITS = (16, 8)
# scikit-learn excuses its own SGDClassifier and MLPClassifier from it: a row of weight 2 is not a
# row that comes twice, in mini-batches.
EXCUSED = "check_sample_weight_equivalence_on_dense_data"
CHECK_EPOCHS = 6
ONE_SPLIT = StratifiedShuffleSplit(1, test_size=0.3, random_state=0)
MEMORY_ROUNDS = 20
STATM = Path("/proc/self/statm")  # Linux counts a process's pages there
MEMORY_NOISE = 0.1  # one measurement of the same differs from the next by some percent
SECONDS = 120  # of a process that a scenario starts


class Differs(Exception):
    """The peer answered, but otherwise than scikit-learn's rules say."""


class NotRun(Exception):
    """The scenario cannot be measured here."""


def expect(condition, what):
    if not condition:
        raise Differs(what)


# === The peers ===


class Peer:
    """What a scenario knows of a peer: how its estimators are made, and its own words for things.

    Estimators are made with a seed. With so few steps the peers are quicker without a compiled
    function (`run_eagerly`), which changes no answer; for the measure of memory they compile.
    """

    loader = "import pickle; estimator = pickle.load(open(path, 'rb'))"

    def save(self, estimator, path):
        Path(path).write_bytes(pickle.dumps(estimator))

    def callback(self, kind):
        """Return what goes into a list of callbacks."""
        return kind

    def fit_arguments(self):
        """Return what to pass to the fit of a searcher, for the sake of the estimators in it."""
        return {}


class KerasTransfer(Peer):
    """TransferClassifier, TransferRegressor and TransferEncoder, with a function as backbone."""

    name = package = OURS
    loader = "import keras_transfer; estimator = keras_transfer.load(path)"

    def save(self, estimator, path):
        estimator.save(path)

    def _make(
        self,
        kind,
        backbone,
        epochs=EPOCHS,
        learning_rate=RATE,
        random_state=0,
        run_eagerly=None,  # no such choice: compiled functions are shared between fits
        **settings,
    ):
        return kind(
            backbone,
            ParameterTransfer(epochs=epochs, learning_rate=learning_rate),
            batch_size=BATCH,
            validation=None,  # the peers hold nothing out, and train all epochs
            random_state=random_state,
            verbose=False,
            **settings,
        )

    def classifier(self, **settings):
        return self._make(TransferClassifier, dense_backbone, **settings)

    def regressor(self, **settings):
        return self._make(TransferRegressor, dense_backbone, **settings)

    def picture_classifier(self):
        return self._make(TransferClassifier, conv_backbone)

    def transformer(self):
        return TransferEncoder(dense_backbone, random_state=0)

    def check_estimators(self):
        return [kind(epochs=CHECK_EPOCHS) for kind in (self.classifier, self.regressor)]

    def epochs_trained(self, estimator):
        return estimator.n_iter_

    def epochs_grid(self, values):
        return {"recipe__epochs": values}

    def rate_grid(self, values):
        return {"recipe__learning_rate": values}


def dense_backbone(input_shape):
    layers = [keras.layers.Dense(units, activation="relu") for units in UNITS]
    return keras.Sequential([keras.Input(input_shape), *layers])


def conv_backbone(input_shape):
    conv = keras.layers.Conv2D(8, 3, strides=2, activation="relu")
    return keras.Sequential([keras.Input(input_shape), conv])


class KerasWrapper(Peer):
    """keras.wrappers: SKLearnClassifier, SKLearnRegressor, SKLearnTransformer.

    It has no random_state: the model function seeds its layers, and with a seed `shuffle` is off.
    That leaves the global random states alone, as keras.utils.set_random_seed would not. `clone`
    drops `fit_kwargs`: where scikit-learn passes arguments on to `fit`, they are passed there too.
    """

    name, package = "keras.wrappers", "keras"

    def callback(self, kind):
        return kind()

    def _model_settings(
        self, head, learning_rate=RATE, random_state=0, run_eagerly=True, outputs=None
    ):
        return {
            "head": head,
            "outputs": outputs,
            "seeds_all": False,
            "learning_rate": learning_rate,
            "seed": random_state,
            "run_eagerly": run_eagerly,
        }

    def _fit_settings(self, epochs=EPOCHS, random_state=0, **settings):
        shuffle = random_state is None
        fixed = {"epochs": epochs, "batch_size": BATCH, "shuffle": shuffle, "verbose": 0}
        return {**fixed, **settings}

    def classifier(
        self, epochs=EPOCHS, learning_rate=RATE, random_state=0, run_eagerly=True, **settings
    ):
        return keras.wrappers.SKLearnClassifier(
            keras_model,
            model_kwargs=self._model_settings("softmax", learning_rate, random_state, run_eagerly),
            fit_kwargs=self._fit_settings(epochs, random_state, **settings),
        )

    def regressor(self, epochs=EPOCHS, learning_rate=RATE, random_state=0, run_eagerly=True):
        return keras.wrappers.SKLearnRegressor(
            keras_model,
            model_kwargs=self._model_settings("linear", learning_rate, random_state, run_eagerly),
            fit_kwargs=self._fit_settings(epochs, random_state),
        )

    def picture_classifier(self):
        return keras.wrappers.SKLearnClassifier(
            keras_picture_model, fit_kwargs=self._fit_settings()
        )

    def transformer(self):  # an embedding, of which each number is trained towards y
        return keras.wrappers.SKLearnTransformer(
            keras_model,
            model_kwargs=self._model_settings("linear", outputs=UNITS[-1]),
            fit_kwargs=self._fit_settings(),
        )

    def check_estimators(self):
        # Two epochs: its tags say that its scores are poor. The checks clone, so `shuffle` is on
        # again: here its documentation's keras.utils.set_random_seed serves it better.
        estimators = [kind(epochs=2) for kind in (self.classifier, self.regressor)]
        for estimator in estimators:
            estimator.model_kwargs["seeds_all"] = True
        return estimators

    def epochs_trained(self, estimator):
        return len(estimator.history_.epoch)

    def epochs_grid(self, values):
        return {"fit_kwargs": [self._fit_settings(value) for value in values]}

    def rate_grid(self, values):
        return {"model_kwargs": [self._model_settings("softmax", value) for value in values]}

    def fit_arguments(self):
        return self._fit_settings()


def keras_model(X, y, head, outputs, learning_rate, seed, seeds_all, run_eagerly):
    if seeds_all:
        keras.utils.set_random_seed(seed)
    inputs = keras.Input(X.shape[1:])
    x = inputs
    for number, units in enumerate((*UNITS, outputs or y.shape[1])):
        x = keras.layers.Dense(
            units,
            activation=head if number == len(UNITS) else "relu",
            kernel_initializer=keras.initializers.GlorotUniform(
                None if seed is None else seed + number
            ),
        )(x)
    model = keras.Model(inputs, x)
    model.compile(
        keras.optimizers.Adam(learning_rate),
        "categorical_crossentropy" if head == "softmax" else "mse",
        run_eagerly=run_eagerly,
        jit_compile=False,
    )
    return model


def keras_picture_model(X, y):
    inputs = keras.Input(X.shape[1:])
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(y.shape[1], activation="softmax")(x))
    model.compile(keras.optimizers.Adam(RATE), "categorical_crossentropy", jit_compile=False)
    return model


class Scikeras(Peer):
    """scikeras: KerasClassifier and KerasRegressor, model functions as in its MLPClassifier guide.

    Its last release (0.13, 2024) is older than the tags of scikit-learn 1.6: no searcher or scorer
    would know its classifier as one. They are added by hand, with what its own `_tags` and its
    guide to sparse inputs say.
    """

    name = package = "scikeras"

    def __init__(self):
        # Not at the top: importing it replaces how every Keras model is pickled.
        from scikeras.wrappers import KerasClassifier, KerasRegressor

        KerasClassifier.__sklearn_tags__ = scikeras_classifier_tags
        KerasRegressor.__sklearn_tags__ = scikeras_regressor_tags
        self._classifier, self._regressor = KerasClassifier, KerasRegressor

    def _make(
        self,
        kind,
        model,
        epochs=EPOCHS,
        learning_rate=RATE,
        random_state=0,
        run_eagerly=True,
        **settings,
    ):
        if learning_rate is not None:
            settings["optimizer__learning_rate"] = learning_rate
        return kind(
            model,
            optimizer="adam",
            epochs=epochs,
            batch_size=BATCH,
            random_state=random_state,
            run_eagerly=run_eagerly,
            verbose=0,
            **settings,
        )

    def classifier(self, **settings):
        return self._make(self._classifier, scikeras_classifier_model, **settings)

    def regressor(self, **settings):
        return self._make(self._regressor, scikeras_regressor_model, **settings)

    def picture_classifier(self):
        return self._make(self._classifier, scikeras_picture_model)

    def transformer(self):
        raise Differs("no transformer; its guide shows one to write oneself")

    def check_estimators(self):
        # One epoch: its tags say that its scores are poor. No rate: it would be an attribute that
        # its signature does not name, which is one more check failed.
        return [kind(epochs=1, learning_rate=None) for kind in (self.classifier, self.regressor)]

    def epochs_trained(self, estimator):
        return len(estimator.history_["loss"])

    def epochs_grid(self, values):
        return {"epochs": values}

    def rate_grid(self, values):
        return {"optimizer__learning_rate": values}


def scikeras_classifier_tags(self):
    tags = BaseEstimator.__sklearn_tags__(self)
    tags.estimator_type = "classifier"
    tags.classifier_tags = ClassifierTags(poor_score=True, multi_label=True)
    tags.target_tags.required = tags.target_tags.multi_output = True
    tags.input_tags.sparse = True
    return tags


def scikeras_regressor_tags(self):
    tags = BaseEstimator.__sklearn_tags__(self)
    tags.estimator_type = "regressor"
    tags.regressor_tags = RegressorTags(poor_score=True)
    tags.target_tags.required = tags.target_tags.multi_output = True
    tags.input_tags.sparse = True
    return tags


def scikeras_classifier_model(meta, compile_kwargs):
    if meta["target_type_"] == "binary":
        outputs, head, loss = 1, "sigmoid", "binary_crossentropy"
    elif meta["target_type_"] == "multilabel-indicator":
        outputs, head, loss = meta["n_classes_"], "sigmoid", "binary_crossentropy"
    elif meta["target_type_"] == "multiclass":
        outputs, head, loss = meta["n_classes_"], "softmax", "sparse_categorical_crossentropy"
    else:
        raise NotImplementedError(f"Unsupported task type: {meta['target_type_']}")
    return scikeras_compiled(
        dense_backbone(meta["X_shape_"][1:]), outputs, head, loss, compile_kwargs
    )


def scikeras_picture_model(meta, compile_kwargs):
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 3, activation="relu")]
    layers = [keras.Input(meta["X_shape_"][1:]), *layers, keras.layers.Flatten()]
    model = keras.Sequential(layers)
    return scikeras_compiled(model, 1, "sigmoid", "binary_crossentropy", compile_kwargs)


def scikeras_regressor_model(meta, compile_kwargs):
    model = dense_backbone(meta["X_shape_"][1:])
    return scikeras_compiled(model, meta["n_outputs_"], "linear", "mse", compile_kwargs)


def scikeras_compiled(model, outputs, head, loss, compile_kwargs):
    model.add(keras.layers.Dense(outputs, activation=head))
    model.compile(
        compile_kwargs["optimizer"],
        loss,
        run_eagerly=compile_kwargs["run_eagerly"],
        jit_compile=False,
    )
    return model


PEERS = {peer.name: peer for peer in (KerasTransfer, KerasWrapper, Scikeras)}


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


def expect_score(estimator, X, y, at_least=0.9):
    score = estimator.score(X, y)
    expect(score >= at_least, f"score {score:.2f}")


def expect_probabilities(probabilities, shape):
    probabilities = np.asarray(probabilities)
    expect(probabilities.shape == shape, f"shape {probabilities.shape}, not {shape}")
    expect(np.allclose(probabilities.sum(axis=1), 1, atol=1e-5), "rows do not sum to 1")


def expect_refused(what, call, *arguments, **keywords):
    """Make sure that a call raises what scikit-learn's callers expect."""
    try:
        call(*arguments, **keywords)
    except (TypeError, ValueError):
        return
    raise Differs(f"{what} accepted")


def run_python(*arguments):
    """Run Python in a folder of its own, and return what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    if done.returncode:
        raise Differs(done.stderr.strip().splitlines()[-1])
    return done.stdout


# === The scenarios: the docstring is the name of the row ===


def clone_keeps_epochs(peer):
    """`clone` keeps the settings of fit: as many epochs"""
    X, y = clouds()
    epochs = peer.epochs_trained(clone(peer.classifier(epochs=5)).fit(X, y))
    expect(epochs == 5, f"{epochs} epoch instead of 5")


def fit_leaves_parameters(peer):
    """`fit` leaves the parameters as given"""
    X, y = clouds()
    estimator = peer.classifier(epochs=1)
    before = {name: repr(value) for name, value in estimator.get_params().items()}
    estimator.fit(X, y, sample_weight=np.ones(len(y)))
    after = {name: repr(value) for name, value in estimator.get_params().items()}
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    expect(not changed, f"changed: {', '.join(changed)}")


def grid_search_epochs(peer):
    """`GridSearchCV` over epochs trains so many"""
    X, y = clouds()
    search = GridSearchCV(
        peer.classifier(),
        peer.epochs_grid([1, 3]),
        scoring=lambda estimator, X, y: peer.epochs_trained(estimator),
        cv=ONE_SPLIT,
        error_score="raise",
    ).fit(X, y)
    trained = [*search.cv_results_["mean_test_score"], peer.epochs_trained(search.best_estimator_)]
    expect(trained == [1, 3, 3], f"epochs trained: {trained}")


def pictures(peer):
    """Pictures, X of 4 axes"""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 60, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2
    X[np.arange(40), ..., y] += 180  # red ones and green ones
    estimator = peer.picture_classifier().fit(X, words(y))
    expect_score(estimator, X, words(y))


def predict_proba(peer):
    """`predict_proba`: rows sum to 1, also for one row"""
    for n_classes in (2, 3):
        X, _ = clouds(n_classes)
        estimator = fitted(peer, n_classes)
        expect_probabilities(estimator.predict_proba(X), (len(X), n_classes))
        expect_probabilities(estimator.predict_proba(X[:1]), (1, n_classes))


def decision_function(peer):
    """`decision_function` agrees with `predict`"""
    for n_classes in (2, 3):
        X, _ = clouds(n_classes)
        estimator = fitted(peer, n_classes)
        decision = estimator.decision_function(X)
        shape = (len(X),) if n_classes == 2 else (len(X), n_classes)
        expect(decision.shape == shape, f"shape {decision.shape}, not {shape}")
        chosen = (decision > 0).astype(int) if n_classes == 2 else decision.argmax(axis=1)
        agrees = np.array_equal(estimator.classes_[chosen], estimator.predict(X))
        expect(agrees, f"other labels of {n_classes} classes")


def string_labels(peer):
    """Labels of words come back"""
    for n_classes in (2, 3):
        X, y = clouds(n_classes)
        estimator = fitted(peer, n_classes)
        expect(list(estimator.classes_) == sorted(set(words(y))), f"classes_ {estimator.classes_}")
        expect(np.mean(estimator.predict(X) == words(y)) > 0.9, "other labels")
        expect_score(estimator, X, words(y))


def bool_labels(peer):
    """Labels of True and False come back"""
    X, y = clouds()
    predicted = peer.classifier().fit(X, y == 1).predict(X)
    expect(predicted.dtype == bool, f"dtype {predicted.dtype}")
    expect(np.mean(predicted == (y == 1)) > 0.9, "other labels")


def multilabel(peer):
    """An indicator matrix, with `predict_proba` and roc_auc"""
    X, _ = clouds()
    y = (X[:, :3] > np.median(X[:, :3], axis=0)).astype(int)
    estimator = peer.classifier(epochs=8).fit(X, y)
    expect(estimator.predict(X).shape == y.shape, f"shape {estimator.predict(X).shape}")
    score = roc_auc_score(y, estimator.predict_proba(X))
    expect(score > 0.9, f"roc_auc {score:.2f}")
    expect(np.isclose(get_scorer("roc_auc")(estimator, X, y), score), "scorer differs")


def regression_units(peer):
    """Regression on y = 1e4 + 500 x, not scaled before: R2 after 25 epochs"""
    # What does not scale y itself spends some 400 epochs on the way to 1e4.
    X = np.random.default_rng(0).normal(size=(60, 5))
    y = 1e4 + 500 * X[:, 0]
    estimator = peer.regressor(epochs=25).fit(X, y)
    expect(estimator.predict(X).shape == y.shape, f"shape {estimator.predict(X).shape}")
    score = estimator.score(X, y)
    expect(score > 0.9, f"R2 {score:.2f}")


def regression_outputs(peer):
    """Regression with two outputs"""
    X = np.random.default_rng(0).normal(size=(60, 5))
    y = np.stack([X[:, 0], X[:, 1] - X[:, 2]], axis=1)
    estimator = peer.regressor(epochs=25).fit(X, y)
    expect(estimator.predict(X).shape == y.shape, f"shape {estimator.predict(X).shape}")
    expect_score(estimator, X, y, 0.7)


def zero_weights(peer):
    """`sample_weight`: rows of weight 0 equal removed rows"""
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


@functools.cache
def unweighted_rare_answers(peer):
    return rare_answers(peer.classifier())


def expect_weighted(peer, class_weight):
    count = rare_answers(peer.classifier(class_weight=class_weight))
    without = unweighted_rare_answers(peer)
    expect(count > without, f"{count} of the rare class, {without} without")


def class_weight_balanced(peer):
    """`class_weight="balanced"`"""
    expect_weighted(peer, "balanced")


def class_weight_dict(peer):
    """`class_weight` as a dict"""
    expect_weighted(peer, {0: 1.0, 1: 20.0})


def cross_validation(peer):
    """Cross-validation with roc_auc and neg_log_loss"""
    X, y = clouds()
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


def pipeline(peer):
    """`Pipeline`"""
    X, y = clouds()
    pipe = make_pipeline(StandardScaler(), peer.classifier()).fit(X * 1e3, words(y))
    expect_score(pipe, X * 1e3, words(y))


def column_transformer(peer):
    """A network as transformer, in a `ColumnTransformer`"""
    X, y = clouds()
    columns = ColumnTransformer(
        [("network", peer.transformer(), [0, 1, 2]), ("rest", StandardScaler(), [3, 4])]
    )
    pipe = make_pipeline(columns, LogisticRegression()).fit(X, y)
    expect_score(pipe, X, y, 0.7)


def named_columns(peer):
    """`set_output(transform="pandas")` of a transformer"""
    X, y = clouds()
    table = peer.transformer().set_output(transform="pandas").fit(X, y).transform(X)
    expect(isinstance(table, pd.DataFrame), f"a {type(table).__name__}")
    expect(len(set(table.columns)) == table.shape[1], "columns without names of their own")


def voting(peer):
    """`VotingClassifier`, soft"""
    X, y = clouds()
    members = [("network", peer.classifier()), ("linear", LogisticRegression())]
    vote = VotingClassifier(members, voting="soft").fit(X, words(y))
    expect_score(vote, X, words(y))


def stacking(peer):
    """`StackingClassifier`"""
    X, y = clouds()
    members = [("network", peer.classifier()), ("linear", LogisticRegression())]
    stack = StackingClassifier(members, cv=2).fit(X, words(y))
    expect_score(stack, X, words(y))


def calibrated(peer):
    """`CalibratedClassifierCV`"""
    X, y = clouds()
    estimator = CalibratedClassifierCV(peer.classifier(), cv=2).fit(X, words(y))
    expect_probabilities(estimator.predict_proba(X), (len(X), 2))
    expect_score(estimator, X, words(y))


def tuned_threshold(peer):
    """`TunedThresholdClassifierCV`"""
    X, y = clouds()
    estimator = TunedThresholdClassifierCV(peer.classifier(), cv=0.5, random_state=0).fit(X, y)
    expect_score(estimator, X, y)


def frozen(peer):
    """`FrozenEstimator`: `clone` and `fit` keep the fit"""
    X, y = clouds()
    estimator = fitted(peer)
    before = answers(estimator, X)
    kept = clone(FrozenEstimator(estimator)).fit(X[::-1], words(y))
    expect(np.array_equal(answers(kept, X), before), "other answers")


def grid_search_processes(peer):
    """`GridSearchCV(n_jobs=2)`"""
    X, y = clouds()
    search = GridSearchCV(
        peer.classifier(),
        peer.rate_grid([1e-6, RATE]),
        cv=ONE_SPLIT,
        n_jobs=2,
        error_score="raise",
    ).fit(X, words(y), **peer.fit_arguments())
    low, high = search.cv_results_["mean_test_score"]
    expect(high > low, f"scores {low:.2f} and {high:.2f}")
    expect_score(search, X, words(y))


def halving_search(peer):
    """`HalvingGridSearchCV`"""
    X, y = clouds()
    search = HalvingGridSearchCV(
        peer.classifier(),
        peer.rate_grid([1e-6, RATE]),
        cv=ONE_SPLIT,
        factor=2,
        min_resources=30,
        random_state=0,
        error_score="raise",
    ).fit(X, words(y), **peer.fit_arguments())
    expect(search.n_iterations_ > 1, "one iteration")
    expect_score(search, X, words(y))


def pickled(peer):
    """pickle before and after fit: answers equal to the bit"""
    X, y = clouds()
    estimator = fitted(peer)
    expected = answers(estimator, X)
    copy = pickle.loads(pickle.dumps(estimator))
    expect(np.array_equal(answers(copy, X), expected), "other answers, pickled after fit")
    copy = pickle.loads(pickle.dumps(peer.classifier())).fit(X, words(y))
    expect(np.array_equal(answers(copy, X), expected), "other answers, pickled before fit")


def joblib_file(peer):
    """joblib: answers equal to the bit"""
    X, _ = clouds()
    file = io.BytesIO()
    joblib.dump(fitted(peer), file)
    file.seek(0)
    expect(np.array_equal(answers(joblib.load(file), X), answers(fitted(peer), X)), "other answers")


class EpochCounter(keras.callbacks.Callback):
    counted = 0

    def on_epoch_end(self, epoch, logs=None):
        EpochCounter.counted += 1


def callbacks(peer):
    """Callbacks survive `clone` and a second fit"""
    X, y = clouds()
    EpochCounter.counted = 0
    estimator = peer.classifier(epochs=2, callbacks=[peer.callback(EpochCounter)]).fit(X, y)
    expect(EpochCounter.counted == 2, f"{EpochCounter.counted} epochs of 2 seen")
    copy = clone(estimator).fit(X, y)
    expect(EpochCounter.counted == 4, "not called after clone")
    copy.fit(X, y)
    expect(EpochCounter.counted == 6, "not called in a second fit")


def same_seed(peer):
    """The same `random_state`: the same weights to the bit"""
    X, y = clouds()
    first, second = (peer.classifier(epochs=2, random_state=7).fit(X, y) for _ in range(2))
    expect(equal_weights(first, second), "weights differ")


def global_random_states(peer):
    """The random states of Python and NumPy are left alone"""
    X, y = clouds()
    before = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002 (global it is)
    peer.classifier(epochs=1, random_state=7).fit(X, y).predict(X)
    after = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    expect(after[0] == before[0], "Python's moved")
    expect(after[1] == before[1], "NumPy's moved")


def no_seed(peer):
    """`random_state=None`, after a fit with a seed: two fits differ"""
    X, y = clouds()
    peer.classifier(epochs=1, random_state=0).fit(X, y)
    first, second = (peer.classifier(epochs=1, random_state=None).fit(X, y) for _ in range(2))
    expect(not equal_weights(first, second), "the same weights")


def two_in_turn(peer):
    """Two estimators fitted in turn leave each other alone"""
    X, y = clouds()
    first = peer.classifier(epochs=2, random_state=1).fit(X, y)
    expected = answers(first, X)
    peer.classifier(epochs=2, random_state=2).fit(*clouds(3, seed=1))
    expect(np.array_equal(answers(first, X), expected), "the first answers otherwise")
    third = peer.classifier(epochs=2, random_state=1).fit(X, y)
    expect(equal_weights(first, third), "the second changed what the third learns")


def column_names(peer):
    """`feature_names_in_`, and wrong column names are told"""
    X, y = clouds()
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


def not_fitted(peer):
    """`NotFittedError` before fit"""
    X, _ = clouds()
    for estimator in (peer.classifier(), peer.regressor()):
        for method in ("predict", "predict_proba", "decision_function"):
            if not hasattr(estimator, method):
                continue
            try:
                getattr(estimator, method)(X)
            except NotFittedError:
                continue
            raise Differs(f"{method} answers")


def sparse(peer):
    """Sparse X is read as dense X is, or refused by an error that names it"""
    X, y = clouds()
    try:
        estimator = peer.classifier(epochs=2).fit(csr_matrix(X), y)
    except (TypeError, ValueError) as error:
        expect("sparse" in str(error).lower(), "an error that does not name it")
        return
    dense = peer.classifier(epochs=2).fit(X, y)
    expect(np.allclose(answers(estimator, csr_matrix(X)), answers(dense, X), atol=1e-4), "differs")


def short_weights(peer):
    """`sample_weight` of another length is refused"""
    X, y = clouds()
    expect_refused("it is", peer.classifier(epochs=1).fit, X, y, sample_weight=np.ones(len(y) - 1))


def negative_weights(peer):
    """Negative `sample_weight` is refused"""
    X, y = clouds()
    sample_weight = np.ones(len(y))
    sample_weight[0] = -1
    expect_refused("it is", peer.classifier(epochs=1).fit, X, y, sample_weight=sample_weight)


def continuous_targets(peer):
    """A classifier refuses continuous targets"""
    X, _ = clouds()
    expect_refused("they are", peer.classifier(epochs=1).fit, X, X[:, 0])


def word_targets(peer):
    """A regressor refuses words"""
    X, y = clouds()
    expect_refused("they are", peer.regressor(epochs=1).fit, X, words(y))


def changed_features(peer):
    """Another number of features at `predict` is refused"""
    X, _ = clouds()
    expect_refused("it is", fitted(peer).predict, X[:, :4])


LOAD = """
import sys

path, rows, out = sys.argv[1:]
{loader}
import numpy as np

X = np.load(rows)
method = getattr(estimator, "predict_proba", None) or estimator.decision_function
np.save(out, method(X))
"""


def new_process(peer):
    """Loads in a new process without the training script"""
    X, _ = clouds()
    with tempfile.TemporaryDirectory() as folder:
        path, rows, out = (Path(folder, name) for name in ("estimator", "X.npy", "answers.npy"))
        peer.save(fitted(peer), path)
        np.save(rows, X)
        run_python("-c", LOAD.format(loader=peer.loader), path, rows, out)
        expect(np.array_equal(np.load(out), answers(fitted(peer), X)), "other answers")


def own_checks(peer, every=1):
    """scikit-learn's own checks, classifier and regressor"""
    ran, excused, failed = 0, 0, []
    for estimator in peer.check_estimators():
        for number, (instance, check) in enumerate(estimator_checks_generator(estimator)):
            if number % every:
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


def memory(peer):
    """Memory: grows by no more than bare Keras does"""
    if not STATM.exists():
        raise NotRun("needs Linux")
    bare, own = measure_memory("bare"), measure_memory(peer.name)
    sizes = f"{own:.1f} MiB; bare Keras {bare:.1f}"
    expect(own <= bare * (1 + MEMORY_NOISE), sizes)
    return sizes


SCENARIOS = [
    clone_keeps_epochs,
    fit_leaves_parameters,
    grid_search_epochs,
    pictures,
    predict_proba,
    decision_function,
    string_labels,
    bool_labels,
    multilabel,
    regression_units,
    regression_outputs,
    zero_weights,
    class_weight_balanced,
    class_weight_dict,
    cross_validation,
    pipeline,
    column_transformer,
    named_columns,
    voting,
    stacking,
    calibrated,
    tuned_threshold,
    frozen,
    grid_search_processes,
    halving_search,
    pickled,
    joblib_file,
    callbacks,
    same_seed,
    global_random_states,
    no_seed,
    two_in_turn,
    column_names,
    not_fitted,
    sparse,
    short_weights,
    negative_weights,
    continuous_targets,
    word_targets,
    changed_features,
    new_process,
    own_checks,
    memory,
]
# Of the peers, --quick leaves out what starts processes; few checks would pass for all of them.
QUICK_OURS_ONLY = {"grid_search_processes", "new_process", "own_checks"}


def not_in_quick(peer):
    raise NotRun("--quick")


# === Memory, each in a process of its own ===


@functools.cache
def measure_memory(name):
    arguments = ("--memory", name, MEMORY_ROUNDS)
    return float(run_python(Path(__file__).resolve(), *arguments).split()[-1])


def resident_mib():
    pages = int(STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def grow(name, rounds):
    """Return by how many MiB the process grows from the 3rd to the last fit and predict."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 10)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    peer = None if name == "bare" else PEERS[name]()
    for number in range(rounds):
        if peer is None:
            model = dense_backbone((10,))
            model.add(keras.layers.Dense(2, activation="softmax"))
            rate = keras.optimizers.Adam(RATE)
            model.compile(rate, "sparse_categorical_crossentropy", jit_compile=False)
            model.fit(X, y, batch_size=BATCH, epochs=1, verbose=0)
            model.predict(X, verbose=0)
        else:
            peer.classifier(epochs=1, run_eagerly=False).fit(X, y).predict(X)
        gc.collect()
        if number == 2:
            before = resident_mib()
    return resident_mib() - before


# === Running ===


def describe(error):
    if isinstance(error, Differs):
        what = str(error)
    else:
        lines = [line for line in str(error).splitlines() if line.strip()]
        what = f"{type(error).__name__}: {lines[0].strip() if lines else ''}"
    what = re.sub(r"<(\w[^<>]*)>", r"\1", what).replace("|", "/").strip(" :.")  # as Markdown
    return what if len(what) <= 90 else what[:87].rstrip() + "..."


@contextlib.contextmanager
def silence():
    """Swallow what TensorFlow prints, and what processes that joblib starts print."""
    sys.stdout.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with open(os.devnull, "w") as nowhere:
        for number in kept:
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def measure(scenario, peer):
    """Return a cell, and the error that it is about."""
    try:
        with warnings.catch_warnings(), silence():
            warnings.simplefilter("ignore")
            what = scenario(peer)
        return ("yes" if what is None else f"yes ({what})"), None
    except NotRun as reason:
        return f"not run ({reason})", None
    except Exception as error:
        return f"no ({describe(error)})", error


def run_peer(name, scenarios, keep=lambda cells: None):
    """Measure scenarios in this process: a cell for each."""
    try:
        peer = PEERS[name]()
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        reason = "not installed" if missing else f"does not import: {describe(error)}"
        keep(cells := dict.fromkeys(scenarios, f"not run ({reason})"))
        return cells
    cells = {}
    for key, scenario in scenarios.items():
        since = time.monotonic()
        cells[key], error = measure(scenario, peer)
        print(f"{name}: {key}: {cells[key]}, {time.monotonic() - since:.1f} s", flush=True)
        for note in getattr(error, "__notes__", []):
            print(f"    {note}", flush=True)
        if error is not None and name == OURS:
            traceback.print_exception(error)
        keep(cells)
    return cells


def run_peer_apart(name, scenarios, options):
    """Measure scenarios in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cells.json")
        command = [sys.executable, __file__, "--peer", name, "--cells", path, *options]
        code = subprocess.run(command).returncode
        cells = json.loads(path.read_text()) if path.exists() else {}
    return {key: cells.get(key, f"not run (the process ended with {code})") for key in scenarios}


def with_version(name):
    try:
        return f"{name} {importlib.metadata.version(PEERS[name].package)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=PEERS, help="only this one")
    parser.add_argument("--only", default="", help="only scenarios whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="few checks, no memory")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keras.config.disable_interactive_logging()  # Keras's wrapper would show each prediction
    if arguments.memory:
        name, rounds = arguments.memory
        print(grow(name, int(rounds)))
        return 0

    started = time.monotonic()
    scenarios = {s.__name__: s for s in SCENARIOS if arguments.only in s.__doc__ + s.__name__}
    rows = {key: scenario.__doc__ for key, scenario in scenarios.items()}
    measures_memory = scenarios.pop("memory", None) is not None and not arguments.quick
    if arguments.quick:
        rows.pop("memory", None)
        if arguments.peer in (None, OURS) and "own_checks" in scenarios:
            scenarios["own_checks"] = functools.partial(own_checks, every=30)
        elif arguments.peer not in (None, OURS):
            scenarios.update((key, not_in_quick) for key in QUICK_OURS_ONLY & scenarios.keys())
    if arguments.cells:
        run_peer(
            arguments.peer, scenarios, lambda cells: arguments.cells.write_text(json.dumps(cells))
        )
        return 0

    options = ["--only", arguments.only, *(["--quick"] if arguments.quick else [])]
    table = {}
    for name in [arguments.peer] if arguments.peer else PEERS:
        if name == OURS:
            table[name] = run_peer(name, scenarios)
        else:  # what an earlier peer did to TensorFlow would change what this one shows
            table[name] = run_peer_apart(name, scenarios, options)
        if measures_memory:
            reasons = {cell for cell in table[name].values() if cell.startswith("not run")}
            if scenarios and set(table[name].values()) == reasons:  # nothing of it runs
                cell = reasons.pop()
            else:
                cell = measure(memory, PEERS[name])[0]
            print(f"{name}: memory: {cell}", flush=True)
            table[name]["memory"] = cell

    print(f"\n| scenario | {' | '.join(map(with_version, table))} |")
    print("| --- " * (len(table) + 1) + "|")
    for key, title in rows.items():
        print(f"| {title} | {' | '.join(cells[key] for cells in table.values())} |")
    if "scikeras" in table:
        print("\nscikeras: with the tags added by hand that scikit-learn asks for since 1.6.")
    print(f"\n{time.monotonic() - started:.0f} s")
    return int(not all(cell.startswith("yes") for cell in table.get(OURS, {}).values()))


if __name__ == "__main__":
    sys.exit(main())
