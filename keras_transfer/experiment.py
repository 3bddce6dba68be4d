"""Run a recipe file: fit its estimators, test them on examples never seen, write the results."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score, mean_absolute_error, r2_score

from keras_transfer._version import __version__
from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.registry import get_backbone
from keras_transfer.choosing.readout_choice import AUTO
from keras_transfer.config import ExamplesTable, RecipeFile, RunTable, SourceTable
from keras_transfer.config_checks import RANDOM, SOURCE
from keras_transfer.errors import InvalidParameterError, KerasTransferError, RecipeFileError
from keras_transfer.estimators.classifier import TransferClassifier
from keras_transfer.estimators.regressor import TransferRegressor
from keras_transfer.graph.readout import LAST
from keras_transfer.modes import RECIPES
from keras_transfer.output_folder import (
    HISTORY,
    RECIPE,
    RESULTS,
    TABLE,
    new_output,
    write_history,
)
from keras_transfer.recipe_data import TaskData, draw, read_target, read_task, split_target
from keras_transfer.training.progress import Silent, open_display
from keras_transfer.training.train_blocks import names_blocks

__all__ = ["RunScore", "results_table", "run_recipe_file"]

_BACKBONE = TransferClassifier().backbone
# Of what the runs share, what the source task takes as well: what its scores and its readout are is
# a matter of the target task.
_SOURCE_KEYS = ("image_size", "batch_size")
# What is measured on examples never seen.
_CLASS_SCORES = {"balanced accuracy": balanced_accuracy_score}
_NUMBER_SCORES = {"R2": r2_score, "mean absolute error": mean_absolute_error}


@dataclass(frozen=True)
class RunScore:
    """What one run came to, with one seed.

    Attributes
    ----------
    name : str
    seed : int
    scores : dict of str to float
        On examples never seen: the balanced accuracy; of numbers R2 and the mean absolute error.
    trained_parameters : int
        The most that trained in one stage.
    seconds : float
        Of the fit.
    """

    name: str
    seed: int
    scores: dict[str, float]
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
        Seed by seed, in the order of the file.

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
        results.sort(key=lambda result: (result.seed, order.index(result.name)))
        _write(recipe_file, results, folder)
    return results


def results_table(results: Sequence[RunScore]) -> list[tuple[str, ...]]:
    """Return the table's cells, the heading first: means and standard deviations over the seeds."""
    names = list(dict.fromkeys(result.name for result in results))
    scores = list(results[0].scores) if results else list(_CLASS_SCORES)
    rows = []
    for name in names:
        of_run = [result for result in results if result.name == name]
        columns = [[result.scores[score] for result in of_run] for score in scores]
        seconds = np.mean([result.seconds for result in of_run])
        trained = max(result.trained_parameters for result in of_run)
        rows.append((name, *map(_word_spread, columns), f"{trained:,}", f"{seconds:.1f}"))
    return [("run", *scores, "trained parameters", "seconds"), *rows]


def _word_spread(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _check_blocks(recipe_file: RecipeFile, source: str | os.PathLike[str] | None) -> None:
    """Make sure that all runs name blocks that exist, before the first one trains.

    Raises
    ------
    RecipeFileError
    """
    problems = []
    for number, run in enumerate(recipe_file.runs):
        if not names_blocks(run.settings.get("train_blocks")):
            continue
        parameters = _parameters(recipe_file, run)
        size = np.broadcast_to(parameters["image_size"], 2).tolist()
        readout = parameters.get("readout", AUTO)
        try:
            RECIPES[run.recipe](**run.settings).build(
                get_backbone(parameters["backbone"], weights=None),
                outputs=2,
                input_shape=(*size, 3),
                readout=LAST if readout == AUTO else readout,
            )
        except KerasTransferError as error:
            problems.append(f"runs.{number}.settings: {error}")
    if problems:
        raise RecipeFileError(os.fspath(source or "recipe"), problems)


def _fit_all(recipe_file: RecipeFile, folder: Path, verbose: bool | str) -> Iterator[RunScore]:
    """Fit and test every run with every seed; what is saved is of the first one."""
    total = len(recipe_file.runs) * recipe_file.seeds
    target, source = recipe_file.data, recipe_file.source
    data, tests = read_target(target)
    sources = None if source is None else read_task(source, source.folder, target.image_size)
    with open_display(verbose) as display:
        for number in range(recipe_file.seeds):
            seed = recipe_file.seed + number
            named = f", seed {seed}" if recipe_file.seeds > 1 else ""
            train, test = split_target(data, tests, target, seed)
            left = None
            if source is not None and sources is not None:
                examples = draw(sources, source, seed)
                left = _fit_source(recipe_file, source, examples, seed, display)
            seconds: dict[str, float] = {}
            for position, run in enumerate(recipe_file.runs_in_order()):
                budget = None if run.same_seconds_as is None else seconds[run.same_seconds_as]
                number_of_run = number * len(recipe_file.runs) + position + 1
                display.start_run(f"{run.name}{named}", number_of_run, total, budget)
                with _named(f"the run {run.name!r}"):
                    estimator = _make_estimator(recipe_file, run, seed, budget, left)
                    started = time.monotonic()
                    estimator.fit(train.X, train.y)
                    seconds[run.name] = time.monotonic() - started
                    scores = _score(target, estimator, test)
                words = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
                display.say(f"{run.name}{named}: {words} on {len(test.y)} pictures never seen")
                rows = [record.rows for record in estimator.stages_]
                trained = max(sum(row.trained for row in of_stage) for of_stage in rows)
                write_history(folder / HISTORY, estimator.history_, f"{run.name}{named}")
                if run.save and number == 0:
                    estimator.save(folder / run.file_name)
                yield RunScore(run.name, seed, scores, trained, seconds[run.name])


def _score(table: ExamplesTable, estimator: Any, test: TaskData) -> dict[str, float]:
    predicted = estimator.predict(test.X)
    measures = _NUMBER_SCORES if table.is_regression else _CLASS_SCORES
    return {name: float(measure(test.y, predicted)) for name, measure in measures.items()}


def _fit_source(
    recipe_file: RecipeFile, table: SourceTable, data: TaskData, seed: int, display: Silent
) -> Backbone:
    """Train the source task; return the backbone that it leaves."""
    with _named("the source task"):
        shared = _parameters(recipe_file)
        estimator = _new_estimator(
            table,
            get_backbone(shared.pop("backbone"), weights=_weights(table.weights)),
            # The whole of it: what a target task reads is chosen for that.
            {"readout": LAST} | {key: shared[key] for key in _SOURCE_KEYS if key in shared},
            seed,
            table,
        )
        display.say(f"source task: {len(data.y)} pictures")
        estimator.fit(data.X, data.y)
    return get_backbone(estimator)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Say where an error was, also of the libraries below."""
    note = f"This was in {where}."
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
    recipe_file: RecipeFile,
    run: RunTable,
    seed: int,
    budget: float | None,
    left: Backbone | None,
) -> TransferClassifier | TransferRegressor:
    parameters = _parameters(recipe_file, run)
    name = parameters.pop("backbone")
    if run.weights == SOURCE and left is not None:
        backbone = left
    else:
        backbone = get_backbone(name, weights=_weights(run.weights))
    if budget is not None:
        parameters["time_budget"] = budget
    return _new_estimator(recipe_file.data, backbone, parameters, seed, run)


def _new_estimator(
    examples: ExamplesTable,
    backbone: Backbone,
    parameters: Mapping[str, Any],
    seed: int,
    mode: RunTable | SourceTable,
) -> TransferClassifier | TransferRegressor:
    kind = TransferRegressor if examples.is_regression else TransferClassifier
    recipe = RECIPES[mode.recipe](**mode.settings)
    own = {"on_error": examples.on_error, "random_state": seed}
    return kind(backbone, recipe, **{**parameters, **own})


def _parameters(recipe_file: RecipeFile, run: RunTable | None = None) -> dict[str, Any]:
    """Return what all runs share, and a run's own, with what a file may leave out."""
    defaults = {"backbone": _BACKBONE, "image_size": recipe_file.data.image_size}
    return {**defaults, **recipe_file.estimator_parameters(run)}


def _weights(word: str) -> str | None:
    return None if word == RANDOM else word


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
