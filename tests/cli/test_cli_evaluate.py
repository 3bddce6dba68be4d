"""`evaluate`: the scores of scikit-learn, and what is taken for what."""

import json

import numpy as np
import pytest
import tiny
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

import keras_transfer
from keras_transfer import ParameterTransfer, TransferClassifier, TransferRegressor

X, Y = tiny.pictures(n_per_class=4, seed=5)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held out")
    keep = np.r_[np.flatnonzero(Y == "circle"), np.flatnonzero(Y != "circle")[:5]]
    tiny.write_folder(folder, X[keep], Y[keep])
    return folder


def test_the_figures_are_those_of_scikit_learn(call, fitted, held_out):
    result = call("evaluate", fitted, held_out, "--json")
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    paths = sorted(held_out.rglob("*.png"))
    truth = [path.parent.name for path in paths]
    predicted = keras_transfer.load(fitted / "estimator.keras_transfer").predict(paths)
    assert figures["pictures"] == 9
    assert figures["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert figures["confusion"] == confusion_matrix(truth, predicted).tolist()


def test_the_table(call, fitted, held_out):
    lines = call("evaluate", fitted, held_out).stdout.splitlines()
    assert any(line.startswith("balanced accuracy") for line in lines)
    assert [line.split()[0] for line in lines[-3:]] == ["circle", "square", "stripes"]


def test_a_class_that_it_does_not_know_is_always_wrong(call, fitted, tmp_path):
    tiny.write_folder(tmp_path, X[:3], ["cat", "cat", Y[2]])
    result = call("evaluate", fitted, tmp_path, "--json")
    assert "Warning: FOLDER|CSV: cat: no class of the estimator" in result.stderr
    figures = json.loads(result.stdout)
    rows = {row["class"]: row for row in figures["classes"]}
    assert rows["cat"]["recall"] == 0
    assert rows["cat"]["precision"] is None
    assert figures["accuracy"] <= 1 / 3


def test_several_labels_are_no_folders(call, held_out, tmp_path):
    clf = TransferClassifier(tiny.cnn, ParameterTransfer(epochs=1), random_state=0)
    run = tmp_path / "several.keras_transfer"
    clf.fit(X, np.stack([Y == "circle", Y != "square"], axis=1).astype(int)).save(run)
    result = call("evaluate", run, held_out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "RUN: expected an estimator of one label for each picture" in result.stderr
    assert "Received: one of several labels. Use its score(X, y)." in result.stderr


def test_several_numbers_are_no_folders(call, tmp_path):
    regressor = TransferRegressor(tiny.cnn, ParameterTransfer(epochs=1), random_state=0)
    run = tmp_path / "several.keras_transfer"
    regressor.fit(X, X.mean(axis=(1, 2))).save(run)
    paths = tiny.write_folder(tmp_path / "pictures", X[:2], ["a", "b"])
    (tmp_path / "numbers.csv").write_text("".join(f"{path},1.5\n" for path in paths))
    result = call("evaluate", run, tmp_path / "numbers.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Received: one of 3. Use its score(X, y)." in result.stderr


def test_mistakes(call, fitted, tmp_path):
    result = call("evaluate", fitted, tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(tmp_path) in result.stderr
