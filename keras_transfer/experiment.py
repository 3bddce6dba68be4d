"""Run a recipe file: fit its estimators, test them on pictures never seen, write the results."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score

from keras_transfer._version import __version__
from keras_transfer.backbones.registry import get_backbone
from keras_transfer.config import RANDOM, RecipeFile, RunTable
from keras_transfer.datasets import LOADERS, per_class_split
from keras_transfer.errors import OutputExistsError
from keras_transfer.estimators.classifier import TransferClassifier
from keras_transfer.modes import RECIPES
from keras_transfer.training.progress import open_display

__all__ = ["RunScore", "results_table", "run_recipe_file"]

_RESULTS = "results.json"


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
    output = Path(recipe_file.output)
    _refuse(output, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Aside, then renamed: a run that fails leaves no half a result.
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        results = list(_fit_all(recipe_file, aside, verbose))
        order = [run.name for run in recipe_file.runs]
        results.sort(key=lambda result: order.index(result.name))
        _write(recipe_file, results, aside, source)
        _refuse(output, overwrite)
        if output.exists():
            shutil.rmtree(output)
        aside.chmod(0o755)
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
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


def _refuse(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise OutputExistsError(
            f"output: expected a folder that does not exist. Received: {output}, which does. "
            f"Choose another with output=FOLDER, or pass --overwrite."
        )
    if not (output / _RESULTS).is_file():
        raise OutputExistsError(
            f"output: expected an earlier result to overwrite. Received: {output}, which holds no "
            f"{_RESULTS}. Choose another with output=FOLDER."
        )


def _fit_all(recipe_file: RecipeFile, folder: Path, verbose: bool | str) -> Iterator[RunScore]:
    data = recipe_file.data
    bunch = LOADERS[data.dataset](image_size=data.image_size)
    labels = np.asarray(bunch.target_names)[bunch.target]
    train, test = per_class_split(labels, data.train_per_class, random_state=recipe_file.seed)
    if data.test_per_class is not None:
        test = np.concatenate([test[labels[test] == c][: data.test_per_class] for c in set(labels)])
    seconds: dict[str, float] = {}
    with open_display(verbose) as display:
        for run in _in_order(recipe_file.runs):
            if hasattr(display, "title"):
                display.title(run.name)
            estimator = _make_estimator(recipe_file, run, seconds)
            started = time.monotonic()
            estimator.fit(bunch.images[train], labels[train])
            seconds[run.name] = time.monotonic() - started
            score = balanced_accuracy_score(labels[test], estimator.predict(bunch.images[test]))
            trained = max(sum(row.trained for row in record.rows) for record in estimator.stages_)
            _write_history(folder / "history.csv", run.name, estimator.history_)
            if run.save:
                estimator.save(folder / f"{_slug(run.name)}.keras_transfer")
            yield RunScore(run.name, float(score), trained, seconds[run.name])


def _in_order(runs: Sequence[RunTable]) -> list[RunTable]:
    """Put a run that takes another's seconds after it."""
    return sorted(runs, key=lambda run: run.same_seconds_as is not None)


def _make_estimator(
    recipe_file: RecipeFile, run: RunTable, seconds: dict[str, float]
) -> TransferClassifier:
    parameters = recipe_file.estimator_parameters()
    weights = None if run.weights == RANDOM else run.weights
    name = parameters.pop("backbone", "EfficientNetLite0")
    parameters.setdefault("image_size", recipe_file.data.image_size)
    if run.same_seconds_as is not None:
        parameters["time_budget"] = seconds[run.same_seconds_as]
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


def _write(
    recipe_file: RecipeFile,
    results: Sequence[RunScore],
    folder: Path,
    source: str | os.PathLike[str] | None,
) -> None:
    import keras
    import tensorflow as tf

    if source is not None:
        shutil.copyfile(source, folder / "recipe.toml")
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
    (folder / _RESULTS).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    heading, *rows = results_table(results)
    lines = [" | ".join(heading), " | ".join("---" for _ in heading), *map(" | ".join, rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    (folder / "results.md").write_text(f"# {recipe_file.title}\n\n{table}\n", encoding="utf-8")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "estimator"
