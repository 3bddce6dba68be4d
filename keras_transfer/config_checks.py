"""What can be wrong in a recipe file: each check returns the mistakes that it finds, in words.

The values of estimators and recipes are checked by the same tables that the estimators and recipes
use themselves. Nothing here raises, so that all mistakes can be reported at once.
"""

from __future__ import annotations

import os
import re
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keras_transfer.backbones.backbone import IMAGENET
from keras_transfer.backbones.registry import get_backbone, list_backbones
from keras_transfer.datasets import DATASETS
from keras_transfer.errors import DataError, KerasTransferError, unknown_name
from keras_transfer.estimators.classifier import TransferClassifier
from keras_transfer.estimators.scoring import find_scorer
from keras_transfer.graph.readout import Readout
from keras_transfer.inputs.labelled_files import read_labelled
from keras_transfer.modes import RECIPES
from keras_transfer.parameters import find_problems
from keras_transfer.quality import QUALITIES
from keras_transfer.recipe import Recipe

__all__ = [
    "apply_override",
    "as_estimator_values",
    "as_file_name",
    "find_value_problems",
    "task_of",
    "word_shape_problem",
]

# What a file may leave out.
RECIPE, IMAGE_SIZE = "composite", 128
# The other words for weights: no file, and what the source task left.
RANDOM, SOURCE = "random", "source"
CLASSIFICATION, REGRESSION = "classification", "regression"
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
    "memory",
)
_READOUT_KEYS = ("blocks", "pooling")


def apply_override(content: dict[str, Any], text: str) -> str | None:
    """Set one value in place; return what is wrong, if anything.

    Parameters
    ----------
    content : dict
        The file's content; changed.
    text : str
        ``key=value``.

    Returns
    -------
    str or None
    """
    key, equals, raw = text.partition("=")
    *parents, last = parts = key.strip().split(".")
    if not equals or not all(parts):
        return f"override: expected key=value. Received: {text!r}."
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        parsed = {"value": raw}
    value = parsed["value"] if len(parsed) == 1 else raw  # a line break may begin another key
    table: Any = content
    for part in parents:
        if isinstance(table, list) and _is_position(part, table):
            table = table[int(part)]
        elif isinstance(table, dict):
            table = table.setdefault(part, {})
        else:
            return _leads_nowhere(key, part, table)
    if isinstance(table, list) and _is_position(last, table):
        table[int(last)] = value
    elif isinstance(table, dict):
        table[last] = value
    else:
        return _leads_nowhere(key, last, table)
    return None


def _is_position(part: str, values: list[Any]) -> bool:
    return part.isdecimal() and int(part) < len(values)


def _leads_nowhere(key: str, part: str, parent: Any) -> str:
    if isinstance(parent, list):
        expected = f"a position from 0 to {len(parent) - 1}" if parent else "a list with entries"
    else:
        expected = f"a table before it, and there is {_show(parent)}"
    return f"override: {key}: expected {expected}. Received: {part!r}."


# === Wording ===

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a table",
    "model_type": "a table",
    "list_type": "a list",
    "tuple_type": "a list of tables, each headed [[runs]]",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt:g}",
    "too_short": "at least {min_length}",
    "string_too_short": "some text",
    "string_too_long": "at most {max_length} characters",
}


def word_shape_problem(error: Any, tables: Mapping[str, Any]) -> str:
    """Word one mistake that pydantic found.

    Parameters
    ----------
    error : dict
        One of ``ValidationError.errors()``.
    tables : mapping of str to pydantic model
        Whose keys stand at the top (``""``) and in each table below it.

    Returns
    -------
    str
    """
    parts = error["loc"]
    where = ".".join(str(part) for part in parts)
    if error["type"] == "extra_forbidden":
        table = tables[str(parts[0]) if parts[1:] else ""]
        owner = ".".join(str(part) for part in parts[:-1])
        problem = unknown_name("key", parts[-1], table.model_fields)
        return f"{owner}: {problem}" if owner else problem
    if error["type"] == "missing":
        return f"{where}: expected a value. Received: none. Add it."
    expected = _EXPECTED.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    return f"{where}: expected {expected}. Received: {_show(error['input'])}."


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# === Names and values ===


def find_value_problems(content: Mapping[str, Any]) -> list[str]:
    """Check names and values by the tables of those who use them.

    Parameters
    ----------
    content : mapping
        The file's content, of any shape.

    Returns
    -------
    list of str
        One sentence for each mistake.
    """
    data, shared, runs, source, quality = (
        content.get(key) for key in ("data", "estimator", "runs", "source", "quality")
    )
    problems = [
        f"{key}: expected one line of printable characters. Received: {_show(text)}."
        for key in ("title", "output")
        if isinstance(text := content.get(key), str) and not text.isprintable()
    ]
    if isinstance(quality, str) and quality not in QUALITIES:
        problems.append(unknown_name("quality", quality, QUALITIES))
    if isinstance(data, dict):
        problems += _check_data(data)
    if isinstance(source, dict):
        problems += _check_examples("source", source)[0]
    image_size = data.get("image_size", IMAGE_SIZE) if isinstance(data, dict) else None
    of_all: list[str] = []
    if shared is None or isinstance(shared, dict):
        of_all = _check_estimator("estimator", shared or {}, image_size)
        problems += of_all
    rows = enumerate(runs) if isinstance(runs, list) else ()
    tables = [(f"runs.{number}", run) for number, run in rows if isinstance(run, dict)]
    if isinstance(source, dict):
        problems += _check_mode("source", source, (IMAGENET, RANDOM), task_of(source))
        if tables and all(run.get("weights") != SOURCE for _, run in tables):
            problems.append(
                f"source: expected a run that starts from it, with weights = {SOURCE!r}. "
                f"Received: none. Add one, or leave the source out."
            )
    task = task_of(data) if isinstance(data, dict) else CLASSIFICATION
    for where, run in tables:
        problems += _check_mode(where, run, (IMAGENET, RANDOM, SOURCE), task)
        if run.get("weights") == SOURCE and source is None:
            problems.append(
                f"{where}: weights: expected a table [source], whose task is trained first. "
                f"Received: {SOURCE!r} without it. Add it."
            )
        own = run.get("estimator")
        if isinstance(own, dict) and "backbone" in own and run.get("weights") == SOURCE:
            problems.append(
                f"{where}: expected either weights = {SOURCE!r}, whose backbone is the source "
                f"task's, or a backbone. Received: both. Leave one out."
            )
        if isinstance(own, dict) and not of_all:
            problems += _check_estimator(
                f"{where}.estimator", {**(shared or {}), **own}, image_size
            )
        name = run.get("name")
        if isinstance(name, str) and not name.isprintable():
            problems.append(
                f"{where}: name: expected one line of printable characters. Received: "
                f"{_show(name)}."
            )
    return problems + _check_names(tables)


def task_of(table: Mapping[str, Any]) -> str:
    """Return the task of a table of examples: of its data set, or as it says."""
    name = table.get("dataset")
    if isinstance(name, str) and name in DATASETS:
        return REGRESSION if DATASETS[name].classes is None else CLASSIFICATION
    return REGRESSION if table.get("task") == REGRESSION else CLASSIFICATION


def _check_data(data: Mapping[str, Any]) -> list[str]:
    """Check the target task's examples, and how they are split."""
    problems, known = _check_examples("data", data)
    is_regression = task_of(data) == REGRESSION
    ways = [key for key in ("test_folder", "train_per_class", "test_share") if key in data]
    if ways[1:]:
        problems.append(
            f"data: expected one way to say what is tested. Received: {' and '.join(ways)}. "
            f"Leave one out."
        )
    if is_regression:
        keys = [key for key in ("train_per_class", "test_per_class") if key in data]
        problems += [_of_classes("data", key) for key in keys]
    if isinstance(test_folder := data.get("test_folder"), str):
        found, own = _check_folder("data: test_folder", test_folder, is_regression)
        problems += found
        if unseen := sorted(own - known) if known and data.get("classes") is None else []:
            problems.append("data: test_folder: " + unknown_name("class", unseen[0], sorted(known)))
    return problems


def _check_examples(where: str, table: Mapping[str, Any]) -> tuple[list[str], set[str]]:
    """Check where examples come from; return the classes, too, as far as there are any."""
    problems: list[str] = []
    known: set[str] = set()
    dataset, folder = table.get("dataset"), table.get("folder")
    if (dataset is None) == (folder is None):
        received, advice = ("none", "Add one") if dataset is None else ("both", "Leave one out")
        problems.append(f"{where}: expected dataset or folder. Received: {received}. {advice}.")
    if isinstance(dataset, str) and dataset not in DATASETS:
        problems.append(f"{where}: " + unknown_name("dataset", dataset, DATASETS))
    elif isinstance(dataset, str):
        known = set(DATASETS[dataset].classes or ())
    is_regression = task_of(table) == REGRESSION
    if isinstance(folder, str) and dataset is None:
        found, known = _check_folder(f"{where}: folder", folder, is_regression)
        problems += found
    words = {"task": (CLASSIFICATION, REGRESSION), "on_error": ("raise", "skip")}
    for key, choices in words.items():
        if isinstance(value := table.get(key), str) and value not in choices:
            problems.append(f"{where}: " + unknown_name(key, value, choices))
        elif key == "task" and value is not None and dataset is not None:
            problems.append(f"{where}: task: expected none with a dataset, which has its own.")
    if is_regression:
        return problems + ([_of_classes(where, "classes")] if "classes" in table else []), set()
    classes = table.get("classes")
    names = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    for name in dict.fromkeys(names):
        if known and name not in known:
            problems.append(f"{where}: classes: " + unknown_name("class", name, sorted(known)))
        if names.count(name) > 1:
            problems.append(f"{where}: classes: expected each once. Received: {name!r}, twice.")
    return problems, known


def _of_classes(where: str, key: str) -> str:
    return (
        f"{where}: {key}: expected none in a regression, whose examples have no classes. "
        f"Use test_share, or limit."
    )


def _check_folder(where: str, folder: str, is_regression: bool) -> tuple[list[str], set[str]]:
    """Look into a folder or CSV of labelled pictures; return its classes, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when it is read for the training
            found = read_labelled(folder)
    except DataError as error:
        return [f"{where}: {error}"], set()
    labels = set(found.labels)
    if not is_regression:
        return [], labels
    try:
        sorted(map(float, labels))
    except ValueError as error:
        return [f"{where}: expected numbers as labels, for a regression. Received: {error}."], set()
    return [], set()


def _check_estimator(where: str, shared: Mapping[str, Any], data_size: Any) -> list[str]:
    """Check parameters of the estimator: those all runs share, or with a run's own among them."""
    problems = [
        f"{where}: " + unknown_name("key", key, _ESTIMATOR_KEYS)
        for key in shared
        if key not in _ESTIMATOR_KEYS
    ]
    values = {key: value for key, value in shared.items() if key in _ESTIMATOR_KEYS}
    if isinstance(table := values.get("readout"), dict):
        wrong = [key for key in table if key not in _READOUT_KEYS]
        problems += [f"{where}.readout: " + unknown_name("key", k, _READOUT_KEYS) for k in wrong]
        values["readout"] = {key: table[key] for key in _READOUT_KEYS if key in table}
    try:
        values = as_estimator_values(values)
    except (KerasTransferError, TypeError) as error:
        problems.append(f"{where}.readout: {error}")
        del values["readout"]
    if "scoring" in values:
        try:
            find_scorer(values["scoring"])
        except KerasTransferError as error:
            problems.append(f"{where}: {error}")
    problems += find_problems(where, values, TransferClassifier._constraints)
    backbone = values.get("backbone", TransferClassifier().backbone)
    if backbone not in list_backbones():
        return [*problems, f"{where}: " + unknown_name("backbone", backbone, list_backbones())]
    size = values.get("image_size", data_size)
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) == 2 and all(type(side) is int and side > 0 for side in sides):
        try:
            get_backbone(backbone).resolve_shape((*sides, 3))
        except KerasTransferError as error:
            problems.append(f"{where if 'image_size' in values else 'data'}: {error}")
    return problems


def _check_mode(where: str, run: Mapping[str, Any], words: Sequence[str], task: str) -> list[str]:
    """Check the mode and its settings, and the weights that it starts from."""
    problems: list[str] = []
    mode = run.get("recipe", RECIPE)
    settings = run.get("settings", {})
    if isinstance(mode, str) and mode not in RECIPES:
        problems.append(f"{where}: " + unknown_name("recipe", mode, RECIPES))
    elif isinstance(mode, str) and isinstance(settings, dict):
        recipe = RECIPES[mode]()
        known = recipe.get_params(deep=False)
        problems += [
            f"{where}.settings: " + unknown_name("key", key, known, f"{mode} transfer")
            for key in settings
            if key not in known
        ]
        problems += find_problems(f"{where}.settings", settings, recipe._constraints)
        if not problems:  # else they may be no settings at all
            problems += _check_together(f"{where}.settings", recipe.set_params(**settings), task)
    weights = run.get("weights", IMAGENET)
    if isinstance(weights, str) and weights not in words and not os.path.isfile(weights):
        problem = unknown_name("weights", weights, words)
        problems.append(f"{where}: {problem} Or the path of a Keras weights file.")
    return problems


def _check_together(where: str, recipe: Recipe, task: str) -> list[str]:
    """Check settings that are each allowed against one another, and against the task."""
    try:
        recipe.check()
        recipe.check_task("regression" if task == REGRESSION else "multiclass", has_pictures=True)
    except KerasTransferError as error:
        return [f"{where}: {error}"]
    return []


def _check_names(tables: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Check what the runs' names must be to one another."""
    problems = []
    # A run without a name has been reported.
    names = [run["name"] if isinstance(run.get("name"), str) else None for _, run in tables]
    twins = {name: run.get("same_seconds_as") for name, (_, run) in zip(names, tables, strict=True)}
    saved: dict[str, str] = {}
    for number, (where, run) in enumerate(tables):
        name, twin = names[number], run.get("same_seconds_as")
        if name is not None and name in names[:number]:
            problems.append(f"{where}: name: expected one of its own. Received: {name!r}, twice.")
        elif name is not None and run.get("save") is True:
            other = saved.setdefault(as_file_name(name), name)
            if other != name:
                problems.append(
                    f"{where}: name: expected one that differs from {other!r} in more than case "
                    f"and punctuation, since both are saved. Received: {name!r}."
                )
        if not isinstance(twin, str):
            continue
        if twin not in names:
            others = [other for other in names if other not in (name, None)]
            problems.append(f"{where}: " + unknown_name("same_seconds_as", twin, others))
            continue
        chain: list[Any] = [name]
        while isinstance(twin, str) and twin not in chain:
            chain.append(twin)
            twin = twins.get(twin)
        if twin == name:
            problems.append(
                f"{where}: same_seconds_as: expected a run that does not wait for this one. "
                f"Received: {' -> '.join(map(str, [*chain, name]))}."
            )
    return problems


def as_estimator_values(shared: Mapping[str, Any]) -> dict[str, Any]:
    """Turn TOML's values into the estimator's: a readout may be a table."""
    values = dict(shared)
    if isinstance(values.get("readout"), dict):
        values["readout"] = Readout(**values["readout"])
    return values


def as_file_name(name: str) -> str:
    """Turn a run's name into one that every file system takes, without a suffix."""
    return re.sub(r"\W+", "_", name.lower()).strip("_") or "estimator"
