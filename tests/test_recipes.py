"""Every file in recipes/ runs, small, from the command line to its results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, r2_score

import keras_transfer
from keras_transfer.config import read_recipe_file
from keras_transfer.datasets import load_openmoji
from keras_transfer.recipe_data import read_target, split_target

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
NAMES = [str(path.relative_to(ROOT)) for path in RECIPES]


# A template, whose folder is the user's to name.
OWN = "recipes/own_folder.toml"


@pytest.fixture
def overrides(tmp_path):
    """Give a recipe's overrides: a folder of pictures for the one that asks for the user's own."""

    def overrides(name):
        if name != OWN:
            return []
        data = load_openmoji(image_size=64)
        for label in range(2):
            folder = tmp_path / "pictures" / data.target_names[label]
            folder.mkdir(parents=True)
            for row, picture in enumerate(data.images[data.target == label][:8]):
                Image.fromarray(picture).save(folder / f"{row}.png")
        return [f"data.folder={tmp_path / 'pictures'}"]

    return overrides


def test_none_is_missed():
    assert len(RECIPES) == 5
    assert {path.suffix for path in (ROOT / "recipes").rglob("*") if path.is_file()} == {".toml"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_carries_its_command_on_top(name):
    comments = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comments.append(line)
    assert f"keras-transfer run {name}" in "\n".join(comments)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_without_mistakes(name, overrides):
    assert read_recipe_file(ROOT / name, overrides(name)).title


@pytest.mark.slow  # trains EfficientNet-Lite0 in every run of the recipe: a minute
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_small_from_end_to_end(name, tmp_path, overrides):
    output = tmp_path / "result"
    own = overrides(name)
    command = [sys.executable, "-c", "from keras_transfer.cli import main; main()", "run", name]
    done = subprocess.run(
        [*command, "--quick", f"output={output}", *own],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr

    recipe_file = read_recipe_file(ROOT / name, own, quick=True)
    title, _, _, *rows = done.stdout.splitlines()
    assert title == recipe_file.title
    assert len(rows) == len(recipe_file.runs)
    for row, run in zip(rows, recipe_file.runs, strict=True):
        assert row.startswith(run.name)
        assert f"{run.name}: " in done.stderr

    results = json.loads((output / "results.json").read_text())["results"]
    assert [result["name"] for result in results] == [run.name for run in recipe_file.runs]
    assert (output / "recipe.toml").read_bytes() == (ROOT / name).read_bytes()

    # === What was saved scores again what was reported ===
    data = recipe_file.data
    _, test = split_target(*read_target(data), data, recipe_file.seed)
    saved = [run for run in recipe_file.runs if run.save]
    assert saved
    for run in saved:
        loaded = keras_transfer.load(output / run.file_name)
        predicted = loaded.predict(test.X)
        if recipe_file.data.is_regression:
            name, score = "R2", r2_score(test.y, predicted)
        else:
            name, score = "balanced accuracy", balanced_accuracy_score(test.y, predicted)
        assert [score] == [r["scores"][name] for r in results if r["name"] == run.name]
