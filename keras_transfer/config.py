"""TOML recipe files: read, checked as a whole, all mistakes reported at once.

A recipe file names registered things only, data sets, backbones and modes, never an import path.
Its outer shape is checked by pydantic; the values of estimators and recipes by the same tables that
the estimators and recipes use themselves.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keras_transfer.backbones.registry import list_backbones
from keras_transfer.datasets import LOADERS
from keras_transfer.errors import KerasTransferError, RecipeFileError, unknown_name
from keras_transfer.estimators.classifier import TransferClassifier
from keras_transfer.graph.readout import Readout
from keras_transfer.modes import RECIPES
from keras_transfer.parameters import find_problems

__all__ = ["DataTable", "RecipeFile", "RunTable", "read_recipe_file"]

RANDOM = "random"
# Parameters of the estimator that a file may set by their own name.
_ESTIMATOR_KEYS = (
    "backbone",
    "readout",
    "image_size",
    "batch_size",
    "validation",
    "scoring",
    "target_score",
    "time_budget",
)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataTable(_Table):
    """Where the pictures come from, and how many of each class train.

    Attributes
    ----------
    dataset : str
        A built-in data set.
    train_per_class : int
        Training examples of each class; the rest is for testing.
    image_size : int
        Height and width in pixels.
    test_per_class : int or None
        At most so many examples of each class for testing; None: all.
    """

    dataset: str
    train_per_class: Annotated[int, Field(ge=2)] = 10
    image_size: Annotated[int, Field(ge=16, le=512)] = 128
    test_per_class: Annotated[int, Field(ge=1)] | None = None


class RunTable(_Table):
    """One row of the result: an estimator that is fitted and tested.

    Attributes
    ----------
    name : str
        In the table.
    recipe : str
        The transfer mode.
    settings : dict
        Parameters of the mode.
    weights : str
        ``"imagenet"``, ``"random"`` or a file.
    same_seconds_as : str or None
        Gives this run the seconds that another one took.
    save : bool
        Whether the fitted estimator is kept in the output folder.
    """

    name: Annotated[str, Field(min_length=1)]
    recipe: str = "composite"
    settings: dict[str, Any] = {}
    weights: str = "imagenet"
    same_seconds_as: str | None = None
    save: bool = False


class RecipeFile(_Table):
    """A recipe file.

    Attributes
    ----------
    title : str
    output : str
        The folder to write.
    seed : int
    data : DataTable
    estimator : dict
        Parameters that all runs share.
    runs : tuple of RunTable
    """

    title: str = ""
    output: str
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataTable
    estimator: dict[str, Any] = {}
    runs: Annotated[tuple[RunTable, ...], Field(min_length=1)]

    def estimator_parameters(self) -> dict[str, Any]:
        """Return the shared parameters as the estimator takes them."""
        return _as_python(self.estimator)

    def quick(self) -> RecipeFile:
        """Return the same recipe, small: one epoch a stage, few and small pictures."""
        data = self.data.model_copy(
            update={
                "train_per_class": min(3, self.data.train_per_class),
                "test_per_class": 3,
                "image_size": min(64, self.data.image_size),
            }
        )
        estimator = {**self.estimator, "image_size": data.image_size}
        runs = tuple(
            run.model_copy(update={"settings": {**run.settings, "epochs": 1}}) for run in self.runs
        )
        return self.model_copy(update={"data": data, "estimator": estimator, "runs": runs})


def read_recipe_file(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RecipeFile:
    """Read and check a recipe file.

    Parameters
    ----------
    path : str or path
    overrides : sequence of str
        ``key=value`` with dots between the parts of a key, such as ``estimator.batch_size=16`` or
        ``runs.0.settings.epochs=5``; values as in TOML, bare words as text.

    Returns
    -------
    RecipeFile

    Raises
    ------
    RecipeFileError
        With all mistakes.
    """
    name = os.fspath(path)
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeFileError(name, ["expected a recipe file. Received: no such file."]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RecipeFileError(name, [f"expected a TOML file. Received: {error}"]) from None
    problems = [problem for text in overrides if (problem := _override(content, text))]
    content.setdefault("output", str(Path("runs") / Path(path).stem))
    recipe_file = None
    try:
        recipe_file = RecipeFile.model_validate(content)
    except ValidationError as error:
        problems += [_word(item) for item in error.errors()]
    problems += _check_values(content)
    if problems or recipe_file is None:
        raise RecipeFileError(name, problems)
    return recipe_file


def _override(content: dict[str, Any], text: str) -> str | None:
    """Set one value in place; return what is wrong, if anything."""
    key, equals, raw = text.partition("=")
    if not equals or not key:
        return f"override: expected key=value. Received: {text!r}."
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, last = key.split(".")
    table: Any = content
    for part in parents:
        if isinstance(table, list) and part.isdigit() and int(part) < len(table):
            table = table[int(part)]
        elif isinstance(table, dict):
            table = table.setdefault(part, {})
        else:
            return f"override: {key!r} leads nowhere: {part!r} is not in the file."
    if isinstance(table, list) and last.isdigit() and int(last) < len(table):
        table[int(last)] = value
    elif isinstance(table, dict):
        table[last] = value
    else:
        return f"override: {key!r} leads nowhere: {last!r} is not in the file."
    return None


def _word(error: Any) -> str:
    """Word one mistake that pydantic found."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        parent: Any = {"data": DataTable, "runs": RunTable}.get(error["loc"][0], RecipeFile)
        if len(error["loc"]) == 1:
            parent = RecipeFile
        return unknown_name("key", where, parent.model_fields, "a recipe file")
    if error["type"] == "missing":
        return f"{where}: expected a value. Received: none. Add it."
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{where}: {message}. Received: {error['input']!r}."


def _check_values(content: Mapping[str, Any]) -> list[str]:
    """Check names and values by the tables of those who use them."""
    problems: list[str] = []
    data, shared, runs = (
        content.get("data"),
        content.get("estimator", {}),
        content.get("runs", []),
    )
    dataset = data.get("dataset") if isinstance(data, dict) else None
    if isinstance(dataset, str) and dataset not in LOADERS:
        problems.append("data: " + unknown_name("dataset", dataset, LOADERS))
    if isinstance(shared, dict):
        problems += _check_estimator(shared)
    names = [run.get("name") for run in runs if isinstance(run, dict)] if runs else []
    for number, run in enumerate(runs if isinstance(runs, list) else []):
        if isinstance(run, dict):
            problems += _check_run(f"runs.{number}", run, names)
    return problems


def _check_estimator(shared: Mapping[str, Any]) -> list[str]:
    problems = [
        "estimator: " + unknown_name("key", key, _ESTIMATOR_KEYS)
        for key in shared
        if key not in _ESTIMATOR_KEYS
    ]
    try:
        values = _as_python(shared)
    except KerasTransferError as error:
        return [*problems, f"estimator: {error}"]
    backbone = values.get("backbone", "EfficientNetLite0")
    if backbone not in list_backbones():
        problems.append("estimator: " + unknown_name("backbone", backbone, list_backbones()))
    return problems + find_problems("estimator", values, TransferClassifier._constraints)


def _check_run(where: str, run: Mapping[str, Any], names: Sequence[Any]) -> list[str]:
    problems = []
    mode = run.get("recipe", "composite")
    settings = run.get("settings", {})
    if mode not in RECIPES:
        problems.append(f"{where}: " + unknown_name("recipe", mode, RECIPES))
    elif isinstance(settings, dict):
        recipe = RECIPES[mode]()
        known = recipe.get_params(deep=False)
        problems += [
            f"{where}.settings: " + unknown_name("key", key, known, f"{mode} transfer")
            for key in settings
            if key not in known
        ]
        problems += find_problems(f"{where}.settings", settings, recipe._constraints)
    twin = run.get("same_seconds_as")
    if isinstance(twin, str):
        others = [name for name in names if name != run.get("name")]
        if twin not in others:
            problems.append(f"{where}: " + unknown_name("same_seconds_as", twin, others))
    if names.count(run.get("name")) > 1:
        problems.append(f"{where}: name: expected one of its own. Received: {run.get('name')!r}.")
    return problems


def _as_python(shared: Mapping[str, Any]) -> dict[str, Any]:
    """Turn TOML's values into the estimator's: a readout may be a table."""
    values = dict(shared)
    if isinstance(values.get("readout"), dict):
        values["readout"] = Readout(**values["readout"])
    return values
