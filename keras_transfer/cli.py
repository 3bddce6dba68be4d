"""The ``keras-transfer`` command."""

from __future__ import annotations

import os

# click: kept, well known, and starts in 10 ms. Everything heavier is imported by the commands.
import click

from keras_transfer._version import __version__

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keras-transfer")
def main() -> None:
    """Transfer learning for Keras 3 as scikit-learn estimators."""
    # TensorFlow's own start-up lines would stand between ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@main.command()
@click.argument("file", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--quick", is_flag=True, help="Run small: one epoch a stage, few and small pictures.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier result in the output folder.")
@click.option("--quiet", is_flag=True, help="Print the result alone.")
def run(file: str, overrides: tuple[str, ...], quick: bool, overwrite: bool, quiet: bool) -> None:
    """Run the recipe FILE and write its results.

    Values of the file can be set anew, with dots between the parts of a key:

        keras-transfer run recipes/quickstart.toml seed=1 estimator.batch_size=16
    """
    from keras_transfer.errors import KerasTransferError, RecipeFileError

    try:
        # Inside: what is wrong with a file is known before TensorFlow starts.
        from keras_transfer.config import read_recipe_file

        recipe_file = read_recipe_file(file, overrides)
        if quick:
            recipe_file = recipe_file.quick()
        from keras_transfer.experiment import results_table, run_recipe_file

        results = run_recipe_file(recipe_file, source=file, overwrite=overwrite, verbose=not quiet)
    except RecipeFileError as error:
        raise _Failure(str(error), exit_code=2) from None
    except KerasTransferError as error:
        raise _Failure(str(error), exit_code=1) from None
    _print_table(recipe_file.title, results_table(results))
    click.echo(f"Written to {recipe_file.output}/")


class _Failure(click.ClickException):
    """A mistake of the user's, without a traceback."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


def _print_table(title: str, cells: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    heading, *rows = cells
    table = Table(title=title, title_justify="left")
    for number, text in enumerate(heading):
        table.add_column(text, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
