"""``keras-transfer cache``: look at the activations that a folder holds, and delete them."""

from __future__ import annotations

import dataclasses
import datetime
import json

import click

from keras_transfer.cli.common import print_table, reporting_errors

__all__ = ["cache_command"]


@click.group("cache")
def cache_command() -> None:
    """Look at kept activations, or delete them.

    What the frozen part of a network gives for an input is computed once, and kept in the folder
    that memory= is set to.
    """


@cache_command.command("info")
@click.argument("folder")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info_command(folder: str, as_json: bool) -> None:
    """Say what FOLDER holds.

    The size of its file, which does not shrink, and of the rows in it; how much that may be; the
    number of rows, and of the networks that they are of; when a row was last used, of the one that
    was not for longest and of the latest.
    """
    with reporting_errors():
        from keras_transfer.store.activation_store import describe_folder

        info = describe_folder(folder)
        times = {name: _time(getattr(info, name)) for name in ("oldest", "newest")}
        if as_json:
            click.echo(json.dumps(dataclasses.asdict(info) | times, indent=2))
            return
        click.echo(info.folder)
        cells = [
            ("", ""),
            ("file", _megabytes(info.file_bytes)),
            ("rows take", _megabytes(info.bytes)),
            ("limit", _megabytes(info.limit)),
            ("rows", f"{info.rows:,}"),
            ("networks", f"{info.spaces:,}"),
            ("oldest use", times["oldest"] or "-"),
            ("newest use", times["newest"] or "-"),
        ]
        print_table("", cells)


@cache_command.command("clear")
@click.argument("folder")
def clear_command(folder: str) -> None:
    """Delete the activations in FOLDER.

    Their files only; the folder and all else in it stay. No process may be using them.
    """
    with reporting_errors():
        from keras_transfer.store.activation_store import clear_folder

        click.echo(f"{folder}: {_megabytes(clear_folder(folder))} deleted.")


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.1f} MB"


def _time(seconds: float | None) -> str | None:
    """Return a time with its distance from UTC, to the second."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
