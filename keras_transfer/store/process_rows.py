"""Rows of activations in this process: in memory, and past a bound in a temporary file."""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.store.disk_rows import DiskRows
from keras_transfer.store.rows import (
    Read,
    Row,
    Shapes,
    StoreInfo,
    StoreProblem,
    check_shapes,
    count_spaces,
    join_rows,
)

__all__ = ["MemoryRows", "ProcessRows"]

# In bytes; past this rows go to a temporary file, and an eighth at once, so that this is seldom.
MEMORY_BOUND = 1 << 30
_KEPT_SHARE = 7 / 8
# Below this a file has no room for its own index.
_LEAST_FILE = 1 << 20
# What Python needs for a row in memory beside its bytes: two objects and an entry of a table.
_ROW_OVERHEAD = 250


class MemoryRows:
    """Rows in memory, in the order of their last use.

    Attributes
    ----------
    size : int
        In bytes, with what Python needs for them.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._shapes: dict[str, Shapes] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def spaces(self) -> set[str]:
        """Those that rows are kept of."""
        return {space for space, _ in self._rows}

    def shapes(self, space: str) -> Shapes | None:
        """Return the shapes of the rows of a space, also where they have gone since."""
        return self._shapes.get(space)

    def contains(self, space: str, keys: Sequence[bytes]) -> np.ndarray:
        """Say which keys there are."""
        return np.array([(space, key) in self._rows for key in keys], bool)

    def read(self, space: str, keys: Sequence[bytes]) -> Read:
        """Read rows, which are the last to go from now on."""
        rows = [self._rows.get((space, key)) for key in keys]
        found = np.array([row is not None for row in rows], bool)
        for key, row in zip(keys, rows, strict=True):
            if row is not None:
                self._rows.move_to_end((space, key))
        if not found.any():
            return found, None
        return found, join_rows([row for row in rows if row is not None], self._shapes[space])

    def write(
        self,
        space: str,
        shapes: Shapes,
        keys: Sequence[bytes],
        rows: Sequence[Row],
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep copies of rows that are not there yet; ``make_room`` is called after each."""
        check_shapes(space, self._shapes.setdefault(space, shapes), shapes)
        for key, row in zip(keys, rows, strict=True):
            name = (space, bytes(key))
            if name not in self._rows:
                self._rows[name] = payload = b"".join(row)
                self.size += len(payload) + _ROW_OVERHEAD
                make_room()

    def pop_until(self, size: int) -> dict[str, dict[bytes, bytes]]:
        """Give away the rows that were not used for longest, until ``size`` is left.

        Returns
        -------
        dict of str to dict of bytes to bytes
            By space and key.
        """
        gone: dict[str, dict[bytes, bytes]] = {}
        while self._rows and self.size > size:
            (space, key), payload = self._rows.popitem(last=False)
            self.size -= len(payload) + _ROW_OVERHEAD
            gone.setdefault(space, {})[key] = payload
        return gone


class ProcessRows:
    """Rows of this process. Only one thread at a time may call.

    Parameters
    ----------
    limit : int
        In bytes, of memory and temporary file together.

    Attributes
    ----------
    notices : list of str
        What the user is to be told.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.notices: list[str] = []
        self._notes: dict[str, str] = {}
        self._memory = MemoryRows()
        self._file: DiskRows | None = None
        self._can_use_file = True

    def open(self) -> None:
        """Do nothing: the file is opened when it is needed."""

    def close(self) -> None:
        """Remove the temporary file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def abandon(self) -> None:
        """Leave the temporary file to the process that made it: in the child of a fork."""
        file, self._file = self._file, None
        if file is not None:
            file.abandon()

    def set_limit(self, limit: int) -> None:
        """Change the limit, for what is written from now on."""
        self.limit = limit
        if self._file is not None:
            self._on_file(DiskRows.set_limit, max(limit - MEMORY_BOUND, _LEAST_FILE))

    def contains(self, space: str, keys: Sequence[bytes]) -> np.ndarray:
        """Say which keys there are."""
        found = self._memory.contains(space, keys)
        if self._file is not None and not found.all():
            in_file = self._on_file(DiskRows.contains, space, keys)
            found = found if in_file is None else found | in_file
        return found

    def read(self, space: str, keys: Sequence[bytes]) -> Read:
        """Read rows."""
        found, arrays = self._memory.read(space, keys)
        if self._file is None or found.all():
            return found, arrays
        missing = np.flatnonzero(~found)
        rest = self._on_file(DiskRows.read, space, [keys[row] for row in missing.tolist()])
        if rest is None or rest[1] is None:
            return found, arrays
        in_memory = found.copy()
        found[missing[rest[0]]] = True
        if arrays is None:
            return found, rest[1]
        is_first, merged = in_memory[found], []
        for here, there in zip(arrays, rest[1], strict=True):
            array = np.empty((len(is_first), *here.shape[1:]), np.float32)
            array[is_first], array[~is_first] = here, there
            merged.append(array)
        return found, merged

    def write(self, space: str, shapes: Shapes, keys: Sequence[bytes], rows: Sequence[Row]) -> None:
        """Write rows that are not there yet."""
        if self._file is not None:
            in_file = self._on_file(DiskRows.contains, space, keys)
            if in_file is not None and in_file.any():
                new = np.flatnonzero(~in_file).tolist()
                keys, rows = [keys[row] for row in new], [rows[row] for row in new]
        self._memory.write(space, shapes, keys, rows, self._make_room)

    def _make_room(self) -> None:
        bound = min(MEMORY_BOUND, self.limit)
        if self._memory.size <= bound:
            return
        gone = self._memory.pop_until(int(bound * _KEPT_SHARE))
        if self.limit - MEMORY_BOUND < _LEAST_FILE or not self._can_use_file:
            return
        for space, payloads in gone.items():
            shapes = self._memory.shapes(space) or ()
            rows = [(memoryview(payload),) for payload in payloads.values()]
            keys = list(payloads)
            self._on_file(DiskRows.write, space, shapes, keys, rows)

    def _on_file(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call with the temporary file; None, and no file any more, if it does not work."""
        try:
            if self._file is None:
                if not self._can_use_file:
                    return None
                folder = Path(tempfile.mkdtemp(prefix="keras_transfer_"))
                self._file = DiskRows(folder, self.limit - MEMORY_BOUND, is_private=True)
            return call(self._file, *arguments)
        except (StoreProblem, OSError) as problem:
            self._can_use_file = False
            if self._file is not None:
                shutil.rmtree(self._file.folder, ignore_errors=True)
            self.abandon()
            self.notices.append(
                f"memory: what the frozen part gives is kept in memory only, up to "
                f"{MEMORY_BOUND:,} bytes; beyond, it is computed again. Reason: {problem}. The "
                f"variable TMPDIR says where temporary files are."
            )
            return None

    def read_note(self, name: str) -> str | None:
        """Return the JSON of a note."""
        return self._notes.get(name)

    def write_note(self, name: str, text: str) -> None:
        """Write the JSON of a note."""
        self._notes[name] = text

    def info(self) -> StoreInfo:
        """Say what there is."""
        file = None if self._file is None else self._on_file(DiskRows.info)
        in_file = set() if file is None else self._on_file(DiskRows.spaces) or set()
        return StoreInfo(
            folder=None,
            bytes=self._memory.size + (0 if file is None else file.bytes),
            file_bytes=0 if file is None else file.file_bytes,
            limit=self.limit,
            rows=len(self._memory) + (0 if file is None else file.rows),
            spaces=count_spaces(self._memory.spaces | in_file),
        )

    def clear(self) -> None:
        """Forget all rows and notes."""
        self.close()
        self._memory = MemoryRows()
        self._notes.clear()
