"""The examples of a recipe file: read once, drawn and split by the seed."""

import shutil

import numpy as np
import pytest
import tiny

from keras_transfer.config import DataTable, SourceTable
from keras_transfer.errors import InvalidParameterError, KerasTransferWarning
from keras_transfer.recipe_data import draw, read_target, read_task, split_target

NAMES = ["circle", "square", "stripes"]


@pytest.fixture
def folder(tmp_path):
    tiny.write_folder(tmp_path / "pictures", *tiny.pictures())
    return tmp_path / "pictures"


def split(table, seed=0):
    return split_target(*read_target(table), table, seed)


def counts(part):
    names, numbers = np.unique(part.y, return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def test_a_folder_is_split_evenly_by_share(folder):
    train, test = split(DataTable(folder=str(folder), test_share=0.25))
    assert set(train.X).isdisjoint(test.X)
    assert counts(train) == dict.fromkeys(NAMES, 6)
    assert counts(test) == dict.fromkeys(NAMES, 2)
    for part in (train, test):
        assert all(name in path for path, name in zip(part.X, part.y, strict=True))


def test_the_seed_decides_what_trains(folder):
    table = DataTable(folder=str(folder), train_per_class=3, limit=6)
    (one, _), (again, _), (other, _) = (split(table, seed) for seed in (0, 0, 1))
    assert one.X.tolist() == again.X.tolist()
    assert set(one.X) != set(other.X)
    assert counts(one) == counts(other) == dict.fromkeys(NAMES, 3)


def test_classes_limit_and_a_test_folder(folder, tmp_path):
    later = tmp_path / "later"
    shutil.copytree(folder, later)
    few = {"classes": ["square", "stripes"], "limit": 4, "test_per_class": 3}
    train, test = split(DataTable(folder=str(folder), test_folder=str(later), **few))
    assert counts(train) == {"square": 4, "stripes": 4}
    assert counts(test) == {"square": 3, "stripes": 3}
    assert all("pictures" in path for path in train.X)
    assert all("later" in path for path in test.X)


def test_built_in_names_and_numbers():
    table = SourceTable(dataset="digits", classes=["3", "7"], limit=5)
    data = draw(read_task(table, None, 16), table, 0)
    assert counts(data) == {"3": 5, "7": 5}
    assert data.X.shape == (10, 16, 16, 3)
    table = DataTable(dataset="openmoji_turned", image_size=32, test_share=0.2, limit=50)
    train, test = split(table)
    assert (len(train.y), len(test.y), train.y.dtype) == (40, 10, np.float64)


def test_numbers_of_a_table(folder):
    rows = [f"{path},{number}.5" for number, path in enumerate(sorted(folder.rglob("*.png")))]
    table = folder.parent / "numbers.csv"
    table.write_text("\n".join(["path,label", *rows]))
    train, test = split(DataTable(folder=str(table), task="regression", test_share=0.25))
    assert sorted([*train.y, *test.y]) == [number + 0.5 for number in range(24)]
    assert len(test.y) == 6


def test_broken_files_are_left_out_of_what_tests_too(folder):
    for name in ("text.png", "more.png"):
        (folder / "circle" / name).write_bytes(b"no picture")
    table = DataTable(folder=str(folder), test_share=0.25, on_error="skip")
    with pytest.warns(
        KerasTransferWarning, match=r"2 of 26 files are skipped: .*; .*text\.png: no"
    ):
        train, test = split(table)
    assert len(train.y) + len(test.y) == 24


def test_whole_files_are_not_spoken_of(folder):
    table = DataTable(folder=str(folder), test_share=0.25, on_error="skip")
    data, tests = read_target(table)  # a warning would be an error here
    assert tests is None
    assert counts(data) == dict.fromkeys(NAMES, 8)


def test_too_few_examples_name_the_key(folder):
    for path in sorted((folder / "square").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InvalidParameterError, match=r"data\.test_share: .* one of square"):
        split(DataTable(folder=str(folder), test_share=0.25))
    with pytest.raises(InvalidParameterError, match=r"data\.train_per_class: .*'square' \(1\)"):
        split(DataTable(folder=str(folder), train_per_class=3))
