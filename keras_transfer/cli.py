"""The ``keras-transfer`` command."""

from __future__ import annotations

import os
import signal
import tempfile
from typing import Any

# click: kept, well known, and starts in 10 ms. Everything heavier is imported by the commands.
import click

from keras_transfer._version import __version__

__all__ = ["main"]

# What shells and other programs expect: of the file's mistakes (click's own for wrong usage), of
# what fails while running, and of Ctrl-C.
_WRONG_FILE, _FAILED, _INTERRUPTED = 2, 1, 128 + signal.SIGINT


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keras-transfer")
def main() -> None:
    """Transfer learning for Keras 3 as scikit-learn estimators."""


@main.command()
@click.argument("file", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--quick", is_flag=True, help="Run small: one epoch a stage, few and small pictures.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier result in the output folder.")
@click.option("--quiet", is_flag=True, help="Print the result alone.")
def run(file: str, overrides: tuple[str, ...], quick: bool, overwrite: bool, quiet: bool) -> None:
    """Run the recipe FILE and write its results.

    Progress goes to standard error, the table of results to standard output. Values of the file
    can be set anew, with dots between the parts of a key:

    \b
        keras-transfer run recipes/quickstart.toml seed=1 runs.0.settings.epochs=5
        keras-transfer run recipes/quickstart.toml --quick output=runs/try
    """  # noqa: D301  (click's own mark, which keeps the lines that follow as they are)
    from keras_transfer.errors import KerasTransferError, RecipeFileError

    try:
        # Inside: what is wrong with a file is known before TensorFlow starts.
        from keras_transfer.config import read_recipe_file

        recipe_file = read_recipe_file(file, overrides, quick=quick)
        from keras_transfer.experiment import results_table, run_recipe_file
        from keras_transfer.output_folder import check_output

        check_output(recipe_file.output, overwrite)
        _start_tensorflow()
        results = run_recipe_file(recipe_file, source=file, overwrite=overwrite, verbose=not quiet)
    except RecipeFileError as error:
        raise _Failure(error, _WRONG_FILE) from None
    except (KerasTransferError, OSError, ImportError) as error:
        # A full disk and a package that is not installed are the user's to mend, as well.
        raise _Failure(error, _FAILED) from None
    except KeyboardInterrupt:
        click.echo("\nInterrupted. Nothing was written.", err=True)
        raise SystemExit(_INTERRUPTED) from None
    if not quiet:
        click.echo(err=True)
    _print_table(recipe_file.title, results_table(results))
    if not quiet:
        click.echo(f"Written to {recipe_file.output}/", err=True)


def _start_tensorflow() -> None:
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


class _Failure(click.ClickException):
    """A mistake of the user's, without a traceback."""

    def __init__(self, error: Exception, exit_code: int):
        super().__init__("\n".join([str(error), *getattr(error, "__notes__", ())]))
        self.exit_code = exit_code  # type: ignore[misc]


def _print_table(title: str, cells: list[tuple[str, ...]]) -> None:
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
