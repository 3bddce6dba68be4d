"""scikit-learn's scorers on outputs that are already computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer, get_scorer_names

from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError

__all__ = ["classification_score", "find_scorer"]


def find_scorer(scoring: Any, default: str = "balanced_accuracy") -> Callable[..., float]:
    """Return scikit-learn's scorer for a ``scoring`` parameter.

    Parameters
    ----------
    scoring : str, callable or None
        A scikit-learn scorer or its name.
    default : str
        What None stands for.

    Returns
    -------
    callable
        ``scorer(estimator, X, y) -> float``.

    Raises
    ------
    UnknownNameError
    InvalidTypeError
    """
    scoring = default if scoring is None else scoring
    if isinstance(scoring, str) and scoring not in get_scorer_names():
        raise UnknownNameError("scoring", scoring, get_scorer_names(), "scikit-learn's scorers")
    if not isinstance(scoring, str) and not callable(scoring):
        raise InvalidTypeError(
            f"scoring: expected a scikit-learn scorer, its name or None. Received: {scoring!r}."
        )
    return get_scorer(scoring)


def classification_score(
    scoring: Any, classes: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], float]:
    """Turn a ``scoring`` parameter into a function of class indices and probabilities.

    Parameters
    ----------
    scoring : str, callable or None
        A scikit-learn scorer or its name.
    classes : numpy.ndarray of shape (n_classes,)

    Returns
    -------
    callable
        ``score(targets, probabilities) -> float``, higher is better.

    Raises
    ------
    UnknownNameError
    InvalidTypeError
    InvalidParameterError
        If it does not fit the classes, such as ``"f1"`` with more than two.
    """
    scorer = find_scorer(scoring)
    # scikit-learn's metrics know text and whole numbers; tuples, dates or fractions they take for
    # something else, and their numbers do as well.
    names = np.arange(len(classes))
    if classes.dtype.kind in "biuU":
        names = classes
    elif all(isinstance(label, str) for label in classes.tolist()):
        names = classes.astype(str)

    def score(targets: np.ndarray, probabilities: np.ndarray) -> float:
        answers = _Answers(names, probabilities)
        return float(scorer(answers, np.empty((len(targets), 1)), names[targets]))

    n_classes = len(classes)
    try:  # now, and not after an epoch
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metrics that find this too simple
            score(np.arange(n_classes), np.full((n_classes, n_classes), 1 / n_classes))
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidParameterError(
            f"scoring: expected a score for classes {classes.tolist()}. Received: {scoring!r}: "
            f"{error}. Choose another, such as 'balanced_accuracy'."
        ) from error
    return score


class _Answers(ClassifierMixin, BaseEstimator):
    """A fitted classifier that answers with what it was given."""

    def __init__(self, classes: np.ndarray, probabilities: np.ndarray):
        self.classes_ = classes
        self._probabilities = probabilities

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self._probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        return self._probabilities

    def __sklearn_is_fitted__(self) -> bool:
        return True
