"""The reader of torch files takes data and nothing else."""

import pickle
import struct

import numpy as np
import pytest
from legacy_torch import call, legacy_file, name_of, one_view, op, state_dict, tensor

from keras_transfer.backbones.efficientnet_lite import weights_path
from keras_transfer.backbones.torch_file import read_torch_state_dict
from keras_transfer.errors import FileFormatError, UnsafeFileError

WEIGHTS = weights_path()


@pytest.fixture(scope="module")
def tensors():
    return read_torch_state_dict(WEIGHTS)


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        return read_torch_state_dict(path)

    return read


def test_reads_the_published_file(tensors):
    assert len(tensors) == 296
    counters = [x for name, x in tensors.items() if name.endswith("num_batches_tracked")]
    assert len(counters) == 49
    assert {(x.dtype.str, x.shape) for x in counters} == {("<i8", ())}
    assert sum(x.size for x in tensors.values() if x.dtype == np.float32) == 4_694_024
    assert all(np.isfinite(x).all() for x in tensors.values())
    assert list(tensors)[:2] == ["_conv_stem.weight", "_bn0.weight"]
    assert list(tensors)[-1] == "_fc.bias"


NUMBERS = np.arange(24, dtype="<f4")
VIEWS = {
    "whole": ((0, (2, 3, 4), (12, 4, 1)), NUMBERS.reshape(2, 3, 4)),
    "transposed": ((0, (4, 6), (1, 4)), NUMBERS.reshape(6, 4).T),
    "offset": ((5, (3,), (1,)), NUMBERS[5:8]),
    "every third, from the second": ((1, (8,), (3,)), NUMBERS[1::3]),
    "a window": ((7, (2, 3), (6, 1)), NUMBERS.reshape(4, 6)[1:3, 1:4]),
    "expanded": ((3, (5, 2), (0, 1)), np.broadcast_to(NUMBERS[3:5], (5, 2))),
    "a number": ((23, (), ()), NUMBERS[23]),
    "empty": ((24, (3, 0), (12, 1)), np.zeros((3, 0), "<f4")),
}


@pytest.mark.parametrize("name", VIEWS)
def test_reads_views_of_a_storage(read, name):
    (offset, size, stride), expected = VIEWS[name]
    received = read(one_view(offset, size, stride))["x"]
    assert isinstance(received, np.ndarray)
    assert received.dtype == expected.dtype
    assert received.shape == expected.shape
    np.testing.assert_array_equal(received, expected)
    assert not received.flags.writeable


def test_tensors_can_share_a_storage(read):
    state = state_dict(
        {"a": tensor("k", 24, 0, (24,), (1,)), "b": tensor("k", 24, 12, (3, 4), (1, 3))}
    )
    read_back = read(legacy_file(state=state, storages={"k": NUMBERS}))
    np.testing.assert_array_equal(read_back["a"], NUMBERS)
    np.testing.assert_array_equal(read_back["b"], NUMBERS[12:].reshape(4, 3).T)
    assert np.shares_memory(read_back["a"], read_back["b"])


KINDS = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@pytest.mark.parametrize("kind", KINDS)
def test_reads_each_type_of_number_to_the_bit(read, kind):
    content = np.random.default_rng(0).integers(0, 256, 64, dtype="u1")
    numbers = (content & 1).view("?") if kind == "BoolStorage" else content.view(KINDS[kind])
    state = state_dict({"x": tensor("k", len(numbers), 0, numbers.shape, (1,), kind)})
    received = read(legacy_file(state=state, storages={"k": numbers}))["x"]
    assert received.dtype == np.dtype(KINDS[kind])
    assert received.tobytes() == numbers.tobytes()


BEYOND = {
    "one too long": (0, (25,), (1,)),
    "pushed out by the offset": (20, (5,), (1,)),
    "pushed out by the stride": (0, (2, 3), (23, 1)),
    "negative offset": (-1, (2,), (1,)),
    "negative stride": (10, (2,), (-1,)),
    "negative size": (0, (-1,), (1,)),
    "fewer strides than sizes": (0, (2, 2), (1,)),
    "enormous": (0, (2**62, 2**62), (0, 0)),
    "not a number": (0, ("2",), (1,)),
}


@pytest.mark.parametrize("name", BEYOND)
def test_refuses_a_view_beyond_its_storage(read, name):
    with pytest.raises(FileFormatError, match="cannot be read"):
        read(one_view(*BEYOND[name]))


GLOBALS = {
    "a command": ("os", "system"),
    "an expression": ("builtins", "eval"),
    "another function of torch": ("torch._utils", "_rebuild_parameter"),
    "a function by another module": ("torch", "_rebuild_tensor_v2"),
    "a storage by another module": ("torch.storage", "FloatStorage"),
    "an unknown storage": ("torch", "BFloat16Storage"),
    "another collection": ("collections", "Counter"),
}


@pytest.mark.parametrize("name", GLOBALS)
def test_refuses_every_other_global_by_its_name(read, tmp_path, name):
    target = GLOBALS[name]
    mark = tmp_path / "ran"
    argument = {"system": f"touch {mark}", "eval": f"open({str(mark)!r}, 'w')"}.get(target[1], "x")
    attack = call(*target, argument)
    good = one_view(0, (24,), (1,))
    magic = len(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    # In the place of the object, of the first header, of the second, and as a mere mention.
    files = [legacy_file(state=attack), attack + good[magic:], good[:magic] + attack]
    files.append(legacy_file(state=b"\x80\x02" + name_of(*target) + b"."))
    for content in files:
        with pytest.raises(UnsafeFileError, match=rf"Received: the global {'.'.join(target)}\."):
            read(content)
    assert not mark.exists()


def test_refuses_persistent_objects_that_are_not_storages(read):
    module = b"\x80\x02" + op(("module", "os", "source.py", "code")) + b"Q."
    with pytest.raises(UnsafeFileError, match=r"persistent object .*module"):
        read(legacy_file(state=module))


GOOD = one_view(0, (3,), (1,))
MALFORMED = {
    # name: the file, and the reason that the message gives
    "no pickle": (b"\x89PNG\r\n\x1a\n", "opcode"),
    "nothing": (b"", "exhausted"),
    "zip": (b"PK\x03\x04" + bytes(60), "a zip file, torch's newer format"),
    "magic number": (one_view(0, (3,), (1,), magic=1), r"magic number .*\[1, 1001\]"),
    "protocol version": (one_view(0, (3,), (1,), version=1002), "protocol version .*1002"),
    "unknown storage": (one_view(0, (3,), (1,), keys=["other"]), "other storages than"),
    "storage twice": (
        one_view(0, (3,), (1,), keys=["k", "k"]) + GOOD[-8 - NUMBERS.nbytes :],
        "other storages than",
    ),
    "length differs": (one_view(0, (3,), (1,), length=23), "'k' of 24 numbers, .* not 23"),
    "surplus bytes": (GOOD + b"\0", "1 bytes after the last storage"),
    "not a tensor": (legacy_file(state=pickle.dumps({"x": 1}, 2)), "'x' is a int, not a tensor"),
    "not a dict": (legacy_file(state=pickle.dumps([1], 2)), "a list and a list of storages"),
    "not a name": (
        legacy_file(
            state=b"\x80\x02}" + op(1) + tensor("k", 24, 0, (1,), (1,)) + b"s.",
            storages={"k": NUMBERS},
        ),
        "not a tensor",
    ),
    "storages that differ": (
        legacy_file(
            state=state_dict({f"{n}": tensor("k", n, 0, (1,), (1,)) for n in (24, 23)}),
            storages={"k": NUMBERS},
        ),
        "'k' is declared twice",
    ),
    "a storage type that is text": (
        legacy_file(state=b"\x80\x02" + op(("storage", "O", "k", "cpu", 24, None)) + b"Q."),
        "KeyError: 'O'",
    ),
    "a storage that is a view": (
        legacy_file(
            state=b"\x80\x02" + op(("storage", "FloatStorage", "k", "cpu", 1, ("v", 0, 1))) + b"Q."
        ),
        "unknown form of storage",
    ),
    "newer pickle": (legacy_file(state=pickle.dumps({}, 4)), "pickle operation MEMOIZE"),
    "a memo of millions": (
        legacy_file(state=b"\x80\x02}r" + struct.pack("<I", 10**6) + b"."),
        "pickle operation LONG_BINPUT 1000000",
    ),
    "extension code": (legacy_file(state=b"\x80\x02\x82\x01."), "pickle operation EXT1 1"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_refuses_a_malformed_file(read, name):
    content, reason = MALFORMED[name]
    with pytest.raises(
        FileFormatError, match=rf"cannot be read\. Expected a state_dict.*{reason}"
    ) as caught:
        read(content)
    assert not isinstance(caught.value, UnsafeFileError)


def test_a_file_cut_anywhere_is_refused(read):
    content = one_view(0, (24,), (1,))
    assert read(content)["x"].shape == (24,)
    for length in range(len(content)):
        with pytest.raises(FileFormatError, match="cannot be read"):
            read(content[:length])


@pytest.mark.parametrize("length", [10, 100, 40_000, 45_000, 50_000, 9_000_000, 18_826_031])
def test_the_published_file_cut_is_refused(read, length):
    with pytest.raises(FileFormatError, match="cannot be read"):
        read(WEIGHTS.read_bytes()[:length])


def test_a_changed_byte_is_read_or_refused(read):
    # Whatever comes: arrays or FileFormatError, never a bare error of pickle, struct or NumPy.
    content = one_view(2, (2, 3), (6, 1))
    refused = 0
    for place in range(len(content)):
        for flip in (0x01, 0x20, 0xFF):
            changed = bytearray(content)
            changed[place] ^= flip
            try:
                read(bytes(changed))
            except FileFormatError:
                refused += 1
    assert 0 < refused < 3 * len(content)
