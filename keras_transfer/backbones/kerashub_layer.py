"""A layer of KerasHub as a layer that is built anew, copied and saved like any other.

What inherits from Keras has to be defined where Keras is imported: only functions import this.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Mapping
from typing import Any

import keras

from keras_transfer.backbones.kerashub import find_class, import_keras_hub
from keras_transfer.errors import InvalidTypeError

__all__ = ["KerasHubLayer"]

_CLASS, _ACTIVATION = "$class", "$activation"
# Arguments that a class keeps under other names, or inside another layer.
_ELSEWHERE = {
    ("HierarchicalTransformerEncoder", "drop_prob"): "drop_prop",
    ("HierarchicalTransformerEncoder", "sr_ratio"): "attn.sr_ratio",
}


@keras.saving.register_keras_serializable("keras_transfer")
class KerasHubLayer(keras.Layer):
    """A layer of KerasHub, told by its class and what its constructor was given.

    KerasHub builds its backbones as wholes. Of their layers many cannot be built anew from their
    own configuration (0.32: those of ViT, DeiT, Swin and MiT), or not under their name (MobileNet).

    Parameters
    ----------
    layer : str
        Its class, as ``"keras_hub.src.models.vit.vit_layers:ViTEncoderBlock"``.
    arguments : mapping of str to object
        Of its constructor, as JSON.
    output : int, optional
        Which of several outputs is given; by default all.
    version : str, optional
        Not looked at: the configuration tells which KerasHub computes.
    """

    def __init__(
        self,
        layer: str,
        arguments: Mapping[str, Any],
        output: int | None = None,
        version: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._told = {"layer": layer, "arguments": arguments, "output": output}
        self.inner = find_class(layer)(**_decode(arguments), dtype=self.dtype_policy)
        self.supports_masking = self.inner.supports_masking

    @classmethod
    def of(cls, layer: Any, output: int | None = None) -> KerasHubLayer:
        """Make one that computes as a layer of KerasHub does; its weights are its own."""
        path = f"{type(layer).__module__}:{type(layer).__qualname__}"
        return cls(path, _arguments(layer), output, name=layer.name, dtype=layer.dtype_policy)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasHubLayer:
        """Make the layer anew.

        Raises
        ------
        ImportError
            If KerasHub is not installed.
        UnsafeFileError
            If it names what is no layer of KerasHub.
        """
        return cls(**config)  # Keras's own would make a TypeError of each of these

    def build(self, inputs_shape: Any) -> None:
        """Make the weights."""
        if type(self.inner).build is not keras.Layer.build:
            self.inner.build(inputs_shape)
        else:  # a call makes what is inside, and not within the graph of a function as later ones
            self.inner(keras.KerasTensor(inputs_shape, self.compute_dtype))

    def call(self, inputs: Any, **kwargs: Any) -> Any:
        """Call the layer."""
        outputs = self.inner(inputs, **kwargs)
        output = self._told["output"]
        return outputs if output is None else outputs[output]

    def get_config(self) -> dict[str, Any]:
        """Return all that the layer is made of, its weights apart."""
        return {**super().get_config(), **self._told, "version": import_keras_hub().__version__}


def _arguments(layer: Any) -> dict[str, Any]:
    """Return what a layer's constructor was given: KerasHub keeps it under the same names."""
    try:
        told = layer.get_config()
    except (AttributeError, TypeError):  # those of DeiTEncoder and SwinTransformerStage fail
        told = {}
    arguments = {}
    for parameter in inspect.signature(type(layer).__init__).parameters.values():
        name = parameter.name
        if name in ("self", "dtype") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        # What the configuration leaves out, or holds as an object's configuration, is an attribute.
        if name in told and not isinstance(told[name], dict):
            arguments[name] = _encode(told[name], layer)
            continue
        # One that is found nowhere keeps its default; `kerashub.py` compares what comes of it.
        path = _ELSEWHERE.get((type(layer).__name__, name), name)
        with contextlib.suppress(AttributeError):
            arguments[name] = _encode(operator.attrgetter(path)(layer), layer)
    return {**arguments, "name": layer.name}


def _encode(value: Any, layer: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encode(item, layer) for item in value]
    if isinstance(value, dict):
        return {key: _encode(item, layer) for key, item in value.items()}
    if isinstance(value, keras.Layer):  # kept in the place of the class that it was made of
        value = type(value)
    if isinstance(value, type):
        return {_CLASS: f"{value.__module__}:{value.__qualname__}"}
    if callable(value) and isinstance(name := keras.activations.serialize(value), str):
        return {_ACTIVATION: name}
    raise InvalidTypeError(
        f"backbone: expected layers of KerasHub that are told by numbers and names. Received: "
        f"{layer.name!r} ({type(layer).__name__}) with {value!r}. Use another preset."
    )


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if _CLASS in value:
        return find_class(value[_CLASS])
    if _ACTIVATION in value:
        return keras.activations.get(value[_ACTIVATION])
    return {key: _decode(item) for key, item in value.items()}
