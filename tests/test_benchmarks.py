"""Every benchmark runs, small; what it measures is in the README."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


# Script -> a part of the table that it prints.
ROWS = {
    "activation_store.py": "| frozen pass against predict's second call |",
    "data_look.py": "| near copies |",
    "few_labels.py": "| composite transfer (the default) |",
    "openmoji.py": "| composite transfer |",
    "picture_files.py": "| an epoch of training |",
    "sklearn_contract.py": "| scenario |",
}


@pytest.mark.slow  # each trains many times
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_runs_quickly(script):
    command = [sys.executable, str(script), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ROWS[script.name] in done.stdout


def test_how_many():
    assert [path.name for path in SCRIPTS] == list(ROWS)
