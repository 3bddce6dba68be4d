"""Newton's method for the convex loss of a linear head."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_transfer.errors import warn
from keras_transfer.training.directions import Directions

__all__ = ["MAX_ITERATIONS", "Loss", "Losses", "Solution", "minimise", "warn_unfinished"]

# The loss is solved to so much of itself, or of one unit where it is less.
_GAP = 1e-8
MAX_ITERATIONS = 100
# Steps of conjugate gradients for one of Newton's, and how far they bring its squared error down.
_MAX_INNER, _ROUGHLY = 200, 1e-2

# Kernel and bias for the coordinates, the mean loss, and how many iterations it took.
Solution = tuple[np.ndarray, np.ndarray, float, int]
# The loss, its gradient by the logits, the product of its Hessian there with a change of the
# logits, and the diagonal of that Hessian.
Losses = tuple[float, np.ndarray, Callable[[np.ndarray], np.ndarray], np.ndarray]
Loss = Callable[[np.ndarray], Losses]


def minimise(directions: Directions, loss_of: Loss, start: np.ndarray, penalty: float) -> Solution:
    """Minimise a convex loss of the logits plus the penalty, by Newton's method.

    Each step is solved by conjugate gradients, preconditioned with the Hessian's own diagonal,
    which in the coordinates along the features' directions is most of it.

    Parameters
    ----------
    directions : Directions
    loss_of : callable
        From logits ``(n, k)`` to `Losses`.
    start : numpy.ndarray of shape (k,)
        The biases to begin with; weights begin at 0.
    penalty : float

    Returns
    -------
    Solution
    """
    rows, total = directions.rows, directions.weights.sum()
    # With a penalty of 0 the answers of separable classes grow without end: they stop here.
    least = max(penalty, 1e-9 * total)
    inner, offset = np.zeros((rows.shape[1], len(start))), start.astype(np.float64)
    logits = np.broadcast_to(offset, (len(rows), len(start)))
    loss, slope, curve, diagonal = loss_of(logits)
    for iteration in range(MAX_ITERATIONS):
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
    warn_unfinished(penalty, f"the loss may be {size / 2 / whole:.1e} of itself above its least")
    return inner, offset, loss / total, MAX_ITERATIONS


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


def warn_unfinished(penalty: float, problem: str) -> None:
    """Say that a head was not solved."""
    warn(
        f"head: expected to be solved in {MAX_ITERATIONS} iterations. It was not, with a penalty "
        f"of {penalty:g}: {problem}. Set head_penalty higher, or head_solver='gradient'."
    )


def _squared(rows: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """Return ``np.square(rows).T @ diagonal``, without another array of the size of the rows."""
    starts = range(0, len(rows), 4096)
    parts = (np.square(rows[i : i + 4096]).T @ diagonal[i : i + 4096] for i in starts)
    return np.sum(list(parts), axis=0)
