"""Running a recipe file, on a tiny backbone and tiny pictures."""

import csv
import json

import numpy as np
import pytest
import tiny
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils import Bunch

import keras_transfer
from keras_transfer import datasets, register_backbone
from keras_transfer.backbones import registry
from keras_transfer.config import read_recipe_file
from keras_transfer.errors import (
    InvalidParameterError,
    OutputError,
    OutputExistsError,
    RecipeFileError,
)
from keras_transfer.experiment import results_table, run_recipe_file

RECIPE = """
title = "Shapes | [/b]"
seed = 1
[data]
dataset = "shapes"
train_per_class = 4
image_size = 16
[estimator]
backbone = "Tiny"
[[runs]]
name = "same | seconds"
recipe = "parameter"
same_seconds_as = "probe"
settings = {epochs = 2}
[[runs]]
name = "probe"
recipe = "structure"
save = true
settings = {epochs = 2}
"""


def shapes(*, image_size):
    X, y = tiny.pictures(size=image_size)
    names, target = np.unique(y, return_inverse=True)
    return Bunch(images=X, target=target, target_names=names)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Read the recipe, its output in a folder that does not exist yet."""
    monkeypatch.setitem(datasets.LOADERS, "shapes", shapes)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    register_backbone("Tiny", tiny.cnn)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)

    def read(*overrides):
        return read_recipe_file("recipe.toml", ["output=out/result", *overrides])

    return read


@pytest.fixture
def untrained(monkeypatch):
    """Fail if anything is loaded or fitted."""

    def refuse(*args, **kwargs):
        pytest.fail("computed before the check")

    monkeypatch.setattr("keras_transfer.experiment._fit_all", refuse)


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_output_holds_everything_and_the_saved_estimator_scores_the_same(recipe, tmp_path):
    results = run_recipe_file(recipe(), source="recipe.toml", verbose=False)
    assert [result.name for result in results] == ["same | seconds", "probe"]
    output = tmp_path / "out" / "result"
    assert entries(output) == [
        "history.csv",
        "probe.keras_transfer",
        "recipe.toml",
        "results.json",
        "results.md",
    ]
    assert entries(tmp_path / "out") == ["result"]  # nothing is left beside it
    assert (output / "recipe.toml").read_text() == RECIPE

    written = json.loads((output / "results.json").read_text())
    assert [row["name"] for row in written["results"]] == ["same | seconds", "probe"]
    assert written["recipe"]["output"] == "out/result"  # as it ran, overrides among it
    assert written["versions"]["keras_transfer"] == keras_transfer.__version__
    table = (output / "results.md").read_text()
    assert "| same \\| seconds | 0." in table
    assert f"| {results[1].trained_parameters:,} |" in table
    with (output / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {"same | seconds", "probe"}
    assert [row["epoch"] for row in rows if row["run"] == "probe"] == ["1", "2"]

    data = shapes(image_size=16)
    labels = data.target_names[data.target]
    _, test = datasets.per_class_split(labels, 4, random_state=1)
    loaded = keras_transfer.load(output / "probe.keras_transfer", custom_objects={"cnn": tiny.cnn})
    score = balanced_accuracy_score(labels[test], loaded.predict(data.images[test]))
    assert score == results[1].balanced_accuracy


def test_a_run_takes_the_seconds_of_another(recipe, monkeypatch):
    budgets = {}
    from keras_transfer import experiment

    make = experiment._make_estimator

    def watch(recipe_file, run, budget):
        budgets[run.name] = budget
        return make(recipe_file, run, budget)

    monkeypatch.setattr(experiment, "_make_estimator", watch)
    _, probe = run_recipe_file(recipe(), verbose=False)
    assert budgets == {"probe": None, "same | seconds": probe.seconds}


def test_test_per_class_takes_as_many(recipe, monkeypatch):
    lengths = []

    def score(truth, predicted):
        lengths.append(sorted(np.unique(truth, return_counts=True)[1]))
        return 0.0

    monkeypatch.setattr("keras_transfer.experiment.balanced_accuracy_score", score)
    run_recipe_file(recipe("data.test_per_class=2"), verbose=False)
    assert lengths == [[2, 2, 2]] * 2


# === The output folder ===


@pytest.mark.usefixtures("untrained")
def test_an_existing_folder_is_refused_before_anything_is_computed(recipe, tmp_path):
    recipe_file = recipe()
    (tmp_path / "out" / "result").mkdir(parents=True)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        run_recipe_file(recipe_file)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("names", [["photo.jpg"], ["results.json", "photo.jpg"], []])
def test_a_folder_that_holds_anything_else_is_never_replaced(recipe, tmp_path, names):
    recipe_file = recipe()
    folder = tmp_path / "out" / "result"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(OutputExistsError, match="nothing else, to overwrite"):
        run_recipe_file(recipe_file, overwrite=True)
    assert entries(folder) == sorted(names)


@pytest.mark.usefixtures("untrained")
def test_a_file_and_a_parent_that_is_a_file_are_refused(recipe, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError, match="which is a file"):
        run_recipe_file(recipe("output=file"), overwrite=True)
    with pytest.raises(OutputError, match="output: expected a folder that can be writ"):
        run_recipe_file(recipe("output=file/below"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("untrained")
def test_a_parent_that_cannot_be_written_is_one_clear_error(recipe, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # tests may run as root, who may write all
    with pytest.raises(OutputError, match=r"Permission denied\. Choose another with"):
        run_recipe_file(recipe())
    assert not (tmp_path / "out").exists()


def test_overwrite_replaces_an_earlier_result(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_transfer.experiment._fit_all", lambda *args: iter(()))
    folder = tmp_path / "out" / "result"
    run_recipe_file(recipe(), source="recipe.toml")
    (folder / "earlier.keras_transfer").write_text("")
    run_recipe_file(recipe("seed=5"), overwrite=True)
    assert entries(folder) == ["results.json", "results.md"]
    assert json.loads((folder / "results.json").read_text())["recipe"]["seed"] == 5
    assert entries(tmp_path / "out") == ["result"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_run_that_ends_early_leaves_nothing(recipe, tmp_path, monkeypatch, error):
    def begin(recipe_file, folder, verbose):
        (folder / "history.csv").write_text("half")
        raise error

    monkeypatch.setattr("keras_transfer.experiment._fit_all", begin)
    with pytest.raises(error):
        run_recipe_file(recipe())
    assert not (tmp_path / "out").exists()  # the parent was ours, too


def test_a_run_that_ends_early_keeps_an_earlier_result(recipe, tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_transfer.experiment._fit_all", lambda *args: iter(()))
    run_recipe_file(recipe())
    monkeypatch.setattr("keras_transfer.experiment._fit_all", fail)
    with pytest.raises(KeyboardInterrupt):
        run_recipe_file(recipe(), overwrite=True)
    assert entries(tmp_path / "out") == ["result"]
    assert entries(tmp_path / "out" / "result") == ["results.json", "results.md"]


# === What only the model or the data can tell ===


def test_blocks_of_all_runs_are_checked_before_the_first_trains(recipe, tmp_path):
    recipe_file = recipe("runs.0.settings.train_blocks=99", 'runs.1.settings.train_blocks=["bn9"]')
    with pytest.raises(RecipeFileError) as caught:
        run_recipe_file(recipe_file, source="recipe.toml")
    first, second = caught.value.problems
    assert first.startswith("runs.0.settings: train_blocks: expected at most")
    assert second.startswith("runs.1.settings: train_blocks: block 'bn9'")
    assert not (tmp_path / "out").exists()


def test_too_many_training_pictures_name_the_key(recipe):
    with pytest.raises(InvalidParameterError, match=r"data\.train_per_class: .*'circle' \(8\)"):
        run_recipe_file(recipe("data.train_per_class=8"), verbose=False)


def test_a_fit_that_fails_says_in_which_run(recipe):
    with pytest.raises(keras_transfer.errors.KerasTransferError) as caught:
        run_recipe_file(recipe("estimator.readout=blok9"), verbose=False)
    assert caught.value.__notes__ == ["This was in the run 'probe'."]


def test_an_error_of_a_library_below_is_one_of_ours(recipe, tmp_path):
    for_two_classes = ["estimator.scoring=f1", "estimator.validation=0.5"]
    with pytest.raises(InvalidParameterError, match="Target is multiclass") as caught:
        run_recipe_file(recipe(*for_two_classes), verbose=False)
    assert caught.value.__notes__ == ["This was in the run 'probe'."]
    assert not (tmp_path / "out").exists()


def test_the_table_is_in_words(recipe):
    from keras_transfer.experiment import RunScore

    assert results_table([RunScore("a", 0.98765, 1234567, 12.34)]) == [
        ("run", "balanced accuracy", "trained parameters", "seconds"),
        ("a", "0.988", "1,234,567", "12.3"),
    ]
