"""Rows of activations in a folder, in LMDB tables.

Four tables: ``rows``; ``uses``, when each row was last used; ``spaces``, the shapes of the rows of
each; ``notes``. A row's key is 8 bytes of its space and the caller's 16. Every value but the times
has its length and checksum before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.store.lmdb_files import FullProblem, LmdbFiles
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

__all__ = ["DiskRows"]

# Shares of the limit: rows beyond the first go, the oldest first, down to the second. The rest is
# for the pages that a transaction needs beside those that it replaces, so that the file as a whole
# stays within the limit, which LMDB itself holds.
_FULL, _ROOMY = 0.85, 0.78
# What one transaction may write, in bytes and in shares of the limit.
_CHUNK, _CHUNK_SHARE = 64 << 20, 1 / 16
# LMDB never writes over a page: a key that is put or deleted somewhere in the trees of rows and of
# uses costs a new page in each.
_PAGE = 4096
_TOUCH = 2 * _PAGE
# Uses are gathered in memory, and written with what else is written or after so many seconds. The
# order among processes is as coarse as this; in one, it is exact.
_USES_EVERY = 300.0

_TABLES = ("rows", "uses", "spaces", "notes")
_SEAL, _TIME = struct.Struct("<II"), struct.Struct(">Q")
_SPACE_BYTES, _KEY_BYTES = 8, 24
# Not as long as the keys of notes.
_TURN = b"turn"


class DiskRows(LmdbFiles):
    """Rows in a folder. Only one thread at a time may call.

    Parameters
    ----------
    folder : pathlib.Path
    limit : int
    rebuilds, is_private : bool
        As for `LmdbFiles`.
    """

    def __init__(
        self, folder: Path, limit: int, *, rebuilds: bool = True, is_private: bool = False
    ):
        super().__init__(folder, limit, _TABLES, rebuilds=rebuilds, is_private=is_private)
        self._uses: dict[bytes, int] = {}
        self._damaged: set[bytes] = set()
        self._last_use, self._uses_since = 0, -float("inf")

    def abandon(self) -> None:
        """Close the files as they are: in the child of a fork, or where they do not work."""
        self._uses.clear()
        super().abandon()

    # === Rows ===

    def contains(self, space: str, keys: Sequence[bytes]) -> np.ndarray:
        """Say which keys there are."""
        prefix = _space_id(space)
        with self._begin() as txn:
            return np.array([self._is_kept(txn, prefix + key) for key in keys], bool)

    def _is_kept(self, txn: Any, name: bytes) -> bool:
        # What is found damaged is there to be written again.
        return name not in self._damaged and self._get(txn, "rows", name) is not None

    def read(self, space: str, keys: Sequence[bytes]) -> Read:
        """Read rows; what is damaged is not found."""
        found, arrays = np.zeros(len(keys), bool), None
        prefix, used = _space_id(space), []
        with self._begin() as txn:
            shapes = self._shapes(txn, prefix)
            payloads = []
            total = sum(map(math.prod, shapes or ()))
            lengths = (2 * total, 4 * total)
            for row, key in enumerate(keys if shapes is not None else ()):
                value = self._get(txn, "rows", prefix + key)
                if value is None:
                    continue
                payload = _opened(value)
                if payload is None or len(payload) not in lengths:
                    self._damaged.add(prefix + key)
                    continue
                found[row] = True
                payloads.append(payload)
                used.append(prefix + key)
            if payloads:
                # Within the transaction: the payloads are LMDB's own pages.
                arrays = join_rows(payloads, shapes or ())
        self._note_uses(used)
        return found, arrays

    def _shapes(self, txn: Any, prefix: bytes) -> Shapes | None:
        value = self._get(txn, "spaces", prefix)
        payload = None if value is None else _opened(value)
        if payload is None:
            return None
        return tuple(tuple(shape) for shape in json.loads(bytes(payload))["shapes"])

    def write(self, space: str, shapes: Shapes, keys: Sequence[bytes], rows: Sequence[Row]) -> None:
        """Write rows that are not there yet."""
        # In the order of the keys, neighbours in the tree are written together.
        order = sorted(range(len(keys)), key=keys.__getitem__)
        chunk: list[int] = []
        size = 0
        for row in order:
            row_size = _size_on_disk(rows[row])
            if chunk and size + row_size + (len(chunk) + 1) * _TOUCH > self._chunk():
                self._write_chunk(space, shapes, keys, rows, chunk)
                chunk, size = [], 0
            chunk.append(row)
            size += row_size
        if chunk:
            self._write_chunk(space, shapes, keys, rows, chunk)
        self._mark()

    def _chunk(self) -> int:
        return min(_CHUNK, int(self.limit * _CHUNK_SHARE))

    def _write_chunk(
        self,
        space: str,
        shapes: Shapes,
        keys: Sequence[bytes],
        rows: Sequence[Row],
        chunk: Sequence[int],
    ) -> None:
        prefix = _space_id(space)
        with self._begin() as txn:
            kept = self._shapes(txn, prefix)
            if kept is not None:
                check_shapes(space, kept, shapes)
            names = {row: prefix + keys[row] for row in chunk}
            new = [row for row in chunk if not self._is_kept(txn, names[row])]
            size = sum(_size_on_disk(rows[row]) for row in new)
            is_full = self._used(txn) + size > _FULL * self.limit
        if not new:
            return
        if is_full:
            self._evict_in_need(_ROOMY * self.limit - size)
        # In spite of the room kept free: where free pages are scattered, LMDB finds none for a
        # large row.
        for share in (0.6, 0.3, 0.0, None):
            try:
                with self._begin(write=True) as txn:
                    kept = self._shapes(txn, prefix)
                    if kept is None:
                        about = {"space": space, "shapes": shapes}
                        self._put(txn, "spaces", prefix, _sealed(json.dumps(about).encode()))
                    else:
                        check_shapes(space, kept, shapes)
                    now = _TIME.pack(self._now())
                    for row in new:
                        # Another process may have been faster.
                        if not self._is_kept(txn, names[row]):
                            self._put(txn, "rows", names[row], _sealed(*rows[row]))
                            self._put(txn, "uses", names[row], now)
                self._damaged.difference_update(names.values())
                return
            except FullProblem:
                if share is None:
                    raise
                self._evict_in_need(share * self.limit)

    # === Uses, and rows that go ===

    def _now(self) -> int:
        # In one process no two are equal, so that the order is right.
        self._last_use = max(time.time_ns(), self._last_use + 1)
        return self._last_use

    def _note_uses(self, names: Sequence[bytes]) -> None:
        if not names:
            return
        if not self._uses:
            self._uses_since = time.monotonic()
        self._uses.update(dict.fromkeys(names, self._now()))
        if time.monotonic() - self._uses_since > _USES_EVERY:
            self._flush_if_possible()

    def _flush_if_possible(self) -> None:
        with contextlib.suppress(StoreProblem):  # the disk is full: what is there can be read
            self._flush()
        self._uses.clear()

    def _flush(self) -> None:
        if self._uses:
            for names in self._batches(sorted(self._uses)):
                with self._begin(write=True) as txn:
                    for name in names:
                        if self._get(txn, "uses", name) is not None:  # it may have gone since
                            self._put(txn, "uses", name, _TIME.pack(self._uses[name]))
            self._uses.clear()

    def _batches(self, names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        step = max(1, self._chunk() // (2 * _TOUCH))
        return (names[start : start + step] for start in range(0, len(names), step))

    def _evict_in_need(self, target: float) -> None:
        try:
            self._evict(target)
        except FullProblem:
            # Also to delete takes pages, and a file from a higher limit may have none left.
            with self._more_room(self._chunk()):
                self._evict(target)

    def _evict(self, target: float) -> None:
        """Delete the rows that were not used for longest, until ``target`` bytes are left."""
        self._check_readers()
        self._flush()
        with self._begin(buffers=False) as txn:
            names = self._oldest_first(txn)
        for batch in self._batches(names):
            with self._begin(write=True, buffers=False) as txn:
                if self._used(txn) <= target:
                    break
                for name in batch:
                    if self._used(txn) > target:
                        txn.delete(name, db=self._tables["rows"])
                        txn.delete(name, db=self._tables["uses"])
        # LMDB uses the pages that a transaction freed from the second one after it on.
        with self._begin(write=True, buffers=False) as txn:
            for prefix in self._empty_spaces(txn):
                txn.delete(prefix, db=self._tables["spaces"])
            self._put(txn, "notes", _TURN, _TIME.pack(self._now()))

    def _oldest_first(self, txn: Any) -> list[bytes]:
        names, times = [], []
        for name, use in txn.cursor(db=self._tables["uses"]):
            names.append(name)
            times.append(use)
        order = np.argsort(np.frombuffer(b"".join(times), ">u8"), kind="stable")
        return [names[row] for row in order]

    def _empty_spaces(self, txn: Any) -> list[bytes]:
        cursor = txn.cursor(db=self._tables["rows"])
        spaces = [
            bytes(key) for key in txn.cursor(db=self._tables["spaces"]).iternext(values=False)
        ]
        return [
            prefix
            for prefix in spaces
            if not (cursor.set_range(prefix) and bytes(cursor.key()).startswith(prefix))
        ]

    # === Notes, and the whole ===

    def read_note(self, name: str) -> str | None:
        """Return the JSON of a note."""
        with self._begin() as txn:
            value = self._get(txn, "notes", _note_id(name))
            payload = None if value is None else _opened(value)
            return None if payload is None else bytes(payload).decode()

    def write_note(self, name: str, text: str) -> None:
        """Write the JSON of a note."""
        value = _sealed(text.encode())
        with self._begin(write=True) as txn:
            stat = txn.stat(self._tables["notes"])
            pages = stat["leaf_pages"] + stat["overflow_pages"]
            if pages * stat["psize"] + len(value) > self.limit * _CHUNK_SHARE:
                # They have no times of use. Each can be had again.
                txn.drop(self._tables["notes"], delete=False)
            self._put(txn, "notes", _note_id(name), value)
        self._mark()

    def info(self) -> StoreInfo:
        """Say what there is."""
        self._flush_if_possible()
        spaces = self.spaces()
        with self._begin(buffers=False) as txn:
            uses = [use for _, use in txn.cursor(db=self._tables["uses"])]
            page = self._env.stat()["psize"]
            return StoreInfo(
                folder=os.fspath(self.folder),
                bytes=self._used(txn),
                file_bytes=(self._env.info()["last_pgno"] + 1) * page,
                limit=self.limit,
                rows=txn.stat(self._tables["rows"])["entries"],
                spaces=count_spaces(spaces),
                oldest=_TIME.unpack(min(uses))[0] / 1e9 if uses else None,
                newest=_TIME.unpack(max(uses))[0] / 1e9 if uses else None,
            )

    def spaces(self) -> set[str]:
        """Return the spaces that rows are kept of."""
        with self._begin(buffers=False) as txn:
            empty = self._empty_spaces(txn)
            payloads = [
                _opened(value)
                for prefix, value in txn.cursor(db=self._tables["spaces"])
                if prefix not in empty
            ]
            return {json.loads(bytes(p))["space"] for p in payloads if p is not None}

    def clear(self) -> None:
        """Forget all rows and notes. The file keeps its size, and is used again."""
        with self._begin(write=True) as txn:
            for table in self._tables.values():
                txn.drop(table, delete=False)
        self._uses.clear()
        self._damaged.clear()
        self._mark()


def _space_id(space: str) -> bytes:
    return hashlib.blake2b(space.encode(), digest_size=_SPACE_BYTES).digest()


def _note_id(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _sealed(*parts: Any) -> bytes:
    """Join a value's parts behind their length and checksum."""
    size = checksum = 0
    for part in parts:
        size += len(part)
        checksum = zlib.crc32(part, checksum)
    return b"".join((_SEAL.pack(size, checksum), *parts))


def _opened(value: Any) -> Any:
    """Return what is behind the seal, not copied; None if it is not what was sealed."""
    if len(value) < _SEAL.size:
        return None
    size, checksum = _SEAL.unpack_from(value)
    payload = memoryview(value)[_SEAL.size :]
    return payload if len(payload) == size and zlib.crc32(payload) == checksum else None


def _size_on_disk(row: Row) -> int:
    """Return at most what a row takes: in the tree, or in pages of its own if it is long."""
    size = sum(map(len, row)) + _SEAL.size
    in_tree = 2 * (_KEY_BYTES + 16) + _TIME.size
    return in_tree + (size if size < 1024 else (size + 16 + _PAGE - 1) // _PAGE * _PAGE)
