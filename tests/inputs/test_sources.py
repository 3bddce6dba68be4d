"""What brings its labels: folders, CSVs, and datasets of TensorFlow's and Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer.errors import DataError, InvalidTypeError
from keras_transfer.inputs import sources
from keras_transfer.inputs.sources import is_source, open_labelled, open_unlabelled

X, Y = tiny.pictures(n_per_class=3)
CODES = np.unique(Y, return_inverse=True)[1]


def test_a_folder(tmp_path):
    paths = tiny.write_folder(tmp_path, X, Y)
    assert is_source(str(tmp_path))
    assert is_source(tmp_path)
    source = open_labelled(tmp_path)
    assert dict(zip(source.X, source.y, strict=True)) == dict(zip(paths, Y, strict=True))
    assert sorted(open_unlabelled(tmp_path)) == sorted(paths)


def test_a_table(tmp_path):
    paths = tiny.write_folder(tmp_path, X, Y)
    table = tmp_path / "labels.csv"
    table.write_text("".join(f"{path},{label}\n" for path, label in zip(paths, Y, strict=True)))
    source = open_labelled(table)
    assert paths == source.X
    np.testing.assert_array_equal(source.y, Y)
    assert open_unlabelled(table) == paths


def test_what_is_no_source():
    for value in (X, X.tolist(), ["a.png"], None, 3):
        assert not is_source(value)


@pytest.mark.parametrize("path", ["picture.png", "missing"])
def test_one_file_is_no_list(path, tmp_path):
    (tmp_path / "picture.png").write_bytes(tiny.encode(X[0]))
    with pytest.raises(DataError, match=r"For one picture pass \[path\]"):
        open_unlabelled(str(tmp_path / path))


# === Datasets ===


def rows(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


WEIGHTS = np.arange(len(X), dtype="float32")
DATASETS = {
    "one by one": rows(X, CODES),
    "in batches": rows(X, CODES).batch(4),
    "prefetched": rows(X, CODES).batch(4).prefetch(1),
    "labels in a column": rows(X, CODES[:, None]).batch(4),
    "floats": rows(X.astype("float32"), CODES).batch(4),
    "unknown length": rows(X, CODES).filter(lambda x, y: True),
}


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_datasets(dataset):
    assert is_source(dataset)
    source = open_labelled(dataset)
    np.testing.assert_array_equal(np.stack(source.X), X)
    np.testing.assert_array_equal(source.y, CODES)
    assert source.sample_weight is None
    np.testing.assert_array_equal(np.stack(open_unlabelled(dataset)), X)


@pytest.mark.parametrize("batch", [None, 4])
def test_grey_pictures_words_and_weights(batch):
    dataset = rows(X[..., 0], Y, WEIGHTS)
    source = open_labelled(dataset if batch is None else dataset.batch(batch))
    np.testing.assert_array_equal(np.stack(source.X), X[..., 0])
    np.testing.assert_array_equal(source.y, Y)
    np.testing.assert_array_equal(source.sample_weight, WEIGHTS)


def test_pictures_of_several_sizes_and_files():
    pictures = [X[0], X[1][:8], X[2][:, :5]]
    dataset = tf.data.Dataset.from_generator(
        lambda: zip(pictures, "abc", strict=True),
        output_signature=(
            tf.TensorSpec((None, None, 3), tf.uint8),
            tf.TensorSpec((), tf.string),
        ),
    )
    source = open_labelled(dataset)
    assert [picture.shape for picture in source.X] == [p.shape for p in pictures]
    assert source.y.tolist() == ["a", "b", "c"]
    contents = [tiny.encode(picture) for picture in pictures]
    for dataset in (rows(contents, [1, 2, 3]), rows(contents, [1, 2, 3]).batch(2)):
        assert contents == open_labelled(dataset).X


def test_class_names_of_keras_are_kept(tmp_path):
    tiny.write_folder(tmp_path, X, Y)
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(16, 16), shuffle=True, seed=0, verbose=False
    )
    source = open_labelled(dataset)
    assert set(source.y) == set(Y)
    for picture, label in zip(source.X, source.y, strict=True):
        match = np.abs(X - picture).sum(axis=(1, 2, 3)) == 0
        assert Y[match].tolist() == [label]  # one pass: picture and label stay together


def test_what_is_no_dataset_of_pictures(monkeypatch):
    with pytest.raises(DataError, match="infinite"):
        open_labelled(rows(X, CODES).repeat())
    with pytest.raises(DataError, match="empty"):
        open_labelled(rows(X, CODES).take(0))
    with pytest.raises(DataError, match="without labels"):
        open_labelled(rows(X))
    with pytest.raises(InvalidTypeError, match=r"dataset of \(picture, label\)|Dataset of"):
        open_labelled(tf.data.Dataset.from_tensor_slices({"x": X, "y": CODES}))
    monkeypatch.setattr(sources, "DATASET_BYTES", X.nbytes - 1)
    with pytest.raises(DataError, match=r"at most 0 GiB.*paths of the files.*Recipe\.fit"):
        open_labelled(rows(X, CODES).batch(2))
