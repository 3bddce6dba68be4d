"""Recipe files: what they may say, and that all mistakes are reported at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_transfer.config import read_recipe_file
from keras_transfer.errors import RecipeFileError
from keras_transfer.graph.readout import Readout
from keras_transfer.quality import QUALITIES

GOOD = """
title = "Shapes"
seed = 3
[data]
dataset = "openmoji"
[estimator]
backbone = "MobileNetV2"
[[runs]]
name = "first"
recipe = "parameter"
[[runs]]
name = "second"
settings = {train_blocks = 2, learning_rate = 1e-3}
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="recipe.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems_of(path, *overrides):
    with pytest.raises(RecipeFileError) as caught:
        read_recipe_file(path, overrides)
    return caught.value.problems


def test_a_good_file_is_read_with_defaults(write):
    recipe_file = read_recipe_file(write(GOOD))
    assert (recipe_file.title, recipe_file.seed) == ("Shapes", 3)
    assert recipe_file.output == str(Path("runs") / "recipe")
    assert (recipe_file.data.train_per_class, recipe_file.data.image_size) == (10, 128)
    assert [run.recipe for run in recipe_file.runs] == ["parameter", "composite"]
    assert recipe_file.runs[1].settings == {"train_blocks": 2, "learning_rate": 1e-3}
    assert recipe_file.runs[1].file_name == "second.keras_transfer"


def test_a_run_says_how_its_stages_train(write):
    settings = {
        "learning_rate": "auto",
        "schedule": "one_cycle",
        "warm_up": 0.1,
        "weight_decay": 0.01,
        "average": "ema",
    }
    words = ", ".join(f"{key} = {value!r}".replace("'", '"') for key, value in settings.items())
    text = GOOD.replace("train_blocks = 2, learning_rate = 1e-3", words)
    assert read_recipe_file(write(text)).runs[1].settings == settings


def test_a_readout_is_a_name_or_a_table(write):
    text = GOOD.replace(
        '"MobileNetV2"', '"MobileNetV2"\nreadout = {blocks = "b", pooling = [2, 2]}'
    )
    parameters = read_recipe_file(write(text)).estimator_parameters()
    assert parameters["readout"] == Readout("b", (2, 2))
    read_recipe_file(write(GOOD), ["estimator.readout=block5"])


def test_a_run_may_differ_from_what_all_share(write):
    own = '"first"\nestimator = {batch_size = 8, image_size = 96, readout = {blocks = "a"}}'
    text = GOOD.replace("[estimator]", "[estimator]\nbatch_size = 4").replace('"first"', own)
    recipe_file = read_recipe_file(write(text))
    first, second = recipe_file.runs
    assert recipe_file.estimator_parameters(first) == {
        "backbone": "MobileNetV2",
        "batch_size": 8,
        "image_size": 96,
        "readout": Readout("a"),
    }
    assert recipe_file.estimator_parameters(second) == recipe_file.estimator_parameters()
    small = read_recipe_file(write(text), quick=True)
    assert small.estimator_parameters(small.runs[0])["image_size"] == 64


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "recipe.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert read_recipe_file(tmp_path / "recipe.toml").title == "Shapes"


# === Mistakes ===

MISTAKES = {  # name -> (what replaces what, what is said)
    "key at the top": ("title =", "titel =", "key 'titel' is not known", "mean 'title'?"),
    "key of data": ("[data]", "[data]\nimage_sise = 3", "data: key 'image_sise'", "'image_size'?"),
    "key of estimator": ("backbone =", "bakbone =", "estimator: key 'bakbone'", "'backbone'?"),
    "key of a run": ("recipe =", "recipy =", "runs.0: key 'recipy'", "mean 'recipe'?"),
    "key of settings": ("train_blocks", "train_bloks", "runs.1.settings: key", "'train_blocks'?"),
    "an import path": (
        '"MobileNetV2"',
        '"os.system"',
        "estimator: backbone 'os.system'",
        "of: Eff",
    ),
    "no data": ('dataset = "openmoji"', "", "data: expected dataset or folder", "Add one."),
    "missing name": ('name = "first"', "", "runs.0.name: expected a value", "Add it."),
    "type of seed": ("seed = 3", "seed = 3.0", "seed: expected a whole number", "3.0"),
    "truth for a number": ("seed = 3", "seed = true", "seed: expected a whole number", "True"),
    "text for truth": (
        '"first"',
        '"first"\nsave = "yes"',
        "runs.0.save: expected true or",
        "'yes'",
    ),
    "range of seed": ("seed = 3", "seed = -1", "seed: expected at least 0", "-1"),
    "range of data": (
        "[data]",
        "[data]\nimage_size = 5000",
        "data.image_size: expected at most 512",
    ),
    "empty name": ('"first"', '""', "runs.0.name: expected some text"),
    "long name": ('"first"', f'"{"x" * 61}"', "runs.0.name: expected at most 60 characters"),
    "control characters": ('"first"', '"\\u001b[31m"', "runs.0: name: expected one line of print"),
    "null in output": ("seed", 'output = "a\\u0000b"\nseed', "output: expected one line of print"),
    "unknown data set": ('"openmoji"', '"openmojy"', "data: dataset 'openmojy'", "'openmoji'?"),
    "unknown backbone": (
        '"MobileNetV2"',
        '"MobilNetV2"',
        "backbone 'MobilNetV2'",
        "'MobileNetV2'?",
    ),
    "unknown recipe": ('"parameter"', '"parametre"', "runs.0: recipe 'parametre'", "'parameter'?"),
    "recipe of a wrong type": ('"parameter"', '["x"]', "runs.0.recipe: expected text. Received"),
    "unknown weights": (
        '"first"',
        '"first"\nweights = "imagnet"',
        "weights 'imagnet'",
        "'imagenet'?",
    ),
    "unknown scoring": (
        "[estimator]",
        '[estimator]\nscoring = "acuracy"',
        "scoring",
        "'accuracy'?",
    ),
    "value of estimator": ("[estimator]", "[estimator]\nbatch_size = 0", "estimator: batch_size: "),
    "value of settings": ("1e-3", "nan", "runs.1.settings: learning_rate: expected", "nan"),
    "readout's key": (
        "[estimator]",
        '[estimator]\nreadout = {block = "x"}',
        "key 'block'",
        "'blocks'?",
    ),
    "readout's type": ("[estimator]", "[estimator]\nreadout = {blocks = 3}", "estimator.readout: "),
    "too small": (
        "[estimator]",
        "[estimator]\nimage_size = 16",
        "estimator: ",
        "larger image_size",
    ),
    "unknown twin": ('"first"', '"first"\nsame_seconds_as = "secnd"', "'secnd'", "'second'?"),
    "itself as twin": ('"first"', '"first"\nsame_seconds_as = "first"', "first -> first"),
    "one name twice": ('"second"', '"first"', "runs.1: name: expected one of its own", "'first'"),
    "no runs": (GOOD[GOOD.index("[[runs]]") :], "", "runs: expected a value", "Add it."),
    "empty runs": (
        GOOD[GOOD.index("[data]") :],
        "runs = []\n[data]\ndataset = 'openmoji'",
        "least 1",
    ),
    "one run as a table": (GOOD[GOOD.index("[[runs]]") :], "[runs]\nname = 'x'", "headed [[runs]]"),
    "two data": (
        "[data]",
        '[data]\nfolder = "."',
        "data: expected dataset or folder. Received: both",
        "Leave one out.",
    ),
    "no folder": ('dataset = "openmoji"', 'folder = "none"', "data: folder: ", "none"),
    "task of a dataset": ("[data]", '[data]\ntask = "regression"', "data: task: expected none"),
    "unknown class": (
        "[data]",
        '[data]\nclasses = ["food", "weathr"]',
        "data: classes: class 'weathr'",
    ),
    "a class twice": (
        "[data]",
        '[data]\nclasses = ["food", "food"]',
        "data: classes: expected each once",
    ),
    "one class": ("[data]", '[data]\nclasses = ["food"]', "data.classes: expected at least 2"),
    "two splits": (
        "[data]",
        "[data]\ntrain_per_class = 3\ntest_share = 0.5",
        "train_per_class and test_share",
        "Leave one out.",
    ),
    "whole share": ("[data]", "[data]\ntest_share = 1.0", "data.test_share: expected less than 1"),
    "no share": ("[data]", "[data]\ntest_share = 0.0", "test_share: expected more than 0"),
    "classes of numbers": (
        'dataset = "openmoji"',
        'dataset = "openmoji_turned"\ntrain_per_class = 3',
        "data: train_per_class: expected none in a regression",
        "Use test_share",
    ),
    "unknown on_error": ("[data]", '[data]\non_error = "skp"', "on_error 'skp'", "'skip'?"),
    "unknown schedule": (
        "learning_rate = 1e-3",
        'schedule = "cosin"',
        "runs.1.settings: schedule: expected one of 'constant', 'cosine', 'one_cycle'",
        "'cosine'?",
    ),
    "unknown average": (
        "learning_rate = 1e-3",
        'average = "emma"',
        "settings: average: expected one of None, 'ema'",
        "'ema'?",
    ),
    "unknown quality": ("seed = 3", 'seed = 3\nquality = "god"', "quality 'god'", "'good'?"),
    "seeds": ("seed = 3", "seed = 3\nseeds = 0", "seeds: expected at least 1"),
    "key of a run's estimator": (
        '"first"',
        '"first"\nestimator = {readuot = "last"}',
        "runs.0.estimator: key 'readuot'",
        "'readout'?",
    ),
    "value of a run's estimator": (
        '"first"',
        '"first"\nestimator = {batch_size = 0}',
        "runs.0.estimator: batch_size: ",
    ),
    "no source": (
        '"first"',
        '"first"\nweights = "source"',
        "runs.0: weights: expected a table [source]",
        "Add it.",
    ),
    "a source for nothing": (
        "[data]",
        '[source]\ndataset = "digits"\n[data]',
        "source: expected a run that starts from it",
    ),
    "data as text": (
        GOOD[GOOD.index("[data]") : GOOD.index("[est")],
        'data = "x"\n',
        "data: expected a t",
    ),
    "settings as a number": (
        "{train_blocks = 2, learning_rate = 1e-3}",
        "3",
        "settings: expected a t",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_reported_alone_and_with_the_way_out(write, name):
    old, new, *said = MISTAKES[name]
    assert old in GOOD
    (problem,) = problems_of(write(GOOD.replace(old, new, 1)))
    for words in said:
        assert words in problem


def test_a_run_from_the_source_task_has_its_backbone(write):
    own = '"first"\nweights = "source"\nestimator = {backbone = "VGG16"}'
    text = GOOD.replace('"first"', own) + '[source]\ndataset = "digits"\n'
    (problem,) = problems_of(write(text))
    assert problem.startswith("runs.0: expected either weights = 'source'")
    assert problem.endswith("Received: both. Leave one out.")


def test_all_mistakes_are_reported_at_once(write):
    text = GOOD
    for old, new in [
        ("title =", "titel ="),
        ("seed = 3", 'seed = "x"'),
        ('"openmoji"', '"openmojy"'),
        ('"MobileNetV2"', '"MobilNetV2"'),
        ('"parameter"', '"parametre"'),
        ("1e-3", "-1"),
    ]:
        text = text.replace(old, new)
    problems = problems_of(write(text), "data.nonsense=1", "no value")
    assert len(problems) == 8
    with pytest.raises(RecipeFileError, match="8 mistakes\n  - "):
        read_recipe_file(write(text), ["data.nonsense=1", "no value"])


def test_runs_that_wait_for_each_other_are_refused(write):
    text = GOOD.replace('"first"', '"first"\nsame_seconds_as = "second"')
    text = text.replace('"second"\nsettings', '"second"\nsame_seconds_as = "first"\nsettings')
    first, second = problems_of(write(text))
    assert "first -> second -> first" in first
    assert "second -> first -> second" in second


def test_a_run_comes_after_the_one_whose_seconds_it_takes(write):
    chain = "".join(
        f'[[runs]]\nname = "{name}"\n' + (f'same_seconds_as = "{twin}"\n' if twin else "")
        for name, twin in [("a", "b"), ("b", "c"), ("c", None), ("d", None)]
    )
    recipe_file = read_recipe_file(write(GOOD[: GOOD.index("[[runs]]")] + chain))
    assert [run.name for run in recipe_file.runs_in_order()] == ["c", "b", "a", "d"]
    assert [run.name for run in recipe_file.runs] == ["a", "b", "c", "d"]


def test_names_that_make_one_file_are_refused_where_both_are_saved(write):
    text = GOOD.replace('"first"', '"Run 1"').replace('"second"', '"run-1"')
    read_recipe_file(write(text))
    text = text.replace('"Run 1"', '"Run 1"\nsave = true').replace(
        '"run-1"', '"run-1"\nsave = true'
    )
    (problem,) = problems_of(write(text))
    assert problem.startswith("runs.1: name: ")
    assert "'Run 1'" in problem


NO_RECIPE = {
    "empty": (b"", 2, "expected a value"),  # neither data nor runs
    "not TOML": (b"a = = 3", 1, "expected a TOML file"),
    "not UTF-8": ('title = "\u00e9"'.encode("latin-1"), 1, "UTF-8"),
    "too many brackets": (b"a = " + b"[" * 5000, 1, "expected a TOML file"),
    "too many digits": (b"seed = " + b"9" * 5000, 1, "expected a TOML file"),
}


@pytest.mark.parametrize("name", NO_RECIPE)
def test_what_is_no_recipe_file_is_one_clear_error(tmp_path, name):
    content, count, words = NO_RECIPE[name]
    (tmp_path / "recipe.toml").write_bytes(content)
    problems = problems_of(tmp_path / "recipe.toml")
    assert len(problems) == count
    assert words in problems[0]


def test_no_file_and_a_folder_are_named(tmp_path):
    assert problems_of(tmp_path / "none.toml") == (
        "expected a recipe file. Received: no such file.",
    )
    assert "directory" in problems_of(tmp_path)[0]


# === What a file may leave out ===


def test_a_quality_fills_in_what_is_left_out(write):
    short = 'quality = "good"\n[data]\ndataset = "openmoji"\n'
    preset = QUALITIES["good"]
    recipe_file = read_recipe_file(write(short))
    assert recipe_file.estimator == {"backbone": preset.backbone}
    assert recipe_file.data.image_size == preset.image_size
    (run,) = recipe_file.runs
    assert (run.name, run.recipe, run.save) == ("good", preset.recipe, True)
    assert run.settings == preset.settings

    own = (
        short
        + 'image_size = 64\n[[runs]]\nname = "a"\nsettings = {epochs = 3}\n'
        + '[[runs]]\nname = "b"\nrecipe = "parameter"\n'
    )
    recipe_file = read_recipe_file(write(own))
    assert recipe_file.data.image_size == 64
    a, b = recipe_file.runs
    assert (a.recipe, a.settings) == (preset.recipe, {**preset.settings, "epochs": 3})
    assert (b.recipe, b.settings) == ("parameter", {})  # a mode of its own has its own settings


def test_how_examples_are_split_where_a_file_does_not_say(write):
    assert read_recipe_file(write(GOOD)).data.train_per_class == 10
    numbers = read_recipe_file(write(GOOD.replace("openmoji", "openmoji_turned"))).data
    assert (numbers.train_per_class, numbers.test_share) == (None, 0.2)
    share = read_recipe_file(write(GOOD), ["data.test_share=0.5"]).data
    assert (share.train_per_class, share.test_share) == (None, 0.5)


def test_folders_of_a_file_start_at_the_file_and_overrides_at_the_current_folder(
    write, tmp_path, monkeypatch
):
    for folder in ("here", "there"):
        for name in ("a", "b"):
            picture = tmp_path / folder / "pictures" / name / "1.png"
            picture.parent.mkdir(parents=True)
            picture.touch()
    monkeypatch.chdir(tmp_path / "here")
    text = GOOD.replace('dataset = "openmoji"', 'folder = "pictures"')
    path = write(text, name="there/recipe.toml")
    assert read_recipe_file(path).data.folder == str(tmp_path / "there" / "pictures")
    assert read_recipe_file(path, ["data.folder=pictures"]).data.folder == "pictures"


def test_a_folder_of_other_words_is_no_regression(write, tmp_path):
    for name in ("12.5", "many"):
        picture = tmp_path / "pictures" / name / "1.png"
        picture.parent.mkdir(parents=True)
        picture.touch()
    text = GOOD.replace('dataset = "openmoji"', 'folder = "pictures"\ntask = "regression"')
    (problem,) = problems_of(write(text))
    assert problem.startswith("data: folder: expected numbers as labels")
    assert "'many'" in problem


def test_the_folders_of_one_task_hold_the_same_labels(write, tmp_path):
    for folder, names in {"train": ["cat", "dog"], "test": ["cat", "dgo", "zebra"]}.items():
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "1.png").write_bytes(b"")
    folders = 'folder = "train"\ntest_folder = "test"'
    text = GOOD.replace('dataset = "openmoji"', folders)
    (problem,) = problems_of(write(text))
    assert problem.startswith("data: test_folder: class 'dgo' is not known")
    assert "cat, dog" in problem
    assert "Did you mean 'dog'?" in problem
    chosen = text.replace(folders, f'{folders}\nclasses = ["cat", "dog"]')
    assert read_recipe_file(write(chosen)).data.classes == ["cat", "dog"]  # others are left out


def test_a_table_of_words_is_no_regression(write, tmp_path):
    (tmp_path / "train.csv").write_text("1.png,2.5\n2.png,3\n")
    (tmp_path / "test.csv").write_text("1.png,2.5\n2.png,three\n")
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"")
    tables = 'folder = "train.csv"\ntest_folder = "test.csv"\ntask = "regression"'
    text = GOOD.replace('dataset = "openmoji"', tables)
    (problem,) = problems_of(write(text))
    assert problem.startswith("data: test_folder: expected numbers as labels, for a regression.")
    assert "'three'" in problem
    read_recipe_file(write(text.replace("test.csv", "train.csv")))


def test_quick_is_small_in_every_part(write):
    text = GOOD.replace('"first"', '"first"\nweights = "source"') + (
        '[source]\ndataset = "digits"\nlimit = 100\n'
    )
    recipe_file = read_recipe_file(write(text), ["seeds=3"], quick=True)
    assert recipe_file.seeds == 1
    assert recipe_file.source.limit == 6
    assert recipe_file.source.settings == {"epochs": 1}
    assert (recipe_file.data.train_per_class, recipe_file.data.test_per_class) == (3, 3)
    assert recipe_file.data.image_size == 64
    assert all(run.settings["epochs"] == 1 for run in recipe_file.runs)


# === Overrides ===


def test_overrides_are_toml_or_bare_words(write):
    recipe_file = read_recipe_file(
        write(GOOD),
        [
            "seed=5",
            "title=a = b",
            "output=out/x",
            "estimator.backbone=VGG16",
            "estimator.image_size=[96, 64]",
            "runs.1.settings.train_blocks=all",
            "runs.0.settings.epochs=4",
            "runs.0.save=true",
        ],
    )
    assert (recipe_file.seed, recipe_file.title, recipe_file.output) == (5, "a = b", "out/x")
    assert recipe_file.estimator == {"backbone": "VGG16", "image_size": [96, 64]}
    assert recipe_file.runs[0].settings == {"epochs": 4}
    assert recipe_file.runs[0].save
    assert recipe_file.runs[1].settings["train_blocks"] == "all"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("nonsense", "override: expected key=value"),
        ("=3", "override: expected key=value"),
        ("data..x=3", "override: expected key=value"),
        ("sed=1", "key 'sed' is not known"),
        ("runs=3", "runs: expected a list of tables"),
        ("data=x", "data: expected a table"),
        ("estimator=x", "estimator: expected a table"),
        ("runs.0=x", "runs.0: expected a table"),
        ("runs.0.settings.epoch=1", "Did you mean 'epochs'?"),
        ("runs.2.name=x", "expected a position from 0 to 1. Received: '2'"),
        ("runs.first.name=x", "expected a position from 0 to 1. Received: 'first'"),
        ("seed.x=1", "expected a table before it, and there is 3. Received: 'x'"),
        ("seed=", "seed: expected a whole number. Received: ''"),
        ("seed=1\nrogue=2", "seed: expected a whole number"),
        ("output=", "output: expected some text"),
    ],
)
def test_a_wrong_override_is_a_mistake_like_those_of_the_file(write, override, words):
    assert words in problems_of(write(GOOD), override)[0]


# === Small ===


def test_quick_is_small_and_writes_elsewhere(write):
    recipe_file = read_recipe_file(write(GOOD), quick=True)
    data = recipe_file.data
    assert (data.train_per_class, data.test_per_class, data.image_size) == (3, 3, 64)
    assert [run.settings["epochs"] for run in recipe_file.runs] == [1, 1]
    assert recipe_file.runs[1].settings["train_blocks"] == 2
    assert recipe_file.output == str(Path("runs") / "recipe-quick")
    assert read_recipe_file(write(GOOD), ["output=mine"], quick=True).output == "mine"


def test_quick_makes_nothing_larger(write):
    small = ["data.train_per_class=2", "data.test_per_class=1", "data.image_size=32"]
    data = read_recipe_file(write(GOOD), small, quick=True).data
    assert (data.train_per_class, data.test_per_class, data.image_size) == (2, 1, 32)


def test_a_file_is_checked_without_tensorflow(write):
    code = """
import sys
from keras_transfer.config import read_recipe_file
from keras_transfer.errors import RecipeFileError
try:
    read_recipe_file(sys.argv[1], ["seed=x"])
except RecipeFileError:
    print(sorted({"tensorflow", "keras"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, write(GOOD)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# === Settings of the loss ===

ASKED = {"label_smoothing": 0.1, "focal_gamma": 2, "mix": "cutmix"}


def test_a_file_sets_the_loss_and_what_is_mixed(write):
    text = GOOD.replace(
        "learning_rate = 1e-3", 'label_smoothing = 0.1, focal_gamma = 2, mix = "cutmix"'
    )
    run = read_recipe_file(write(text)).runs[1]
    assert run.settings == {"train_blocks": 2, **ASKED}
    wrong = text.replace("0.1", "1.0").replace("cutmix", "cutmixed")
    smoothing, mix = problems_of(write(wrong))
    assert smoothing.startswith("runs.1.settings: label_smoothing: expected a number of at least 0")
    assert "below 1. Received: 1.0" in smoothing
    assert mix.endswith("Did you mean 'cutmix'?")


def test_settings_that_contradict_one_another_or_the_task(write):
    text = GOOD.replace("train_blocks = 2, learning_rate = 1e-3", "n_views = 2")
    text = text.replace(
        'recipe = "parameter"', 'recipe = "structure"\nsettings = {mix = "mixup", head_penalty = 1}'
    )
    first, second = problems_of(write(text))
    assert first.startswith("runs.0.settings: head_solver: expected 'gradient' or 'auto'")
    assert second.startswith("runs.1.settings: n_views: expected an augmentation")
    text = GOOD.replace("learning_rate = 1e-3", "focal_gamma = 2")
    (problem,) = problems_of(write(text.replace('"openmoji"', '"openmoji_turned"')))
    assert problem.startswith("runs.1.settings: focal_gamma: expected None for a regression")
