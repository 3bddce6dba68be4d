"""Build one flat functional model: input, preprocessing, blocks, readout, head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.partition import OURS, Leaf, partition, tap
from keras_transfer.backbones.walk import call_leaves, is_graph
from keras_transfer.backbones.weights import set_weights
from keras_transfer.errors import InvalidParameterError, InvalidTypeError
from keras_transfer.graph.heads import Head
from keras_transfer.graph.readout import Readout

__all__ = ["build_model"]


def build_model(
    backbone: Backbone,
    head: Head | None,
    *,
    input_shape: Sequence[int] | None = None,
    readout: Readout | None = None,
) -> Any:
    """Build a model on a backbone.

    Parameters
    ----------
    backbone : Backbone
    head : Head or None
        None: the model ends in the features that a head would read.
    input_shape : sequence of int, optional
        Shape of one input; by default the backbone's own.
    readout : Readout, optional
        What the head reads; by default the last block, averaged.

    Returns
    -------
    keras.Model
        Flat and functional, layers named ``block.layer``. Takes float32: pictures
        ``(batch, height, width, 3)`` in RGB of 0..255, or features ``(batch, n_features)``. Gives
        what the head says (`Head.attach`), or features ``(batch, n_features)``.
    """
    import keras

    shape = backbone.resolve_shape(input_shape)
    source = backbone.load(shape)

    # === What there is ===
    leaves = partition(source, backbone.blocks)
    names = list(dict.fromkeys(leaf.block for leaf in leaves))
    readout = (readout or Readout()).resolve(names, backbone.name)
    deepest = max(names.index(block) for block in readout.blocks)
    kept = {leaf.path: leaf for leaf in leaves if names.index(leaf.block) <= deepest}
    tapped = {tap(leaves, block).path: block for block in readout.blocks}

    # === Input and preprocessing ===
    inputs = keras.Input(shape, name="picture" if len(shape) == 3 else "features", dtype="float32")
    outputs_of_blocks: dict[str, Any] = {}
    copies: dict[str, Any] = {}

    # === Blocks ===
    def call(path: str, operation: Any, n_outputs: int, *args: Any, **kwargs: Any) -> Any:
        if path not in kept:
            return [None] * n_outputs if n_outputs > 1 else None
        if path not in copies:
            copies[path] = _copy(kept[path])
        result = copies[path](*args, **kwargs)
        if path in tapped:
            outputs_of_blocks[tapped[path]] = result
        return result

    pixels = backbone.preprocessing(inputs)
    if is_graph(source):
        call_leaves(source, pixels, call)
    else:
        call(source.name, source, 1, pixels)
    for path, copy in copies.items():
        if getattr(copy, "weights", None):
            set_weights(copy, kept[path].operation.get_weights())

    # === Readout and head ===
    features = readout.attach(outputs_of_blocks)
    if len(features.shape) != 2:
        raise InvalidParameterError(
            f"readout: expected one vector per input, got {features.shape}."
        )
    outputs = features if head is None else head.attach(features)
    return keras.Model(inputs, outputs, name=f"{OURS}{_identifier(backbone.name)}")


def _copy(leaf: Leaf) -> Any:
    """Make a layer or operation anew under its stable name."""
    import keras

    try:
        config = leaf.operation.get_config()
        if isinstance(leaf.operation, keras.Layer):
            config["name"] = leaf.name
        copy = type(leaf.operation).from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidTypeError(
            f"backbone: expected layers that Keras can build anew from their configuration. "
            f"Received {leaf.path!r} ({type(leaf.operation).__name__}), which it cannot: {error}. "
            f"Give your own layers get_config, register your own functions with "
            f"@keras.saving.register_keras_serializable(), replace Lambda layers by keras.ops."
        ) from error
    copy.name = leaf.name  # operations that are not layers do not keep a name in their config
    return copy


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
