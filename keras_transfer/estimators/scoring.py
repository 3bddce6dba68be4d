"""scikit-learn's scorers on outputs that are already computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names

from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from keras_transfer.inputs.targets import ClassTargets, LabelTargets, NumberTargets, Targets

__all__ = ["DEFAULT_SCORING", "find_scorer", "output_score"]

# What scoring=None stands for, by task. Balanced accuracy is not defined for several labels.
DEFAULT_SCORING = {"multiclass": "balanced_accuracy", "multilabel": "f1_macro", "regression": "r2"}


def find_scorer(scoring: Any, task: str = "multiclass") -> Callable[..., float]:
    """Return scikit-learn's scorer for a ``scoring`` parameter.

    Parameters
    ----------
    scoring : str, callable or None
        A scikit-learn scorer or its name; None: the task's own (`DEFAULT_SCORING`).
    task : {"multiclass", "multilabel", "regression"}, default="multiclass"

    Returns
    -------
    callable
        ``scorer(estimator, X, y) -> float``.

    Raises
    ------
    UnknownNameError
    InvalidTypeError
    """
    scoring = DEFAULT_SCORING[task] if scoring is None else scoring
    if isinstance(scoring, str) and scoring not in get_scorer_names():
        raise UnknownNameError("scoring", scoring, get_scorer_names(), "scikit-learn's scorers")
    if not isinstance(scoring, str) and not callable(scoring):
        raise InvalidTypeError(
            f"scoring: expected a scikit-learn scorer, its name or None. Received: {scoring!r}."
        )
    return get_scorer(scoring)


def output_score(
    scoring: Any, targets: Targets
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """Turn a ``scoring`` parameter into a function of encoded targets and model outputs.

    Parameters
    ----------
    scoring : str, callable or None
        A scikit-learn scorer or its name.
    targets : Targets

    Returns
    -------
    callable
        ``score(targets, outputs, weights) -> float``, higher is better. Weights count where the
        scorer takes them.

    Raises
    ------
    UnknownNameError
    InvalidTypeError
    InvalidParameterError
        If it does not fit the targets, such as ``"f1"`` with more than two classes.
    """
    scorer = find_scorer(scoring, targets.task)
    answer, truth_of, (some_targets, some_outputs), words = _views(targets)

    def score(truth: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None) -> float:
        options = {} if weights is None or np.ptp(weights) == 0 else {"sample_weight": weights}
        nothing = np.empty((len(truth), 1))
        return float(scorer(answer(outputs), nothing, truth_of(truth), **options))

    def unweighted(truth: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None) -> float:
        return score(truth, outputs, None)

    with warnings.catch_warnings():  # now, and not after an epoch
        warnings.simplefilter("ignore")  # of metrics that find this too simple
        try:
            score(some_targets, some_outputs, None)
        except (ValueError, TypeError, AttributeError) as error:
            default = DEFAULT_SCORING[targets.task]
            raise InvalidParameterError(
                f"scoring: expected a score for {words}. Received: {scoring!r}: {error}. Choose "
                f"another, such as {default!r}."
            ) from error
        try:
            score(some_targets, some_outputs, np.linspace(1, 2, len(some_targets)))
        except (TypeError, ValueError):  # a score without weights, such as "max_error"
            return unweighted
    return score


def _views(targets: Targets) -> tuple[Any, Any, Any, str]:
    """Return what answers for outputs, what scorers call the truth, an example, and the words."""
    if isinstance(targets, NumberTargets):
        numbers = np.tile([[0.25], [1.5], [2.75]], targets.n_numbers)  # no classes
        return (
            lambda outputs: _Numbers(targets.decode(outputs)),
            targets.decode,
            (numbers, numbers),
            "numbers",
        )
    if isinstance(targets, LabelTargets):
        columns = targets.n_labels
        return (
            lambda outputs: _Probabilities(
                np.tile(np.arange(2), (columns, 1)), outputs, targets.decode
            ),
            lambda truth: truth.astype(int),
            (np.tile([[0], [1]], columns), np.full((2, columns), 0.4)),
            f"an indicator matrix of {columns} labels",
        )
    # scikit-learn's metrics know text and whole numbers; tuples, dates or fractions they take for
    # something else, and their numbers do as well.
    assert isinstance(targets, ClassTargets)
    classes = targets.classes
    names = np.arange(len(classes))
    if classes.dtype.kind in "biuU":
        names = classes
    elif all(isinstance(label, str) for label in classes.tolist()):
        names = classes.astype(str)
    n_classes = len(classes)
    return (
        lambda outputs: _Probabilities(names, outputs, ClassTargets(names).decode),
        lambda truth: names[truth],
        (np.arange(n_classes), np.full((n_classes, n_classes), 1 / n_classes)),
        f"classes {classes.tolist()}",
    )


class _Probabilities(ClassifierMixin, BaseEstimator):
    """A fitted classifier that answers with what it was given."""

    def __init__(self, classes: Any, probabilities: np.ndarray, decode: Any):
        self.classes_ = classes
        self._probabilities = probabilities
        self._decode = decode

    def predict(self, X: Any) -> np.ndarray:
        return self._decode(self._probabilities)

    def predict_proba(self, X: Any) -> np.ndarray:
        return self._probabilities

    def __sklearn_is_fitted__(self) -> bool:
        return True


class _Numbers(RegressorMixin, BaseEstimator):
    """A fitted regressor that answers with what it was given."""

    def __init__(self, numbers: np.ndarray):
        self._numbers = numbers

    def predict(self, X: Any) -> np.ndarray:
        return self._numbers

    def __sklearn_is_fitted__(self) -> bool:
        return True
