"""The activation store: what the frozen part of a network gives is computed once, ever."""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    InvalidTypeError,
    warn,
)
from keras_transfer.store.disk_rows import DiskRows
from keras_transfer.store.folder import DATA, FORMAT, clear_files, require_mark
from keras_transfer.store.memory import LEAST_SIZE, Memory, as_memory
from keras_transfer.store.process_rows import ProcessRows
from keras_transfer.store.rows import Read, StoreInfo, StoreProblem, split_rows

__all__ = [
    "ActivationStore",
    "Memory",
    "StoreInfo",
    "as_memory",
    "clear_folder",
    "describe_folder",
    "open_store",
]

KEY_BYTES = 16
# A row may take so much of the limit: LMDB needs room beside what it replaces.
_ROW_SHARE = 1 / 10
# So much of the limit a folder's file fills with rows; the rest are LMDB's own pages.
_FILLED = 0.8

_Result = TypeVar("_Result")


# === The stores of this process ===

# One for all, and held over a fork: nothing is half written where the child takes over.
_LOCK = threading.RLock()
_PROCESS = ProcessRows(Memory.size_limit)
# By real path: LMDB must not be opened twice in one process.
_FOLDERS: dict[str, DiskRows] = {}
_STORES: dict[tuple[str | None, str], ActivationStore] = {}
# Real paths of those that do not work, which is said once.
_BROKEN: set[str] = set()
# Spaces whose rows are too large, which is said once.
_TOO_LARGE: set[str] = set()


def open_store(memory: Memory) -> ActivationStore:
    """Return the store: one for each folder, one for the process.

    Parameters
    ----------
    memory : Memory
        Of several for one folder, the last one's ``size_limit`` holds. What cannot be opened is
        warned of, once, and the store of the process takes its place.
    """
    folder = None if memory.folder is None else _real_path(memory.folder)
    with _LOCK:
        if folder is not None and folder not in _FOLDERS:
            _FOLDERS[folder] = DiskRows(Path(folder), int(memory.size_limit))
        store = _STORES.setdefault((folder, memory.dtype), ActivationStore(folder, memory.dtype))
    store._on_rows(lambda rows: rows.set_limit(int(memory.size_limit)))
    store._on_rows(lambda rows: rows.open())
    return store


def _real_path(folder: str | os.PathLike[str]) -> str:
    return os.path.realpath(os.path.expanduser(folder))


class ActivationStore:
    """Rows of activations by content, as `open_store` gives it. Any thread may call.

    A row is what the frozen part of a network gives for one input: one float32 array for each
    tensor at the freeze boundary. What is read is bit-equal to what was written, up to the dtype
    of the store. No failure of a disk is an error: it is warned of once, and from then on
    activations are kept in this process.

    Parameters
    ----------
    folder : str or None
        Its real path.
    dtype : {"float32", "float16"}
    """

    def __init__(self, folder: str | None, dtype: str):
        self.folder, self.dtype = folder, dtype

    def read(self, space: str, keys: Sequence[bytes]) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """Read rows.

        Parameters
        ----------
        space : str
            Says which frozen part.
        keys : sequence of n bytes
            Each 16 bytes long: says which input.

        Returns
        -------
        found : numpy.ndarray of bool of shape (n,)
        arrays : list of numpy.ndarray of shape (n_found, ...), or None
            float32, one for each tensor, in the order of the keys that were found; None if none
            was.
        """
        _check_keys(space, keys)
        read: Read = self._on_rows(lambda rows: rows.read(self._name(space), keys))
        return read

    def write(self, space: str, keys: Sequence[bytes], arrays: Sequence[np.ndarray]) -> None:
        """Keep rows; those that are there already are left alone.

        Parameters
        ----------
        space : str
        keys : sequence of n bytes
        arrays : sequence of numpy.ndarray of shape (n, ...)
            One for each tensor. They may be changed afterwards.

        Raises
        ------
        InvalidParameterError
            If they do not fit the keys, or the rows that the space holds.
        """
        _check_keys(space, keys)
        arrays = [np.ascontiguousarray(array, np.float32) for array in arrays]
        if not arrays or any(len(array) != len(keys) for array in arrays):
            raise InvalidParameterError(
                f"arrays: expected one array or more, each with a row for each of {len(keys)} "
                f"keys. Received: shapes {[array.shape for array in arrays]}."
            )
        if len(keys):
            shapes = tuple(array.shape[1:] for array in arrays)
            split = split_rows(arrays, self.dtype)
            self._on_rows(lambda rows: self._write(rows, space, shapes, keys, split))

    def _write(self, rows: Any, space: str, shapes: Any, keys: Any, split: Any) -> None:
        size = max(sum(map(len, row)) for row in split)
        if size <= rows.limit * _ROW_SHARE:
            rows.write(self._name(space), shapes, keys, split)
        elif space not in _TOO_LARGE:
            _TOO_LARGE.add(space)
            rows.notices.append(
                f"memory: expected a size_limit of at least {int(size / _ROW_SHARE):,} bytes for "
                f"rows of {size:,}. Received: {rows.limit:,}. They are not kept: set "
                f"Memory(size_limit=...) higher."
            )

    def contains(self, space: str, keys: Sequence[bytes]) -> np.ndarray:
        """Say which keys there are, without reading the rows."""
        _check_keys(space, keys)
        found: np.ndarray = self._on_rows(lambda rows: rows.contains(self._name(space), keys))
        return found

    def room(self, row_bytes: int) -> int:
        """Return how many rows of so many bytes, as float32, the store can hold."""
        limit: int = self._on_rows(lambda rows: rows.limit)
        size = max(1, row_bytes // (2 if self.dtype == "float16" else 1))
        return int(limit * _FILLED) // size if size <= limit * _ROW_SHARE else 0

    def read_note(self, name: str) -> Any | None:
        """Return a small value that was kept beside the rows; None if there is none.

        Parameters
        ----------
        name : str
        """
        text = self._on_rows(lambda rows: rows.read_note(name))
        return None if text is None else json.loads(text)

    def write_note(self, name: str, value: Any) -> None:
        """Keep a small value, in place of an earlier one of the name.

        Parameters
        ----------
        name : str
        value : object
            Of what JSON knows.

        Raises
        ------
        InvalidTypeError
        """
        try:
            text = json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(
                f"note {name!r}: expected a value of what JSON knows. Received: {error}."
            ) from error
        self._on_rows(lambda rows: rows.write_note(name, text))

    def info(self) -> StoreInfo:
        """Say what the store holds, in rows of either dtype."""
        info: StoreInfo = self._on_rows(lambda rows: rows.info())
        return info

    def clear(self) -> None:
        """Forget everything, of either dtype. The file of a folder keeps its size."""
        self._on_rows(lambda rows: rows.clear())

    def _name(self, space: str) -> str:
        # Rows of two dtypes must not be taken for one another.
        return f"{self.dtype}:{space}"

    def _on_rows(self, call: Callable[[Any], _Result]) -> _Result:
        """Call with where the rows are: the folder, or the process if that does not work."""
        notices: list[str] = []
        try:
            with _LOCK:
                rows = _FOLDERS.get(self.folder) if self.folder is not None else None
                if rows is not None and self.folder not in _BROKEN:
                    try:
                        return call(rows)
                    except StoreProblem as problem:
                        _BROKEN.add(str(self.folder))
                        rows.abandon()
                        notices.append(
                            f"memory: {problem}. This process keeps activations to itself from "
                            f"now on."
                        )
                    finally:
                        notices.extend(rows.notices)
                        rows.notices.clear()
                try:
                    return call(_PROCESS)
                finally:
                    notices.extend(_PROCESS.notices)
                    _PROCESS.notices.clear()
        finally:
            # Not under the lock: a warning can be shown by any code, or be an error.
            for notice in notices:
                warn(notice)


def _check_keys(space: str, keys: Sequence[bytes]) -> None:
    if not isinstance(space, str) or not space:
        raise InvalidParameterError(f"space: expected a str that says which. Received: {space!r}.")
    for key in keys:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise InvalidParameterError(
                f"keys: expected {KEY_BYTES} bytes each. Received: {key!r}. Use "
                f"hashlib.blake2b(..., digest_size={KEY_BYTES}).digest()."
            )


# === A folder, looked at from outside ===


def describe_folder(folder: str | os.PathLike[str]) -> StoreInfo:
    """Say what the store in a folder holds.

    Raises
    ------
    DataError
        If there is none.
    FileFormatError
        If it cannot be read.
    """
    path = _real_path(folder)
    mark = require_mark(Path(path))
    limit = mark.get("limit")
    with _LOCK:
        is_open = path in _FOLDERS and path not in _BROKEN
        if (
            not is_open
            and mark.get("format") == FORMAT
            and not os.path.exists(os.path.join(path, DATA))
        ):
            return StoreInfo(path, 0, 0, limit, 0, 0)
        rows = (
            _FOLDERS[path] if is_open else DiskRows(Path(path), limit or LEAST_SIZE, rebuilds=False)
        )
        try:
            return rows.info()
        except StoreProblem as problem:
            raise FileFormatError(f"FOLDER: {problem}.") from problem
        finally:
            if not is_open:
                rows.abandon()


def clear_folder(folder: str | os.PathLike[str]) -> int:
    """Delete the files of the store in a folder, and nothing else there.

    Returns
    -------
    int
        How many bytes they had.

    Raises
    ------
    DataError
        If there is no store.
    OutputError
        If another process has it open, or they cannot be deleted.
    """
    path = _real_path(folder)
    with _LOCK:
        if path in _FOLDERS:
            _FOLDERS[path].abandon()
        return clear_files(Path(path))


# === The end of the process, and a second one ===


def _all_rows() -> list[Any]:
    return [_PROCESS, *_FOLDERS.values()]


def _close_all() -> None:
    with _LOCK:
        for rows in _all_rows():
            rows.close()


def _after_fork_in_child() -> None:
    global _LOCK
    _LOCK = threading.RLock()
    for rows in _all_rows():
        rows.abandon()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _LOCK.acquire(),
        after_in_parent=lambda: _LOCK.release(),
        after_in_child=_after_fork_in_child,
    )
