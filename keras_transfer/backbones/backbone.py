"""Backbone: all that the rest of the package needs to know of a pretrained model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from keras_transfer.backbones.partition import (
    Block,
    BlockPatterns,
    describe_layer,
    join_blocks,
    partition,
)
from keras_transfer.backbones.preprocessing import Preprocessing
from keras_transfer.backbones.walk import is_graph
from keras_transfer.backbones.weights import keep_weights, set_weights
from keras_transfer.errors import InvalidParameterError, InvalidTypeError

__all__ = [
    "AS_GIVEN",
    "IMAGENET",
    "MODALITIES",
    "Backbone",
    "CallableSource",
    "ModelSource",
    "Source",
    "file_identity",
    "is_kerass_own",
]

MODALITIES = ("picture", "features")
# Words for weights that are no file: the published ones, and those that a model brings with it.
IMAGENET, AS_GIVEN = "imagenet", "as given"
# Where the layer is defined that stands for one of KerasHub's.
KERASHUB_LAYER = "keras_transfer.backbones.kerashub_layer"


class Source(Protocol):
    """Where a network comes from: a hashable, picklable value that holds no Keras object."""

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Build the network with its weights for one input shape."""

    def identity(self) -> str | None:
        """Return what tells the network and its weights without building it.

        None where only building it tells. Random weights are told by the seed, beside this.
        """


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its old head: an immutable, lazy description.

    Made by `get_backbone`. No Keras or TensorFlow object exists until `load` is called, which every
    fit does for itself; so a backbone can be a scikit-learn parameter: ``clone``, ``copy`` and
    ``deepcopy`` return the backbone itself.

    Attributes
    ----------
    name : str
        The name in messages, tables and layer names.
    source : Source
        Where the network comes from.
    modality : {"picture", "features"} or None
        What the network reads; None if the input's shape is to tell.
    weights : str or None
        Which weights the network starts with; None means random.
    input_shape : tuple of int or None
        The input shape without the batch, if it was fixed.
    default_shape : tuple of int or None
        The shape that the source task used, such as ``(224, 224, 3)``.
    min_size : int
        The smallest height and width in pixels.
    preprocessing : Preprocessing
        From pixels of 0..255 to what the network was trained on.
    blocks : tuple of (str, str) or None
        Patterns that group layers into blocks; None: read from the graph.
    licence : str
        Licence of published weights, by its SPDX name; empty for all others.
    weights_from : str
        Who published the weights.
    left_out : tuple of str
        The layers of a model that were taken for its old head and are not in the network, input
        side first; a nested layer after the name of its model and ``"/"``.

    Examples
    --------
    >>> from keras_transfer import get_backbone
    >>> backbone = get_backbone("MobileNetV2", weights=None, input_shape=(96, 96, 3))
    >>> [block.name for block in backbone.list_blocks()][:3]
    ['stem', 'block_1', 'block_2']
    """

    name: str
    source: Source = field(repr=False)
    modality: str | None = "picture"
    weights: str | None = None
    input_shape: tuple[int, ...] | None = None
    default_shape: tuple[int, ...] | None = field(default=None, repr=False)
    min_size: int = field(default=1, repr=False)
    preprocessing: Preprocessing = field(default_factory=Preprocessing, repr=False)
    blocks: BlockPatterns | None = field(default=None, repr=False)
    licence: str = field(default="", repr=False)
    weights_from: str = field(default="", repr=False)
    left_out: tuple[str, ...] = field(default=(), repr=False)

    def __sklearn_clone__(self) -> Backbone:
        return self

    def __copy__(self) -> Backbone:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        return self

    def resolve_shape(self, input_shape: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the input shape that the network will be built for.

        Parameters
        ----------
        input_shape : sequence of int, optional
            A shape without the batch; by default the backbone's own.

        Returns
        -------
        tuple of int

        Raises
        ------
        InvalidParameterError
            If the shape is too small, differs from the one fixed, or is not known.
        """
        if input_shape is not None and not isinstance(input_shape, Sequence):
            raise InvalidParameterError(
                f"input_shape: expected a tuple such as (96, 96, 3). Received: {input_shape!r}."
            )
        shape = input_shape if input_shape is not None else self.input_shape or self.default_shape
        if shape is None:
            raise InvalidParameterError(
                f"input_shape: expected the shape of one input for {self.name}, which has none of "
                f"its own. Received: None. Pass input_shape=(height, width, 3) or (n_features,)."
            )
        if None in shape:
            raise InvalidParameterError(
                f"input_shape: expected whole numbers. Received: {tuple(shape)}. Fix every size."
            )
        shape = tuple(int(n) for n in shape)
        if self.input_shape is not None and shape != self.input_shape:
            raise InvalidParameterError(
                f"input_shape: expected {self.input_shape}, which {self.name} is fixed to. "
                f"Received: {shape}. Leave image_size and input_shape out, or use another backbone."
            )
        if self.modality == "picture" and (len(shape) != 3 or min(shape[:2]) < self.min_size):
            raise InvalidParameterError(
                f"input_shape: expected (height, width, channels) of at least {self.min_size} px "
                f"for {self.name}. Received: {shape}. Choose a larger image_size."
            )
        return shape

    def load(self, input_shape: Sequence[int] | None = None) -> Any:
        """Build the network with its weights.

        Parameters
        ----------
        input_shape : sequence of int, optional
            A shape without the batch; by default the backbone's own.

        Returns
        -------
        keras.Model
            Takes inputs after `preprocessing`.

        Raises
        ------
        InvalidTypeError
            If a callable returns something else than a Keras model.
        FileFormatError
            If a weights file does not hold the network's weights.
        """
        import keras

        shape = self.resolve_shape(input_shape)
        model = self.source.load(shape)
        if not isinstance(model, keras.Model):
            raise InvalidTypeError(
                f"backbone {self.name!r}: expected a callable that returns a keras.Model. "
                f"Received: {type(model).__name__}. Return keras.Model(inputs, outputs) or "
                f"keras.Sequential."
            )
        if not model.built:
            model.build((None, *shape))
        # A subclassed model does not know its inputs.
        if is_graph(model) and (len(model.inputs) != 1 or len(model.outputs) != 1):
            raise InvalidParameterError(
                f"backbone {self.name!r}: expected a model with one input and one output. "
                f"Received: {len(model.inputs)} inputs and {len(model.outputs)} outputs. Pass "
                f"keras.Model(model.inputs[0], model.outputs[0])."
            )
        return model

    def list_blocks(self, input_shape: Sequence[int] | None = None) -> list[Block]:
        """List the blocks, input side first. Builds the network.

        Parameters
        ----------
        input_shape : sequence of int, optional
            A shape without the batch; by default the backbone's own.

        Returns
        -------
        list of Block
        """
        leaves = partition(self.load(input_shape), self.blocks)
        # Layers are called here as in the models that are built.
        return join_blocks(describe_layer(leaf.operation, leaf.block, leaf.name) for leaf in leaves)

    def with_shape(self, input_shape: Sequence[int] | None) -> Backbone:
        """Return the same backbone with its input shape fixed."""
        if input_shape is None:
            return self
        return replace(self, input_shape=replace(self, input_shape=None).resolve_shape(input_shape))


@dataclass(frozen=True)
class CallableSource:
    """A network made by a function of the user's."""

    function: Callable[[tuple[int, ...]], Any]

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Call the function."""
        return self.function(input_shape)

    def identity(self) -> None:
        """Return None: a function can return something else the next time."""
        return None


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A Keras model as it stood when the backbone was made: its configuration and its weights.

    Attributes
    ----------
    config : str
        Keras's own JSON of the architecture.
    weights : tuple of numpy.ndarray
        In the order of ``model.get_weights()``; read-only. Empty: random ones.
    digest : str
        SHA-256 over both.
    trusted : bool
        Whether SavedModels in it may run: it was a model of this process, or of a trusted file.
    """

    config: str
    weights: tuple[Any, ...]
    digest: str
    trusted: bool = False

    @classmethod
    def from_model(cls, model: Any) -> ModelSource:
        """Take a snapshot of a model."""
        import json

        import keras

        config = json.dumps(
            _without_compilation(keras.saving.serialize_keras_object(model)), sort_keys=True
        )
        return cls.from_parts(config, model.get_weights(), trusted=True)

    @classmethod
    def from_parts(
        cls, config: str, weights: Sequence[Any], *, trusted: bool = False
    ) -> ModelSource:
        """Put a snapshot together from its two parts."""
        kept, digest = keep_weights(config.encode(), weights)
        return cls(config, kept, digest, trusted)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelSource) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Build the model anew."""
        import json

        import keras

        # Keras finds the layers of both by their names from now on.
        from keras_transfer.backbones import kerashub_layer  # noqa: F401
        from keras_transfer.backbones.saved_model_layer import programs_allowed

        try:
            # Safe mode refuses Lambda layers, whose code would run from the file.
            with programs_allowed(self.trusted):
                model = keras.saving.deserialize_keras_object(
                    json.loads(self.config), safe_mode=True
                )
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(
                f"backbone: expected a model that Keras can build anew from its configuration. "
                f"Received one that it cannot: {error}. Decorate layers of your own with "
                f"@keras.saving.register_keras_serializable(); replace Lambda layers."
            ) from error
        if self.weights:
            set_weights(model, self.weights)
        return model

    def identity(self) -> str | None:
        """Return the digest, unless layers of the user's own say what the network does."""
        import importlib.metadata
        import json

        if not is_kerass_own(json.loads(self.config)):
            return None
        if KERASHUB_LAYER not in self.config:
            return self.digest
        # Not the version that it was made with, which the digest tells.
        return f"{self.digest} {importlib.metadata.version('keras-hub')}"


def is_kerass_own(config: Any) -> bool:
    """Say whether every object in a configuration is Keras's.

    A class or function of the user's can be defined anew under its name, and do something else.
    """
    if isinstance(config, dict):
        module = str(config.get("module", "keras") if "class_name" in config else "keras")
        # What stands for a layer of KerasHub tells the version of that too.
        is_own = module.split(".")[0] == "keras" or module == KERASHUB_LAYER
        return is_own and all(map(is_kerass_own, config.values()))
    if isinstance(config, (list, tuple)):
        return all(map(is_kerass_own, config))
    return config is None or isinstance(config, (bool, int, float, str))


def file_identity(path: str) -> str | None:
    """Return what changes when a file does, without reading it; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return f"{os.path.realpath(path)}:{status.st_size}:{status.st_mtime_ns}"


def _without_compilation(config: Any) -> Any:
    """Leave out how a model was compiled: a loss of the user's own could not be built anew."""
    if isinstance(config, dict):
        return {k: _without_compilation(v) for k, v in config.items() if k != "compile_config"}
    if isinstance(config, (list, tuple)):
        return [_without_compilation(item) for item in config]
    return config
