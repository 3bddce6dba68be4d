"""The activation store: what is read is what was written, and no failure is an error."""

import gc
import hashlib
import inspect
import json
import os
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest

from keras_transfer.errors import (
    InvalidParameterError,
    InvalidTypeError,
    KerasTransferWarning,
)
from keras_transfer.store import activation_store, process_rows
from keras_transfer.store.activation_store import Memory, as_memory, open_store
from keras_transfer.store.folder import is_in_use
from keras_transfer.store.process_rows import ProcessRows

MIB = 1 << 20


def key(number):
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def keys(numbers):
    return [key(number) for number in numbers]


def rows(numbers, size=300):
    """Rows that anyone can compute from their number."""
    return np.stack(
        [np.random.default_rng(number).standard_normal(size, np.float32) for number in numbers]
    )


PRELUDE = "\n".join(
    [
        "import hashlib, os, sys, warnings",
        "import numpy as np",
        "from keras_transfer.store import activation_store, disk_rows, process_rows",
        "from keras_transfer.store.activation_store import Memory, open_store",
        *map(inspect.getsource, (key, keys, rows)),
    ]
)


def start(script, *arguments, **options):
    """Start a script in a process of its own."""
    command = [sys.executable, "-c", PRELUDE + inspect.cleandoc(script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(script, *arguments):
    process = start(script, *arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output, errors


def forget():
    """Be as a new process: nothing open, nothing known to be broken."""
    activation_store._close_all()
    for table in ("_FOLDERS", "_STORES", "_BROKEN", "_TOO_LARGE"):
        getattr(activation_store, table).clear()
    activation_store._PROCESS = ProcessRows(Memory.size_limit)


@pytest.fixture(autouse=True)
def new_process():
    forget()
    yield
    forget()


@pytest.fixture(params=["memory", "spilled", "folder"])
def memory(request, tmp_path, monkeypatch):
    """Each place where rows can be."""
    if request.param == "spilled":
        # Most of what a test writes goes to the temporary file.
        monkeypatch.setattr(process_rows, "MEMORY_BOUND", 5000)
    return Memory(tmp_path / "new" / "store" if request.param == "folder" else None)


def assert_holds(store, space, numbers, size=300):
    found, arrays = store.read(space, keys(numbers))
    assert found.all()
    np.testing.assert_array_equal(arrays[0], rows(numbers, size))


# === What comes back ===


def test_what_is_read_is_what_was_written(memory):
    store = open_store(memory)
    first, second = rows(range(40)), rows(range(40), 6).reshape(40, 1, 3, 2)
    first[3, :4] = [np.nan, np.inf, -0.0, 1e-42]
    store.write("net", keys(range(40)), [first, second])
    wanted = [39, 100, 3, 0, 101]
    found, arrays = store.read("net", keys(wanted))
    assert found.tolist() == [True, False, True, True, False]
    assert [array.dtype for array in arrays] == [np.float32] * 2
    assert arrays[0].tobytes() == first[[39, 3, 0]].tobytes()  # also NaN, and the sign of 0
    assert arrays[1].shape == (3, 1, 3, 2)
    assert arrays[1].tobytes() == second[[39, 3, 0]].tobytes()
    assert store.contains("net", keys(wanted)).tolist() == found.tolist()
    info = store.info()
    assert (info.rows, info.spaces, info.limit) == (40, 1, 8 << 30)
    assert info.bytes >= first.nbytes + second.nbytes


def test_nothing_found(memory):
    store = open_store(memory)
    for wanted in ([], [1, 2]):
        found, arrays = store.read("net", keys(wanted))
        assert (found.tolist(), arrays) == ([False] * len(wanted), None)
        assert store.contains("net", keys(wanted)).tolist() == [False] * len(wanted)
    store.write("net", [], [np.empty((0, 3), np.float32)])
    store.write("net", keys([1]), [rows([1])])
    assert store.read("other", keys([1]))[1] is None
    assert store.info().rows == 1


def test_rows_that_are_there_are_left_alone(memory):
    store = open_store(memory)
    store.write("net", keys([1, 2]), [rows([1, 2])])
    store.write("net", keys([2, 3, 3]), [rows([7, 3, 8])])
    assert_holds(store, "net", [1, 2, 3])
    assert store.info().rows == 3
    store.write("net", keys(range(10, 40)), [rows(range(10, 40))])
    store.write("net", keys([10, 1]), [rows([11, 12])])
    assert_holds(store, "net", [1, 2, 3, *range(10, 40)])
    assert store.info().rows == 33


@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_rows_of_any_shape(memory, shape):
    store = open_store(memory)
    array = np.ones((5, *shape), np.float64)
    store.write("net", keys(range(5)), [array])
    found, arrays = store.read("net", keys(range(6)))
    assert found.tolist() == [True] * 5 + [False]
    assert arrays[0].shape == (5, *shape)
    assert arrays[0].dtype == np.float32
    assert (arrays[0] == 1).all()


def test_the_callers_arrays_stay_the_callers(memory):
    store = open_store(memory)
    array = rows(range(20))
    reference = weakref.ref(array)
    store.write("net", keys(range(20)), [array])
    array[:] = 0
    del array
    gc.collect()
    assert reference() is None
    read = store.read("net", keys(range(20)))[1][0]
    assert read.flags.writeable
    read[:] = 0
    assert_holds(store, "net", range(20))


def test_float16(memory):
    half = open_store(Memory(memory.folder, dtype="float16"))
    array = np.array([[1 / 3, 65504, -2e-5], [1e5, 1 / 3, 1], [np.inf, np.nan, 1 / 3]], np.float32)
    half.write("net", keys(range(3)), [array])
    read = half.read("net", keys(range(3)))[1][0]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[[0, 2]], array[[0, 2]].astype(np.float16))
    np.testing.assert_array_equal(read[1], array[1])  # float16 has no 1e5
    assert abs(read[0, 0] - array[0, 0]) <= 2**-11 * array[0, 0]
    assert abs(read[0, 2] - array[0, 2]) <= 2**-25
    # The other dtype's rows are others.
    full = open_store(memory)
    assert full.read("net", keys(range(3)))[1] is None
    full.write("net", keys(range(3)), [array])
    np.testing.assert_array_equal(full.read("net", keys(range(3)))[1][0], array)
    np.testing.assert_array_equal(half.read("net", keys(range(3)))[1][0], read)
    assert (full.info().rows, full.info().spaces) == (6, 1)


def test_float16_takes_half(tmp_path):
    sizes = []
    for dtype in ("float32", "float16"):
        store = open_store(Memory(tmp_path / dtype, dtype=dtype))
        store.write("net", keys(range(50)), [rows(range(50), 20_000)])
        sizes.append(store.info().bytes)
    assert sizes[1] < 0.53 * sizes[0]


def test_notes(memory):
    store = open_store(memory)
    assert store.read_note("net") is None
    value = {"shapes": [[1, 2]], "name": "é"}
    store.write_note("net", value)
    value["name"] = "changed"
    assert store.read_note("net") == {"shapes": [[1, 2]], "name": "é"}
    store.write_note("net", 3)
    store.write_note("n" * 5000, "long")
    assert (store.read_note("net"), store.read_note("n" * 5000)) == (3, "long")
    with pytest.raises(InvalidTypeError, match="note 'net': expected a value of what JSON knows"):
        store.write_note("net", object())


def test_clear(memory):
    store = open_store(memory)
    store.write("net", keys(range(30)), [rows(range(30))])
    store.write_note("net", 1)
    store.clear()
    assert store.read("net", keys(range(30)))[1] is None
    assert store.read_note("net") is None
    assert (store.info().rows, store.info().spaces) == (0, 0)
    store.write("net", keys([1]), [rows([1])])
    assert_holds(store, "net", [1])


def test_threads(memory):
    store = open_store(memory)
    failures = []

    def work(thread):
        try:
            for start in range(0, 200, 10):
                numbers = range(start + 5 * thread, start + 5 * thread + 20)
                store.write("net", keys(numbers), [rows(numbers)])
                assert_holds(store, "net", numbers)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert_holds(store, "net", range(225))


# === Which store ===


def test_one_store_for_a_folder_and_a_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store(Memory("a"))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert open_store(Memory(tmp_path / "link")) is store
    assert open_store(Memory(tmp_path / "b" / ".." / "a")) is store
    monkeypatch.chdir("/")  # a relative name is of the folder where it was given
    store.write("net", keys([1]), [rows([1])])
    assert (tmp_path / "a" / "data.mdb").exists()
    assert open_store(Memory()) is open_store(as_memory(None))
    assert open_store(Memory()) is not store


def test_a_folder_outlives_the_process(tmp_path):
    script = """
    store = open_store(Memory(sys.argv[1]))
    store.write("net", keys(range(30)), [rows(range(30))])
    store.write_note("net", [1])
    """
    run(script, tmp_path)
    store = open_store(Memory(tmp_path))
    assert_holds(store, "net", range(30))
    assert store.read_note("net") == [1]


def test_starting_loads_neither_lmdb_nor_tensorflow():
    script = """
    open_store(Memory()).write("net", keys([1]), [rows([1])])
    print([name for name in ("lmdb", "tensorflow", "keras", "sklearn") if name in sys.modules])
    """
    assert run(script)[0].split() == ["[]"]


# === In the process ===


def test_past_the_bound_rows_go_to_a_file_that_leaves_nothing(tmp_path):
    script = """
    process_rows.MEMORY_BOUND = 50_000
    store = open_store(Memory())
    for start in range(0, 200, 10):
        store.write("net", keys(range(start, start + 10)), [rows(range(start, start + 10))])
    info = store.info()
    assert info.rows == 200 and info.file_bytes > 0 and info.spaces == 1, info
    assert activation_store._PROCESS._memory.size <= 50_000
    order = [150, 3, 199, 0, 77]
    found, arrays = store.read("net", keys([*order, 500]))
    assert found.tolist() == [True] * 5 + [False]
    assert (arrays[0] == rows(order)).all()
    print(os.listdir(sys.argv[1]))
    if sys.argv[2:]:
        os.kill(os.getpid(), 9)
    """
    for arguments in ([], ["kill"]):
        process = start(script, tmp_path, *arguments, env=os.environ | {"TMPDIR": str(tmp_path)})
        output, errors = process.communicate(timeout=60)
        assert process.returncode == (-9 if arguments else 0), errors
        assert os.listdir(tmp_path) == []
        # The file has no name from the beginning.
        assert arguments or output.split() == ["[]"]


@pytest.mark.parametrize(("limit", "bound"), [(MIB, 8 * MIB), (3 * MIB, MIB)])
def test_beyond_the_limit_the_least_recently_used_go(monkeypatch, limit, bound):
    monkeypatch.setattr(process_rows, "MEMORY_BOUND", bound)
    store = open_store(Memory(size_limit=limit))
    n = limit // 5000
    used = []
    for start in range(0, 3 * n, 10):
        numbers = range(start, start + 10)
        store.write("net", keys(numbers), [rows(numbers, 1000)])
        assert_holds(store, "net", numbers, 1000)
        assert_holds(store, "net", [0, 1], 1000)
        info = store.info()
        used.append(info.bytes)
        assert info.bytes <= limit
        assert info.file_bytes <= limit
    found = store.contains("net", keys(range(start + 10)))
    assert found[:2].all()
    missing = np.flatnonzero(~found)
    # The oldest; those that were written at once are of one age.
    assert missing.max() <= 2 + len(missing) + 50
    assert max(used) > 0.7 * limit
    assert store.info().rows < 2 * n


def test_a_temporary_file_that_cannot_be_made(monkeypatch, tmp_path):
    monkeypatch.setattr(process_rows, "MEMORY_BOUND", 50_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    store = open_store(Memory())
    with pytest.warns(KerasTransferWarning, match="kept in memory only.*TMPDIR") as caught:
        store.write("net", keys(range(100)), [rows(range(100))])
    assert len(caught) == 1
    store.write("net", keys(range(90, 200)), [rows(range(90, 200))])
    assert_holds(store, "net", range(190, 200))
    assert store.info().bytes <= 50_000


def test_a_row_that_is_too_large(memory):
    store = open_store(Memory(memory.folder, size_limit=MIB))
    with pytest.warns(KerasTransferWarning, match="size_limit of at least 4,000,000 bytes"):
        store.write("large", keys([1]), [rows([1], 100_000)])
    store.write("large", keys([2]), [rows([2], 100_000)])  # said once
    assert store.read("large", keys([1]))[1] is None
    store.write("small", keys([1]), [rows([1])])
    assert_holds(store, "small", [1])
    # There is no room either for one that is said to be so large.
    assert [store.room(size) for size in (MIB // 10, MIB // 10 + 1)] == [8, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("place", ["memory", "folder"])
def test_a_fork(tmp_path, place):
    script = """
    process_rows.MEMORY_BOUND = 50_000
    folder = sys.argv[1] if sys.argv[2] == "folder" else None
    store = open_store(Memory(folder))
    def check(numbers):
        found, arrays = store.read("net", keys(numbers))
        assert found.all() and (arrays[0] == rows(numbers)).all()
    store.write("net", keys(range(100)), [rows(range(100))])
    child = os.fork()
    if not child:
        check(range(100) if folder else range(98, 100))
        for start in range(100, 200, 10):
            store.write("net", keys(range(start, start + 10)), [rows(range(start, start + 10))])
        check(range(100, 200))
        sys.exit()  # with what runs at an exit
    for start in range(200, 300, 10):
        store.write("net", keys(range(start, start + 10)), [rows(range(start, start + 10))])
        check(range(100))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    check([*range(100), *range(200, 300)])
    assert store.contains("net", keys(range(100, 200))).all() == bool(folder)
    """
    run(script, tmp_path, place)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_that_outlives_its_parent(tmp_path):
    """It has locks of its own, so that nobody takes the store from under it."""
    script = """
    store = open_store(Memory(sys.argv[1]))
    store.write("net", keys([1]), [rows([1])])
    if not os.fork():
        os.setsid()
        assert store.contains("net", keys([1])).all()
        print("child", flush=True)
        sys.stdin.read()
    """
    parent = start(script, tmp_path, stdin=subprocess.PIPE)
    assert parent.stdout.readline() == "child\n"
    assert parent.wait() == 0
    assert is_in_use(tmp_path)
    _, errors = parent.communicate("")  # until the child has closed its end, too
    assert not errors
    assert not is_in_use(tmp_path)


# === What cannot be ===


@pytest.mark.parametrize("bad", [b"short", "0123456789abcdef", 3])
def test_bad_keys(bad):
    store = open_store(Memory())
    for call in (store.read, store.contains):
        with pytest.raises(InvalidParameterError, match="keys: expected 16 bytes each"):
            call("net", [key(1), bad])
    with pytest.raises(InvalidParameterError, match="space: expected a str"):
        store.read(b"net", [])
    with pytest.raises(InvalidParameterError, match="space: expected a str"):
        store.read("", [])


def test_bad_arrays(memory):
    store = open_store(memory)
    for arrays in ([], [rows([1])], [rows([1, 2]), rows([1])]):
        with pytest.raises(InvalidParameterError, match="each with a row for each of 2 keys"):
            store.write("net", keys([1, 2]), arrays)
    store.write("net", keys([1, 2]), [rows([1, 2])])
    with pytest.raises(InvalidParameterError, match=r"expected rows of the shapes \[\(300,\)\]"):
        store.write("net", keys([3]), [rows([3], 200)])
    assert not store.contains("net", keys([3])).any()
    assert_holds(store, "net", [1, 2])  # that is no failure of the store
    assert store.info().folder == (None if memory.folder is None else str(memory.folder))


# === Folders that do not work ===


def make_file(folder):
    folder.write_text("mine")
    return "Not a directory|File exists"


def make_parent_file(folder):
    folder.parent.joinpath("file").write_text("mine")
    folder.symlink_to(folder.parent / "file" / "store")
    return "Not a directory"


def make_foreign(folder):
    folder.mkdir()
    folder.joinpath("data.mdb").write_bytes(b"mine")
    return "with the data.mdb of something else. Choose another folder"


def make_other_format(folder):
    run("open_store(Memory(sys.argv[1])).write('net', keys([1]), [rows([1])])", folder)
    mark = folder / "keras_transfer_store.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"format": 2}))
    return "of format 2, .*keras-transfer cache clear"


def make_broken_mark(folder):
    make_other_format(folder)
    folder.joinpath("keras_transfer_store.json").write_text("{")
    return "of format unknown, .*keras-transfer cache clear"


def make_wrong_lock(folder):
    folder.mkdir()
    folder.joinpath("lock.mdb").mkdir()
    return "Is a directory"


PROBLEMS = [
    make_file,
    make_parent_file,
    make_foreign,
    make_other_format,
    make_broken_mark,
    make_wrong_lock,
]


@pytest.mark.parametrize("make", PROBLEMS)
def test_a_folder_that_cannot_be_used(tmp_path, make):
    folder = tmp_path / "store"
    message = make(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    is_seen_first = make is not make_wrong_lock  # else it is found while the store is made
    with pytest.warns(KerasTransferWarning, match=message) as caught:
        store = open_store(Memory(folder))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    open_store(Memory(folder, dtype="float16"))
    store.write("net", keys([1]), [rows([1])])
    store.write_note("net", 1)
    assert_holds(store, "net", [1])
    assert store.read_note("net") == 1
    assert store.info().folder is None
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before or (not is_seen_first and not (folder / "data.mdb").exists())


def test_a_folder_where_none_can_be():
    with pytest.warns(KerasTransferWarning, match="expected a folder on a local disk"):
        open_store(Memory("/proc/keras_transfer"))


def test_a_folder_without_permission(tmp_path):
    script = """
    folder, user = sys.argv[1], 65534
    import lmdb, lmdb.verify
    array = rows([1])
    if os.getuid() == 0:
        os.setuid(user)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = open_store(Memory(folder))
        store.write("net", keys([1]), [array])
        assert store.read("net", keys([1]))[0].all()
    print(*[warning.message for warning in caught], sep="\\n")
    """
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(0o555)
    output = run(script, folder)[0].splitlines()
    assert len(output) == 1
    assert "Permission denied" in output[0]
    assert "choose another folder" in output[0]


def test_a_warning_that_is_an_error_leaves_a_store_that_works(tmp_path):
    (tmp_path / "file").write_text("mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KerasTransferWarning):
            open_store(Memory(tmp_path / "file"))
    store = open_store(Memory(tmp_path / "file"))
    store.write("net", keys([1]), [rows([1])])
    assert_holds(store, "net", [1])
