"""``keras-transfer predict``: labels for files, with a fitted estimator."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from keras_transfer.cli.common import load_run, on_error_option, reporting_errors

__all__ = ["predict_command"]

# How many files are answered at once.
_CHUNK = 256


@click.command("predict")
@click.argument("run")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, with all probabilities.")
@click.option(
    "--novelty", is_flag=True, help="Add how unlike the training pictures each is: above 1 it is."
)
@on_error_option("; skipped ones are listed")
def predict_command(
    run: str, files: tuple[str, ...], as_json: bool, novelty: bool, on_error: str
) -> None:
    """Label each FILE with the estimator of RUN.

    RUN is a folder that `fit` or `run` wrote, or a saved estimator. FILE is a picture, a folder of
    pictures, or - for paths on standard input, one a line. Prints CSV with a header:

    \b
        keras-transfer predict runs/animals new/*.jpg > labels.csv
        find new -name '*.png' | keras-transfer predict runs/animals - --json
    """  # noqa: D301  (click's own mark, which keeps the lines that follow as they are)
    with reporting_errors():
        from keras_transfer.errors import DataError
        from keras_transfer.inputs.labelled_files import list_pictures

        # Names that are not valid UTF-8 are taken, and given back, as they are.
        for stream in (sys.stdin, sys.stdout):
            stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        named = [name for file in files for name in _expand(file)]
        if not named:
            raise DataError("FILE: expected at least one path. Received: none on standard input.")
        pictures = list_pictures(named)
        estimator = load_run(run)
        writer = csv.writer(sys.stdout)
        added = ("novelty",) if novelty else ()
        heading = () if as_json else (*_columns(estimator), *added)
        skipped: list[tuple[str, str]] = []
        for start in range(0, len(pictures), _CHUNK):
            chunk = pictures[start : start + _CHUNK]
            rows: Iterable[dict[str, Any]]
            try:
                rows = list(_answer(estimator, chunk, novelty))
            except DataError:
                if on_error == "raise":
                    raise
                broken = dict(_find_broken(estimator, chunk))
                skipped += broken.items()
                chunk = [path for path in chunk if path not in broken]
                rows = _answer(estimator, chunk, novelty) if chunk else ()
            for row in rows:
                if heading:  # only now: what cannot be read at all prints nothing
                    writer.writerow(heading)
                    heading = ()
                if as_json:
                    click.echo(json.dumps(row, ensure_ascii=False))
                else:
                    writer.writerow(
                        [value for value in row.values() if not isinstance(value, dict)]
                    )
            sys.stdout.flush()
        if heading:
            writer.writerow(heading)
        for name, problem in skipped:
            click.echo(f"Skipped: {name}: {problem}", err=True)


def _expand(file: str) -> Iterator[str]:
    if file != "-":
        yield file
        return
    for line in sys.stdin:
        if line.rstrip("\r\n"):
            yield line.rstrip("\r\n")


def _find_broken(estimator: Any, paths: Sequence[str]) -> list[tuple[str, str]]:
    from keras_transfer.inputs.picture_files import EncodedPictures

    return EncodedPictures(paths, estimator._reader.size).find_problems()


def _columns(estimator: Any) -> tuple[str, ...]:
    if not hasattr(estimator, "predict_proba"):
        return ("path", *(_numbered("value", estimator)))
    if estimator._targets.task == "multilabel":
        return ("path", *_numbered("label", estimator))
    return ("path", "label", "probability")


def _numbered(word: str, estimator: Any) -> list[str]:
    count = estimator._targets.n_outputs
    return [word] if count == 1 else [f"{word}_{number}" for number in range(count)]


def _answer(estimator: Any, paths: Sequence[str], novelty: bool) -> Iterator[dict[str, Any]]:
    """Give a row for each file, as in `_columns`, with all probabilities, and perhaps novelty."""
    rows = _predict(estimator, paths)
    if not novelty:
        yield from rows
        return
    for row, distance in zip(rows, estimator.novelty(paths).tolist(), strict=True):
        yield {**row, "novelty": round(distance, 6)}


def _predict(estimator: Any, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    import numpy as np

    columns = _columns(estimator)[1:]
    if not hasattr(estimator, "predict_proba"):
        values = np.reshape(estimator.predict(paths), (len(paths), -1))
        for path, row in zip(paths, values.tolist(), strict=True):
            yield {"path": path, **dict(zip(columns, row, strict=True))}
        return
    probabilities = estimator.predict_proba(paths)
    if estimator._targets.task == "multilabel":
        answers = estimator._targets.decode(probabilities).tolist()
        for path, row, labels in zip(paths, probabilities.tolist(), answers, strict=True):
            shown = {name: round(value, 6) for name, value in zip(columns, row, strict=True)}
            yield {
                "path": path,
                **dict(zip(columns, labels, strict=True)),
                "probabilities": shown,
            }
        return
    names = [str(label) for label in estimator.classes_.tolist()]
    answers = estimator._targets.decode(probabilities).tolist()
    for path, row, label in zip(paths, probabilities, answers, strict=True):
        yield {
            "path": path,
            "label": str(label),
            "probability": round(float(row.max()), 6),
            "probabilities": {
                name: round(float(value), 6) for name, value in zip(names, row, strict=True)
            },
        }
