"""The exact head: a linear head on features that do not change, solved as a convex problem."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import DataError, InvalidParameterError, warn

__all__ = ["HeadSolution", "solve_head"]

# === Limits ===

# Beyond, the decomposition would take longer than it saves: a subset of rows tells the penalty.
_LARGEST = 3000
# Decompositions that are kept: a search over penalties asks for one again, fold by fold.
_KEPT, _KEPT_BYTES = 6, 1 << 28
# The loss is solved to so much of itself, or of one unit where it is less.
_GAP = 1e-8
_MAX_ITERATIONS = 100
# Steps of conjugate gradients for one of Newton's, and how far they bring its squared error down.
_MAX_INNER, _ROUGHLY = 200, 1e-2

# === The path of penalties ===

# Penalties of the ridge that are tried, in units of the features' mean variance along a direction.
_PATH = np.geomspace(1e-4, 1e4, 17)
_TEMPERATURES = np.geomspace(0.02, 4, 24)
# The curvature of the logistic loss at its optimum, against the 1 of the squared error: by so much
# smaller a penalty weighs the same. Of 0.003 to 1, on 26 sets of 5 to 50 labels a class from emoji
# and digits that are in no benchmark, wine and cancer, this was best: 0.004 of accuracy below the
# penalty that is best on the test data.
_CURVATURE = 0.1
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
    on features that a ``StandardScaler`` brought to variance 1; the scaling is folded into what is
    returned. The problem is turned into the basis of the features' own directions, of which there
    are at most as many as examples; there the ridge has a closed form for all penalties [1]_, and
    makes up most of the Hessian of the logistic loss, which Newton's method minimises [2]_.

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
    if penalty is None and len(features) > _LARGEST:
        # Drawn by a fixed seed: the same data get the same penalty. It does not grow with their
        # number: it says how large weights are to be expected.
        few = np.sort(np.random.default_rng(0).permutation(len(features))[:_LARGEST])
        chosen = _Basis.of(features[few], weights[few])
        penalty = _choose_penalty(chosen, _codes(task, targets[few], n_outputs), task)
    basis = _Basis.of(features, weights)
    if penalty is None:
        penalty = _choose_penalty(basis, _codes(task, targets, n_outputs), task)
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


# === The features' own directions ===


class _Basis:
    """Standardised features in coordinates along their own directions.

    Attributes
    ----------
    mean : numpy.ndarray of shape (n_features,)
    weights : numpy.ndarray of shape (n,)
    rows : numpy.ndarray of shape (n, rank)
        Coordinates of each example, float64; their weighted mean is 0.
    variances : numpy.ndarray of shape (rank,)
        The weighted sum of squares along each direction: ``rows.T @ (weights * rows)`` is diagonal,
        but where there are too many of both to decompose.
    is_decomposed : bool
        Whether that is so.
    """

    def __init__(self, features: np.ndarray, weights: np.ndarray):
        standard = features.astype(np.float64)
        self.weights = weights
        total = weights.sum()
        self.mean = weights @ standard / total
        standard -= self.mean
        variance = weights @ np.square(standard) / total
        # What differs by rounding alone is constant: scikit-learn's own bound.
        bound = len(features) * np.finfo(np.float64).eps
        constant = variance <= bound * variance + np.square(bound * self.mean)
        self._scale = np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))
        standard /= self._scale
        root = np.sqrt(weights)[:, np.newaxis]
        n, d = standard.shape
        self.is_decomposed = min(n, d) <= _LARGEST
        if not self.is_decomposed:
            self.rows = standard
            self._turn: np.ndarray | None = None
            self.variances = (root[:, 0] ** 2) @ np.square(standard)
            return
        if n <= d:
            weighted = standard * root
            values, vectors = np.linalg.eigh(weighted @ weighted.T)
            kept = values > values[-1] * 1e-13 if values[-1] > 0 else np.zeros(n, bool)
            self.variances, vectors = values[kept], vectors[:, kept]
            lengths = np.sqrt(self.variances)
            self.rows = vectors * lengths / root
            self._turn = weighted.T @ (vectors / lengths)
        else:
            weighted = standard * root
            values, vectors = np.linalg.eigh(weighted.T @ weighted)
            kept = values > values[-1] * 1e-13 if values[-1] > 0 else np.zeros(d, bool)
            self.variances, self._turn = values[kept], vectors[:, kept]
            self.rows = standard @ self._turn

    @classmethod
    def of(cls, features: np.ndarray, weights: np.ndarray) -> _Basis:
        """Return the basis of features, made once."""
        digest = hashlib.blake2b(np.ascontiguousarray(features).data, digest_size=20)
        digest.update(f"{features.shape} {features.dtype}".encode())
        digest.update(np.ascontiguousarray(weights).data)
        key = digest.digest()
        with _lock:
            if key in _bases:
                _bases.move_to_end(key)
                return _bases[key]
        basis = cls(features, weights)
        with _lock:
            _bases[key] = basis
            while len(_bases) > _KEPT or sum(map(_Basis.size, _bases.values())) > _KEPT_BYTES:
                _bases.popitem(last=False)
        return basis

    def size(self) -> int:
        """Return how many bytes it takes to keep."""
        return self.rows.nbytes + (0 if self._turn is None else self._turn.nbytes)

    def unfold(self, inner: np.ndarray) -> np.ndarray:
        """Turn weights of the coordinates into a kernel for features as they are."""
        kernel = inner if self._turn is None else self._turn @ inner
        return kernel / self._scale[:, np.newaxis]


_bases: OrderedDict[bytes, _Basis] = OrderedDict()
_lock = threading.Lock()


# === The penalty ===


def _codes(task: str, targets: np.ndarray, n_outputs: int) -> np.ndarray:
    """Return what a ridge foretells: one column for each class, label or number."""
    return np.eye(n_outputs)[targets] if task == "multiclass" else targets


def _choose_penalty(basis: _Basis, codes: np.ndarray, task: str) -> float:
    """Choose the penalty under which each example, left out, is foretold best by a ridge."""
    weights = basis.weights
    total = weights.sum()
    if not basis.is_decomposed or not len(basis.variances):
        return 1.0
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
    return float(chosen if task == "regression" else chosen * _CURVATURE)


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

# Kernel and bias for the coordinates, the mean loss, and how many iterations it took.
_Solution = tuple[np.ndarray, np.ndarray, float, int]
# The loss, its gradient by the logits, the product of its Hessian there with a change of the
# logits, and the diagonal of that Hessian.
_Losses = tuple[float, np.ndarray, Callable[[np.ndarray], np.ndarray], np.ndarray]
_Loss = Callable[[np.ndarray], _Losses]


def _solve_ridge(basis: _Basis, targets: np.ndarray, n_outputs: int, penalty: float) -> _Solution:
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


def _solve_large_ridge(basis: _Basis, pulled: np.ndarray, penalty: float) -> tuple[np.ndarray, int]:
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
            product, column, rtol=1e-10, maxiter=20 * _MAX_ITERATIONS, M=scale, callback=count
        )
        if problem:
            _warn_unfinished(penalty, "the residual of a column is above 1e-10 of it")
        columns.append(solved)
    return np.stack(columns, axis=1), iterations


def _solve_classes(basis: _Basis, targets: np.ndarray, n_outputs: int, penalty: float) -> _Solution:
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

        def loss_of(logits: np.ndarray) -> _Losses:
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
        inner, offset, loss, iterations = _minimise(basis, loss_of, np.log(share), penalty)
        offset = offset - offset.mean()
    kernel[:, present], bias[present] = inner, offset
    return kernel, bias, loss, iterations


def _solve_labels(basis: _Basis, targets: np.ndarray, n_outputs: int, penalty: float) -> _Solution:
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

        def loss_of(logits: np.ndarray) -> _Losses:
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
        inner, offset, _, iterations = _minimise(basis, loss_of, start, penalty)
        kernel[:, varying], bias[varying] = inner, offset
    margins = (2 * targets - 1) * (basis.rows @ kernel + bias)
    losses = np.logaddexp(0, -margins).mean(axis=1)
    return kernel, bias, float(np.average(losses, weights=weights)), iterations


def _minimise(basis: _Basis, loss_of: _Loss, start: np.ndarray, penalty: float) -> _Solution:
    """Minimise a convex loss of the logits plus the penalty, by Newton's method.

    Each step is solved by conjugate gradients, preconditioned with the Hessian's own diagonal,
    which in the coordinates along the features' directions is most of it.
    """
    rows, total = basis.rows, basis.weights.sum()
    # With a penalty of 0 the answers of separable classes grow without end: they stop here.
    least = max(penalty, 1e-9 * total)
    inner, offset = np.zeros((rows.shape[1], len(start))), start.astype(np.float64)
    logits = np.broadcast_to(offset, (len(rows), len(start)))
    loss, slope, curve, diagonal = loss_of(logits)
    for iteration in range(_MAX_ITERATIONS):
        by_inner = rows.T @ slope + least * inner
        by_offset = slope.sum(axis=0)
        whole = loss + least / 2 * float(np.square(inner).sum())
        scale = _squared(rows, diagonal) + least, diagonal.sum(axis=0) + 1e-9 * total
        size = (np.square(by_inner) / least).sum() + (np.square(by_offset) / scale[1]).sum()
        # A loss whose curvature is at least the penalty is no more than half this above its least.
        if size <= 2 * _GAP * max(whole, 1e-3 * total):
            return inner, offset, loss / total, iteration
        step = _newton_step(rows, curve, scale, (by_inner, by_offset), least)
        moved = rows @ step[0] + step[1]
        expected = float((step[0] * by_inner).sum() + step[1] @ by_offset)
        length = 1.0
        while length > 1e-8:
            trial = inner + length * step[0]
            found = loss_of(logits + length * moved)
            risen = found[0] + least / 2 * float(np.square(trial).sum()) - whole
            if risen <= 1e-4 * length * expected + 1e-14 * whole:
                break
            length /= 2
        else:  # rounding alone is left
            return inner, offset, loss / total, iteration
        inner, offset, logits = trial, offset + length * step[1], logits + length * moved
        loss, slope, curve, diagonal = found
    _warn_unfinished(penalty, f"the loss may be {size / 2 / whole:.1e} of itself above its least")
    return inner, offset, loss / total, _MAX_ITERATIONS


def _newton_step(
    rows: np.ndarray,
    curve: Callable[[np.ndarray], np.ndarray],
    scale: tuple[np.ndarray, np.ndarray],
    gradient: tuple[np.ndarray, np.ndarray],
    penalty: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the Newton equations roughly, by preconditioned conjugate gradients."""
    inner, offset = np.zeros_like(gradient[0]), np.zeros_like(gradient[1])
    left = [-gradient[0], -gradient[1]]
    ready = [left[0] / scale[0], left[1] / scale[1]]
    along = [ready[0].copy(), ready[1].copy()]
    size = first = float((left[0] * ready[0]).sum() + left[1] @ ready[1])
    for _ in range(_MAX_INNER):
        bent = curve(rows @ along[0] + along[1])
        product = rows.T @ bent + penalty * along[0], bent.sum(axis=0)
        length = float((along[0] * product[0]).sum() + along[1] @ product[1])
        if length <= 0:  # the direction in which all classes' answers rise alike
            break
        length = size / length
        inner += length * along[0]
        offset += length * along[1]
        left[0] -= length * product[0]
        left[1] -= length * product[1]
        ready = [left[0] / scale[0], left[1] / scale[1]]
        before, size = size, float((left[0] * ready[0]).sum() + left[1] @ ready[1])
        if size <= _ROUGHLY * first:
            break
        along = [ready[0] + size / before * along[0], ready[1] + size / before * along[1]]
    return inner, offset


def _warn_unfinished(penalty: float, problem: str) -> None:
    warn(
        f"head: expected to be solved in {_MAX_ITERATIONS} iterations. It was not, with a penalty "
        f"of {penalty:g}: {problem}. Set head_penalty higher, or head_solver='gradient'."
    )


def _squared(rows: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Return ``np.square(rows).T @ diagonal``, without another array of the size of the rows."""
    starts = range(0, len(rows), 4096)
    parts = (np.square(rows[i : i + 4096]).T @ diagonal[i : i + 4096] for i in starts)
    return np.sum(list(parts), axis=0)
