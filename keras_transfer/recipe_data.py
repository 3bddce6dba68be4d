"""The examples that a recipe file names: read, cut down to what it asks for, and split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_transfer.config import DataTable, ExamplesTable
from keras_transfer.datasets import DATASETS, load_pictures, per_class_split
from keras_transfer.errors import DataError, InvalidParameterError, warn
from keras_transfer.inputs.picture_files import EncodedPictures, list_problems
from keras_transfer.inputs.splits import hold_out

__all__ = ["TaskData", "draw", "read_target", "read_task", "split_target"]


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


def read_task(table: ExamplesTable, folder: str | None, image_size: int) -> TaskData:
    """Read all examples of a task, of the classes that are used.

    Parameters
    ----------
    table : ExamplesTable
    folder : str or None
        A folder or CSV; None: the data set of the table.
    image_size : int
        Height and width of built-in pictures in pixels.

    Returns
    -------
    TaskData

    Raises
    ------
    DataError
        If a folder cannot be used.
    """
    data = _read(table, folder, image_size)
    if table.is_regression:
        return TaskData(data.X, data.y.astype(np.float64))
    data = TaskData(data.X, np.asarray(data.y).astype(str))
    if table.classes is None:
        return data
    return data.take(np.flatnonzero(np.isin(data.y, table.classes)))


def draw(data: TaskData, table: ExamplesTable, seed: int) -> TaskData:
    """Keep at most ``limit`` examples of each class; of numbers, in all.

    Parameters
    ----------
    data : TaskData
    table : ExamplesTable
    seed : int
        Decides which.

    Returns
    -------
    TaskData
    """
    if table.limit is None:
        return data
    strata = np.zeros(len(data.y)) if table.is_regression else data.y
    rng = np.random.default_rng(seed)
    kept = [
        rng.permutation(np.flatnonzero(strata == stratum))[: table.limit]
        for stratum in np.unique(strata)
    ]
    return data.take(np.sort(np.concatenate(kept)))


def read_target(table: DataTable) -> tuple[TaskData, TaskData | None]:
    """Read the target task, and the test data where they are a folder of their own.

    Parameters
    ----------
    table : DataTable

    Returns
    -------
    data : TaskData
    tests : TaskData or None

    Raises
    ------
    DataError
        If a folder cannot be used.
    """
    tests = None
    if table.test_folder is not None:
        tests = read_task(table, table.test_folder, table.image_size)
    return read_task(table, table.folder, table.image_size), tests


def split_target(
    data: TaskData, tests: TaskData | None, table: DataTable, seed: int
) -> tuple[TaskData, TaskData]:
    """Split the target task into what trains and what tests.

    Parameters
    ----------
    data, tests
        As `read_target` returns them.
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
    """
    data = draw(data, table, seed)
    train, test = _split(data.y, table, seed)
    tested = data.take(test) if tests is None else draw(tests, table, seed)
    if table.test_per_class is not None:
        classes = np.unique(tested.y)
        first = [np.flatnonzero(tested.y == name)[: table.test_per_class] for name in classes]
        tested = tested.take(np.concatenate(first))
    return data.take(train), tested


def _read(table: ExamplesTable, folder: str | None, image_size: int) -> TaskData:
    if folder is not None:
        files = load_pictures(folder)
        data = TaskData(files.filenames, files.labels)
        return _skip_broken(data, image_size) if table.on_error == "skip" else data
    assert table.dataset is not None  # the file was checked for one or the other
    bunch = DATASETS[table.dataset].load(image_size=image_size)
    names = bunch.get("target_names")
    return TaskData(bunch.images, bunch.target if names is None else names[bunch.target])


def _skip_broken(data: TaskData, image_size: int) -> TaskData:
    """Leave out files that cannot be read, also of those that test."""
    paths = data.X.tolist()
    problems = EncodedPictures(paths, (image_size, image_size)).find_problems()
    if not problems:
        return data
    broken = {name for name, _ in problems}
    warn(f"{len(problems)} of {len(paths)} files are skipped: {list_problems(problems)}.")
    return data.take(np.array([row for row, path in enumerate(paths) if path not in broken], int))


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
