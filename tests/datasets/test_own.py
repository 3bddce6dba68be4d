"""The user's own pictures as lists, the split, and what a recipe file can name."""

import os

import numpy as np
import pytest

from keras_transfer.datasets import DATASETS, load_pictures, per_class_split
from keras_transfer.errors import DataError, InvalidParameterError, KerasTransferWarning


def test_what_a_recipe_file_can_name(data, home, monkeypatch):
    monkeypatch.setenv("KERAS_TRANSFER_DATA", str(home))
    for name, dataset in DATASETS.items():
        loaded = dataset.load(image_size=32)
        names = loaded.get("target_names")
        assert (None if names is None else sorted(names)) == (
            None if dataset.classes is None else sorted(dataset.classes)
        ), name


# === The user's pictures ===


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_of_the_users(tmp_path):
    touch(tmp_path, "dog/1.png", "cat/b/2.JPG", "cat/1.png", "Ähre/1.gif")
    data = load_pictures(str(tmp_path))
    names = ["cat/1.png", "cat/b/2.JPG", "dog/1.png", "Ähre/1.gif"]
    assert data.filenames.tolist() == [str(tmp_path / name) for name in names]
    assert data.filenames.dtype == object
    assert data.target_names.tolist() == ["cat", "dog", "Ähre"]
    assert data.target.tolist() == [0, 0, 1, 2]
    assert data.target.dtype == np.int64
    assert data.labels.tolist() == ["cat", "cat", "dog", "Ähre"]
    assert data.labels.dtype.kind == data.target_names.dtype.kind == "U"
    assert data.DESCR.startswith("4 pictures in 3 classes, of ")
    assert str(tmp_path) in data.DESCR


def test_a_csv_of_the_users(tmp_path):
    (tmp_path / "t.csv").write_text("label,path\n10,b.png\n9,a.png\n10,c.png\n")
    data = load_pictures(tmp_path / "t.csv")
    assert data.filenames.tolist() == [str(tmp_path / f"{name}.png") for name in "bac"]
    assert data.target_names.tolist() == ["10", "9"]  # text, in the order of text
    assert data.target_names[data.target].tolist() == data.labels.tolist() == ["10", "9", "10"]


def test_names_that_are_no_text(tmp_path):
    touch(tmp_path, *(os.fsdecode(name) for name in (b"\xff/1.png", b"\xe9/\xfe.png")))
    data = load_pictures(tmp_path)
    assert data.target_names.tolist() == ["\udce9", "\udcff"]
    assert all(os.path.exists(file) for file in data.filenames)


def test_what_can_be_split_and_searched(tmp_path):
    from sklearn.model_selection import train_test_split

    touch(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(5)))
    data = load_pictures(tmp_path)
    files, held, _, y = train_test_split(
        data.filenames, data.labels, test_size=4, stratify=data.target, random_state=0
    )
    assert sorted(y) == ["a", "a", "b", "b"]
    assert sorted([*files, *held]) == data.filenames.tolist()
    assert [file.split(os.sep)[-2] for file in held] == y.tolist()


def test_what_the_user_does_not_have(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        load_pictures(tmp_path / "missing")
    with pytest.raises(DataError, match="expected a folder of class folders"):
        load_pictures(tmp_path)
    touch(tmp_path, "a/1.png", "b/1.txt")
    with pytest.warns(KerasTransferWarning, match="no picture in b") as caught:
        load_pictures(tmp_path)
    assert caught[0].filename == __file__


# === The split ===


@pytest.mark.parametrize("n_train", [1, 5, 29])
def test_the_split_is_exact_and_complete(data, n_train):
    train, test = per_class_split(data.target, n_train, random_state=0)
    assert np.bincount(data.target[train]).tolist() == [n_train] * 6
    assert sorted([*train, *test]) == list(range(375))


def test_the_split_follows_the_seed(data):
    first, again, other = (per_class_split(data.target, 5, random_state=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert set(first[0]) != set(other[0])
    state = np.random.RandomState(0)
    drawn = [per_class_split(data.target, 5, random_state=state)[0] for _ in range(2)]
    assert np.array_equal(drawn[0], first[0])
    assert not np.array_equal(drawn[0], drawn[1])


def test_the_split_is_shuffled(data):
    for index in per_class_split(data.target, 10, random_state=0):
        labels = data.target[index]
        # In order of class there would be five changes.
        assert np.count_nonzero(np.diff(labels)) > len(labels) / 2
        assert not np.array_equal(index, np.sort(index))


def test_a_seeded_split_leaves_the_global_state_alone(data):
    def state():
        _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
        return keys.tolist(), position

    before = state()
    for seed in (0, 1):
        per_class_split(data.target, 5, random_state=seed)
        assert state() == before


def test_labels_of_any_kind():
    pandas = pytest.importorskip("pandas")
    words = ["dog", "cat", "dog", "cat", "cat"]
    expected = per_class_split(words, 1, random_state=3)
    for labels in (np.array(words, dtype=object), pandas.Series(words, index=[9, 8, 7, 6, 5])):
        split = per_class_split(labels, 1, random_state=3)
        assert all(np.array_equal(a, b) for a, b in zip(split, expected, strict=True))
    assert sorted(words[i] for i in expected[0]) == ["cat", "dog"]


def test_a_class_that_is_too_small_is_named(data):
    names = data.target_names[data.target]
    with pytest.raises(DataError, match=r"at least 31 .*Received: 'buildings' \(30\)\."):
        per_class_split(names, 30)
    with pytest.raises(DataError, match=r"'buildings' \(30\), 'clothing' \(39\)\."):
        per_class_split(names, 39)
    _, test = per_class_split(names, 29)
    assert np.count_nonzero(names[test] == "buildings") == 1


@pytest.mark.parametrize("y", [[], [[0, 1], [1, 0]], 3])
def test_labels_that_cannot_be_split(y):
    with pytest.raises(DataError, match=r"shape \(n_samples,\)"):
        per_class_split(y, 1)


@pytest.mark.parametrize("n_train", [0, -1, 1.0, "2", None, True])
def test_bad_n_train(n_train):
    with pytest.raises(InvalidParameterError, match=r"n_train .*an int of 1 or more") as error:
        per_class_split([0, 0, 0, 1, 1, 1], n_train)
    assert f"Received: {n_train!r}" in str(error.value)
