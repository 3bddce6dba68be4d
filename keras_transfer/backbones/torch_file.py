"""Read weights that torch saved in its legacy (not zip) format, without torch.

A ``state_dict`` is a pickle, which can name any code; here nothing that a file names is imported or
run. The format is that of ``torch.save(..., _use_new_zipfile_serialization=False)``: a magic
number, a protocol version, system facts, the pickled structure, the keys of its storages, and then
the storages' raw numbers.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np

from keras_transfer.errors import FileFormatError, UnsafeFileError

__all__ = ["parse_state_dict", "read_torch_state_dict"]

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_DTYPES = {
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


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor whose numbers are not read yet: in the file they follow the pickle."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a ``state_dict`` that torch saved in its legacy (not zip) format, without torch.

    Nothing that the file names is imported or run: of its globals only ``OrderedDict``,
    ``_rebuild_tensor_v2`` and the storage types are known, each to a stand-in.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    dict of str to numpy.ndarray
        The tensors in the file's order, little-endian, with torch's order of axes and strides.
        They are read-only, and tensors that shared memory in torch share it here.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UnsafeFileError
        If the file asks for anything but tensors.
    FileFormatError
        If the file is truncated, malformed or of another format.

    Examples
    --------
    >>> from keras_transfer.backbones.efficientnet_lite import weights_path
    >>> tensors = read_torch_state_dict(weights_path())
    >>> len(tensors), tensors["_conv_stem.weight"].shape
    (296, (32, 3, 3, 3))
    """
    path = Path(path)
    return parse_state_dict(path.read_bytes(), path)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, path: Path):
        super().__init__(stream)
        self.path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A fresh function each time: a pickle can set attributes of what it is given.
            return lambda storage, offset, size, stride, *_: _Tensor(storage, offset, size, stride)
        if module == "torch" and name in _DTYPES:
            return name
        raise self._unsafe(f"the global {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or not pid or pid[0] != "storage":
            raise self._unsafe(f"the persistent object {short(pid)}")
        _, kind, key, _device, length, view = pid
        if type(key) is not str or type(length) is not int or view is not None:
            raise ValueError(f"unknown form of storage {short(pid)}")
        storage = _Storage(key, np.dtype(_DTYPES[kind]), length)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r} is declared twice, differently")
        return storage

    def _unsafe(self, what: str) -> UnsafeFileError:
        return UnsafeFileError(
            f"{self.path} asks for more than data. Expected: tensors alone. Received: {what}. "
            "Do not open this file with torch either, unless you trust where it comes from."
        )


def parse_state_dict(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Read the bytes of a file, as `read_torch_state_dict` does; ``path`` is for messages."""
    try:
        return _tensors(data, path)
    except FileFormatError:
        raise
    except Exception as error:  # a malformed pickle can raise nearly any type
        raise FileFormatError(
            f"{path} cannot be read. Expected a state_dict in torch's legacy (not zip) format. "
            f"Received: {type(error).__name__}: {error}. Get the file again, or save it with "
            "torch.save(state_dict, path, _use_new_zipfile_serialization=False)."
        ) from error


def _tensors(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Read, in the file's order: three pickles of header, the object, the keys, the storages."""
    if data.startswith(b"PK"):
        raise ValueError("a zip file, torch's newer format")
    stream = io.BytesIO(data)
    header = [_unpickle(stream, path)[0] for _ in range(2)]
    if header != [_MAGIC_NUMBER, _PROTOCOL_VERSION]:
        raise ValueError(f"magic number and protocol version {short(header)}")
    _unpickle(stream, path)  # The saving machine's byte order: torch writes little-endian anyway.
    state, storages = _unpickle(stream, path)
    keys, _ = _unpickle(stream, path)
    if not isinstance(state, dict) or not isinstance(keys, list):
        raise ValueError(f"a {type(state).__name__} and a {type(keys).__name__} of storages")
    if len(keys) != len(storages) or set(keys) != storages.keys():
        raise ValueError("other storages than the tensors name")

    buffers = {}
    for key in keys:
        storage = storages[key]
        (length,) = struct.unpack("<q", stream.read(8))
        content = stream.read(max(storage.length, 0) * storage.dtype.itemsize)
        if len(content) != length * storage.dtype.itemsize:
            raise ValueError(f"storage {key!r} of {length} numbers, cut or not {storage.length}")
        buffers[key] = np.frombuffer(content, storage.dtype)
    if rest := len(data) - stream.tell():
        raise ValueError(f"{rest} bytes after the last storage")
    return {name: _view(name, tensor, buffers) for name, tensor in state.items()}


def _unpickle(stream: io.BytesIO, path: Path) -> tuple[Any, dict[str, _Storage]]:
    start, limit = stream.tell(), stream.getbuffer().nbytes
    for opcode, argument, _ in pickletools.genops(stream):
        # torch writes protocol 2. Of that, extension codes bypass find_class, and a memo index
        # makes the unpickler allot as many places at once.
        too_far = "PUT" in opcode.name and (argument or 0) > limit
        if opcode.proto > 2 or opcode.name.startswith("EXT") or too_far:
            raise ValueError(f"pickle operation {opcode.name} {short(argument)}")
    stream.seek(start)
    unpickler = _Unpickler(stream, path)
    return unpickler.load(), unpickler.storages


def _view(name: Any, tensor: Any, buffers: dict[str, np.ndarray]) -> np.ndarray:
    if type(name) is not str or not isinstance(tensor, _Tensor):
        raise ValueError(f"{short(name)} is a {type(tensor).__name__}, not a tensor")
    buffer, size, stride = buffers[tensor.storage.key], tuple(tensor.size), tuple(tensor.stride)
    numbers = (tensor.offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"{name!r} has offset {tensor.offset}, size {size}, stride {stride}")
    last = tensor.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(buffer):
        raise ValueError(f"{name!r} reaches to {last}, its storage has {len(buffer)} numbers")
    steps = [step * buffer.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(buffer[tensor.offset :], size, steps)
