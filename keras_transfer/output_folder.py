"""The folder that the results of a run are written to: whole, or not there."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keras_transfer.backbones.registry import SAVED_SUFFIX
from keras_transfer.errors import OutputError, OutputExistsError
from keras_transfer.persistence.files import replace_folder

__all__ = [
    "ESTIMATOR",
    "HISTORY",
    "RECIPE",
    "REPORT",
    "RESULTS",
    "TABLE",
    "check_output",
    "new_output",
    "write_history",
]

RESULTS, TABLE, HISTORY, RECIPE = "results.json", "results.md", "history.csv", "recipe.toml"
ESTIMATOR, REPORT = f"estimator{SAVED_SUFFIX}", "data_report.json"
_WRITTEN = {RESULTS, TABLE, HISTORY, RECIPE, REPORT}
# Those of every estimator's history that there may be, in this order.
_COLUMNS = ("stage", "epoch", "loss", "accuracy", "learning_rate", "val_loss", "val_score")


@contextmanager
def new_output(output: str, overwrite: bool) -> Iterator[Path]:
    """Give a folder beside ``output``, which becomes ``output`` if all went well.

    Parameters
    ----------
    output : str
    overwrite : bool

    Raises
    ------
    OutputExistsError
    OutputError
        If it cannot be written.
    """
    check_output(output, overwrite)
    target = Path(output).expanduser().resolve()  # a link stays, and leads to the new folder
    made = [parent for parent in target.parents if not parent.exists()]
    aside: Path | None = None
    is_written = False
    try:
        with _explained(output):
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield aside
        check_output(target, overwrite)
        with _explained(output):
            aside.chmod(target.parent.stat().st_mode & 0o777)  # mkdtemp's is for its owner alone
            replace_folder(target, aside)
        is_written = True
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for parent in made if not is_written else ():
            with suppress(OSError):  # not there, or in use by now
                parent.rmdir()


@contextmanager
def _explained(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"output: expected a folder that can be written. Received: {output}: "
            f"{error.strerror or error}. Choose another with output=FOLDER."
        ) from error


def check_output(folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Make sure that nothing but an earlier result would be replaced, and that only if asked.

    Parameters
    ----------
    folder : str or path
    overwrite : bool, default=False

    Raises
    ------
    OutputExistsError
    OutputError
        If it cannot be read.
    """
    output = Path(folder).expanduser()
    try:
        if not output.exists():
            return
        names = {path.name for path in output.iterdir()} if output.is_dir() else None
    except OSError as error:
        raise OutputError(
            f"output: expected a folder that can be read. Received: {output}: {error.strerror}."
        ) from error
    if names is None:
        raise OutputExistsError(
            f"output: expected a folder. Received: {output}, which is a file. Choose another with "
            f"output=FOLDER."
        )
    if not overwrite:
        raise OutputExistsError(
            f"output: expected a folder that does not exist. Received: {output}, which does. "
            f"Choose another with output=FOLDER, or pass --overwrite."
        )
    others = sorted(name for name in names - _WRITTEN if not name.endswith(SAVED_SUFFIX))
    if RESULTS not in names or others:
        held = f"holds {others[0]} as well" if RESULTS in names else f"holds no {RESULTS}"
        raise OutputExistsError(
            f"output: expected an earlier result, and nothing else, to overwrite. Received: "
            f"{output}, which {held}. Choose another with output=FOLDER."
        )


def write_history(path: Path, history: Mapping[str, Sequence[Any]], run: str | None = None) -> None:
    """Write what an estimator's ``history_`` holds as a CSV, or add it to one.

    Parameters
    ----------
    path : pathlib.Path
        If it exists, rows are added.
    history : mapping of str to list
    run : str, optional
        Name of the run, in a column of its own.
    """
    first = {} if run is None else {"run": run}
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow([*first, *_COLUMNS, "seconds"])
        for row in range(len(history["epoch"])):
            cells = [history[column][row] if column in history else "" for column in _COLUMNS]
            writer.writerow([*first.values(), *cells, round(history["seconds"][row], 3)])
