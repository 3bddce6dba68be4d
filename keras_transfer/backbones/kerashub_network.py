"""The network of a KerasHub preset, of layers that are built anew one by one.

KerasHub builds its backbones as wholes. Here a layer that runs others one after the other, as the
encoder of a transformer does, is taken apart into these, and each layer of KerasHub is put into a
`KerasHubLayer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_transfer.backbones.walk import call_leaves, is_graph, leaf_layers

__all__ = ["CHAINS", "Chain", "compare", "take_apart"]

# Height and width of the picture on which networks are compared that take any.
_SIDE = 64


@dataclass(frozen=True)
class Chain:
    """A layer of KerasHub that runs others one after the other, to be taken apart into these.

    Attributes
    ----------
    attributes : tuple of str
        Of the layer: those that it runs, each one or a list.
    place : int
        Of its outputs, where it has several: the one that the last of them gives.
    own : int or None
        Of their outputs, where each has several: the one that goes on.
    """

    attributes: tuple[str, ...]
    place: int = 0
    own: int | None = None


CHAINS: dict[str, Chain] = {
    "DINOV2Encoder": Chain(("layers",)),
    "DeiTEncoder": Chain(("encoder_layers", "layer_norm"), own=0),
    "HGNetV2Encoder": Chain(("stages_list",), place=-1),
    "ViTEncoder": Chain(("dropout", "encoder_layers", "layer_norm")),
}


def take_apart(model: Any, *, first_token: bool = False) -> Any:
    """Return a model as one whose layers can be built anew, with the same weights.

    Parameters
    ----------
    model : keras.Model
        A backbone of KerasHub.
    first_token : bool, default=False
        Whether of the tokens that it gives the first alone is given.

    Returns
    -------
    keras.Model
        With one output: of several feature maps the last.
    """
    import keras

    inputs, outputs = _rebuild(model)
    outputs = _last(outputs)
    return keras.Model(inputs, outputs[:, 0] if first_token else outputs, name=model.name)


def _rebuild(model: Any) -> tuple[Any, Any]:
    import keras

    (source,) = model.inputs
    # Under one name, for the same preset to become the same value each time.
    inputs = keras.Input(source.shape[1:], dtype=source.dtype, name="pixels")
    return inputs, call_leaves(model, [inputs], _call_anew, nested=False)


def _last(outputs: Any) -> Any:
    return list(outputs.values())[-1] if isinstance(outputs, dict) else outputs


def _call_anew(_: str, operation: Any, n_outputs: int, *args: Any, **kwargs: Any) -> Any:
    if is_graph(operation):
        import keras

        return keras.Model(*_rebuild(operation), name=operation.name)(*args, **kwargs)
    chain = CHAINS.get(type(operation).__name__)
    if chain is None:
        return _call(operation, None, args, kwargs)
    import keras

    x = args[0]
    for attribute in chain.attributes:
        found = getattr(operation, attribute)
        for layer in found if isinstance(found, (list, tuple)) else [found]:
            is_block = isinstance(found, (list, tuple))
            x = _call(layer, chain.own if is_block else None, (x,), kwargs if is_block else {})
    if n_outputs == 1:
        return x
    outputs: list[Any] = [None] * n_outputs
    outputs[chain.place] = x
    return keras.tree.pack_sequence_as(operation.output, outputs)


def _call(layer: Any, output: int | None, args: Any, kwargs: Any) -> Any:
    from keras_transfer.backbones.kerashub_layer import KerasHubLayer

    if not type(layer).__module__.startswith("keras_hub."):
        return layer(*args, **kwargs)
    copy = KerasHubLayer.of(layer, output)
    outputs = copy(*args, **kwargs)
    copy.set_weights(layer.get_weights())
    return outputs


def compare(network: Any, flat: Any) -> None:
    """Make sure that a network computes as the whole that it was taken from.

    Parameters
    ----------
    network : keras.Model
        The whole.
    flat : keras.Model
        As `take_apart` gave it.

    Raises
    ------
    ValueError
        If it does not: not all that a layer's constructor was given can be read from the layer.
    """
    from keras_transfer.backbones.kerashub_layer import KerasHubLayer

    if not any(isinstance(layer, KerasHubLayer) for layer in leaf_layers(flat)):
        return  # the very same layers
    shape = [1, *(_SIDE if side is None else side for side in network.inputs[0].shape[1:])]
    pixels = np.random.default_rng(0).normal(size=shape).astype("float32")
    whole = network({network.inputs[0].name: pixels} if isinstance(network.input, dict) else pixels)
    expected = np.asarray(_last(whole))
    got = np.asarray(flat(pixels))
    if got.ndim < expected.ndim:
        expected = expected[:, 0]
    if not np.allclose(got, expected, rtol=1e-3, atol=1e-4 * (np.abs(expected).max() + 1e-6)):
        raise ValueError("built anew, its layers compute otherwise than it does.")
