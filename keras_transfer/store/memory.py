"""The parameter ``memory``: where activations are kept, and how."""

from __future__ import annotations

import numbers
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError

__all__ = ["DTYPES", "LEAST_SIZE", "Memory", "as_memory"]

DTYPES = ("float32", "float16")
# In bytes. Below this LMDB has no room for its own pages.
LEAST_SIZE = 1 << 20


@dataclass(frozen=True)
class Memory:
    """Where activations are kept, and how.

    Parameters
    ----------
    folder : str or path, optional
        Made if it is not there; on a local disk, as network file systems do not keep LMDB's locks.
        Any number of processes may use it at once. None: in this process, in memory and past 1 GiB
        in a temporary file.
    size_limit : int, default=8 GiB
        In bytes, at least 1 MiB: the rows that were not used for longest go first. The file of a
        folder never grows beyond it. One that has, under a higher limit, keeps its size.
    dtype : {"float32", "float16"}, default="float32"
        float16 takes half the space. Its relative error is at most 2**-11, and for numbers below
        6.1e-5, where float16 has fewer digits, the absolute error is at most 2**-25. A row with a
        number beyond its range, 65504, is kept as float32.
    exact : bool, default=False
        Whether the frozen part is computed just as it stands in the network, not folded.

    Examples
    --------
    >>> Memory("activations", dtype="float16")
    Memory(folder='activations', size_limit=8589934592, dtype='float16', exact=False)
    """

    folder: str | os.PathLike[str] | None = None
    size_limit: int = 8 << 30
    dtype: str = "float32"
    exact: bool = False

    def __post_init__(self) -> None:
        if self.folder is not None and not isinstance(self.folder, (str, os.PathLike)):
            raise InvalidTypeError(
                f"folder: expected a str or path, or None. Received: {type(self.folder).__name__}."
            )
        if self.folder is not None and not os.fspath(self.folder):
            raise InvalidParameterError(
                "folder: expected the name of a folder. Received: an empty one. Use '.' for the "
                "current folder, None to keep activations in this process."
            )
        size = self.size_limit
        if not isinstance(size, numbers.Integral) or size < LEAST_SIZE:  # True is 1
            raise InvalidParameterError(
                f"size_limit: expected an int of at least {LEAST_SIZE:,} bytes. Received: {size!r}."
                f" Set memory=False to keep nothing."
            )
        if self.dtype not in DTYPES:
            raise UnknownNameError("dtype", self.dtype, DTYPES)
        if not isinstance(self.exact, (bool, np.bool_)):
            raise InvalidTypeError(
                f"exact: expected True or False. Received: {type(self.exact).__name__}."
            )


def as_memory(value: Any) -> Memory | None:
    """Read the parameter ``memory``.

    Parameters
    ----------
    value : None, False, str, path or Memory
        None: in this process. False: nowhere. A str or path: in this folder.

    Returns
    -------
    Memory or None
        None: nothing is kept.

    Raises
    ------
    InvalidTypeError, InvalidParameterError
    """
    if value is False:
        return None
    if value is None:
        return Memory()
    if isinstance(value, Memory):
        return value
    if isinstance(value, (str, os.PathLike)):
        return Memory(folder=value)
    raise InvalidTypeError(
        f"memory: expected None, False, a folder or a Memory. Received: "
        f"{type(value).__name__}. Leave it out to keep activations in this process, set False to "
        f"keep none."
    )
