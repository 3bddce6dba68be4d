"""The ``keras-transfer`` command."""

from __future__ import annotations

# click: kept, well known, and starts in 10 ms. Everything heavier is imported by the commands.
import click

from keras_transfer._version import __version__
from keras_transfer.cli.backbones import backbones_command
from keras_transfer.cli.cache import cache_command
from keras_transfer.cli.evaluate import evaluate_command
from keras_transfer.cli.fit import fit_command
from keras_transfer.cli.predict import predict_command
from keras_transfer.cli.run import run_command

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keras-transfer")
def main() -> None:
    """Transfer learning for Keras 3 as scikit-learn estimators.

    Results go to standard output, all else to standard error. The exit code is 0; 2 for a wrong
    call or recipe file, 1 for what fails while running, 130 after Ctrl-C.
    """


for command in (
    fit_command,
    predict_command,
    evaluate_command,
    run_command,
    backbones_command,
    cache_command,
):
    main.add_command(command)
