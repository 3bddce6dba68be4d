"""`cache`: what a folder holds, and how it is emptied."""

import json
import os
import subprocess
import sys
import time
from datetime import datetime

import numpy as np
import pytest

from keras_transfer.store import activation_store
from keras_transfer.store.activation_store import Memory, open_store

KEYS = [bytes([number]) * 16 for number in range(20)]
HOLD = """
import sys
from keras_transfer.store.activation_store import Memory, open_store
store = open_store(Memory(sys.argv[1]))
print(store.info().rows, flush=True)
sys.stdin.read()
"""


def close():
    activation_store._close_all()
    for table in ("_FOLDERS", "_STORES", "_BROKEN"):
        getattr(activation_store, table).clear()


@pytest.fixture
def store(tmp_path):
    """A folder with a store, of a process that has ended, and something of the user's."""
    folder = tmp_path / "store"
    for dtype, space in (("float32", "a"), ("float32", "b"), ("float16", "b")):
        memory = Memory(folder, size_limit=5_000_000, dtype=dtype)
        open_store(memory).write(space, KEYS, [np.ones((20, 1000), np.float32)])
    close()
    (folder / "mine.txt").write_text("mine")
    yield folder
    close()


def test_info(call, store):
    called = call("cache", "info", store, "--json")
    assert (called.exit_code, called.stderr) == (0, "")
    info = json.loads(called.stdout)
    assert {name: info[name] for name in ("folder", "limit", "rows", "spaces")} == {
        "folder": str(store),
        "limit": 5_000_000,
        "rows": 60,
        "spaces": 2,
    }
    assert 60 * 2000 < info["bytes"] < info["file_bytes"] == (store / "data.mdb").stat().st_size
    oldest, newest = (datetime.fromisoformat(info[name]) for name in ("oldest", "newest"))
    assert time.time() - 60 < oldest.timestamp() <= newest.timestamp() <= time.time()

    table = call("cache", "info", store)
    assert (table.exit_code, table.stderr) == (0, "")
    lines = table.stdout.splitlines()
    assert lines[0] == str(store)
    cells = {" ".join(words[:-1]): words[-1] for words in map(str.split, lines[3:])}
    assert (cells["rows"], cells["networks"], cells["oldest use"]) == ("60", "2", info["oldest"])
    assert "limit 5.0 MB" in " ".join(table.stdout.split())


def test_info_leaves_the_store_as_it_is(call, store):
    call("cache", "info", store)
    assert activation_store._FOLDERS == {}
    assert sorted(os.listdir(store)) == [
        "data.mdb",
        "keras_transfer_store.json",
        "lock.mdb",
        "mine.txt",
    ]
    # Also of a store that is open.
    opened = open_store(Memory(store))
    environment = activation_store._FOLDERS[str(store)]._env
    assert json.loads(call("cache", "info", store, "--json").stdout)["limit"] == 8 << 30
    assert activation_store._FOLDERS[str(store)]._env is environment
    assert opened.contains("a", KEYS).all()


def test_clear(call, store):
    size = sum(path.stat().st_size for path in store.iterdir()) - 4
    called = call("cache", "clear", store)
    assert (called.exit_code, called.stderr) == (0, "")
    assert called.stdout == f"{store}: {size / 1e6:,.1f} MB deleted.\n"
    assert os.listdir(store) == ["mine.txt"]
    opened = open_store(Memory(store))
    assert opened.info().rows == 0
    # Also of a store that this process has open.
    opened.write("a", KEYS, [np.ones((20, 1000), np.float32)])
    assert call("cache", "clear", store).exit_code == 0
    assert os.listdir(store) == ["mine.txt"]
    assert not opened.contains("a", KEYS).any()


def test_another_process_has_it_open(call, store):
    command = [sys.executable, "-c", HOLD, str(store)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "60\n"
        assert json.loads(call("cache", "info", store, "--json").stdout)["rows"] == 60
        called = call("cache", "clear", store)
        assert (called.exit_code, called.stdout) == (1, "")
        assert "expected a store that no process uses" in called.stderr
        assert (store / "data.mdb").exists()
        process.kill()
    # What one leaves behind that was killed is no use.
    assert call("cache", "clear", store).exit_code == 0


@pytest.mark.parametrize("command", ["info", "clear"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such folder"),
        ("file", "is a file"),
        ("empty", "has no keras_transfer_store.json"),
        ("foreign", "has no keras_transfer_store.json"),
    ],
)
def test_a_folder_without_a_store(call, tmp_path, command, kind, message):
    folder = tmp_path / "folder"
    if kind == "file":
        folder.write_text("mine")
    elif kind != "missing":
        folder.mkdir()
    if kind == "foreign":
        (folder / "data.mdb").write_text("mine")
    called = call("cache", command, folder)
    assert (called.exit_code, called.stdout) == (1, "")
    assert "expected a folder that holds an activation store" in called.stderr
    assert message in called.stderr
    assert "memory=" in called.stderr
    assert kind != "foreign" or (folder / "data.mdb").read_text() == "mine"
    assert kind != "missing" or not folder.exists()


def test_a_store_that_cannot_be_read(call, store):
    contents = (store / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(contents[: len(contents) // 2])
    called = call("cache", "info", store)
    assert (called.exit_code, called.stdout) == (1, "")
    assert f"keras-transfer cache clear {store}" in called.stderr
    assert (store / "data.mdb").stat().st_size == len(contents) // 2
    mark = store / "keras_transfer_store.json"
    mark.write_text('{"format": 99}')
    called = call("cache", "info", store)
    assert called.exit_code == 1
    assert "of format 99" in called.stderr
    assert call("cache", "clear", store).exit_code == 0
    assert os.listdir(store) == ["mine.txt"]


def test_a_store_that_holds_nothing_yet(call, store):
    (store / "data.mdb").unlink()
    info = json.loads(call("cache", "info", store, "--json").stdout)
    assert (info["rows"], info["bytes"], info["oldest"]) == (0, 0, None)
    assert "oldest use" in call("cache", "info", store).stdout
    assert not (store / "data.mdb").exists()


def test_help_is_fast(call):
    script = """
import sys
from click.testing import CliRunner
from keras_transfer.cli import main
for arguments in (["cache", "--help"], ["cache", "info", "-h"], ["cache", "clear", "-h"]):
    assert CliRunner().invoke(main, arguments).exit_code == 0
print([name for name in ("numpy", "lmdb", "keras", "tensorflow") if name in sys.modules])
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert output.stdout == "[]\n", output.stderr
    assert "info" in call("cache", "--help").stdout
    assert call("cache").exit_code == 2
    assert call("cache", "info").exit_code == 2
