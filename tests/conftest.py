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


@pytest.fixture
def computed(monkeypatch):
    """How many rows pass a frozen part, one entry for each time."""
    from keras_transfer.training.frozen import FrozenPart

    rows = []
    run = FrozenPart.on_inputs

    def count(self, inputs):
        rows.append(len(inputs))
        return run(self, inputs)

    monkeypatch.setattr(FrozenPart, "on_inputs", count)
    return rows


@pytest.fixture
def empty_store():
    """Nothing that another test computed is kept in this process."""
    from keras_transfer.store.activation_store import Memory, open_store

    open_store(Memory()).clear()


@pytest.fixture
def empty_pool():
    """A fit of another test shares nothing that is compiled."""
    from keras_transfer.training import compiled

    compiled._pool.clear()
    yield
    compiled._pool.clear()
