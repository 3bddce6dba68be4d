"""The store of this process: its limit, and a temporary file that stops working."""

import os
import resource

import numpy as np
import pytest
from test_activation_store import (
    MIB,
    assert_holds,
    keys,
    new_process,  # noqa: F401
    rows,
)

from keras_transfer.errors import KerasTransferWarning
from keras_transfer.store import process_rows
from keras_transfer.store.activation_store import Memory, open_store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files are; nearly all rows go there."""
    monkeypatch.setattr(process_rows, "MEMORY_BOUND", 50_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def files_may_not_grow():
    """Let no file of this process be longer than a KiB, as on a full disk, once it is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_neither_memory_nor_file_holds_is_not_found(folder):
    store = open_store(Memory())
    store.write("net", keys(range(200)), [rows(range(200))])
    assert_holds(store, "net", range(200))
    for unknown in (range(300, 303), [199, 300]):
        found, arrays = store.read("net", keys(unknown))
        assert found.tolist() == [number == 199 for number in unknown]
        assert (arrays is None) == (not found.any())
        if arrays is not None:
            np.testing.assert_array_equal(arrays[0], rows([199]))


def test_a_lower_limit_holds_for_the_file(folder):
    store = open_store(Memory(size_limit=16 * MIB))
    store.write("net", keys(range(2000)), [rows(range(2000), 1000)])
    assert store.info().bytes > 7 * MIB
    assert open_store(Memory(size_limit=2 * MIB)) is store
    assert store.info().limit == 2 * MIB
    for start in range(2000, 2100, 10):
        numbers = range(start, start + 10)
        store.write("net", keys(numbers), [rows(numbers, 1000)])
        assert_holds(store, "net", numbers, 1000)
    assert store.info().bytes < 2 * MIB


def test_a_file_that_stops_working_is_given_up(folder, files_may_not_grow):
    store = open_store(Memory())
    store.write("net", keys(range(200)), [rows(range(200))])
    files_may_not_grow()
    with pytest.warns(KerasTransferWarning, match="kept in memory only, up to 50,000 b") as caught:
        store.write("net", keys(range(200, 400)), [rows(range(200, 400))])
    assert len(caught) == 1
    assert "The variable TMPDIR says where" in str(caught[0].message)
    assert os.listdir(folder) == []
    store.write("net", keys(range(400, 500)), [rows(range(400, 500))])  # and nothing more is said
    assert_holds(store, "net", range(490, 500))
    assert not store.contains("net", keys(range(100))).any()
    info = store.info()
    assert info.bytes <= 50_000
    assert info.file_bytes == 0


def test_a_file_that_cannot_be_made_is_told_once_for_all_networks(folder, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder / "missing"))
    store = open_store(Memory())

    def write_in_turn():  # what goes at once is of both
        for number in range(100):
            store.write(f"net{number % 2}", keys([number]), [rows([number])])

    with pytest.warns(KerasTransferWarning, match=r"kept in memory only.*missing") as caught:
        write_in_turn()
    assert len(caught) == 1
    for number in range(90, 100):
        assert_holds(store, f"net{number % 2}", [number])
