"""Activations of some examples at a freeze boundary: in memory, or read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["Activations"]

# Up to here they are held in memory for as long as a stage trains; beyond, each batch is read.
HELD_BYTES = 1 << 30


class Activations:
    """What the frozen part gives for some examples, one array for each tensor of the cut.

    Parameters
    ----------
    read : callable
        From row numbers ``(n,)`` of all examples to their arrays, each float32 of ``(n, *shape)``.
    rows : numpy.ndarray of shape (n,)
        The numbers of these examples.
    shapes : sequence of tuple of int
        Of one row of each tensor.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], list[np.ndarray]],
        rows: np.ndarray,
        shapes: Sequence[tuple[int, ...]],
    ):
        self._read = read
        self._rows = rows
        self._held: list[np.ndarray] | None = None
        self.shapes = [tuple(shape) for shape in shapes]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray | slice) -> Activations:
        chosen = Activations(self._read, self._rows[rows], self.shapes)
        if self._held is not None:
            chosen._held = [array[rows] for array in self._held]
        return chosen

    @property
    def row_bytes(self) -> int:
        """How much one example takes."""
        return 4 * sum(int(np.prod(shape)) for shape in self.shapes)

    @property
    def is_vector(self) -> bool:
        """Whether an example is one vector."""
        return len(self.shapes) == 1 and len(self.shapes[0]) == 1

    @property
    def is_held(self) -> bool:
        """Whether they fit in memory."""
        return len(self) * self.row_bytes <= HELD_BYTES

    def take(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the arrays of some rows of these."""
        if self.is_held:
            return [array[rows] for array in self.arrays]
        return self._read(self._rows[rows])

    @property
    def arrays(self) -> list[np.ndarray]:
        """All of them, in memory from now on."""
        if self._held is None:
            self._held = self._read(self._rows)
        return self._held
