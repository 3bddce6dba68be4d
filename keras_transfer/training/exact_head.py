"""The exact head: a linear head on features that do not change, solved as a convex problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import DataError, InvalidParameterError
from keras_transfer.training.directions import LARGEST, Directions
from keras_transfer.training.newton import (
    MAX_ITERATIONS,
    Losses,
    Solution,
    minimise,
    warn_unfinished,
)

__all__ = ["HeadSolution", "leave_one_out_loss", "solve_head"]

# Penalties of the ridge that are tried, in units of the features' mean variance along a direction.
_PATH = np.geomspace(1e-4, 1e4, 17)
_TEMPERATURES = np.geomspace(0.02, 4, 24)
# The curvature of the logistic loss at its optimum, against the 1 of the squared error: by so much
# smaller a penalty weighs the same. Of 0.003 to 1, on 26 sets of 5 to 50 labels a class from emoji
# and digits that are in no benchmark, wine and cancer, this was best: 0.004 of accuracy below the
# penalty that is best on the test data.
_CURVATURE = 0.1
# And at least so much, in the same units as the path: classes that few examples part are parted by
# any ridge, under which a logistic head has no bounds. On these sets it costs no accuracy (0.000 to
# 0.001), and takes 0.1 to 0.6 off the log-loss at 5 to 20 labels a class.
_LEAST = 0.1
# What stands for the logit of what never occurs.
_NEVER = 50.0


@dataclass(frozen=True)
class HeadSolution:
    """A linear head: ``features @ kernel + bias``.

    Attributes
    ----------
    kernel : numpy.ndarray of shape (n_features, n_outputs)
        Float32, for features as they are.
    bias : numpy.ndarray of shape (n_outputs,)
        Float32.
    penalty : float
        The one given, or the one chosen.
    loss : float
        Weighted mean over the examples, without the penalty: in nats; of numbers the squared
        error. Averaged over labels and numbers.
    iterations : int
        0 where there is a closed form.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    loss: float
    iterations: int


def solve_head(
    features: Any,
    targets: Any,
    task: str,
    *,
    n_outputs: int,
    weights: Any = None,
    penalty: float | None = None,
) -> HeadSolution:
    """Solve a linear head for a target task.

    The optimum of scikit-learn's ``LogisticRegression(C=1 / penalty)`` or ``Ridge(alpha=penalty)``
    on features that are centred and divided by their standard deviation (of more features than
    examples by the root of their variance plus a tenth of the median variance); the scaling is
    folded into what is returned. The problem is turned into the basis of the features' own
    directions, of which there are at most as many as examples; there the ridge has a closed form
    for all penalties [1]_, and makes up most of the Hessian of the logistic loss, which Newton's
    method minimises [2]_.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        What the head reads. Finite.
    targets : array-like of shape (n,) or (n, n_outputs)
        Class indices; rows of 0 and 1; or numbers.
    task : {"multiclass", "multilabel", "regression"}
    n_outputs : int
        Number of classes, labels or numbers.
    weights : array-like of shape (n,), optional
        How much each example counts, at least 0. They are not brought to a mean of 1: doubling all
        is halving the penalty.
    penalty : float, optional
        On half the sum of the squared weights (of numbers: on all of it), at least 0. By default
        that of the ridge under which each example, left out in turn, is foretold best.

    Returns
    -------
    HeadSolution
        Of a class without examples the kernel is 0 and the probability below 1e-20; of a label
        that all examples or none have, the kernel is 0 and the probability that of its frequency.

    Raises
    ------
    DataError
        If features are not finite, or lengths differ.
    InvalidParameterError
        If the penalty is negative, or no example counts.

    References
    ----------
    .. [1] Rifkin and Lippert, "Notes on Regularized Least Squares" (2007, MIT-CSAIL-TR-2007-025),
       for the path of penalties and the errors of leaving one out.
    .. [2] Lin, Weng and Keerthi, "Trust Region Newton Method for Large-Scale Logistic Regression"
       (JMLR 9, 2008), for Newton's method with conjugate gradients on this loss.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(60, 8))
    >>> targets = (features[:, 0] > 0).astype(int)
    >>> head = solve_head(features, targets, "multiclass", n_outputs=2, penalty=1.0)
    >>> float(np.mean((features @ head.kernel + head.bias).argmax(axis=1) == targets))
    1.0
    """
    features, targets, weights = _check(features, targets, task, n_outputs, weights, penalty)
    rows = np.flatnonzero(weights)
    if len(rows) < len(weights):  # as if they were not there
        features, targets, weights = features[rows], targets[rows], weights[rows]
    if penalty is None and len(features) > LARGEST:
        # Drawn by a fixed seed: the same data get the same penalty. It does not grow with their
        # number: it says how large weights are to be expected.
        few = np.sort(np.random.default_rng(0).permutation(len(features))[:LARGEST])
        chosen = Directions.of(features[few], weights[few])
        penalty, _ = _leave_out(chosen, _codes(task, targets[few], n_outputs), task)
    basis = Directions.of(features, weights)
    if penalty is None:
        penalty, _ = _leave_out(basis, _codes(task, targets, n_outputs), task)
    solve = {"multiclass": _solve_classes, "multilabel": _solve_labels, "regression": _solve_ridge}
    inner, bias, loss, iterations = solve[task](basis, targets, n_outputs, float(penalty))
    kernel = basis.unfold(inner)
    return HeadSolution(
        kernel.astype(np.float32),
        (bias - basis.mean @ kernel).astype(np.float32),
        float(penalty),
        float(loss),
        iterations,
    )


def _check(
    features: Any, targets: Any, task: str, n_outputs: int, weights: Any, penalty: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    features = np.asarray(features)
    targets = np.asarray(targets)
    weights = np.ones(len(features)) if weights is None else np.asarray(weights, np.float64)
    if features.ndim != 2 or not len(features) or not len(features) == len(targets) == len(weights):
        raise DataError(
            f"features: expected shape (n, n_features) with a target and a weight for each of at "
            f"least one row. Received: {features.shape}, {targets.shape} and {weights.shape}."
        )
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise DataError(
            f"features: expected finite numbers. Received: NaN or infinity in "
            f"{np.count_nonzero(~finite)} of {len(finite)} rows, the first: row "
            f"{finite.argmin()}. Look for extreme values in X."
        )
    if penalty is not None and not 0 <= penalty < np.inf:
        raise InvalidParameterError(
            f"penalty: expected a number of at least 0. Received: {penalty!r}."
        )
    weights = weights.reshape(-1)
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
        raise InvalidParameterError(
            f"weights: expected finite numbers of at least 0, and one above it. Received: "
            f"{weights.min()!r} to {weights.max()!r}."
        )
    if task == "multiclass":
        targets = targets.reshape(len(targets)).astype(np.int64)
        if targets.min() < 0 or targets.max() >= n_outputs:
            raise DataError(
                f"targets: expected class indices below {n_outputs}. Received: {targets.min()} to "
                f"{targets.max()}."
            )
        return features, targets, weights
    targets = targets.reshape(len(targets), -1).astype(np.float64)
    if targets.shape[1] != n_outputs:
        raise DataError(f"targets: expected {n_outputs} columns. Received: shape {targets.shape}.")
    return features, targets, weights


# === The penalty ===


def leave_one_out_loss(
    features: Any, targets: Any, task: str, *, n_outputs: int, weights: Any = None
) -> float:
    """Say how well a ridge on these features foretells each example from the others.

    A hundred times as fast as solving a head for each fold, and nearly as good at telling which
    features are better.

    Parameters
    ----------
    features, targets, task, n_outputs, weights
        As for `solve_head`.

    Returns
    -------
    float
        At the best penalty and temperature, the mean over the examples: in nats; of numbers the
        squared error. Infinite where there is nothing to tell by.
    """
    features, targets, weights = _check(features, targets, task, n_outputs, weights, None)
    rows = np.flatnonzero(weights)
    basis = Directions(features[rows], weights[rows])
    return float(_leave_out(basis, _codes(task, targets[rows], n_outputs), task)[1])


def _codes(task: str, targets: np.ndarray, n_outputs: int) -> np.ndarray:
    """Return what a ridge foretells: one column for each class, label or number."""
    return np.eye(n_outputs)[targets] if task == "multiclass" else targets


def _leave_out(basis: Directions, codes: np.ndarray, task: str) -> tuple[float, float]:
    """Choose the penalty under which each example, left out, is foretold best by a ridge.

    Returns it, and the mean loss of what is foretold; infinite where nothing is.
    """
    weights = basis.weights
    total = weights.sum()
    if not basis.is_decomposed or not len(basis.variances):
        return 1.0, np.inf
    root = np.sqrt(weights)[:, np.newaxis]
    directions = basis.rows * root / np.sqrt(basis.variances)  # orthonormal
    centred = (codes - weights @ codes / total) * root
    along = directions.T @ centred
    unit = basis.variances.sum() / len(weights)
    squares = np.square(directions)
    best, chosen, place = np.inf, 1.0, len(_TEMPERATURES) // 2
    for relative in _PATH:
        penalty = relative * unit
        kept = basis.variances / (basis.variances + penalty)
        fitted = directions @ (along * kept[:, np.newaxis])
        # The intercept takes its own share of each example.
        left = 1 - squares @ kept - weights / total
        if left.min() < 1e-9:
            continue  # an example alone decides its own answer: nothing is foretold
        errors = (centred - fitted) / left[:, np.newaxis] / root
        if task == "regression":
            loss = float(weights @ np.square(errors).sum(axis=1))
        else:
            loss, place = _log_loss(codes - errors, codes, weights, task, place)
        if loss < best * (1 - 1e-6):
            best, chosen = loss, penalty
    if task != "regression":
        chosen = max(chosen, _LEAST * unit) * _CURVATURE
    return float(chosen), best / total


def _log_loss(
    scores: np.ndarray, codes: np.ndarray, weights: np.ndarray, task: str, place: int
) -> tuple[float, int]:
    """Return the loss of a ridge's answers as logits, at the temperature that suits them best.

    That is looked for from a place among the temperatures on, and returned too: the loss has one
    valley, and that of the next penalty lies near.
    """

    def loss(place: int) -> float:
        temperature = _TEMPERATURES[place]
        if task == "multilabel":
            margins = (2 * codes - 1) * (scores - 0.5) / temperature
            return float(weights @ np.logaddexp(0, -margins).sum(axis=1))
        logits = scores / temperature
        logits -= logits.max(axis=1, keepdims=True)
        return float(weights @ (np.log(np.exp(logits).sum(axis=1)) - (logits * codes).sum(axis=1)))

    best = loss(place)
    for step in (1, -1):
        while 0 <= place + step < len(_TEMPERATURES) and (found := loss(place + step)) < best:
            best, place = found, place + step
    return best, place


# === The solutions, in the coordinates ===


def _solve_ridge(
    basis: Directions, targets: np.ndarray, n_outputs: int, penalty: float
) -> Solution:
    weights = basis.weights
    mean = weights @ targets / weights.sum()
    pulled = basis.rows.T @ (weights[:, np.newaxis] * (targets - mean))
    iterations = 0
    if basis.is_decomposed:
        # What a penalty of 0 leaves open stays 0: rounding is all that there is along it.
        inner = pulled / (basis.variances + penalty)[:, np.newaxis]
    else:
        inner, iterations = _solve_large_ridge(basis, pulled, penalty)
    errors = targets - mean - basis.rows @ inner
    return (
        inner,
        mean,
        float(np.average(np.square(errors).mean(axis=1), weights=weights)),
        iterations,
    )


def _solve_large_ridge(
    basis: Directions, pulled: np.ndarray, penalty: float
) -> tuple[np.ndarray, int]:
    """Solve the normal equations without decomposing them, by conjugate gradients."""
    from scipy.sparse.linalg import LinearOperator, cg

    rows, weights = basis.rows, basis.weights
    size = rows.shape[1]
    scale = LinearOperator((size, size), lambda v: v / (basis.variances + penalty + 1e-12))
    product = LinearOperator((size, size), lambda v: rows.T @ (weights * (rows @ v)) + penalty * v)
    columns, iterations = [], 0

    def count(_: Any) -> None:
        nonlocal iterations
        iterations += 1

    for column in pulled.T:
        solved, problem = cg(
            product, column, rtol=1e-10, maxiter=20 * MAX_ITERATIONS, M=scale, callback=count
        )
        if problem:
            warn_unfinished(penalty, "the residual of a column is above 1e-10 of it")
        columns.append(solved)
    return np.stack(columns, axis=1), iterations


def _solve_classes(
    basis: Directions, targets: np.ndarray, n_outputs: int, penalty: float
) -> Solution:
    present = np.unique(targets)
    kernel = np.zeros((basis.rows.shape[1], n_outputs))
    bias = np.full(n_outputs, -_NEVER)
    if len(present) == 1:
        bias[present] = 0.0
        return kernel, bias, 0.0, 0
    places = np.searchsorted(present, targets)
    if len(present) == 2:
        inner, offset, loss, iterations = _solve_labels(
            basis, places[:, np.newaxis].astype(np.float64), 1, penalty
        )
        # Halves of opposite sign: their difference is the one logit, their sum 0.
        inner, offset = inner * [-0.5, 0.5], offset * [-0.5, 0.5]
    else:
        weights, rows = basis.weights, np.arange(len(places))

        def loss_of(logits: np.ndarray) -> Losses:
            logits = logits - logits.max(axis=1, keepdims=True)
            likelihood = np.exp(logits)
            sums = likelihood.sum(axis=1, keepdims=True)
            loss = float(weights @ (np.log(sums[:, 0]) - logits[rows, places]))
            likelihood /= sums
            slope = likelihood.copy()
            slope[rows, places] -= 1

            def curve(change: np.ndarray) -> np.ndarray:
                bent = likelihood * change
                bent -= likelihood * bent.sum(axis=1, keepdims=True)
                return bent * weights[:, np.newaxis]

            spread = likelihood * (1 - likelihood)
            return loss, slope * weights[:, np.newaxis], curve, spread * weights[:, np.newaxis]

        share = np.bincount(places, weights) / weights.sum()
        inner, offset, loss, iterations = minimise(basis, loss_of, np.log(share), penalty)
        offset = offset - offset.mean()
    kernel[:, present], bias[present] = inner, offset
    return kernel, bias, loss, iterations


def _solve_labels(
    basis: Directions, targets: np.ndarray, n_outputs: int, penalty: float
) -> Solution:
    weights = basis.weights
    total = weights.sum()
    share = weights @ targets / total
    # Of a label that all have or none, the frequency as if half an example more had each.
    smoothed = (share * total + 0.5) / (total + 1)
    kernel = np.zeros((basis.rows.shape[1], n_outputs))
    bias = np.log(smoothed / (1 - smoothed))
    varying = np.flatnonzero((targets != targets[:1]).any(axis=0))
    iterations = 0
    if len(varying):
        signs = 2 * targets[:, varying] - 1

        def loss_of(logits: np.ndarray) -> Losses:
            margins = signs * logits
            losses = np.logaddexp(0, -margins)
            wrong = np.exp(-margins - losses)  # the probability of the other answer
            spread = wrong * (1 - wrong) * weights[:, np.newaxis]
            slope = -signs * wrong * weights[:, np.newaxis]
            return (
                float(weights @ losses.sum(axis=1)),
                slope,
                lambda change: spread * change,
                spread,
            )

        start = np.log(share[varying] / (1 - share[varying]))
        inner, offset, _, iterations = minimise(basis, loss_of, start, penalty)
        kernel[:, varying], bias[varying] = inner, offset
    margins = (2 * targets - 1) * (basis.rows @ kernel + bias)
    losses = np.logaddexp(0, -margins).mean(axis=1)
    return kernel, bias, float(np.average(losses, weights=weights)), iterations
