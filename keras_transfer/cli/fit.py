"""``keras-transfer fit``: an estimator from a folder of pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import click

from keras_transfer.cli.common import (
    INTERRUPTED,
    on_error_option,
    print_table,
    reporting_errors,
    start_tensorflow,
)
from keras_transfer.errors import listed

__all__ = ["fit_command"]

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


class _Seconds(click.ParamType):
    """A span of time: seconds, or a number with its unit."""

    name = "seconds"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Read 90, 90s, 10m or 1.5h."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
            self.fail(f"expected a time such as 90, 10m or 1.5h. Received: {value!r}.", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@click.command("fit")
@click.argument("source", metavar="FOLDER|CSV")
@click.option("--output", metavar="RUN", help="The folder to write; by default runs/ and the name.")
@click.option(
    "--quality",
    type=click.Choice(["fast", "good", "best"]),
    default="good",
    show_default=True,
    help="Backbone, size and recipe for those who do not want to choose.",
)
@click.option("--regression", is_flag=True, help="The labels are numbers.")
@click.option("--backbone", help="Instead of the quality's; `keras-transfer backbones` lists them.")
@click.option("--recipe", type=click.Choice(["parameter", "structure", "composite"]))
@click.option("--readout", help="The block that the head reads; by default the data choose.")
@click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS")
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many in each stage.")
@click.option("--validation", metavar="FOLDER|CSV", help="Validation data of your own.")
@click.option("--target-score", type=float, help="Stop as soon as the validation reaches it.")
@click.option("--time-budget", type=_Seconds(), metavar="TIME", help="Such as 90, 10m or 1.5h.")
@click.option(
    "--memory",
    metavar="FOLDER",
    help="Keep what is frozen there, for later runs; `keras-transfer cache` looks at it.",
)
@on_error_option()
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace an earlier result in the output folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Print the result alone.")
def fit_command(
    source: str,
    output: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    validation: str | None,
    regression: bool,
    **options: Any,
) -> None:
    """Train on a folder that holds a folder of pictures for each class, or a CSV of path and label.

    Writes the estimator, its history and a look at the data to the folder RUN. Ctrl-C ends the
    training early and keeps the best weights so far.

    \b
        keras-transfer fit pictures/ --time-budget 10m
        keras-transfer predict runs/pictures new/
    """  # noqa: D301  (click's own mark, which keeps the lines that follow as they are)
    with reporting_errors("Interrupted. Nothing was written."):
        # Inside: what is wrong with the data is known before TensorFlow starts.
        from keras_transfer.inputs.labelled_files import read_labelled
        from keras_transfer.output_folder import check_output, new_output

        run = output or str(Path("runs") / (Path(source).resolve().stem or "pictures"))
        check_output(run, overwrite)
        for path in filter(None, (source, validation)):
            read_labelled(path)
        start_tensorflow()
        estimator = _make_estimator(regression, verbose=not quiet, **options)
        with new_output(run, overwrite) as folder:
            started = time.monotonic()
            is_interrupted = False
            try:
                estimator.fit(source, validation_data=validation)
            except KeyboardInterrupt:
                if not hasattr(estimator, "backbone_"):  # nothing was learned
                    raise
                is_interrupted = True
            figures = _describe(estimator, time.monotonic() - started, is_interrupted)
            _write(estimator, figures, folder)
    if as_json:
        click.echo(json.dumps({"run": run, **figures}, indent=2, ensure_ascii=False))
    else:
        print_table("", [("measure", "value"), *_cells(figures)])
    if not quiet:
        click.echo(
            f"\nWritten to {run}/. To use it: keras-transfer predict {run} FILE...", err=True
        )
    if is_interrupted:
        click.echo("Interrupted: the best weights so far were kept.", err=True)
        raise SystemExit(INTERRUPTED)


def _make_estimator(
    regression: bool,
    *,
    quality: str,
    backbone: str | None,
    recipe: str | None,
    image_size: int | None,
    epochs: int | None,
    seed: int,
    **options: Any,
) -> Any:
    from keras_transfer.estimators.classifier import TransferClassifier
    from keras_transfer.estimators.regressor import TransferRegressor
    from keras_transfer.modes import RECIPES
    from keras_transfer.quality import QUALITIES

    preset = QUALITIES[quality]
    settings = dict(preset.settings) if recipe in (None, preset.recipe) else {}
    if epochs is not None:
        settings["epochs"] = epochs
    if image_size is None and backbone in (None, preset.backbone):
        image_size = preset.image_size
    kind = TransferRegressor if regression else TransferClassifier
    given = {name: value for name, value in options.items() if value is not None}
    return kind(
        backbone or preset.backbone,
        RECIPES[recipe or preset.recipe](**settings),
        image_size=image_size,
        random_state=seed,
        **given,
    )


def _describe(estimator: Any, seconds: float, is_interrupted: bool) -> dict[str, Any]:
    report = estimator.data_report_
    score, error = estimator.validation_score_, estimator.validation_standard_error_
    return {
        "backbone": estimator.backbone_.name,
        "image_size": list(estimator._reader.size),
        "classes": [str(count.label) for count in report.class_counts],
        "training_pictures": report.n_train,
        "validation_pictures": report.n_validation,
        "skipped": len(report.skipped),
        "validation_score": None if math.isnan(score) else score,
        "validation_standard_error": None if math.isnan(error) else error,
        "readout": estimator.readout_.readout.description,
        "readout_reason": str(estimator.readout_),
        "fine_tuning": None if estimator.fine_tuning_ is None else str(estimator.fine_tuning_),
        "epochs": estimator.n_iter_,
        "stages": [
            {
                "name": record.stage.name,
                "epochs": record.epochs,
                "ended_by": record.reason,
                "frozen_part": record.stored,
            }
            for record in estimator.stages_
        ],
        "seconds": round(seconds, 1),
        "interrupted": is_interrupted,
    }


def _cells(figures: dict[str, Any]) -> list[tuple[str, str]]:
    score = figures["validation_score"]
    classes = figures["classes"]
    shown = listed(classes, 5)
    shown_score = "not measured: too few pictures"
    if score is not None:
        error = figures["validation_standard_error"]
        shown_score = f"{score:.3f}" + ("" if error is None else f" ± {error:.3f}")
        if not figures["validation_pictures"]:
            shown_score += " (exact heads, out of fold)"
    cells = [
        ("classes", shown),
        ("training pictures", f"{figures['training_pictures']:,}"),
        ("validation pictures", f"{figures['validation_pictures']:,}"),
        ("validation score", shown_score),
        ("read at", figures["readout"]),
        ("epochs", f"{figures['epochs']:,}"),
        ("seconds", f"{figures['seconds']:.1f}"),
    ]
    return cells if classes else cells[1:]


def _write(estimator: Any, figures: dict[str, Any], folder: Path) -> None:
    from keras_transfer.output_folder import ESTIMATOR, HISTORY, REPORT, RESULTS, write_history

    estimator.save(folder / ESTIMATOR)
    write_history(folder / HISTORY, estimator.history_)
    report = dataclasses.asdict(estimator.data_report_)
    for name, content in ((RESULTS, figures), (REPORT, report)):
        text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
        (folder / name).write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
