"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_transfer.errors import OutputExistsError

__all__ = ["new_file", "refuse_existing"]


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
