"""Estimators on files, folders, tables, Pillow pictures and datasets; and on what is broken."""

import os
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tiny
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

import keras_transfer
from keras_transfer import StructureTransfer, TransferClassifier, TransferEncoder, TransferRegressor
from keras_transfer.errors import DataError, InvalidTypeError, KerasTransferWarning
from keras_transfer.inputs import picture_files

X, Y = tiny.pictures(n_per_class=6)


def classifier(**parameters):
    recipe = StructureTransfer(train_blocks="all", epochs=4, learning_rate=0.01)
    return TransferClassifier(tiny.cnn, recipe, image_size=16, random_state=0, **parameters)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    tiny.write_folder(folder, X, Y)
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    return [str(next(folder.rglob(f"{row:03}.png"))) for row in range(len(X))]


@pytest.fixture(scope="module")
def expected():
    """What a fit on the arrays answers."""
    return classifier().fit(X, Y).predict_proba(X)


def table(folder, paths):
    path = folder / "labels.csv"
    lines = [f"{path},{label}" for path, label in zip(paths, Y, strict=True)]
    path.write_text("\n".join(["path,label", *lines]))
    return path


KINDS = {
    "list of paths": lambda paths: paths,
    "tuple": tuple,
    "array": np.array,
    "object array": lambda paths: np.array(paths, object),
    "Series": lambda paths: pd.Series(paths, index=range(50, 50 + len(paths))),
    "one-column DataFrame": lambda paths: pd.DataFrame({"file": paths}),
    "Path objects": lambda paths: [os.path.relpath(path) for path in paths],
    "bytes": lambda paths: [tiny.encode(pixels) for pixels in X],
    "Pillow pictures": lambda paths: [Image.open(path) for path in paths],
    "list of arrays": lambda paths: list(X),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_list_gives_what_arrays_give(kind, paths, expected):
    given = kind(paths)
    clf = classifier().fit(given, Y)
    np.testing.assert_array_equal(clf.predict_proba(given), expected)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    assert clf.score(given, Y) == clf.score(X, Y)
    assert clf.pixel_range_ == (0.0, 255.0)


def test_decoding_when_needed_gives_the_same_to_the_bit(paths, expected, monkeypatch):
    monkeypatch.setattr(picture_files, "KEPT_BYTES", 0)
    clf = classifier(validation=0.3).fit(paths, Y)
    np.testing.assert_array_equal(clf.predict_proba(paths), clf.predict_proba(X))
    np.testing.assert_array_equal(classifier().fit(paths, Y).predict_proba(X), expected)
    np.testing.assert_array_equal(
        clf.predict_proba(X), classifier(validation=0.3).fit(X, Y).predict_proba(X)
    )


def test_a_folder_and_a_table(folder, paths, tmp_path, expected):
    clf = classifier().fit(folder)
    assert clf.classes_.tolist() == sorted(set(Y))
    assert clf.score(folder) == clf.score(paths, Y)
    assert len(clf.predict(folder)) == len(X)
    clf = classifier().fit(str(table(tmp_path, paths)))
    np.testing.assert_array_equal(clf.predict_proba(paths), expected)
    assert clf.score(tmp_path / "labels.csv") == clf.score(paths, Y)


def test_a_dataset(expected):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)
    clf = classifier().fit(dataset)
    np.testing.assert_array_equal(clf.predict_proba(dataset), expected)
    assert clf.classes_.tolist() == sorted(set(Y))
    assert clf.score(dataset) == clf.score(X, Y)


@pytest.mark.parametrize("kind", ["folder", "table", "pair", "dataset"])
@pytest.mark.filterwarnings("ignore:18 validation examples are copies")
def test_validation_data(kind, folder, paths, tmp_path):
    given = {
        "folder": folder,
        "table": table(tmp_path, paths),
        "pair": (paths, Y),
        "dataset": tf.data.Dataset.from_tensor_slices((X, Y)),
    }[kind]
    clf = classifier().fit(paths, Y, validation_data=given)
    same = classifier().fit(X, Y, validation_data=(X, Y))
    assert clf.validation_score_ == same.validation_score_
    np.testing.assert_array_equal(clf.predict_proba(X), same.predict_proba(X))


def test_pictures_of_different_sizes():
    ragged = [Image.fromarray(p).resize((9 + row, 24 - row)) for row, p in enumerate(X)]
    clf = classifier().fit(ragged, Y)
    arrays = [np.asarray(picture) for picture in ragged]
    files = [tiny.encode(picture) for picture in ragged]
    for given in (arrays, files):
        np.testing.assert_allclose(clf.predict_proba(given), clf.predict_proba(ragged), atol=1e-6)
        other = classifier().fit(given, Y)
        np.testing.assert_allclose(other.predict_proba(given), clf.predict_proba(given), atol=1e-6)


def test_arrays_of_different_sizes_have_a_range():
    ragged = [picture[: 12 + row % 4] / 255 for row, picture in enumerate(X)]
    clf = classifier().fit(ragged, Y)
    assert clf.pixel_range_ == (0.0, 1.0)
    with pytest.raises(DataError, match="as in fit"):
        clf.predict([picture * 255 for picture in ragged])
    with pytest.raises(DataError, match="in row 1"):
        clf.predict([ragged[0], ragged[1][..., :2]])


def test_an_encoder(paths, folder):
    encoder = TransferEncoder("EfficientNetLite0", readout="block1a", image_size=32)
    features = encoder.fit_transform(paths)
    np.testing.assert_array_equal(features, encoder.fit(X).transform(X))
    assert encoder.fit(folder).transform(folder).shape == features.shape


def test_numbers(paths, tmp_path):
    y = X.mean(axis=(1, 2, 3))
    path = tmp_path / "numbers.csv"
    lines = [f"{p},{float(value)!r}" for p, value in zip(paths, y, strict=True)]
    path.write_text("\n".join(lines))
    make = lambda: TransferRegressor(  # noqa: E731
        tiny.cnn, StructureTransfer(train_blocks="all", epochs=3), image_size=16, random_state=0
    )
    regressor = make().fit(path)
    np.testing.assert_array_equal(regressor.predict(paths), make().fit(X, y).predict(X))
    assert regressor.score(path) == regressor.score(X, y)
    path.write_text(f"{paths[0]},1.5\n{paths[1]},cat\n")
    with pytest.raises(DataError, match=r"expected numbers\. Received in row 1 of 2: 'cat'"):
        make().fit(path)


# === As scikit-learn uses them ===


def test_searches_over_paths(paths):
    scores = cross_val_score(classifier(), paths, Y, cv=3)
    np.testing.assert_array_equal(scores, cross_val_score(classifier(), X, Y, cv=3))
    search = GridSearchCV(classifier(), {"image_size": [8, 16]}, cv=2)
    assert search.fit(pd.Series(paths), Y).best_params_["image_size"] in (8, 16)


def test_saved_and_pickled(paths, tmp_path):
    clf = classifier().fit(paths, Y)
    clf.save(tmp_path / "clf.keras_transfer")
    for other in (
        keras_transfer.load(tmp_path / "clf.keras_transfer"),
        pickle.loads(pickle.dumps(clf)),
        clone(clf).fit(paths, Y),
    ):
        np.testing.assert_array_equal(other.predict_proba(paths), clf.predict_proba(paths))


# === What cannot be read ===


def test_on_error_is_checked():
    with pytest.raises(ValueError, match="on_error"):
        classifier(on_error="ignore").fit(X, Y)


@pytest.mark.parametrize("kept_bytes", [picture_files.KEPT_BYTES, 0])
def test_broken_files_are_named_or_skipped(paths, tmp_path, kept_bytes, monkeypatch, expected):
    monkeypatch.setattr(picture_files, "KEPT_BYTES", kept_bytes)
    bad = tmp_path / "Käse.jpg"
    bad.write_text("no picture")
    missing = str(tmp_path / "missing.png")
    given = [*paths[:3], str(bad), *paths[3:], missing]
    labels = [*Y[:3], "square", *Y[3:], "a class of its own"]
    weights = np.r_[np.ones(3), 5, np.ones(len(Y) - 3), 5]
    with pytest.raises(DataError, match=f"2 of {len(given)} that cannot: {re.escape(str(bad))}"):
        classifier().fit(given, labels)
    with pytest.warns(KerasTransferWarning, match=rf"2 of {len(given)} pictures cannot be read"):
        clf = classifier(on_error="skip").fit(given, labels, sample_weight=weights)
    np.testing.assert_array_equal(clf.predict_proba(paths), expected)
    assert [name for name, _ in clf.data_report_.skipped] == [str(bad), missing]
    with pytest.raises(DataError, match="missing"):
        clf.predict(given)  # every row has an answer, or none has


def test_turned_pictures_are_warned_about():
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [tiny.encode(picture, "JPEG", exif=exif) for picture in X]
    with pytest.warns(KerasTransferWarning, match=r"18 pictures carry an orientation"):
        clf = classifier().fit(files, Y)
    assert clf.data_report_.n_oriented == len(X)
    with pytest.warns(KerasTransferWarning, match="orientation"):
        clf = classifier().fit([Image.open(__import__("io").BytesIO(file)) for file in files], Y)


@pytest.mark.parametrize(
    ("given", "labels", "error", "message"),
    [
        ("a.png", None, DataError, "no such file or folder"),
        ("a.png", ["a"], InvalidTypeError, "y: expected None with a folder"),
        (b"GIF89a", ["a"], DataError, "expected a list"),
        (["a.png", None], ["a", "b"], DataError, "in every row.* in row 1: None"),
        (["a.png", X[0]], ["a", "b"], DataError, "in row 1: array"),
        ([X[0], "a.png"], ["a", "b"], DataError, "in row 1: 'a.png'"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), ["a"], DataError, "expected"),
        ([], [], DataError, "expected"),
    ],
    ids=["path", "path and labels", "bytes", "None", "mixed", "mixed too", "columns", "empty"],
)
def test_what_is_no_list_of_pictures(given, labels, error, message):
    with pytest.raises(error, match=message):
        classifier().fit(given, labels)


def test_a_backbone_without_a_size_of_its_own(paths):
    with pytest.raises(ValueError, match=r"image_size: expected the size.*Pass image_size=96"):
        TransferClassifier(tiny.cnn).fit(paths, Y)


def test_a_class_with_one_picture(paths):
    one = [0, *np.flatnonzero(Y[0] != Y)]
    with pytest.warns(KerasTransferWarning, match="one"):
        clf = classifier().fit([paths[row] for row in one], Y[one])
    assert len(clf.classes_) == 3


def test_odd_files_work_as_the_others_do(tmp_path):
    """Of every kind that cameras, scanners and drawing programs write, and under any name."""
    paths = tiny.write_folder(tmp_path, X, Y)
    first, second = (tmp_path / name for name in ("circle", "square"))
    picture = Image.fromarray(X[0])
    picture.convert("CMYK").save(first / "print.jpg")
    picture.convert("P").save(first / "palette.png")
    picture.convert("LA").save(first / "grey.png")
    deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(first / "sixteen bits.png")
    picture.save(first / "süß 圖, (1) #%.webp", lossless=True)
    Image.fromarray(X[8]).resize((1, 1)).save(second / "pixel.png")
    (second / "again").symlink_to(tmp_path, target_is_directory=True)
    clf = classifier().fit(str(tmp_path))
    assert clf.data_report_.n_train == len(paths) + 6
    kept = {count.label: count.n_train for count in clf.data_report_.class_counts}
    assert kept == {"circle": 11, "square": 7, "stripes": 6}
    odd = sorted(str(path) for path in first.iterdir() if not path.stem.isdigit())
    assert len(odd) == 5
    answers = clf.predict_proba([*odd, paths[0]])
    # The same picture in another file: all but the colours that CMYK, palettes and grey lose.
    np.testing.assert_allclose(answers[odd.index(str(first / "süß 圖, (1) #%.webp"))], answers[-1])
    assert np.isfinite(answers).all()
