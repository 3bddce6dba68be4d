"""scikit-learn's scorers on outputs that are already computed."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, make_scorer, matthews_corrcoef

from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from keras_transfer.estimators.scoring import classification_score

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
    score = classification_score(scoring, names)
    assert score(targets, clf.predict_proba(X)) == pytest.approx(expected)


@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision", "f1", "precision"])
def test_scorers_of_two_classes(scoring):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    targets = (X[:, 0] + rng.normal(size=60) > 0).astype(int)
    clf = LogisticRegression().fit(X, targets)
    expected = get_scorer(scoring)(clf, X, targets)
    score = classification_score(scoring, np.array([0, 1]))
    assert score(targets, clf.predict_proba(X)) == pytest.approx(expected)


def test_none_is_balanced_accuracy():
    probabilities = np.array([[0.9, 0.1]] * 4)
    assert classification_score(None, np.array(["a", "b"]))([0, 0, 0, 1], probabilities) == 0.5


def test_refuses():
    with pytest.raises(UnknownNameError, match="Did you mean 'balanced_accuracy'"):
        classification_score("balanced_acuracy", np.array([0, 1]))
    with pytest.raises(InvalidTypeError, match="Received: 3"):
        classification_score(3, np.array([0, 1]))
    with pytest.raises(InvalidParameterError, match=r"Received: 'f1': .*binary"):
        classification_score("f1", np.array([0, 1, 2]))
