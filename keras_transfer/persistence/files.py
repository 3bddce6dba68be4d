"""Files and folders that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_transfer.errors import OutputExistsError

__all__ = ["new_file", "new_folder", "refuse_existing", "replace_folder"]


def refuse_existing(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Return the path, unless something stands there that is not to be replaced.

    Raises
    ------
    OutputExistsError
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path}: expected a path that is free. Received: one that exists. Choose another, or "
            f"pass overwrite=True."
        )
    return path


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path``, which becomes ``path`` if all went well.

    Parameters
    ----------
    path : str or path
    overwrite : bool, default=False

    Raises
    ------
    OutputExistsError
    """
    path = refuse_existing(path, overwrite)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path}: expected a file in a folder that exists. Received: {path.parent}, which does "
            f"not. Make it first."
        )
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        # mkstemp makes a file for its owner alone.
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o666 & ~umask)
        refuse_existing(path, overwrite)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder beside ``path``, which becomes ``path`` if all went well.

    Parameters
    ----------
    path : str or path
    overwrite : bool, default=False
        Whether a folder that stands there is replaced.

    Raises
    ------
    OutputExistsError
    """
    path = refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield aside
        aside.chmod(path.parent.stat().st_mode & 0o777)  # mkdtemp's is for its owner alone
        refuse_existing(path, overwrite)
        replace_folder(path, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def replace_folder(target: Path, new: Path) -> None:
    """Put a folder where an earlier one may stand, which is kept until the new one is there."""
    if not target.exists():
        new.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
