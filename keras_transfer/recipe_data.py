"""The examples that a recipe file names: read, cut down to what it asks for, and split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_transfer.config import DataTable, ExamplesTable
from keras_transfer.datasets import DATASETS, load_pictures, per_class_split
from keras_transfer.errors import DataError, InvalidParameterError, warn
from keras_transfer.inputs.picture_files import EncodedPictures
from keras_transfer.inputs.splits import hold_out

__all__ = ["TaskData", "read_source", "read_target"]

# How many files are named in a warning.
_NAMED = 5


@dataclass(frozen=True)
class TaskData:
    """Pictures and what they show.

    Attributes
    ----------
    X : numpy.ndarray
        uint8 of shape (n, h, w, 3), or paths, object of shape (n,).
    y : numpy.ndarray of shape (n,)
        Names of classes, str; or numbers, float64.
    """

    X: np.ndarray
    y: np.ndarray

    def take(self, rows: np.ndarray) -> TaskData:
        """Return the examples of these rows."""
        return TaskData(self.X[rows], self.y[rows])


def read_source(table: ExamplesTable, image_size: int, seed: int) -> TaskData:
    """Read a task of which nothing is kept for testing.

    Parameters
    ----------
    table : ExamplesTable
    image_size : int
        Height and width of built-in pictures in pixels.
    seed : int
        Decides which examples are used, where not all are.

    Returns
    -------
    TaskData

    Raises
    ------
    DataError
        If a folder cannot be used.
    """
    return _limit(_read(table, table.folder, image_size), table, seed)


def read_target(table: DataTable, seed: int) -> tuple[TaskData, TaskData]:
    """Read a task, and split it into what trains and what tests.

    Parameters
    ----------
    table : DataTable
    seed : int
        Decides what trains.

    Returns
    -------
    train, test : TaskData
        Nothing is in both.

    Raises
    ------
    InvalidParameterError
        If there are fewer examples than asked for.
    DataError
        If a folder cannot be used.
    """
    data = _limit(_read(table, table.folder, table.image_size), table, seed)
    train, test = _split(data.y, table, seed)
    if table.test_folder is None:
        tested = data.take(test)
    else:
        tested = _limit(_read(table, table.test_folder, table.image_size), table, seed)
    if table.test_per_class is not None:
        classes = np.unique(tested.y)
        first = [np.flatnonzero(tested.y == name)[: table.test_per_class] for name in classes]
        tested = tested.take(np.concatenate(first))
    return data.take(train), tested


def _read(table: ExamplesTable, folder: str | None, image_size: int) -> TaskData:
    if folder is not None:
        files = load_pictures(folder)
        data = TaskData(files.filenames, files.labels)
        if table.on_error == "skip":
            data = _skip_broken(data, image_size)
    else:
        assert table.dataset is not None  # the file was checked for one or the other
        bunch = DATASETS[table.dataset].load(image_size=image_size)
        names = bunch.get("target_names")
        data = TaskData(bunch.images, bunch.target if names is None else names[bunch.target])
    if table.is_regression:
        return TaskData(data.X, data.y.astype(np.float64))
    data = TaskData(data.X, np.asarray(data.y).astype(str))
    if table.classes is None:
        return data
    return data.take(np.flatnonzero(np.isin(data.y, table.classes)))


def _skip_broken(data: TaskData, image_size: int) -> TaskData:
    """Leave out files that cannot be read, also of those that test."""
    paths = data.X.tolist()
    problems = EncodedPictures(paths, (image_size, image_size)).find_problems()
    if not problems:
        return data
    broken = {name for name, _ in problems}
    shown = "; ".join(f"{name}: {problem}" for name, problem in problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    warn(f"{len(problems)} of {len(paths)} files are skipped: {shown}{more}.")
    return data.take(np.array([row for row, path in enumerate(paths) if path not in broken], int))


def _limit(data: TaskData, table: ExamplesTable, seed: int) -> TaskData:
    """Keep at most ``limit`` examples of each class; of numbers, in all."""
    if table.limit is None:
        return data
    strata = np.zeros(len(data.y)) if table.is_regression else data.y
    rng = np.random.default_rng(seed)
    kept = [
        rng.permutation(np.flatnonzero(strata == stratum))[: table.limit]
        for stratum in np.unique(strata)
    ]
    return data.take(np.sort(np.concatenate(kept)))


def _split(y: np.ndarray, table: DataTable, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if table.train_per_class is not None:
        try:
            return per_class_split(y, table.train_per_class, random_state=seed)
        except DataError as error:
            raise InvalidParameterError(f"data.train_per_class: {error}") from error
    if table.test_share is None:  # the test data are in a folder of their own
        return np.arange(len(y)), np.arange(0)
    names, strata, counts = np.unique(y, return_inverse=True, return_counts=True)
    if table.is_regression:
        strata = y[:, np.newaxis]
    elif counts.min() < 2:
        raise InvalidParameterError(
            "data.test_share: expected at least two examples of each class, one to train on and "
            f"one to test on. Received: one of {names[counts.argmin()]!s}. Add some, or name the "
            "classes to use in data.classes."
        )
    return hold_out(strata, table.test_share, np.random.default_rng(seed))
