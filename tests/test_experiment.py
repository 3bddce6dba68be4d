"""Running a recipe file, on a tiny backbone and tiny pictures."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils import Bunch

import keras_transfer
from keras_transfer import datasets, register_backbone
from keras_transfer.backbones import registry
from keras_transfer.config import read_recipe_file
from keras_transfer.datasets import DataSet
from keras_transfer.errors import (
    DataError,
    InvalidParameterError,
    KerasTransferWarning,
    OutputError,
    OutputExistsError,
    RecipeFileError,
)
from keras_transfer.experiment import results_table, run_recipe_file
from keras_transfer.recipe_data import read_target, split_target

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


NAMES = ("circle", "square", "stripes")


def shapes(*, image_size):
    X, y = tiny.pictures(size=image_size)
    names, target = np.unique(y, return_inverse=True)
    return Bunch(images=X, target=target, target_names=names)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Read the recipe, its output in a folder that does not exist yet."""
    monkeypatch.setitem(datasets.DATASETS, "shapes", DataSet(shapes, NAMES))
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
    assert {"balanced accuracy": score} == results[1].scores


def test_a_run_takes_the_seconds_of_another(recipe, monkeypatch):
    budgets = {}
    from keras_transfer import experiment

    make = experiment._make_estimator

    def watch(recipe_file, run, seed, budget, left):
        budgets[run.name] = budget
        return make(recipe_file, run, seed, budget, left)

    monkeypatch.setattr(experiment, "_make_estimator", watch)
    _, probe = run_recipe_file(recipe(), verbose=False)
    assert budgets == {"probe": None, "same | seconds": probe.seconds}


def test_test_per_class_takes_as_many(recipe, monkeypatch):
    lengths = []

    def score(table, estimator, test):
        lengths.append(sorted(np.unique(test.y, return_counts=True)[1]))
        return {"balanced accuracy": 0.0}

    monkeypatch.setattr("keras_transfer.experiment._score", score)
    run_recipe_file(recipe("data.test_per_class=2"), verbose=False)
    assert lengths == [[2, 2, 2]] * 2


# === Source tasks, numbers, seeds ===

SOURCE = """
[source]
dataset = "shapes"
classes = ["circle", "stripes"]
limit = 6
recipe = "parameter"
settings = {epochs = 2}
"""


def test_a_run_starts_from_what_the_source_task_left(recipe, tmp_path, monkeypatch):
    from keras_transfer import experiment

    fitted, backbones = [], {}
    new = experiment._new_estimator

    def watch(examples, backbone, parameters, seed, mode):
        estimator = new(examples, backbone, parameters, seed, mode)
        backbones[getattr(mode, "name", "source")] = estimator.backbone
        fitted.append(estimator)
        return estimator

    monkeypatch.setattr(experiment, "_new_estimator", watch)
    path = tmp_path / "recipe.toml"
    path.write_text(path.read_text() + SOURCE)
    still = "runs.1.settings.epochs=1"
    run_recipe_file(recipe("runs.1.weights=source", still, "estimator.readout=last"), verbose=False)
    source, probe, _ = fitted
    assert source.classes_.tolist() == ["circle", "stripes"]
    assert source.data_report_.n_train == 12
    assert backbones["source"].input_shape is None  # as registered
    assert backbones["probe"].input_shape == (16, 16, 3)  # as fitted
    # Structure transfer leaves the blocks as they came: as the source task left them.
    assert probe.classes_.tolist() == ["circle", "square", "stripes"]
    weights = [
        {w.path: w.numpy() for layer in e.model_.layers if "." in layer.name for w in layer.weights}
        for e in (source, probe)
    ]
    kept = [path for path in weights[0] if not path.startswith("head")]
    assert kept
    for path in kept:
        np.testing.assert_array_equal(weights[0][path], weights[1][path])


def test_numbers_are_scored_as_numbers(recipe, monkeypatch):
    def turned(*, image_size):
        X, _ = tiny.pictures(size=image_size)
        return Bunch(images=X, target=X.reshape(len(X), -1).mean(axis=1).astype(float))

    monkeypatch.setitem(datasets.DATASETS, "turned", DataSet(turned, None))
    numbers = ["data.dataset=turned", "runs.0.settings.epochs=1"]
    path_problem = "train_per_class: expected none in a regression"
    with pytest.raises(RecipeFileError, match=path_problem):
        recipe(*numbers)
    text = RECIPE.replace("train_per_class = 4", "test_share = 0.25")
    Path("recipe.toml").write_text(text)
    results = run_recipe_file(recipe(*numbers), verbose=False)
    assert list(results[0].scores) == ["R2", "mean absolute error"]
    assert "| run | R2 | mean absolute error |" in Path("out/result/results.md").read_text()


def test_seeds_are_averaged_and_the_first_is_saved(recipe, tmp_path, monkeypatch):
    few = ["seeds=2", "runs.0.settings.epochs=1", "runs.1.settings.epochs=1"]
    read = []
    load = datasets.DATASETS["shapes"].load
    counted = DataSet(lambda **size: read.append(1) or load(**size), NAMES)
    monkeypatch.setitem(datasets.DATASETS, "shapes", counted)
    results = run_recipe_file(recipe(*few), verbose=False)
    assert len(read) == 1  # once for all seeds
    order = [("same | seconds", 1), ("probe", 1), ("same | seconds", 2), ("probe", 2)]
    assert [(result.name, result.seed) for result in results] == order
    output = tmp_path / "out" / "result"
    assert "±" in (output / "results.md").read_text()
    loaded = keras_transfer.load(output / "probe.keras_transfer", custom_objects={"cnn": tiny.cnn})
    assert loaded.random_state == 1
    with (output / "history.csv").open(newline="") as file:
        runs = {row["run"] for row in csv.DictReader(file)}
    assert runs == {f"{name}, seed {seed}" for name, seed in order}
    (alone, _) = run_recipe_file(recipe(*few[1:], "output=out/alone", "seed=2"), verbose=False)
    assert alone.scores == results[2].scores


# === The user's own pictures ===


@pytest.fixture
def own(recipe, tmp_path):
    """Write folders of pictures, and read a recipe of them."""
    X, y = tiny.pictures(size=16)
    for row, (picture, name) in enumerate(zip(X, y, strict=True)):
        path = tmp_path / "pictures" / name / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    text = RECIPE.replace('dataset = "shapes"\ntrain_per_class = 4', 'folder = "pictures"')
    (tmp_path / "recipe.toml").write_text(text)
    read = recipe("runs.0.settings.epochs=1")
    assert read.data.test_share == 0.2  # what a file gets that does not say
    return lambda *overrides: recipe("runs.0.settings.epochs=1", *overrides)


def test_a_folder_runs_from_end_to_end(own, tmp_path):
    results = run_recipe_file(own(), verbose=False)
    assert [result.name for result in results] == ["same | seconds", "probe"]
    saved = tmp_path / "out" / "result" / "probe.keras_transfer"
    loaded = keras_transfer.load(saved, custom_objects={"cnn": tiny.cnn})
    data = own().data
    _, test = split_target(*read_target(data), data, 1)
    score = balanced_accuracy_score(test.y, loaded.predict(test.X))
    assert results[1].scores == {"balanced accuracy": score}


def test_a_broken_file_is_named_or_skipped(own, tmp_path):
    broken = tmp_path / "pictures" / "stripes" / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        run_recipe_file(own("seed=1"), verbose=False)
    with pytest.warns(KerasTransferWarning, match=r"1 of 25 files are skipped: .*broken\.png"):
        results = run_recipe_file(own("data.on_error=skip"), verbose=False)
    assert len(results) == 2


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


def test_blocks_may_be_left_to_choose(recipe):
    results = run_recipe_file(recipe('runs.0.settings.train_blocks="auto"'), verbose=False)
    assert len(results) == 2


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


def test_a_backbone_that_cannot_be_built_is_named_with_its_run(recipe, tmp_path):
    """What Keras says of it is said, as an error of ours."""

    def deep(input_shape):
        return keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(4, 20)])

    register_backbone("Deep", deep)
    given = 'runs.1.estimator={backbone = "Deep"}'  # "probe"
    with pytest.raises(InvalidParameterError) as caught:
        run_recipe_file(recipe(given), verbose=False)
    assert str(caught.value).startswith("expected values that work together. Received: ")
    assert "negative" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__notes__ == ["This was in the run 'probe'."]
    assert not (tmp_path / "out").exists()


def test_the_table_is_in_words(recipe):
    from keras_transfer.experiment import RunScore

    first = RunScore("a", 0, {"R2": 0.98765}, 1234567, 12.34)
    assert results_table([first]) == [
        ("run", "R2", "trained parameters", "seconds"),
        ("a", "0.988", "1,234,567", "12.3"),
    ]
    second = RunScore("a", 1, {"R2": 0.78765}, 1234567, 14.34)
    assert results_table([first, second])[1] == ("a", "0.888 ± 0.141", "1,234,567", "13.3")
