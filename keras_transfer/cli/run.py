"""``keras-transfer run``: a recipe file."""

from __future__ import annotations

import click

from keras_transfer.cli.common import print_table, reporting_errors, start_tensorflow

__all__ = ["run_command"]


@click.command("run")
@click.argument("file", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--quick", is_flag=True, help="Run small: one epoch a stage, few and small pictures.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier result in the output folder.")
@click.option("--quiet", is_flag=True, help="Print the result alone.")
def run_command(
    file: str, overrides: tuple[str, ...], quick: bool, overwrite: bool, quiet: bool
) -> None:
    """Run the recipe FILE and write its results.

    Progress goes to standard error, the table of results to standard output. Values of the file
    can be set anew, with dots between the parts of a key:

    \b
        keras-transfer run recipes/quickstart.toml seed=1 runs.0.settings.epochs=5
        keras-transfer run recipes/quickstart.toml --quick output=runs/try
    """  # noqa: D301  (click's own mark, which keeps the lines that follow as they are)
    with reporting_errors("Interrupted. Nothing was written."):
        # Inside: what is wrong with a file is known before TensorFlow starts.
        from keras_transfer.config import read_recipe_file

        recipe_file = read_recipe_file(file, overrides, quick=quick)
        from keras_transfer.experiment import results_table, run_recipe_file
        from keras_transfer.output_folder import check_output

        check_output(recipe_file.output, overwrite)
        start_tensorflow()
        results = run_recipe_file(recipe_file, source=file, overwrite=overwrite, verbose=not quiet)
    if not quiet:
        click.echo(err=True)
    print_table(recipe_file.title, results_table(results))
    if not quiet:
        click.echo(f"Written to {recipe_file.output}/", err=True)
