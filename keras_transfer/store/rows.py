"""Rows of activations: from arrays to bytes and back, and what all stores say of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import InvalidParameterError

__all__ = [
    "Read",
    "Row",
    "Shapes",
    "StoreInfo",
    "StoreProblem",
    "check_shapes",
    "count_spaces",
    "join_rows",
    "split_rows",
]

# Of a row's tensors, without the batch's axis.
Shapes = tuple[tuple[int, ...], ...]
# A row's bytes, tensor by tensor, not yet copied.
Row = tuple[memoryview, ...]
# Which of the keys were found, and one array per tensor, of the rows found.
Read = tuple[np.ndarray, list[np.ndarray] | None]


class StoreProblem(Exception):
    """Rows cannot be kept where they were to be: why, and what to do."""


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Attributes
    ----------
    folder : str or None
        None: in this process.
    bytes : int
        Of rows and their index, as they count against the limit.
    file_bytes : int
        Size of the file, which is used again but does not shrink; 0 in memory.
    limit : int or None
        In bytes; None if not known.
    rows : int
    spaces : int
        How many frozen parts of networks rows are kept of.
    oldest, newest : float or None
        When a row was last used, in seconds since 1970: the one that goes next, and the latest.
        None in memory, where only the order is known.
    """

    folder: str | None
    bytes: int
    file_bytes: int
    limit: int | None
    rows: int
    spaces: int
    oldest: float | None = None
    newest: float | None = None


def split_rows(arrays: Sequence[np.ndarray], dtype: str) -> list[Row]:
    """Return the bytes of each row, as views.

    Parameters
    ----------
    arrays : sequence of numpy.ndarray of shape (n, ...)
        One for each tensor: float32, contiguous, n at least 1.
    dtype : {"float32", "float16"}
        float16: a row that would overflow is float32 all the same.
    """
    wide = _slices(arrays)
    if dtype == "float32":
        return wide
    with np.errstate(over="ignore"):
        halves = [array.astype(np.float16) for array in arrays]
    fits = np.ones(len(wide), bool)
    for array, half in zip(arrays, halves, strict=True):
        overflows = np.isinf(half) & np.isfinite(array)
        fits &= ~overflows.reshape(len(wide), -1).any(axis=1)
    narrow = _slices(halves)
    return [narrow[row] if fits[row] else wide[row] for row in range(len(wide))]


def _slices(arrays: Sequence[np.ndarray]) -> list[Row]:
    columns = []
    for array in arrays:
        n, step = len(array), array.nbytes // len(array)
        view: Any = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        columns.append([view[row * step : (row + 1) * step] for row in range(n)])
    return list(zip(*columns, strict=True))


def join_rows(payloads: Sequence[Any], shapes: Shapes) -> list[np.ndarray]:
    """Return one float32 array per tensor: what `split_rows` took apart.

    Parameters
    ----------
    payloads : sequence of bytes-like
        The length says whether a row is float32 or float16.
    shapes : tuple of tuple of int
    """
    n, sizes = len(payloads), [math.prod(shape) for shape in shapes]
    total = sum(sizes)
    is_wide = np.array([len(payload) == 4 * total for payload in payloads], bool)
    if is_wide.all():
        matrix = _matrix(payloads, np.float32, total)
    else:
        matrix = np.empty((n, total), np.float32)
        for dtype, mask in ((np.float32, is_wide), (np.float16, ~is_wide)):
            matrix[mask] = _matrix(
                [payloads[row] for row in np.flatnonzero(mask).tolist()], dtype, total
            )
    if len(shapes) == 1:
        return [matrix.reshape(n, *shapes[0])]
    ends = np.cumsum(sizes)
    parts = [matrix[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return [part.copy().reshape(n, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _matrix(payloads: Sequence[Any], dtype: Any, total: int) -> np.ndarray:
    # One copy, at the speed of memory, into what only the array holds on to.
    joined: Any = bytearray().join(payloads)
    return np.frombuffer(joined, dtype).reshape(len(payloads), total)


def check_shapes(space: str, kept: Shapes, shapes: Shapes) -> None:
    """Make sure that new rows are like those that are kept already.

    Raises
    ------
    InvalidParameterError
    """
    if kept != shapes:
        raise InvalidParameterError(
            f"arrays: expected rows of the shapes {list(kept)}, which the space {space!r} holds. "
            f"Received: {list(shapes)}. Use another space for another frozen part or input size."
        )


def count_spaces(names: Iterable[str]) -> int:
    """Count frozen parts, from ``dtype:space`` as the stores name them."""
    return len({name.partition(":")[2] for name in names})
