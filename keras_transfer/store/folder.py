"""The folder of an activation store: whose it is, whether it is whole, and how it is emptied.

Beside the two files of LMDB there is a third, which says that they are ours, in which format, and
as of when the data file is known to be whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where only LMDB's own locks guard the folder
    fcntl = None  # type: ignore[assignment]

from keras_transfer.errors import DataError, OutputError
from keras_transfer.store.rows import StoreProblem

__all__ = [
    "DATA",
    "FORMAT",
    "LOCK",
    "MARK",
    "check_owner",
    "clear_files",
    "fill_lock_file",
    "folder_locked",
    "is_in_use",
    "is_known_whole",
    "read_mark",
    "require_mark",
    "write_mark",
]

# Of what the files hold. One more with every change that an older version would misread.
FORMAT = 1
DATA, LOCK, MARK = "data.mdb", "lock.mdb", "keras_transfer_store.json"

# LMDB's own need for 512 readers, and a little more.
_LOCK_BYTES = 40_960


@contextlib.contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Keep other processes from opening, rebuilding or emptying the store meanwhile."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_in_use(folder: Path) -> bool:
    """Say whether another process has the store open. This one must not have.

    POSIX drops all locks of a process on a file as soon as it closes that file anywhere.
    """
    if fcntl is None or not (folder / LOCK).exists():
        return False
    descriptor = os.open(folder / LOCK, os.O_RDWR)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_mark(folder: Path) -> dict[str, Any] | None:
    """Return what the third file says; empty if it cannot be read; None if there is none."""
    try:
        mark = json.loads((folder / MARK).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return mark if isinstance(mark, dict) else {}


def require_mark(folder: Path) -> dict[str, Any]:
    """Return what the third file says.

    Raises
    ------
    DataError
        If the folder holds no store.
    """
    mark = read_mark(folder) if folder.is_dir() else None
    if mark is None:
        raise DataError(
            f"FOLDER: expected a folder that holds an activation store. Received: {folder}, "
            f"{_what_it_is(folder)}. Give the folder that memory= was set to."
        )
    return mark


def write_mark(folder: Path, limit: int, *, is_whole: bool) -> None:
    """Write the third file.

    Parameters
    ----------
    folder : pathlib.Path
    limit : int
        In bytes, for those who look at the folder later.
    is_whole : bool
        Whether the data file, as it is now, is what LMDB wrote. A transaction that another process
        is writing at this moment changes that file once more, and is looked at again.
    """
    mark: dict[str, Any] = {"format": FORMAT, "limit": limit}
    if is_whole:
        status = (folder / DATA).stat()
        mark |= {"size": status.st_size, "modified": status.st_mtime_ns}
    aside = folder / f".{MARK}.{os.getpid()}"
    try:
        aside.write_text(json.dumps(mark), encoding="utf-8")
        os.replace(aside, folder / MARK)
    finally:
        aside.unlink(missing_ok=True)


def check_owner(folder: Path) -> None:
    """Make sure that the folder holds a store of ours in this format, or none.

    Raises
    ------
    StoreProblem
    """
    # In this order: the data file is made after the mark.
    has_data, mark = (folder / DATA).exists(), read_mark(folder)
    if mark is None and has_data:
        raise StoreProblem(
            f"expected a folder with a store of keras_transfer, or without {DATA}. Received: "
            f"{folder}, with the {DATA} of something else. Choose another folder"
        )
    if mark is not None and mark.get("format") != FORMAT:
        raise StoreProblem(
            f"expected a store of format {FORMAT}. Received: {folder}, of format "
            f"{mark.get('format', 'unknown')}, from another version of keras_transfer. Choose "
            f"another folder, or empty it: keras-transfer cache clear {folder}"
        )


def is_known_whole(folder: Path) -> bool:
    """Say whether the data file is as it was when it was last known to be whole."""
    mark, status = read_mark(folder) or {}, (folder / DATA).stat()
    return (mark.get("size"), mark.get("modified")) == (status.st_size, status.st_mtime_ns)


def fill_lock_file(folder: Path) -> None:
    """Make LMDB's lock file with real bytes.

    LMDB makes one with a hole and writes through memory, and on a full disk that ends the process
    (SIGBUS), where this is an error.
    """
    with contextlib.suppress(FileExistsError), (folder / LOCK).open("xb") as file:
        try:
            file.write(bytes(_LOCK_BYTES))
            file.flush()
        except OSError:
            (folder / LOCK).unlink(missing_ok=True)
            raise


def clear_files(folder: Path) -> int:
    """Do what `clear_folder` says. This process must not have the store open."""
    require_mark(folder)
    try:
        with folder_locked(folder):
            if is_in_use(folder):
                raise OutputError(
                    f"FOLDER: expected a store that no process uses. Received: {folder}, which one "
                    f"has open. Wait until it has ended, or end it."
                )
            size = 0
            # The mark goes last: what is left after a kill is still known as ours.
            for path in (folder / DATA, folder / LOCK, *folder.glob(f".{MARK}.*"), folder / MARK):
                with contextlib.suppress(FileNotFoundError):
                    size += path.stat().st_size
                    path.unlink()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"FOLDER: expected a folder that can be written. Received: {folder}: "
            f"{error.strerror or error}. Change its permissions."
        ) from error
    return size


def _what_it_is(folder: Path) -> str:
    if folder.is_dir():
        return f"which has no {MARK}"
    return "which is a file" if folder.exists() else "no such folder"
