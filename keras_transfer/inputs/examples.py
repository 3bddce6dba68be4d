"""Examples as a fit works with them: prepared, weighted, and with what messages call them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.inputs.picture_files import digest
from keras_transfer.inputs.reader import Loaded

__all__ = ["Examples", "row_keys"]


@dataclass(frozen=True)
class Examples:
    """Prepared examples, all fields of the same length.

    Attributes
    ----------
    inputs : numpy.ndarray of shape (n, ...) or EncodedPictures
    targets : numpy.ndarray of shape (n, ...)
    weights : numpy.ndarray of shape (n,)
    names : numpy.ndarray of str, shape (n,)
        Their files, or their rows in X.
    digests : numpy.ndarray of bytes, shape (n,)
        Equal for examples of equal content; empty where nobody looked.
    """

    inputs: Any
    targets: np.ndarray
    weights: np.ndarray
    names: np.ndarray
    digests: np.ndarray

    @classmethod
    def from_loaded(
        cls,
        loaded: Loaded,
        targets: np.ndarray,
        weights: np.ndarray | None,
        row_name: str = "row",
    ) -> Examples:
        """Put together what was loaded and what it is to teach."""
        names = loaded.names or [f"{row_name} {row}" for row in loaded.kept]
        digests = loaded.digests or [b""] * len(targets)
        return cls(
            loaded.inputs,
            targets,
            np.ones(len(targets)) if weights is None else weights,
            np.array(names, object),
            np.array(digests, object),
        )

    def keys(self) -> list[bytes]:
        """Return 16 bytes for each, equal for equal content."""
        return row_keys(self.inputs, self.digests)

    def __getitem__(self, rows: np.ndarray) -> Examples:
        fields = (self.inputs, self.targets, self.weights, self.names, self.digests)
        return Examples(*(field[rows] for field in fields))

    def __len__(self) -> int:
        return len(self.inputs)


def row_keys(inputs: Any, digests: Sequence[bytes] | np.ndarray = ()) -> list[bytes]:
    """Return 16 bytes for each input, equal for equal content.

    Parameters
    ----------
    inputs : numpy.ndarray of shape (n, ...) or EncodedPictures
    digests : sequence of bytes, length n
        Of the raw inputs, where these are known.
    """
    if len(digests) and all(digests):
        return list(digests)
    return [digest(np.ascontiguousarray(row).tobytes()) for row in inputs]
