"""Every file in recipes/ runs, small, from the command line to its results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

import keras_transfer
from keras_transfer.config import read_recipe_file
from keras_transfer.datasets import LOADERS, per_class_split

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
NAMES = [str(path.relative_to(ROOT)) for path in RECIPES]


def test_none_is_missed():
    assert len(RECIPES) == 1
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
def test_a_recipe_is_without_mistakes(name):
    assert read_recipe_file(ROOT / name).title


@pytest.mark.slow  # trains EfficientNet-Lite0 in every run of the recipe: a minute
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_small_from_end_to_end(name, tmp_path):
    output = tmp_path / "result"
    command = [sys.executable, "-c", "from keras_transfer.cli import main; main()", "run", name]
    done = subprocess.run(
        [*command, "--quick", f"output={output}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr

    recipe_file = read_recipe_file(ROOT / name, quick=True)
    title, _, _, *rows = done.stdout.splitlines()
    assert title == recipe_file.title
    assert len(rows) == len(recipe_file.runs)
    for row, run in zip(rows, recipe_file.runs, strict=True):
        assert row.startswith(run.name)
        assert f"{run.name}: balanced accuracy 0." in done.stderr

    results = json.loads((output / "results.json").read_text())["results"]
    assert [result["name"] for result in results] == [run.name for run in recipe_file.runs]
    assert (output / "recipe.toml").read_bytes() == (ROOT / name).read_bytes()

    # === What was saved scores again what was reported ===
    data = recipe_file.data
    bunch = LOADERS[data.dataset](image_size=data.image_size)
    labels = np.asarray(bunch.target_names)[bunch.target]
    _, test = per_class_split(labels, data.train_per_class, random_state=recipe_file.seed)
    test = np.concatenate([test[labels[test] == c][: data.test_per_class] for c in set(labels)])
    saved = [run for run in recipe_file.runs if run.save]
    assert saved
    for run in saved:
        loaded = keras_transfer.load(output / run.file_name)
        score = balanced_accuracy_score(labels[test], loaded.predict(bunch.images[test]))
        assert [score] == [r["balanced_accuracy"] for r in results if r["name"] == run.name]
