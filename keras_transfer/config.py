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

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from keras_transfer.backbones.backbone import IMAGENET
from keras_transfer.config_checks import (
    IMAGE_SIZE,
    RECIPE,
    apply_override,
    as_estimator_values,
    as_file_name,
    find_value_problems,
    word_shape_problem,
)
from keras_transfer.errors import RecipeFileError

__all__ = ["DataTable", "RecipeFile", "RunTable", "read_recipe_file"]

# What --quick makes of a recipe.
_QUICK_PER_CLASS, _QUICK_IMAGE_SIZE = 3, 64


class _Table(BaseModel):
    # Whole numbers and booleans are strict types below: pydantic would take "3" and 1.0 for 3.
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
    train_per_class: Annotated[StrictInt, Field(ge=2)] = 10
    image_size: Annotated[StrictInt, Field(ge=16, le=512)] = IMAGE_SIZE
    test_per_class: Annotated[StrictInt, Field(ge=1)] | None = None


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
        ``"imagenet"``, ``"random"`` or the path of a Keras weights file.
    same_seconds_as : str or None
        Gives this run the seconds that another one took.
    save : bool
        Whether the fitted estimator is kept in the output folder.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    recipe: str = RECIPE
    settings: dict[str, Any] = {}
    weights: str = IMAGENET
    same_seconds_as: str | None = None
    save: StrictBool = False

    @property
    def file_name(self) -> str:
        """Name of the file that the fitted estimator is saved to."""
        return f"{as_file_name(self.name)}.keras_transfer"


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
    output: Annotated[str, Field(min_length=1)]
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0
    data: DataTable
    estimator: dict[str, Any] = {}
    runs: Annotated[tuple[RunTable, ...], Field(min_length=1)]

    def estimator_parameters(self) -> dict[str, Any]:
        """Return the shared parameters as the estimator takes them."""
        return as_estimator_values(self.estimator)

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
        data = self.data.model_copy(
            update={
                "train_per_class": min(_QUICK_PER_CLASS, self.data.train_per_class),
                "test_per_class": min(_QUICK_PER_CLASS, self.data.test_per_class or 512),
                "image_size": min(_QUICK_IMAGE_SIZE, self.data.image_size),
            }
        )
        estimator = {**self.estimator, "image_size": data.image_size}
        runs = tuple(
            run.model_copy(update={"settings": {**run.settings, "epochs": 1}}) for run in self.runs
        )
        return self.model_copy(update={"data": data, "estimator": estimator, "runs": runs})


_TABLES = {"": RecipeFile, "data": DataTable, "runs": RunTable}


def read_recipe_file(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), *, quick: bool = False
) -> RecipeFile:
    """Read and check a recipe file.

    Parameters
    ----------
    path : str or path
    overrides : sequence of str
        ``key=value`` with dots between the parts of a key, such as ``estimator.batch_size=16`` or
        ``runs.0.settings.epochs=5``; values as in TOML, bare words as text.
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
    found = [apply_override(content, text) for text in overrides]
    problems = [problem for problem in found if problem is not None]
    stem = Path(path).stem + ("-quick" if quick else "")
    content.setdefault("output", str(Path("runs") / stem))
    recipe_file = None
    try:
        recipe_file = RecipeFile.model_validate(content)
    except ValidationError as error:
        problems += [word_shape_problem(item, _TABLES) for item in error.errors()]
    problems += find_value_problems(content)
    if problems or recipe_file is None:
        raise RecipeFileError(name, problems)
    return recipe_file.quick() if quick else recipe_file
