"""Every benchmark runs, small; what it measures is in the README."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
# Script -> a part of the table that it prints.
ROWS = {
    "activation_store.py": "| frozen pass against predict's second call |",
    "data_look.py": "| near copies |",
    "few_labels.py": "| composite transfer (the default) |",
    "openmoji.py": "| composite transfer |",
    "picture_files.py": "| an epoch of training |",
    "saved_models.py": "| structure transfer, 2 blocks | SavedModel |",
    "sklearn_contract.py": "| scenario |",
}
# What the scripts import.
PARTS = {"contract_scenarios.py", "harness.py"}


@pytest.mark.slow  # each trains many times
@pytest.mark.parametrize("script", ROWS)
def test_runs_quickly(script):
    command = [sys.executable, str(FOLDER / script), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ROWS[script] in done.stdout


def test_how_many():
    assert {path.name for path in FOLDER.glob("*.py")} == ROWS.keys() | PARTS
