"""`predict`: paths, folders and standard input; CSV and JSON lines."""

import csv
import io
import json
import os

import numpy as np
import pytest
import tiny

import keras_transfer
from keras_transfer import ParameterTransfer, TransferClassifier, TransferRegressor
from keras_transfer.cli import predict as module

X, Y = tiny.pictures(n_per_class=6)


def rows(result):
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.fixture(scope="module")
def clf(fitted):
    return keras_transfer.load(fitted / "estimator.keras_transfer")


def test_a_folder(call, fitted, folder, clf):
    answers = rows(call("predict", fitted, folder))
    paths = [row["path"] for row in answers]
    assert paths == sorted(str(path) for path in folder.rglob("*.png"))
    assert [row["label"] for row in answers] == clf.predict(paths).tolist()
    largest = clf.predict_proba(paths).max(axis=1)
    assert [float(row["probability"]) for row in answers] == pytest.approx(largest, abs=1e-6)


def test_files_and_standard_input_in_their_order(call, fitted, folder, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    paths = sorted((str(path) for path in folder.rglob("*.png")), reverse=True)
    text = "\n".join(paths[2:]) + "\n\n"
    answers = rows(call("predict", fitted, *paths[:2], "-", input=text))
    assert [row["path"] for row in answers] == paths


def test_json_lines(call, fitted, folder, clf):
    path = str(next(folder.rglob("*.png")))
    result = call("predict", fitted / "estimator.keras_transfer", path, "--json")
    (row,) = map(json.loads, result.stdout.splitlines())
    assert row["path"] == path
    assert list(row["probabilities"]) == clf.classes_.tolist()
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert row["probability"] == max(row["probabilities"].values())


def test_novelty(call, fitted, folder, clf, tmp_path):
    (tmp_path / "inverted.png").write_bytes(tiny.encode(255 - X[0]))
    path = str(next(folder.rglob("*.png")))
    paths = [path, str(tmp_path / "inverted.png")]
    plain, told = (
        rows(call("predict", fitted, *paths)),
        rows(call("predict", fitted, *paths, "--novelty")),
    )
    assert list(told[0]) == ["path", "label", "probability", "novelty"]
    distances = [float(row.pop("novelty")) for row in told]
    assert told == plain
    assert distances[0] == 0
    assert distances == pytest.approx(clf.novelty(paths), abs=1e-6)
    assert distances[1] > 1
    result = call("predict", fitted, *paths, "--novelty", "--json")
    assert [json.loads(line)["novelty"] for line in result.stdout.splitlines()] == distances


@pytest.mark.parametrize("name", ["Käse 猫.png", "a,b\n.png", os.fsdecode(b"\xff.png")], ids=ascii)
def test_any_file_name(call, fitted, tmp_path, name):
    (tmp_path / name).write_bytes(tiny.encode(X[0]))
    result = call("predict", fitted, tmp_path)
    assert result.exit_code == 0, result.stderr
    text = result.stdout_bytes.decode(errors="surrogateescape")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["path"] == str(tmp_path / name)
    result = call("predict", fitted, tmp_path, "--json")
    row = json.loads(result.stdout_bytes.decode(errors="surrogateescape"))
    assert row["path"] == str(tmp_path / name)


def test_broken_files(call, fitted, folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    good = str(next(folder.rglob("*.png")))
    result = call("predict", fitted, broken, good)
    assert result.exit_code == 1
    assert f"{broken}: no picture" in result.stderr
    result = call("predict", fitted, broken, good, tmp_path / "missing.png", "--on-error", "skip")
    assert [row["path"] for row in rows(result)] == [good]
    assert f"Skipped: {broken}: no picture" in result.stderr
    assert f"Skipped: {tmp_path / 'missing.png'}: no such file" in result.stderr


# === Several labels, and several numbers ===


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """Fit on the pictures, save, and return the file with what was fitted."""

    def save(kind, y):
        estimator = kind(tiny.cnn, ParameterTransfer(epochs=3), image_size=16, random_state=0)
        path = tmp_path_factory.mktemp("runs") / "estimator.keras_transfer"
        estimator.fit(X, y).save(path)
        return path, estimator

    return save


def test_several_labels(call, save, folder):
    labels = np.stack([Y == "circle", Y != "stripes", X.mean((1, 2, 3)) > 70], axis=1)
    run, clf = save(TransferClassifier, labels.astype(int))
    paths = sorted(str(path) for path in folder.rglob("*.png"))
    answers = rows(call("predict", run, *paths, "--novelty"))
    names = ["label_0", "label_1", "label_2"]
    assert list(answers[0]) == ["path", *names, "novelty"]
    found = [[int(row[name]) for name in names] for row in answers]
    assert found == clf.predict(paths).tolist()
    assert {0, 1} == set(np.ravel(found))
    result = call("predict", run, *paths, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [[line[name] for name in names] for line in lines] == found
    told = [list(line["probabilities"].values()) for line in lines]
    assert list(lines[0]["probabilities"]) == names
    np.testing.assert_allclose(told, clf.predict_proba(paths), atol=1e-6)


def test_several_numbers(call, save, folder):
    run, regressor = save(TransferRegressor, X.mean(axis=(1, 2)))
    paths = sorted(str(path) for path in folder.rglob("*.png"))[:3]
    answers = rows(call("predict", run, *paths))
    names = ["value_0", "value_1", "value_2"]
    assert list(answers[0]) == ["path", *names]
    values = [[float(row[name]) for name in names] for row in answers]
    assert values == regressor.predict(paths).tolist()
    lines = call("predict", run, *paths, "--json").stdout.splitlines()
    expected = [dict(zip(names, row, strict=True)) for row in values]
    assert [json.loads(line) for line in lines] == [
        {"path": path, **row} for path, row in zip(paths, expected, strict=True)
    ]


def test_mistakes(call, fitted, folder, tmp_path):
    for run, message in [
        (tmp_path, "with none"),
        (tmp_path / "missing", "missing"),
        (fitted / "results.json", "results.json"),
    ]:
        result = call("predict", run, folder)
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr
    assert call("predict", fitted).exit_code == 2
    result = call("predict", fitted, "-", input="")
    assert "none on standard input" in result.stderr
