"""A model on a backbone: preprocessing, blocks up to the readout, readout and head; built."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.partition import OURS, Leaf, partition, tap
from keras_transfer.backbones.weights import set_weights
from keras_transfer.errors import InvalidParameterError, InvalidTypeError
from keras_transfer.graph.heads import Head
from keras_transfer.graph.nodes import INPUT, Graph, Part, part_of
from keras_transfer.graph.readout import Readout

__all__ = ["Assembly", "build_head"]


class Assembly(Graph):
    """The graph of a model on a backbone: preprocessing, blocks up to the readout, readout, head.

    Parameters
    ----------
    backbone : Backbone
    head : Head or None
        None: the model ends in the features that a head would read.
    input_shape : sequence of int, optional
        Shape of one input; by default the backbone's own.
    readout : Readout, optional
        What the head reads; by default the last block, averaged.
    seed : int, optional
        Of the random weights: of the head, and of a backbone that brings none. What a layer draws
        then depends on the seed and its name alone, so that all that is built begins alike; the
        process's random states are to be set aside. Without it, a head is drawn anew by each build.

    Attributes
    ----------
    features : str
        The node that a head reads.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head | None,
        *,
        input_shape: Sequence[int] | None = None,
        readout: Readout | None = None,
        seed: int | None = None,
    ):
        import keras

        self._seed = seed
        self._name = _model_name(backbone)
        shape = backbone.resolve_shape(input_shape)
        self._reseed("backbone")
        source = backbone.load(shape)

        # === What there is ===
        leaves = partition(source, backbone.blocks)
        blocks = list(dict.fromkeys(leaf.block for leaf in leaves))
        readout = (readout or Readout()).resolve(blocks, backbone.name)
        deepest = max(blocks.index(block) for block in readout.blocks)
        kept = [leaf for leaf in leaves if blocks.index(leaf.block) <= deepest]
        taps = {block: tap(leaves, block).name for block in readout.blocks}
        self._leaves = {leaf.name: leaf for leaf in kept}
        for leaf in kept:
            # What cannot be built anew is to be known of before anything trains.
            is_known = type(leaf.operation).__module__.startswith(("keras.", "keras_transfer."))
            if not is_known or isinstance(leaf.operation, keras.layers.Lambda):
                _copy(leaf)

        # === Preprocessing ===
        parts = []
        entry = keras.Input(shape, dtype="float32")
        pixels = backbone.preprocessing(entry)
        last = INPUT
        if pixels is not entry:
            parts.append(part_of(keras.Model(entry, pixels), (INPUT,)))
            last = list(parts[-1].names.values())[-1][0]

        # === Blocks ===
        names = {leaf.path: (leaf.name, leaf.block) for leaf in kept}
        parts.append(Part(source, (last,), names))
        super().__init__(parts, shape)

        # === Readout and head ===
        entries = {
            block: keras.Input(self._tapped(name), dtype=self._dtype(name))
            for block, name in taps.items()
        }
        drawn = random.getstate()
        features = readout.attach(entries)
        outputs = features if head is None else head.attach(features)
        random.setstate(drawn)  # this head only shows its layers: what is built draws its own
        ends = {id(entry): taps[block] for block, entry in entries.items()}
        self.features = ends.get(id(features), "")
        if outputs is features and self.features:  # nothing stands above the block
            self.output = self.features
            return
        tail = part_of(keras.Model(list(entries.values()), outputs), tuple(taps.values()))
        self._parts.append(tail)
        self._read(tail)
        self.output = list(self.nodes)[-1]
        self.features = self.features or features._keras_history.operation.name

    def _tapped(self, name: str) -> tuple[int, ...]:
        shape = self.nodes[name].shape
        if shape is None:
            raise InvalidParameterError(
                f"readout: expected a block with one output. Received: {name!r}, with several."
            )
        return shape

    def _dtype(self, name: str) -> str:
        output = getattr(self.operations[name], "compute_dtype", None)
        return output or "float32"

    def _reseed(self, what: str) -> None:
        _reseed(self._seed, what)

    def build(self) -> Any:
        """Build the whole model.

        Returns
        -------
        keras.Model
            Flat and functional, layers named ``block.layer``. Takes float32: pictures
            ``(batch, height, width, 3)`` in RGB of 0..255, or features ``(batch, n_features)``.
            Gives what the head says (`Head.attach`), or features ``(batch, n_features)``.
        """
        import keras

        is_picture = len(self.input_shape) == 3
        name = "picture" if is_picture else "features"
        inputs = keras.Input(self.input_shape, name=name, dtype="float32")
        made = self.walk(inputs, _copier(self._leaves, self._seed))
        return keras.Model(inputs, made[self.output], name=self._name)

    def build_above(self, cut: Sequence[str], below: Collection[str]) -> Any:
        """Build the part of the model above a cut.

        Parameters
        ----------
        cut : sequence of str
            The nodes whose outputs it reads.
        below : collection of str
            The nodes that it does not hold, those of the cut among them.

        Returns
        -------
        keras.Model
            With an input for each node of the cut, and of its name; layers are named as in the
            whole model.
        """
        import keras

        entries = {
            name: keras.Input(self._tapped(name), dtype=self._dtype(name), name=name)
            for name in cut
        }
        copy = _copier(self._leaves, self._seed)

        def call(name: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
            if name in below:
                return entries.get(name)
            return copy(name, operation, *args, **kwargs)

        made = self.walk(None, call)
        return keras.Model(list(entries.values()), made[self.output], name=self._name)


def build_head(head: Head, backbone: Backbone, features: str, n_features: int, seed: int) -> Any:
    """Build a head alone: the part of a model that stands above its features.

    Parameters
    ----------
    head : Head
    backbone : Backbone
        Not loaded: the model is named after it.
    features : str
        The node that the head reads.
    n_features : int
    seed : int
        As for `Assembly`, whose ``build_above`` gives the same model for the features.

    Returns
    -------
    keras.Model
    """
    import keras

    entry = keras.Input((n_features,), dtype="float32")
    graph = Graph([part_of(keras.Model(entry, head.attach(entry)), (INPUT,))], (n_features,))
    inputs = keras.Input((n_features,), dtype="float32", name=features)
    made = graph.walk(inputs, _copier({}, seed))
    return keras.Model([inputs], made[graph.output], name=_model_name(backbone))


def _copier(leaves: Mapping[str, Leaf], seed: int | None) -> Callable[..., Any]:
    """Return a call for a walk that builds: layers anew, the backbone's with their weights."""
    copies: dict[str, Any] = {}

    def call(name: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
        if name not in copies:
            leaf = leaves.get(name) or Leaf(name, operation, name=name)
            _reseed(seed, name)
            copies[name] = _copy(leaf)
            result = copies[name](*args, **kwargs)
            if name in leaves and getattr(copies[name], "weights", None):
                set_weights(copies[name], operation.get_weights())
            return result
        return copies[name](*args, **kwargs)

    return call


def _reseed(seed: int | None, what: str) -> None:
    # Keras draws the seeds of layers and initializers from Python's generator.
    if seed is not None:
        random.seed(f"{seed}.{what}")


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


def _model_name(backbone: Backbone) -> str:
    return OURS + "".join(c if c.isalnum() else "_" for c in backbone.name)
