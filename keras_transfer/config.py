"""TOML recipe files: read, checked as a whole, all mistakes reported at once.

A recipe file names registered things only, data sets, backbones and modes, never an import path.
Its outer shape is checked by pydantic, the names and values in it by ``config_checks``. TensorFlow
is not needed for either.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
)

from keras_transfer.backbones.backbone import IMAGENET
from keras_transfer.backbones.registry import SAVED_SUFFIX
from keras_transfer.config_checks import (
    IMAGE_SIZE,
    RECIPE,
    REGRESSION,
    apply_override,
    as_estimator_values,
    as_file_name,
    find_value_problems,
    task_of,
    word_shape_problem,
)
from keras_transfer.errors import RecipeFileError
from keras_transfer.quality import QUALITIES

__all__ = [
    "DataTable",
    "ExamplesTable",
    "RecipeFile",
    "RunTable",
    "SourceTable",
    "read_recipe_file",
]

# What a file gets that leaves out how the examples are split.
_TRAIN_PER_CLASS, _TEST_SHARE = 10, 0.2
# What --quick makes of a recipe: so many of each class train, as many test; numbers have no class.
_QUICK_PER_CLASS, _QUICK_NUMBERS, _QUICK_IMAGE_SIZE = 3, 30, 64


class _Table(BaseModel):
    # Whole numbers and booleans are strict types below: pydantic would take "3" and 1.0 for 3.
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExamplesTable(_Table):
    """Where examples come from, and how many of them are used.

    Attributes
    ----------
    dataset : str or None
        A built-in data set; either this or ``folder``.
    folder : str or None
        A folder of class folders, or a CSV of path and label.
    task : str or None
        ``"classification"`` or ``"regression"``; built-in data sets have their own.
    classes : list of str or None
        The classes that are used; None: all.
    limit : int or None
        At most so many examples of each class are used at all; of numbers, in all.
    on_error : str
        ``"raise"`` or ``"skip"``: what is done about files that cannot be read.
    """

    dataset: str | None = None
    folder: str | None = None
    task: str | None = None
    classes: Annotated[list[str], Field(min_length=2)] | None = None
    limit: Annotated[StrictInt, Field(ge=4)] | None = None
    on_error: str = "raise"

    @property
    def is_regression(self) -> bool:
        """Whether the target is numbers."""
        return task_of(self.model_dump()) == REGRESSION

    def _small(self) -> dict[str, Any]:
        """Return what ``--quick`` changes."""
        wanted = _QUICK_NUMBERS if self.is_regression else 2 * _QUICK_PER_CLASS
        return {"limit": min(wanted, self.limit or wanted)}


class DataTable(ExamplesTable):
    """The target task: its examples, and which of them are never trained on, in one of three ways.

    Attributes
    ----------
    train_per_class : int or None
        Training examples of each class; the rest is for testing.
    test_share : float or None
        The share that is kept for testing, evenly of each class.
    test_folder : str or None
        Test data of their own, like ``folder``; then all others train.
    test_per_class : int or None
        At most so many examples of each class for testing; None: all.
    image_size : int
        Height and width in pixels.
    """

    train_per_class: Annotated[StrictInt, Field(ge=2)] | None = None
    test_folder: str | None = None
    test_share: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = None
    test_per_class: Annotated[StrictInt, Field(ge=1)] | None = None
    image_size: Annotated[StrictInt, Field(ge=16, le=512)] = IMAGE_SIZE

    def quick(self) -> DataTable:
        """Return the same data, few and small."""
        changes: dict[str, Any] = self._small()
        changes["image_size"] = min(_QUICK_IMAGE_SIZE, self.image_size)
        if self.train_per_class is not None:
            changes["train_per_class"] = min(_QUICK_PER_CLASS, self.train_per_class)
        if not self.is_regression:
            changes["test_per_class"] = min(_QUICK_PER_CLASS, self.test_per_class or 512)
        return self.model_copy(update=changes)


class SourceTable(ExamplesTable):
    """A source task that is trained first; its pictures have the size of the target task's.

    Attributes
    ----------
    recipe : str
        The transfer mode.
    settings : dict
        Parameters of the mode.
    weights : str
        What it starts from: ``"imagenet"``, ``"random"`` or the path of a Keras weights file.
    """

    recipe: str = RECIPE
    settings: dict[str, Any] = {}
    weights: str = IMAGENET

    def quick(self) -> SourceTable:
        """Return the same source task with few examples and one epoch a stage."""
        changes: dict[str, Any] = self._small()
        changes["settings"] = {**self.settings, "epochs": 1}
        return self.model_copy(update=changes)


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
        ``"imagenet"``, ``"random"``, ``"source"`` (what the source task left) or the path of a
        Keras weights file.
    estimator : dict
        Parameters of the estimator that differ from those all runs share.
    same_seconds_as : str or None
        Gives this run the seconds that another one took.
    save : bool
        Whether the fitted estimator is kept in the output folder.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    recipe: str = RECIPE
    settings: dict[str, Any] = {}
    weights: str = IMAGENET
    estimator: dict[str, Any] = {}
    same_seconds_as: str | None = None
    save: StrictBool = False

    @property
    def file_name(self) -> str:
        """Name of the file that the fitted estimator is saved to."""
        return f"{as_file_name(self.name)}{SAVED_SUFFIX}"

    def quick(self, image_size: int) -> RunTable:
        """Return the same run with one epoch a stage, on pictures of another size."""
        estimator = dict(self.estimator)
        if "image_size" in estimator:
            estimator["image_size"] = image_size
        settings = {**self.settings, "epochs": 1}
        return self.model_copy(update={"settings": settings, "estimator": estimator})


class RecipeFile(_Table):
    """A recipe file.

    Attributes
    ----------
    title : str
    output : str
        The folder to write.
    seed : int
    seeds : int
        How often all is done: with this seed, the next one, and so on.
    quality : str or None
        A preset: backbone, image size and recipe wherever the file leaves them out.
    data : DataTable
    source : SourceTable or None
    estimator : dict
        Parameters that all runs share.
    runs : tuple of RunTable
    """

    title: str = ""
    output: Annotated[str, Field(min_length=1)]
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31 - 100)] = 0
    seeds: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    quality: str | None = None
    data: DataTable
    source: SourceTable | None = None
    estimator: dict[str, Any] = {}
    runs: Annotated[tuple[RunTable, ...], Field(min_length=1)]

    def estimator_parameters(self, run: RunTable | None = None) -> dict[str, Any]:
        """Return the shared parameters, and a run's own, as the estimator takes them."""
        own = {} if run is None else run.estimator
        return as_estimator_values({**self.estimator, **own})

    def runs_in_order(self) -> list[RunTable]:
        """Return the runs in the file's order, but each after the one whose seconds it takes."""
        ordered: list[RunTable] = []
        waiting = list(self.runs)
        while waiting:
            done = {None, *(run.name for run in ordered)}
            ordered.append(next(run for run in waiting if run.same_seconds_as in done))
            waiting.remove(ordered[-1])
        return ordered

    def quick(self) -> RecipeFile:
        """Return the same recipe, small: one epoch a stage, few and small pictures."""
        data = self.data.quick()
        estimator = {**self.estimator, "image_size": data.image_size}
        runs = tuple(run.quick(data.image_size) for run in self.runs)
        source = None if self.source is None else self.source.quick()
        changes = {"data": data, "source": source, "estimator": estimator, "runs": runs, "seeds": 1}
        return self.model_copy(update=changes)


_TABLES = {"": RecipeFile, "data": DataTable, "source": SourceTable, "runs": RunTable}


def read_recipe_file(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), *, quick: bool = False
) -> RecipeFile:
    """Read and check a recipe file.

    Parameters
    ----------
    path : str or path
        Relative paths of data in it start at its folder.
    overrides : sequence of str
        ``key=value`` with dots between the parts of a key, such as ``estimator.batch_size=16`` or
        ``runs.0.settings.epochs=5``; values as in TOML, bare words as text. Relative paths start
        at the current folder.
    quick : bool, default=False
        Make it small, for a try; its default output folder is then one of its own.

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
        # Editors on Windows put a byte order mark first, which TOML does not know.
        content = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeFileError(name, ["expected a recipe file. Received: no such file."]) from None
    except OSError as error:
        problem = f"expected a file that can be read. Received: {error.strerror or error}."
        raise RecipeFileError(name, [problem]) from None
    except UnicodeDecodeError as error:
        problem = f"expected TOML, which is text in UTF-8. Received: {error}. Save it as UTF-8."
        raise RecipeFileError(name, [problem]) from None
    except (ValueError, RecursionError) as error:  # too many digits or brackets among them
        raise RecipeFileError(name, [f"expected a TOML file. Received: {error}."]) from None
    _place_folders(content, Path(path).parent)
    found = [apply_override(content, text) for text in overrides]
    problems = [problem for problem in found if problem is not None]
    stem = Path(path).stem + ("-quick" if quick else "")
    content.setdefault("output", str(Path("runs") / stem))
    _fill_in(content)
    recipe_file = None
    try:
        recipe_file = RecipeFile.model_validate(content)
    except ValidationError as error:
        problems += [word_shape_problem(item, _TABLES) for item in error.errors()]
    problems += find_value_problems(content)
    if problems or recipe_file is None:
        raise RecipeFileError(name, problems)
    return recipe_file.quick() if quick else recipe_file


def _place_folders(content: dict[str, Any], base: Path) -> None:
    """Let the relative paths of data that a file holds start at its folder."""
    tables = [table for key in ("data", "source") if isinstance(table := content.get(key), dict)]
    for table in tables:
        for key in ("folder", "test_folder"):
            if isinstance(table.get(key), str) and table[key]:
                table[key] = str(base / Path(table[key]).expanduser())


def _fill_in(content: dict[str, Any]) -> None:
    """Fill in what a quality says, and how the examples are split, where the file does not."""
    data: Any = content.get("data")
    quality = content.get("quality")
    preset = QUALITIES.get(quality) if isinstance(quality, str) else None
    if preset is not None:
        content.setdefault("runs", [{"name": quality, "save": True}])
        if isinstance(estimator := content.setdefault("estimator", {}), dict):
            estimator.setdefault("backbone", preset.backbone)
        if isinstance(data, dict):
            data.setdefault("image_size", preset.image_size)
        runs = content["runs"] if isinstance(content["runs"], list) else []
        tables: list[Any] = [content.get("source"), *runs]
        for table in tables:
            if isinstance(table, dict) and "recipe" not in table:
                table["recipe"] = preset.recipe
                if isinstance(own := table.setdefault("settings", {}), dict):
                    table["settings"] = {**preset.settings, **own}
    splits = ("test_folder", "train_per_class", "test_share")
    if isinstance(data, dict) and all(data.get(key) is None for key in splits):
        if "dataset" in data and task_of(data) != REGRESSION:
            data["train_per_class"] = _TRAIN_PER_CLASS
        else:
            data["test_share"] = _TEST_SHARE
