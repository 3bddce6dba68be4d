"""What the commands share: errors as exit codes, a quiet start of TensorFlow, tables."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

__all__ = [
    "INTERRUPTED",
    "load_run",
    "on_error_option",
    "print_table",
    "reporting_errors",
    "start_tensorflow",
]

# What shells and other programs expect: of a file's mistakes (click's own for wrong usage), of
# what fails while running, and of Ctrl-C.
_WRONG_FILE, _FAILED, INTERRUPTED = 2, 1, 128 + signal.SIGINT


@contextlib.contextmanager
def reporting_errors(interrupted: str = "Interrupted.") -> Iterator[None]:
    """Turn a user's mistakes into one line each and an exit code, and warnings into lines.

    Parameters
    ----------
    interrupted : str
        What to say after Ctrl-C.
    """
    from keras_transfer.errors import KerasTransferError, KerasTransferWarning, RecipeFileError

    try:
        with warnings.catch_warnings():
            # Each time: several runs may have the same to say of their data.
            warnings.simplefilter("always", KerasTransferWarning)
            warnings.showwarning = _show_warning
            yield
    except RecipeFileError as error:
        raise _Failure(error, _WRONG_FILE) from None
    except BrokenPipeError:  # the reader, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would complain once more at its end
        raise SystemExit(128 + signal.SIGPIPE) from None
    except (KerasTransferError, OSError, ImportError) as error:
        # A full disk and a package that is not installed are the user's to mend, as well.
        raise _Failure(error, _FAILED) from None
    except KeyboardInterrupt:
        click.echo(f"\n{interrupted}", err=True)
        raise SystemExit(INTERRUPTED) from None


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    from keras_transfer.errors import KerasTransferWarning

    if issubclass(category, KerasTransferWarning):  # those of the libraries are for developers
        click.echo(f"Warning: {message}", err=True)


class _Failure(click.ClickException):
    """A mistake of the user's, without a traceback."""

    def __init__(self, error: Exception, exit_code: int):
        super().__init__("\n".join([str(error), *getattr(error, "__notes__", ())]))
        self.exit_code = exit_code  # type: ignore[misc]


def start_tensorflow() -> None:
    """Start TensorFlow without its own lines, which would stand between ours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # It writes some before it reads its log level (2.21), past sys.stderr.
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow as tf

            tf.constant(0)  # starts the devices
        except BaseException:
            aside.seek(0)
            os.write(stderr, aside.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def on_error_option(more: str = "") -> Any:
    """Return the option for files that cannot be read, its help ending in ``more``."""
    return click.option(
        "--on-error",
        type=click.Choice(["raise", "skip"]),
        default="raise",
        show_default=True,
        help=f"What is done about files that cannot be read{more}.",
    )


def load_run(run: str) -> Any:
    """Load the estimator of a run: of a folder that `fit` or `run` wrote, or a saved file.

    Raises
    ------
    DataError
        If there is none, or more than one.
    """
    from keras_transfer.backbones.registry import SAVED_SUFFIX
    from keras_transfer.errors import DataError

    path = Path(run).expanduser()
    if not path.exists():
        raise DataError(
            f"RUN: expected a folder that `keras-transfer fit` wrote, or a {SAVED_SUFFIX} file. "
            f"Received: {run}, no such file or folder."
        )
    saved = sorted(path.glob(f"*{SAVED_SUFFIX}")) if path.is_dir() else [path]
    if len(saved) != 1:
        found = ", ".join(file.name for file in saved) or "none"
        raise DataError(
            f"RUN: expected a folder with one saved estimator, or a {SAVED_SUFFIX} file. Received: "
            f"{run}, with {found}. Name the file itself."
        )
    start_tensorflow()
    from keras_transfer.persistence.native import load

    estimator = load(saved[0])
    if not hasattr(estimator, "predict"):
        raise DataError(
            f"RUN: expected a classifier or regressor. Received: {saved[0]}, a "
            f"{type(estimator).__name__}."
        )
    return estimator


def print_table(title: str, cells: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output, its heading first."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading, *rows = cells
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, text in enumerate(heading):
        side: Any = "right" if number else "left"
        table.add_column(text, justify=side, no_wrap=bool(number))
    for row in rows:
        table.add_row(*map(Text, row))  # Not markup: names may hold brackets.
    console = Console()
    # A pipe has no width, and a terminal may be narrower than the figures; nothing is cut.
    console.width = max(console.width, 80 if console.is_terminal else 200)
    if title:
        console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(table)
