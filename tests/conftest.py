"""Shared by all tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Before SciPy is imported: scikit-learn's check of array API input skips silently without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests/tiny.py


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory):
    """Keep the drawn data of a test run out of the user's cache."""
    if "KERAS_TRANSFER_DATA" not in os.environ:
        os.environ["KERAS_TRANSFER_DATA"] = str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def no_display(monkeypatch):
    """Behave as in a pipe."""
    monkeypatch.setattr("keras_transfer.training.progress._is_interactive", lambda: False)
