"""The graph of a model before it is built: its nodes, and a walk over them for any purpose."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.partition import OURS, Block, Leaf, partition, read_leaves, tap
from keras_transfer.backbones.walk import call_leaves, is_graph
from keras_transfer.backbones.weights import set_weights
from keras_transfer.errors import InvalidParameterError, InvalidTypeError
from keras_transfer.graph.heads import Head
from keras_transfer.graph.readout import Readout

__all__ = ["INPUT", "Assembly", "Graph", "Node", "Part", "graph_of_model"]

# What nodes call the model's own input.
INPUT = ""


@dataclass(frozen=True)
class Node:
    """One layer or operation, as far as a plan needs to know it.

    Attributes
    ----------
    name : str
        Its name in the flat model, such as ``"block3a.expand_conv"``.
    block : str
    inputs : tuple of str
        The nodes that it reads; ``""`` is the model's input.
    outputs : int
        How many tensors it puts out, over all places where it is called.
    shape : tuple of int or None
        Of its output for one input; None where there are several.
    parameters : int
        Numbers in its weights.
    batch_norm : bool
        Whether it is or holds a BatchNorm.
    """

    name: str
    block: str
    inputs: tuple[str, ...]
    outputs: int
    shape: tuple[int, ...] | None
    parameters: int
    batch_norm: bool


@dataclass(frozen=True)
class Part:
    """One Keras model of those that follow each other in a graph.

    Attributes
    ----------
    model : keras.Model
    reads : tuple of str
        The nodes that its inputs come from.
    names : mapping of str to (str, str)
        From the path of a layer to its name in the flat model and its block; what is not named is
        not part of the graph.
    nested : bool, default=True
        Whether models inside it are walked through, or are nodes.
    """

    model: Any
    reads: tuple[str, ...]
    names: Mapping[str, tuple[str, str]]
    nested: bool = True


class Graph:
    """Keras models that follow each other, as one flat graph.

    Parameters
    ----------
    parts : sequence of Part
        Input side first.
    input_shape : tuple of int
        Of one input.

    Attributes
    ----------
    nodes : dict of str to Node
        By name, in the order in which data meets them.
    operations : dict of str to Keras layer or operation
    output : str
        The node that the model ends in.
    """

    def __init__(self, parts: Sequence[Part], input_shape: tuple[int, ...]):
        self.input_shape = input_shape
        self.nodes: dict[str, Node] = {}
        self.operations: dict[str, Any] = {}
        self._parts = list(parts)
        self._specs: dict[str, Any] | None = None
        for part in self._parts:
            self._read(part)
        self.output = list(self.nodes)[-1] if self.nodes else INPUT

    def _read(self, part: Part) -> None:
        inputs: dict[str, list[str]] = {}
        calls: Counter[str] = Counter()

        def note(name: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
            import keras

            calls[name] += 1
            known = inputs.setdefault(name, [])
            tokens = [v for v in keras.tree.flatten((args, kwargs)) if isinstance(v, _Token)]
            known += [token.node for token in tokens if token.node not in known]
            self.operations[name] = operation
            return _Token(name)

        tokens = {name: _Token(name) for name in (INPUT, *self.nodes)}
        self._walk_part(part, tokens, note)
        blocks = dict(part.names.values())
        for name, read in inputs.items():
            operation = self.operations[name]
            outputs = calls[name] * _count_outputs(operation)
            self.nodes[name] = Node(
                name=name,
                block=blocks[name],
                inputs=tuple(read),
                outputs=outputs,
                shape=self._shape(operation, name) if outputs == 1 else None,
                parameters=getattr(operation, "count_params", int)(),
                batch_norm=_holds_batch_norm(operation),
            )

    def _shape(self, operation: Any, name: str) -> tuple[int, ...]:
        known = _own_shape(operation)
        if known is not None and None not in known:
            return known
        if self._specs is None:  # of a network that takes inputs of any size
            self._specs = self._symbolic()
        return tuple(self._specs[name].shape[1:])

    def _symbolic(self) -> dict[str, Any]:
        import keras

        def specify(_: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
            return operation.compute_output_spec(*args, **kwargs)

        start = keras.KerasTensor((None, *self.input_shape), "float32")
        return self.walk(start, specify)

    def walk(self, inputs: Any, call: Callable[..., Any]) -> dict[str, Any]:
        """Run inputs through the graph.

        Parameters
        ----------
        inputs : object
            What goes in: a tensor, or anything that ``call`` understands.
        call : callable
            ``call(name, operation, *args, **kwargs)`` in place of each node; returns its output, a
            list where there are several.

        Returns
        -------
        dict of str to object
            What each node put out, and the input.
        """
        made = {INPUT: inputs}
        for part in self._parts:
            self._walk_part(part, made, call)
        return made

    def _walk_part(self, part: Part, made: dict[str, Any], call: Callable[..., Any]) -> None:
        def visit(path: str, operation: Any, n_outputs: int, *args: Any, **kwargs: Any) -> Any:
            if path not in part.names:
                return [None] * n_outputs if n_outputs > 1 else None
            name = part.names[path][0]
            made[name] = call(name, operation, *args, **kwargs)
            # One that stands for all of several outputs.
            is_one = n_outputs > 1 and not isinstance(made[name], (list, tuple))
            return [made[name]] * n_outputs if is_one else made[name]

        read = [made[name] for name in part.reads]
        if is_graph(part.model):
            inputs = read[0] if len(read) == 1 else read
            call_leaves(part.model, inputs, visit, nested=part.nested)
        else:
            visit(part.model.name, part.model, 1, *read)

    def ancestors(self, names: Sequence[str]) -> set[str]:
        """Return the nodes that these are computed from, themselves among them."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name != INPUT and name not in found:
                found.add(name)
                waiting += self.nodes[name].inputs
        return found


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
        depends on the seed and its name alone, not on what else is built.

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
        self._name = f"{OURS}{_identifier(backbone.name)}"
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

        # === Preprocessing ===
        parts = []
        entry = keras.Input(shape, dtype="float32")
        pixels = backbone.preprocessing(entry)
        last = INPUT
        if pixels is not entry:
            parts.append(_part(keras.Model(entry, pixels), (INPUT,)))
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
        if len(features.shape) != 2:
            raise InvalidParameterError(
                f"readout: expected one vector per input, got {features.shape}."
            )
        self._reseed("head")
        outputs = features if head is None else head.attach(features)
        if seed is None:  # what is built draws the head's weights, behind those of the blocks
            random.setstate(drawn)
        ends = {id(entry): taps[block] for block, entry in entries.items()}
        self.features = ends.get(id(features), "")
        if outputs is features and self.features:  # nothing stands above the block
            self.output = self.features
            return
        tail = _part(keras.Model(list(entries.values()), outputs), tuple(taps.values()))
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
        # Keras draws the seeds of layers and initializers from Python's generator.
        if self._seed is not None:
            random.seed(f"{self._seed}.{what}")

    def build(self) -> Any:
        """Build the whole model.

        Returns
        -------
        keras.Model
            Flat and functional, layers named ``block.layer``.
        """
        import keras

        is_picture = len(self.input_shape) == 3
        name = "picture" if is_picture else "features"
        inputs = keras.Input(self.input_shape, name=name, dtype="float32")
        made = self.walk(inputs, self._copier())
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
            With an input for each node of the cut; layers are named as in the whole model.
        """
        import keras

        entries = {
            name: keras.Input(self._tapped(name), dtype=self._dtype(name), name=f"stored_{number}")
            for number, name in enumerate(cut)
        }
        copy = self._copier()

        def call(name: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
            if name in below:
                return entries.get(name)
            return copy(name, operation, *args, **kwargs)

        made = self.walk(None, call)
        return keras.Model(list(entries.values()), made[self.output], name=self._name)

    def _copier(self) -> Callable[..., Any]:
        """Return a call for a walk that builds: each layer anew, with its weights."""
        copies: dict[str, Any] = {}

        def call(name: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
            if name not in copies:
                leaf = self._leaves.get(name) or Leaf(name, operation, name=name)
                self._reseed(name)
                copies[name] = _copy(leaf)
                result = copies[name](*args, **kwargs)
                is_given = name in self._leaves or self._seed is not None
                if is_given and getattr(copies[name], "weights", None):
                    set_weights(copies[name], operation.get_weights())
                return result
            return copies[name](*args, **kwargs)

        return call


def graph_of_model(model: Any, blocks: Sequence[Block]) -> Graph:
    """Return the graph of a model that is built; a model inside it is one node.

    Parameters
    ----------
    model : keras.Model
        Functional or sequential, with one input.
    blocks : sequence of Block
        The model's blocks. Layers that stand in none are frozen.

    Returns
    -------
    Graph
        Nodes are named as the layers are.
    """
    block_of = {layer: block.name for block in blocks for layer in block.layers}
    names = {op.name: (op.name, block_of.get(op.name, "")) for op in model._operations}
    return Graph([Part(model, (INPUT,), names, nested=False)], tuple(model.inputs[0].shape[1:]))


class _Token:
    """Stands for a tensor while the graph is read; knows which node made it."""

    def __init__(self, node: str):
        self.node = node


def _part(model: Any, reads: tuple[str, ...]) -> Part:
    """Return a part whose layers keep their names."""
    names = {leaf.path: (leaf.path, leaf.path.partition(".")[0]) for leaf in read_leaves(model)}
    return Part(model, reads, names)


def _own_shape(operation: Any) -> tuple[int, ...] | None:
    try:
        return tuple(operation.output.shape[1:])
    except (AttributeError, ValueError):  # a subclassed model, which was built on no graph
        return None


def _count_outputs(operation: Any) -> int:
    import keras

    try:
        return len(keras.tree.flatten(operation.output))
    except (AttributeError, ValueError):
        return 1


def _holds_batch_norm(operation: Any) -> bool:
    import keras

    inside = getattr(operation, "_flatten_layers", None)
    layers = inside(include_self=True, recursive=True) if inside else []
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)


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
