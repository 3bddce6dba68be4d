"""LMDB files that hold activations: opened, checked, and read and written in transactions.

The one place that knows LMDB's errors. Many processes may have the files open, and any of them may
be killed at any time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_transfer.store.folder import (
    DATA,
    LOCK,
    check_owner,
    fill_lock_file,
    folder_locked,
    is_in_use,
    is_known_whole,
    write_mark,
)
from keras_transfer.store.rows import StoreProblem

__all__ = ["FullProblem", "LmdbFiles", "find_damage"]

# Seconds between two notes that the file is whole, which a new process reads.
_MARK_EVERY = 1.0
# Share of the limit that is left for the pages that deleting takes.
_RESERVE = 1 / 16


class FullProblem(StoreProblem):
    """LMDB has no room for a transaction."""


class _Damaged(StoreProblem):
    """The data file is not what LMDB wrote."""


class LmdbFiles:
    """Tables of bytes in a folder. Only one thread at a time may call.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is not there.
    limit : int
        In bytes, for the data file.
    tables : sequence of str
        Their names.
    rebuilds : bool, default=True
        Whether a damaged store is begun anew, or is a problem.
    is_private : bool, default=False
        For this process alone. The files are unlinked at once where the system allows it, so that
        nothing is left even after a kill, and nothing is flushed to the disk.

    Attributes
    ----------
    notices : list of str
        What the user is to be told.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        tables: Sequence[str],
        *,
        rebuilds: bool = True,
        is_private: bool = False,
    ):
        self.folder, self.limit = folder, limit
        self.rebuilds, self.is_private = rebuilds, is_private
        self.notices: list[str] = []
        self._names = tuple(tables)
        self._env: Any = None
        self._tables: dict[str, Any] = {}
        self._marked = -float("inf")

    # === Opening and closing ===

    def open(self) -> None:
        """Open the store, or make it; a damaged one is begun anew.

        Raises
        ------
        StoreProblem
            Here and in all that follows: the store is of no use.
        """
        if self._env is not None:
            return
        with self._explaining():
            self.folder.mkdir(parents=True, exist_ok=True)
            with folder_locked(self.folder):
                if self.is_private:
                    self._open_files()
                    if os.name == "posix":
                        shutil.rmtree(self.folder)
                    return
                check_owner(self.folder)
                if not (self.folder / DATA).exists():
                    self._make_files()
                    return
                try:
                    self._open_files()
                except _Damaged as damage:
                    self._rebuild(damage)

    def close(self) -> None:
        """Write what is due and close the files; the next call opens them again."""
        if self._env is None:
            return
        try:
            if not self.is_private:
                with contextlib.suppress(StoreProblem):
                    self._flush()
                    self._mark(at_once=True)
        finally:
            self.abandon()
            if self.is_private:
                shutil.rmtree(self.folder, ignore_errors=True)

    def abandon(self) -> None:
        """Close the files as they are: in the child of a fork, or where they do not work."""
        env, self._env, self._tables = self._env, None, {}
        if env is not None:
            env.close()

    def _flush(self) -> None:
        """Write what has been gathered in memory."""

    def _open_files(self) -> None:
        import lmdb

        fill_lock_file(self.folder)
        try:
            self._env = lmdb.open(
                os.fspath(self.folder),
                map_size=self._map_size(),
                max_dbs=len(self._names),
                max_readers=512,
                # After a power cut the last transaction may be gone, and what is there is right.
                metasync=False,
                sync=not self.is_private,
            )
        except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
            raise _Damaged(str(error)) from error
        try:
            # LMDB reads no page but the first two before a table is opened.
            with self._transaction(write=True, buffers=True) as txn:
                if not self.is_private:
                    self._check_whole()
                self._tables = {
                    name: self._env.open_db(name.encode(), txn=txn) for name in self._names
                }
            self._check_readers()
            self._mark(at_once=True)
        except BaseException:
            self.abandon()
            raise

    def _map_size(self) -> int:
        return int(self.limit * (1 - _RESERVE)) // 4096 * 4096

    def _check_whole(self) -> None:
        self._check_length()
        if not is_known_whole(self.folder):
            damage = find_damage(self.folder)
            if damage is not None:
                raise _Damaged(damage)

    def _check_length(self) -> None:
        """Raise if the file is shorter than LMDB believes: to read there would end the process."""
        # In this order: other processes make the file longer at any time.
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        size = (self.folder / DATA).stat().st_size
        if size < needed:
            raise _Damaged(f"{DATA} has {size:,} bytes of {needed:,}")

    def _rebuild(self, damage: Exception) -> None:
        if not self.rebuilds or is_in_use(self.folder):
            raise StoreProblem(
                f"expected a store that is whole. Received: {self.folder}, where {damage}. Once no "
                f"process uses it, empty it: keras-transfer cache clear {self.folder}"
            ) from damage
        self._remove_files()
        self._make_files()
        self.notices.append(
            f"memory: expected a store that is whole. Received: {self.folder}, where {damage}. It "
            f"was begun anew; what it held is computed again. If this comes back, check the disk."
        )

    def _make_files(self) -> None:
        # A mark that is older could call the next data file whole.
        write_mark(self.folder, self.limit, is_whole=False)
        try:
            self._open_files()
        except BaseException:  # half a file would be damage, the next time
            self._remove_files()
            raise

    def _remove_files(self) -> None:
        for name in (DATA, LOCK):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()

    def _mark(self, *, at_once: bool = False) -> None:
        if not self.is_private and (at_once or time.monotonic() - self._marked > _MARK_EVERY):
            with contextlib.suppress(OSError):  # the disk is full: what is there can be read
                write_mark(self.folder, self.limit, is_whole=True)
            self._marked = time.monotonic()

    @contextlib.contextmanager
    def _more_room(self, size: int) -> Iterator[None]:
        """Let the file grow by so much for a while: into the reserve, if it is not beyond it."""
        self.open()
        used = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        with self._explaining():
            self._env.set_mapsize(max(self.limit // 4096 * 4096, used + size))
        try:
            yield
        finally:
            with self._explaining():
                self._env.set_mapsize(self._map_size())

    def _check_readers(self) -> None:
        """Free the pages that readers held on to which were killed."""
        self.open()
        with self._explaining():
            self._env.reader_check()

    # === Transactions ===

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        import lmdb

        try:
            yield
        except FullProblem:
            raise
        except _Damaged as error:
            raise StoreProblem(
                f"expected a store that is whole. Received: {self.folder}, where {error}. Start "
                f"again, which begins it anew"
            ) from error
        except lmdb.MapFullError as error:
            raise FullProblem(
                f"expected room for the rows. Received: {self.folder}, which is full at "
                f"{self.limit:,} bytes. Set Memory(size_limit=...) higher"
            ) from error
        except (lmdb.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            reason = str(reason).removeprefix(f"{self.folder}: ")
            raise StoreProblem(
                f"expected a folder on a local disk that can be written and has room. Received: "
                f"{self.folder}: {reason}{self._free_space()}. Make room, or choose another folder"
            ) from error

    def _free_space(self) -> str:
        # LMDB calls a disk that is full in the middle of a page an input/output error.
        try:
            return f" ({shutil.disk_usage(self.folder).free / 1e6:,.1f} MB free)"
        except OSError:
            return ""

    @contextlib.contextmanager
    def _begin(self, *, write: bool = False, buffers: bool = True) -> Iterator[Any]:
        self.open()
        with self._explaining():
            if not self.is_private:
                self._check_length()  # also that the folder has not been removed meanwhile
            with self._transaction(write=write, buffers=buffers) as txn:
                yield txn

    def _transaction(self, *, write: bool, buffers: bool) -> Any:
        import lmdb

        try:
            return self._env.begin(write=write, buffers=buffers)
        except lmdb.MapResizedError:  # by a process with a higher limit
            self._env.set_mapsize(0)
            return self._env.begin(write=write, buffers=buffers)

    def _get(self, txn: Any, table: str, key: bytes) -> Any:
        return txn.get(key, db=self._tables[table])

    def _put(self, txn: Any, table: str, key: bytes, value: bytes) -> None:
        txn.put(key, value, db=self._tables[table])

    def _used(self, txn: Any) -> int:
        """Bytes of all tables, in whole pages."""
        stats = [txn.stat(self._tables[name]) for name in self._names]
        pages = ("branch_pages", "leaf_pages", "overflow_pages")
        return sum(stat["psize"] * sum(stat[kind] for kind in pages) for stat in stats)

    def set_limit(self, limit: int) -> None:
        """Change the limit, for what is written from now on."""
        if limit != self.limit:
            self.limit = limit
            if self._env is not None:
                with self._explaining():
                    self._env.set_mapsize(self._map_size())
                self._mark(at_once=True)


def find_damage(folder: Path) -> str | None:
    """Say what is wrong with the data file, if something is; nobody may write meanwhile.

    LMDB trusts its pages: one that is damaged or missing can end the process. This reads the index
    only, 0.4 s for 100,000 rows; each row has a checksum of its own.
    """
    from lmdb.verify import verify

    try:
        # Pages that nothing refers to cost space and do no harm.
        problems = [problem for problem in verify(os.fspath(folder)) if "a leak" not in problem]
    except Exception as error:
        # Of any type: it walks over bytes that can be anything.
        return str(error) or type(error).__name__
    return problems[0] if problems else None
