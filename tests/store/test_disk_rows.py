"""The store in a folder: kills, many processes, damage, full disks and the limit."""

import contextlib
import os
import random
import select
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from lmdb.verify import verify
from test_activation_store import (
    MIB,
    assert_holds,
    forget,
    key,
    keys,
    new_process,  # noqa: F401
    rows,
    run,
    start,
)

from keras_transfer.errors import KerasTransferWarning
from keras_transfer.store import activation_store, disk_rows, lmdb_files
from keras_transfer.store.activation_store import Memory, open_store
from keras_transfer.store.folder import folder_locked

WRITE = """
store = open_store(Memory(sys.argv[1]))
print("open", flush=True)
for start in range(int(sys.argv[2]), int(sys.argv[3]), 5):
    numbers = range(start, start + 5)
    store.write("net", keys(numbers), [rows(numbers, 3000)])
    found, arrays = store.read("net", keys(numbers))
    assert found.all() and (arrays[0] == rows(numbers, 3000)).all()
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a store of 200 rows, of a process that has ended."""
    folder = tmp_path / "store"
    store = open_store(Memory(folder))
    for space in ("net", "old"):
        store.write(space, keys(range(200)), [rows(range(200), 1000)])
    forget()
    return folder


def assert_every_row_found_is_right(store, numbers, size):
    found, arrays = store.read("net", keys(numbers))
    if arrays is not None:
        expected = rows(np.flatnonzero(found) + numbers.start, size)
        np.testing.assert_array_equal(arrays[0], expected)
    return found


# === Kills, and many processes ===


def test_killed_writers(tmp_path):
    """Three at once, of the same and of other rows, until each is killed; over and over."""
    folder, done = tmp_path / "store", 0
    wait = random.Random(0)
    for _ in range(3):
        writers = [start(WRITE, folder, first, 5000) for first in (0, 0, 5000 - 2500)]
        for writer in writers:
            assert writer.stdout.readline() == "open\n"
        for writer in writers:
            time.sleep(wait.uniform(0.01, 0.15))
            writer.kill()
            assert writer.wait() == -signal.SIGKILL, writer.stderr.read()
        assert [problem for problem in verify(str(folder)) if "a leak" not in problem] == []
        store = open_store(Memory(folder))
        found = assert_every_row_found_is_right(store, range(5000), 3000)
        assert found.sum() > done  # rows are not lost, either
        done = found.sum()
        forget()


@pytest.mark.parametrize("when", ["rows", "uses", "commit"])
def test_a_kill_inside_a_transaction(folder, when):
    """With LMDB's lock held, which must not keep the others waiting."""
    script = """
    when, calls = sys.argv[2], []
    real = disk_rows.DiskRows._put
    def put(self, txn, table, key, value):
        real(self, txn, table, key, value)
        calls.append(table)
        if table == when and len(calls) > 10:
            os.kill(os.getpid(), 9)
    disk_rows.DiskRows._put = put
    store = open_store(Memory(sys.argv[1]))
    numbers = range(200, 2200)
    array = rows(numbers, 3000)
    print(flush=True)
    store.write("new", keys(numbers), [array])
    """
    other = start("open_store(Memory(sys.argv[1])); print(); sys.stdin.read()", folder, stdin=-1)
    other.stdout.readline()  # it has the files open all the time
    process = start(script, folder, when)
    if when == "commit":  # as soon as pages are written
        process.stdout.readline()
        size = file_size(folder)
        while file_size(folder) == size:
            pass
        process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    store = open_store(Memory(folder))
    assert_holds(store, "old", range(200), 1000)
    numbers = range(200, 2200)
    n_found = store.contains("new", keys(numbers)).sum()
    assert n_found == 0 or (n_found == 2000 and when == "commit")  # all or none
    store.write("new", keys(numbers), [rows(numbers, 3000)])
    assert_holds(store, "new", numbers, 3000)
    assert_holds(store, "old", range(200), 1000)
    other.communicate("", timeout=30)
    assert other.returncode == 0


def test_many_processes_make_one_store(tmp_path):
    folder = tmp_path / "new" / "store"
    ranges = [(0, 200), (0, 200), (100, 300), (200, 400)]
    writers = [start(WRITE, folder, *numbers) for numbers in ranges]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
        assert not errors  # no warning
    store = open_store(Memory(folder))
    assert_holds(store, "net", range(400), 3000)
    assert store.info().rows == 400


def test_another_process_with_a_higher_limit(tmp_path):
    store = open_store(Memory(tmp_path, size_limit=MIB))
    store.write("net", keys([0]), [rows([0], 3000)])
    run(WRITE, tmp_path, 0, 300)  # 3.6 MB, where this process maps 1 MiB
    assert_holds(store, "net", range(300), 3000)
    store.write("net", keys([300]), [rows([300], 3000)])
    assert_holds(store, "net", [300], 3000)
    assert store.info().bytes < MIB


def test_one_at_a_time_opens_or_clears(folder):
    with folder_locked(folder):
        other = start("open_store(Memory(sys.argv[1])); print('open')", folder)
        assert select.select([other.stdout], [], [], 0.5)[0] == []
    output, errors = other.communicate(timeout=30)
    assert (output, errors) == ("open\n", "")


# === Damage ===


def cut_to_half(data):
    os.truncate(data, data.stat().st_size // 2)


def cut_a_page(data):
    os.truncate(data, data.stat().st_size - 4096)


def cut_to_one_page(data):
    os.truncate(data, 4096)


def cut_in_a_page(data):
    os.truncate(data, 5000)


def cut_to_nothing_but_metas(data):
    os.truncate(data, 8192)


def overwrite(data):
    data.write_bytes(b"not LMDB" * 10_000)


def overwrite_all_but_metas(data):
    contents = data.read_bytes()
    noise = np.random.default_rng(0).bytes(len(contents) - 8192)
    data.write_bytes(contents[:8192] + noise)


def zero_all_but_metas(data):
    contents = data.read_bytes()
    data.write_bytes(contents[:8192] + bytes(len(contents) - 8192))


def damage_the_metas(data):
    with data.open("r+b") as file:
        file.seek(16)
        file.write(bytes(100))


DAMAGES = [
    cut_to_half,
    cut_a_page,
    cut_to_one_page,
    cut_in_a_page,
    cut_to_nothing_but_metas,
    overwrite,
    overwrite_all_but_metas,
    zero_all_but_metas,
    damage_the_metas,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_begun_anew(folder, damage):
    damage(folder / "data.mdb")
    with pytest.warns(KerasTransferWarning, match="expected a store that is whole.*begun anew"):
        store = open_store(Memory(folder))
    assert store.read("net", keys(range(200)))[1] is None
    store.write("net", keys(range(50)), [rows(range(50), 1000)])
    forget()
    store = open_store(Memory(folder))  # no warning
    assert_holds(store, "net", range(50), 1000)
    assert store.info().folder == str(folder)


def test_an_empty_file_is_a_new_store(folder):
    os.truncate(folder / "data.mdb", 0)
    store = open_store(Memory(folder))
    assert store.read("net", keys(range(200)))[1] is None
    store.write("net", keys([1]), [rows([1], 1000)])
    assert_holds(store, "net", [1], 1000)


def test_damage_while_another_process_has_it_open(folder):
    other = start("open_store(Memory(sys.argv[1])); print(); sys.stdin.read()", folder, stdin=-1)
    other.stdout.readline()
    cut_to_half(folder / "data.mdb")
    with pytest.warns(KerasTransferWarning, match="Once no process uses it, empty it: keras-"):
        store = open_store(Memory(folder))
    store.write("net", keys([1]), [rows([1])])
    assert_holds(store, "net", [1])
    assert store.info().folder is None
    other.communicate("", timeout=30)


@pytest.mark.parametrize("what", ["cut", "removed"])
def test_damage_while_it_is_open(folder, what):
    store = open_store(Memory(folder))
    assert_holds(store, "net", range(200), 1000)
    if what == "cut":
        cut_to_half(folder / "data.mdb")
    else:
        shutil.rmtree(folder)
    with pytest.warns(KerasTransferWarning, match="keeps activations to itself") as caught:
        assert store.read("net", keys(range(200)))[1] is None
    assert len(caught) == 1
    store.write("net", keys([1]), [rows([1])])
    assert_holds(store, "net", [1])
    if what == "cut":  # it is closed: others may empty it
        run("activation_store.clear_folder(sys.argv[1])", folder)


def test_every_byte_that_is_damaged_costs_one_row(folder):
    """A damaged row is not found, is not there, and can be written again."""
    data = folder / "data.mdb"
    contents = bytearray(data.read_bytes())
    at = contents.find(rows([77], 1000).tobytes())
    contents[at + 1234] ^= 1
    data.write_bytes(contents)
    store = open_store(Memory(folder))
    found, arrays = store.read("net", keys(range(200)))
    assert np.flatnonzero(~found).tolist() == [77]
    np.testing.assert_array_equal(arrays[0], rows([n for n in range(200) if n != 77], 1000))
    assert np.flatnonzero(~store.contains("net", keys(range(200)))).tolist() == [77]
    store.write("net", keys(range(200)), [rows(range(200), 1000)])
    assert_holds(store, "net", range(200), 1000)
    assert store.contains("net", keys(range(200))).all()
    assert store.info().rows == 400


def test_a_value_too_short_for_its_checksum_is_a_damaged_one(folder):
    store = open_store(Memory(folder))
    disk = activation_store._FOLDERS[str(folder)]
    (space,) = [space for space in disk.spaces() if "net" in space]
    with disk._begin(write=True) as txn:
        name = disk_rows._space_id(space) + key(77)
        assert disk._get(txn, "rows", name) is not None
        disk._put(txn, "rows", name, b"short")
    found, arrays = store.read("net", keys([76, 77, 78]))
    assert found.tolist() == [True, False, True]
    np.testing.assert_array_equal(arrays[0], rows([76, 78], 1000))
    assert not store.contains("net", keys([77])).any()
    store.write("net", keys([77]), [rows([77], 1000)])
    assert_holds(store, "net", range(200), 1000)


def test_a_file_that_is_known_to_be_whole_is_not_read(folder, monkeypatch):
    def find_damage(folder):
        looks.append(folder)

    looks = []
    monkeypatch.setattr(lmdb_files, "find_damage", find_damage)
    open_store(Memory(folder))
    assert looks == []
    forget()
    os.utime(folder / "data.mdb")
    open_store(Memory(folder))
    assert looks == [folder]
    forget()
    open_store(Memory(folder))
    assert looks == [folder]


# === Full disks ===

FILL = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    store = open_store(Memory(sys.argv[1]))
    for start in range(0, 1000, 50):
        numbers = range(start, start + 50)
        store.write("net", keys(numbers), [rows(numbers, 1000)])
        store.write_note("net", start)
        found, arrays = store.read("net", keys(numbers))
        assert found.all() and (arrays[0] == rows(numbers, 1000)).all()
        assert store.read_note("net") == start
for warning in caught:
    print(warning.message)
"""


def fill(folder, *reasons, prelude=""):
    lines = run(prelude + FILL, folder)[0].splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("memory: expected a folder on a local disk that can be written")
    assert lines[0].endswith("This process keeps activations to itself from now on.")
    assert any(reason in lines[0] for reason in reasons)


@pytest.mark.parametrize("size", [0, 30_000, 50_000, 1_000_000])
def test_a_file_that_may_not_grow(tmp_path, size):
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
    # LMDB's word for a page that was written in part.
    fill(tmp_path / "store", "File too large", "Input/output error", prelude=limit)
    forget()
    if size == 1_000_000:  # what had been written stays
        store = open_store(Memory(tmp_path / "store"))
        found = assert_every_row_found_is_right(store, range(1000), 1000)
        assert found.sum() >= 50


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount")
    yield disk
    forget()
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("n_free_pages", [None, 0, 1, 4, 12, 20])
def test_a_full_disk(small_disk, n_free_pages):
    if n_free_pages is not None:
        with (small_disk / "other").open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            file.truncate(file.tell() - 4096 * n_free_pages)
    fill(small_disk / "store", "No space left", "Input/output error (0.0 MB free)")
    (small_disk / "other").unlink(missing_ok=True)
    store = open_store(Memory(small_disk / "store"))
    assert_every_row_found_is_right(store, range(1000), 1000)


# === The limit ===


def file_size(folder):
    return (folder / "data.mdb").stat().st_size


def test_the_least_recently_used_go_first(tmp_path):
    store = open_store(Memory(tmp_path, size_limit=MIB))
    first, second = range(80), range(100, 180)
    store.write("net", keys(first), [rows(first, 1000)])
    store.write("net", keys(second), [rows(second, 1000)])
    assert_holds(store, "net", first, 1000)
    third = range(200, 300)
    store.write("other", keys(third), [rows(third, 1000)])
    assert store.contains("net", keys(first)).all()
    assert store.contains("other", keys(third)).all()
    assert store.contains("net", keys(second)).sum() < 40
    info = store.info()
    assert info.oldest < info.newest <= time.time()
    # Used in another process, long enough ago to be told.
    forget()
    run(
        "open_store(Memory(sys.argv[1], size_limit=1 << 20)).read('net', keys(range(80)))",
        tmp_path,
    )
    store = open_store(Memory(tmp_path, size_limit=MIB))
    fourth = range(300, 400)
    store.write("other", keys(fourth), [rows(fourth, 1000)])
    assert store.contains("net", keys(first)).all()
    assert store.contains("other", keys(third)).sum() < 40
    assert store.info().spaces == 2
    for begin in range(400, 1000, 100):
        numbers = range(begin, begin + 100)
        store.write("other", keys(numbers), [rows(numbers, 1000)])
    assert store.info().spaces == 1  # no row of the other is left
    store.write("net", keys([1]), [rows([1], 5)])  # so that its rows may have other shapes
    assert_holds(store, "net", [1], 5)


def test_uses_are_written_now_and_then(folder, monkeypatch):
    store = open_store(Memory(folder))
    disk = activation_store._FOLDERS[str(folder)]
    newest = store.info().newest
    commits = disk._env.info()["last_txnid"]
    for _ in range(10):
        store.read("net", keys(range(200)))
        store.contains("net", keys(range(200)))
    assert disk._env.info()["last_txnid"] == commits
    monkeypatch.setattr(disk_rows, "_USES_EVERY", 0.0)
    store.read("net", keys(range(200)))
    assert disk._env.info()["last_txnid"] == commits + 1
    assert store.info().newest > newest


def test_uses_of_rows_that_have_gone_since_are_forgotten(folder):
    store = open_store(Memory(folder))
    store.read("net", keys(range(200)))
    run("open_store(Memory(sys.argv[1])).clear()", folder)
    info = store.info()  # writes them
    assert (info.rows, info.oldest, info.newest) == (0, None, None)


@pytest.mark.parametrize("limit", [MIB, 5 * MIB])
def test_the_file_never_grows_beyond_the_limit(tmp_path, limit):
    """With rows of many sizes, where free pages are scattered."""
    store = open_store(Memory(tmp_path, size_limit=limit))
    sizes = random.Random(0)
    most = []
    for turn in range(150):
        size = sizes.choice([10, 300, 500, 1000, 5000, 26_000])
        n = sizes.randint(1, max(1, min(100, limit // (8 * size))))
        numbers = range(1000 * turn, 1000 * turn + n)
        store.write(f"net{size}", keys(numbers), [rows(numbers, size)])
        # The last written: where room is short, a call's first rows may go for its last.
        assert_holds(store, f"net{size}", [max(numbers, key=key)], size)
        assert file_size(tmp_path) <= limit
        most.append(store.info().bytes)
    assert max(most) > 0.7 * limit
    assert store.info().file_bytes == file_size(tmp_path)
    forget()
    assert verify(str(tmp_path)) == []


def test_more_at_once_than_the_limit(tmp_path):
    store = open_store(Memory(tmp_path, size_limit=MIB))
    store.write("net", keys(range(1000)), [rows(range(1000), 1000)])
    found = assert_every_row_found_is_right(store, range(1000), 1000)
    assert 100 < found.sum() < 256
    assert file_size(tmp_path) <= MIB


@pytest.mark.parametrize("higher", [8 * MIB, 1024 * MIB])
def test_a_lower_limit(tmp_path, higher):
    """Also where all was written at once, so that the file has no free pages."""
    store = open_store(Memory(tmp_path, size_limit=higher))
    store.write("net", keys(range(1000)), [rows(range(1000), 1000)])
    size = file_size(tmp_path)
    assert store.contains("net", keys(range(1000))).all()
    assert open_store(Memory(tmp_path, size_limit=2 * MIB)) is store
    store.write("net", keys([1000]), [rows([1000], 1000)])
    assert store.info().bytes < 2 * MIB
    assert file_size(tmp_path) <= size + MIB / 2
    assert_holds(store, "net", [1000], 1000)


def test_notes_are_bounded(tmp_path):
    store = open_store(Memory(tmp_path, size_limit=MIB))
    for number in range(100):
        store.write_note(str(number), "x" * 3000)
        assert store.read_note(str(number)) == "x" * 3000
    assert store.info().bytes < MIB / 8
    assert store.read_note("0") is None
