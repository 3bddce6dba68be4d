"""Run a recipe file: fit its estimators, test them on pictures never seen, write the results."""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
    InvalidParameterError,
    KerasTransferError,
    OutputExistsError,
    RecipeFileError,
)
from keras_transfer.estimators.classifier import TransferClassifier
from keras_transfer.modes import RECIPES
from keras_transfer.training.progress import open_display

__all__ = ["RunScore", "results_table", "run_recipe_file"]

_RESULTS, _TABLE, _HISTORY, _RECIPE = "results.json", "results.md", "history.csv", "recipe.toml"
_SAVED = ".keras_transfer"
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
    with _new_folder(recipe_file.output, overwrite) as folder:
        if source is not None:  # now, since the file may be edited while this runs
            shutil.copyfile(source, folder / _RECIPE)
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


# === The output folder ===


@contextmanager
def _new_folder(output: str, overwrite: bool) -> Iterator[Path]:
    """Give a folder beside ``output``, which becomes ``output`` if all went well."""
    target = Path(output).expanduser()
    _refuse(target, overwrite)
    target = target.resolve()  # a link stays, and leads to the new folder
    made = [parent for parent in target.parents if not parent.exists()]
    aside: Path | None = None
    is_written = False
    try:
        with _explained(output):
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield aside
        _refuse(target, overwrite)
        with _explained(output):
            aside.chmod(target.parent.stat().st_mode & 0o777)  # mkdtemp's is for its owner alone
            _replace(target, aside)
        is_written = True
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for parent in made if not is_written else ():
            with suppress(OSError):  # not there, or in use by now
                parent.rmdir()


def _replace(target: Path, new: Path) -> None:
    """Put a folder where an earlier one may stand, which is kept until the new one is there."""
    if not target.exists():
        new.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _explained(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidParameterError(
            f"output: expected a folder that can be written. Received: {output}: "
            f"{error.strerror or error}. Choose another with output=FOLDER."
        ) from error


def _refuse(output: Path, overwrite: bool) -> None:
    """Make sure that nothing but an earlier result is replaced, and that only if asked."""
    try:
        if not output.exists():
            return
        names = {path.name for path in output.iterdir()} if output.is_dir() else None
    except OSError as error:
        raise InvalidParameterError(
            f"output: expected a folder that can be read. Received: {output}: {error.strerror}."
        ) from error
    if names is None:
        raise OutputExistsError(
            f"output: expected a folder. Received: {output}, which is a file. Choose another with "
            f"output=FOLDER."
        )
    if not overwrite:
        raise OutputExistsError(
            f"output: expected a folder that does not exist. Received: {output}, which does. "
            f"Choose another with output=FOLDER, or pass --overwrite."
        )
    others = sorted(
        name for name in names - {_RESULTS, _TABLE, _HISTORY, _RECIPE} if not name.endswith(_SAVED)
    )
    if _RESULTS not in names or others:
        held = f"holds {others[0]} as well" if _RESULTS in names else f"holds no {_RESULTS}"
        raise OutputExistsError(
            f"output: expected an earlier result, and nothing else, to overwrite. Received: "
            f"{output}, which {held}. Choose another with output=FOLDER."
        )


# === The runs ===


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
    train, test = per_class_split(labels, data.train_per_class, random_state=recipe_file.seed)
    if data.test_per_class is not None:
        kept = [test[labels[test] == name][: data.test_per_class] for name in np.unique(labels)]
        test = np.concatenate(kept)
    seconds: dict[str, float] = {}
    with open_display(verbose) as display:
        for number, run in enumerate(recipe_file.runs_in_order()):
            budget = None if run.same_seconds_as is None else seconds[run.same_seconds_as]
            display.start_run(run.name, number + 1, len(recipe_file.runs), budget)
            estimator = _make_estimator(recipe_file, run, budget)
            started = time.monotonic()
            with _named(run):
                estimator.fit(bunch.images[train], labels[train])
            seconds[run.name] = time.monotonic() - started
            score = balanced_accuracy_score(labels[test], estimator.predict(bunch.images[test]))
            display.say(
                f"{run.name}: balanced accuracy {score:.3f} on {len(test)} pictures never seen"
            )
            trained = max(sum(row.trained for row in record.rows) for record in estimator.stages_)
            _write_history(folder / _HISTORY, run.name, estimator.history_)
            if run.save:
                estimator.save(folder / run.file_name)
            yield RunScore(run.name, float(score), trained, seconds[run.name])


@contextmanager
def _named(run: RunTable) -> Iterator[None]:
    try:
        yield
    except KerasTransferError as error:
        error.add_note(f"This was in the run {run.name!r}.")
        raise


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
    (folder / _RESULTS).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    heading, *rows = [[cell.replace("|", "\\|") for cell in row] for row in results_table(results)]
    lines = [" | ".join(heading), " | ".join("---" for _ in heading), *map(" | ".join, rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    title = f"# {recipe_file.title}\n\n" if recipe_file.title else ""
    (folder / _TABLE).write_text(f"{title}{table}\n", encoding="utf-8")
