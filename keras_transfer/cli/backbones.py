"""``keras-transfer backbones``: what there is to start from."""

from __future__ import annotations

import dataclasses
import json

import click

from keras_transfer.cli.common import print_table, reporting_errors

__all__ = ["backbones_command"]


@click.command("backbones")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backbones_command(as_json: bool) -> None:
    """List the pretrained networks by name.

    With the height and width in pixels that the source task used, the number of parameters, the
    length of the features, the licence and the publisher of the weights, and whether they are on
    this machine.
    """
    with reporting_errors():
        from keras_transfer.backbones.catalogue import describe_backbones

        rows = describe_backbones()
        if as_json:
            click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
            return
        heading = ("name", "input", "parameters", "features", "at hand", "licence", "weights from")
        cells = [
            (
                row.name,
                "-" if row.input_size is None else " x ".join(map(str, row.input_size)),
                "-" if row.parameters is None else f"{row.parameters:,}",
                "-" if row.features is None else str(row.features),
                "yes" if row.at_hand else "no",
                row.licence or "-",
                row.weights_from,
            )
            for row in rows
        ]
        print_table("", [heading, *cells])
