"""scikit-learn's scorers on outputs that are already computed."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer, make_scorer, matthews_corrcoef
from sklearn.multiclass import OneVsRestClassifier

from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from keras_transfer.estimators.scoring import output_score
from keras_transfer.inputs.targets import ClassTargets, LabelTargets, NumberTargets

SCORERS = [
    "accuracy",
    "balanced_accuracy",
    "neg_log_loss",
    "roc_auc_ovr",
    "roc_auc_ovo_weighted",
    "top_k_accuracy",
    "f1_macro",
    "neg_brier_score",
    make_scorer(matthews_corrcoef),
]


@pytest.mark.parametrize("scoring", SCORERS, ids=str)
@pytest.mark.parametrize("classes", [["a", "b", "c"], [3, 1, 2]])
def test_equals_the_scorer_on_an_estimator(scoring, classes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    targets = rng.integers(0, 3, 60)
    names = np.sort(np.array(classes))
    clf = LogisticRegression().fit(X, names[targets])
    expected = get_scorer(scoring)(clf, X, names[targets])
    score = output_score(scoring, ClassTargets(names))
    assert score(targets, clf.predict_proba(X), None) == pytest.approx(expected)


@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision", "f1", "precision"])
def test_scorers_of_two_classes(scoring):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    targets = (X[:, 0] + rng.normal(size=60) > 0).astype(int)
    clf = LogisticRegression().fit(X, targets)
    expected = get_scorer(scoring)(clf, X, targets)
    score = output_score(scoring, ClassTargets(np.array([0, 1])))
    assert score(targets, clf.predict_proba(X), None) == pytest.approx(expected)


def test_none_is_balanced_accuracy():
    probabilities = np.array([[0.9, 0.1]] * 4)
    score = output_score(None, ClassTargets(np.array(["a", "b"])))
    assert score(np.array([0, 0, 0, 1]), probabilities, None) == 0.5


def test_refuses():
    with pytest.raises(UnknownNameError, match="Did you mean 'balanced_accuracy'"):
        output_score("balanced_acuracy", ClassTargets(np.array([0, 1])))
    with pytest.raises(InvalidTypeError, match="Received: 3"):
        output_score(3, ClassTargets(np.array([0, 1])))
    with pytest.raises(InvalidParameterError, match=r"Received: 'f1': .*binary"):
        output_score("f1", ClassTargets(np.array([0, 1, 2])))


# === Labels, numbers and weights ===


@pytest.mark.parametrize(
    "scoring", [None, "roc_auc", "average_precision", "f1_samples", "accuracy"]
)
@pytest.mark.parametrize("n_labels", [2, 3])
def test_scorers_of_labels(scoring, n_labels):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    Y = (X[:, :n_labels] + rng.normal(size=(60, n_labels)) > 0).astype(int)
    clf = OneVsRestClassifier(LogisticRegression()).fit(X, Y)
    expected = get_scorer(scoring or "f1_macro")(clf, X, Y)
    score = output_score(scoring, LabelTargets(n_labels))
    assert score(Y.astype("float32"), clf.predict_proba(X), None) == pytest.approx(expected)


@pytest.mark.parametrize("scoring", [None, "r2", "neg_mean_absolute_error", "neg_max_error"])
@pytest.mark.parametrize("is_column", [False, True])
def test_scorers_of_numbers(scoring, is_column):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    y = X[:, :1] + rng.normal(size=(60, 1))
    model = LinearRegression().fit(X, y)
    expected = get_scorer(scoring or "r2")(model, X, y)
    targets = NumberTargets(1, is_column, (0.0,), (1.0,))
    assert output_score(scoring, targets)(y, model.predict(X), None) == pytest.approx(expected)


def test_weights_count():
    rng = np.random.default_rng(0)
    truth, weights = rng.integers(0, 3, 50), rng.integers(0, 4, 50)
    probabilities = rng.dirichlet(np.ones(3), 50)
    for scoring in ("accuracy", "neg_log_loss", "balanced_accuracy"):
        score = output_score(scoring, ClassTargets(np.arange(3)))
        rows = np.repeat(np.arange(50), weights)
        expected = score(truth[rows], probabilities[rows], None)
        assert score(truth, probabilities, weights) == pytest.approx(expected)


@pytest.mark.parametrize("scoring", ["roc_auc_ovo", make_scorer(lambda y, p: 0.5)], ids=str)
def test_a_score_without_weights_goes_without(scoring):
    score = output_score(scoring, ClassTargets(np.arange(3)))
    truth, weights = np.array([0, 1, 2, 0]), np.array([1.0, 2, 3, 4])
    probabilities = np.full((4, 3), 1 / 3)
    assert score(truth, probabilities, weights) == score(truth, probabilities, None)


def test_refuses_scores_of_another_task():
    with pytest.raises(InvalidParameterError, match=r"for numbers.*'accuracy'.*such as 'r2'"):
        output_score("accuracy", NumberTargets(1, False, (0.5,), (2.0,)))
    with pytest.raises(InvalidParameterError, match=r"indicator matrix of 2 labels.*'f1_macro'"):
        output_score("balanced_accuracy", LabelTargets(2))
