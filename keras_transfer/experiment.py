"""Run a recipe file: fit its estimators, test them on pictures never seen, write the results."""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score

from keras_transfer._version import __version__
from keras_transfer.backbones.registry import get_backbone
from keras_transfer.config import RecipeFile, RunTable
from keras_transfer.config_checks import RANDOM
from keras_transfer.datasets import LOADERS, per_class_split
from keras_transfer.errors import (
    DataError,
    InvalidParameterError,
    KerasTransferError,
    RecipeFileError,
)
from keras_transfer.estimators.classifier import TransferClassifier
from keras_transfer.modes import RECIPES
from keras_transfer.output_folder import HISTORY, RECIPE, RESULTS, TABLE, new_output
from keras_transfer.training.progress import open_display

__all__ = ["RunScore", "results_table", "run_recipe_file"]

_BACKBONE = TransferClassifier().backbone


@dataclass(frozen=True)
class RunScore:
    """One row of the table.

    Attributes
    ----------
    name : str
    balanced_accuracy : float
        On pictures never seen.
    trained_parameters : int
        The most that trained in one stage.
    seconds : float
        Of the fit.
    """

    name: str
    balanced_accuracy: float
    trained_parameters: int
    seconds: float


def run_recipe_file(
    recipe_file: RecipeFile,
    *,
    source: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    verbose: bool | str = "auto",
) -> list[RunScore]:
    """Fit, test and write everything that a recipe file describes.

    Parameters
    ----------
    recipe_file : RecipeFile
    source : str or path, optional
        The file it was read from, copied into the output.
    overwrite : bool, default=False
        Whether an earlier result in the output folder is replaced.
    verbose : {"auto", True, False}

    Returns
    -------
    list of RunScore
        In the order of the file.

    Raises
    ------
    OutputExistsError
        If the output folder exists and is not to be replaced, or holds something else.
    """
    with new_output(recipe_file.output, overwrite) as folder:
        if source is not None:  # now, since the file may be edited while this runs
            shutil.copyfile(source, folder / RECIPE)
        _check_blocks(recipe_file, source)
        results = list(_fit_all(recipe_file, folder, verbose))
        order = [run.name for run in recipe_file.runs]
        results.sort(key=lambda result: order.index(result.name))
        _write(recipe_file, results, folder)
    return results


def results_table(results: Sequence[RunScore]) -> list[tuple[str, ...]]:
    """Return the table's cells, the heading first."""
    heading = ("run", "balanced accuracy", "trained parameters", "seconds")
    return [
        heading,
        *(
            (r.name, f"{r.balanced_accuracy:.3f}", f"{r.trained_parameters:,}", f"{r.seconds:.1f}")
            for r in results
        ),
    ]


def _check_blocks(recipe_file: RecipeFile, source: str | os.PathLike[str] | None) -> None:
    """Make sure that all runs name blocks that exist, before the first one trains.

    Raises
    ------
    RecipeFileError
    """
    problems = []
    for number, run in enumerate(recipe_file.runs):
        if run.settings.get("train_blocks", 0) in (0, "all", "gradual"):
            continue
        parameters = recipe_file.estimator_parameters()
        size = parameters.get("image_size", recipe_file.data.image_size)
        try:
            RECIPES[run.recipe](**run.settings).build(
                get_backbone(parameters.get("backbone", _BACKBONE), weights=None),
                outputs=2,
                input_shape=(*np.broadcast_to(size, 2).tolist(), 3),
                readout=parameters.get("readout", "last"),
            )
        except KerasTransferError as error:
            problems.append(f"runs.{number}.settings: {error}")
    if problems:
        raise RecipeFileError(os.fspath(source or "recipe"), problems)


def _fit_all(recipe_file: RecipeFile, folder: Path, verbose: bool | str) -> Iterator[RunScore]:
    data = recipe_file.data
    bunch = LOADERS[data.dataset](image_size=data.image_size)
    labels = np.asarray(bunch.target_names)[bunch.target]
    try:
        train, test = per_class_split(labels, data.train_per_class, random_state=recipe_file.seed)
    except DataError as error:
        raise InvalidParameterError(f"data.train_per_class: {error}") from error
    if data.test_per_class is not None:
        kept = [test[labels[test] == name][: data.test_per_class] for name in np.unique(labels)]
        test = np.concatenate(kept)
    seconds: dict[str, float] = {}
    with open_display(verbose) as display:
        for number, run in enumerate(recipe_file.runs_in_order()):
            budget = None if run.same_seconds_as is None else seconds[run.same_seconds_as]
            display.start_run(run.name, number + 1, len(recipe_file.runs), budget)
            with _named(run):
                estimator = _make_estimator(recipe_file, run, budget)
                started = time.monotonic()
                estimator.fit(bunch.images[train], labels[train])
            seconds[run.name] = time.monotonic() - started
            score = balanced_accuracy_score(labels[test], estimator.predict(bunch.images[test]))
            display.say(
                f"{run.name}: balanced accuracy {score:.3f} on {len(test)} pictures never seen"
            )
            trained = max(sum(row.trained for row in record.rows) for record in estimator.stages_)
            _write_history(folder / HISTORY, run.name, estimator.history_)
            if run.save:
                estimator.save(folder / run.file_name)
            yield RunScore(run.name, float(score), trained, seconds[run.name])


@contextmanager
def _named(run: RunTable) -> Iterator[None]:
    """Say in which run an error was, also of the libraries below."""
    note = f"This was in the run {run.name!r}."
    try:
        yield
    except KerasTransferError as error:
        error.add_note(note)
        raise
    except ValueError as error:
        # Such as a scoring that is for two classes, or a weights file that is none.
        wrapped = InvalidParameterError(f"expected values that work together. Received: {error}")
        wrapped.add_note(note)
        raise wrapped from error


def _make_estimator(
    recipe_file: RecipeFile, run: RunTable, budget: float | None
) -> TransferClassifier:
    parameters = recipe_file.estimator_parameters()
    weights = None if run.weights == RANDOM else run.weights
    name = parameters.pop("backbone", _BACKBONE)
    parameters.setdefault("image_size", recipe_file.data.image_size)
    if budget is not None:
        parameters["time_budget"] = budget
    return TransferClassifier(
        get_backbone(name, weights=weights),
        RECIPES[run.recipe](**run.settings),
        random_state=recipe_file.seed,
        **parameters,
    )


def _write_history(path: Path, name: str, history: dict[str, list[Any]]) -> None:
    columns = ["stage", "epoch", "loss", "accuracy", "learning_rate", "val_loss", "val_score"]
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["run", *columns, "seconds"])
        for row in range(len(history["epoch"])):
            cells = [history[column][row] if column in history else "" for column in columns]
            writer.writerow([name, *cells, round(history["seconds"][row], 3)])


def _write(recipe_file: RecipeFile, results: Sequence[RunScore], folder: Path) -> None:
    import keras
    import tensorflow as tf

    description = {
        "recipe": recipe_file.model_dump(mode="json"),
        "results": [asdict(result) for result in results],
        "versions": {
            "keras_transfer": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }
    (folder / RESULTS).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    heading, *rows = [[cell.replace("|", "\\|") for cell in row] for row in results_table(results)]
    lines = [" | ".join(heading), " | ".join("---" for _ in heading), *map(" | ".join, rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    title = f"# {recipe_file.title}\n\n" if recipe_file.title else ""
    (folder / TABLE).write_text(f"{title}{table}\n", encoding="utf-8")
