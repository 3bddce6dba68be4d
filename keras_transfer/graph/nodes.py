"""The flat graph of a network: its nodes, and a walk over them for any purpose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.backbones.partition import TARGET, Block, read_leaves
from keras_transfer.backbones.walk import call_leaves, holds_batch_norm, is_graph

__all__ = ["INPUT", "Graph", "Node", "Part", "ancestors", "graph_of_model", "part_of"]

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
    whole_since : str
        As of `Block`.
    """

    name: str
    block: str
    inputs: tuple[str, ...]
    outputs: int
    shape: tuple[int, ...] | None
    parameters: int
    batch_norm: bool
    whole_since: str = ""

    @property
    def part(self) -> Block:
        """What it is of its block."""
        return Block(self.block, (self.name,), self.parameters, self.batch_norm, self.whole_since)


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
    arguments : dict of str to list of object
        What each node is called with, once for each call: a flat list, in which ``(node, number)``
        stands for one of a node's outputs, and all else is a constant.
    output : str
        The node that the model ends in.
    """

    def __init__(self, parts: Sequence[Part], input_shape: tuple[int, ...]):
        self.input_shape = input_shape
        self.nodes: dict[str, Node] = {}
        self.operations: dict[str, Any] = {}
        self.arguments: defaultdict[str, list[Any]] = defaultdict(list)
        self._parts = list(parts)
        self._specs: dict[str, Any] | None = None
        for part in self._parts:
            self._read(part)
        self.output = list(self.nodes)[-1] if self.nodes else INPUT

    def _read(self, part: Part) -> None:
        def note(name: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
            import keras

            self.operations[name] = operation
            self.arguments[name].append(
                [
                    (value.node, value.number) if isinstance(value, _Token) else value
                    for value in keras.tree.flatten((args, kwargs))
                ]
            )
            tokens = [_Token(name, number) for number in range(_count_outputs(operation))]
            return tokens if len(tokens) > 1 else tokens[0]

        n_known = len(self.operations)
        self._walk_part(part, {name: _Token(name) for name in (INPUT, *self.nodes)}, note)
        blocks = dict(part.names.values())
        for name, operation in list(self.operations.items())[n_known:]:
            calls = self.arguments[name]
            read = [value[0] for call in calls for value in call if isinstance(value, tuple)]
            outputs = len(calls) * _count_outputs(operation)
            self.nodes[name] = Node(
                name=name,
                block=blocks[name],
                inputs=tuple(dict.fromkeys(read)),
                outputs=outputs,
                shape=self._shape(operation, name) if outputs == 1 else None,
                parameters=getattr(operation, "count_params", int)(),
                batch_norm=holds_batch_norm(operation),
                whole_since=getattr(operation, "whole_since", ""),
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


def ancestors(nodes: Mapping[str, Node], names: Iterable[str]) -> set[str]:
    """Return the nodes that these are computed from, themselves among them."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name != INPUT and name not in found:
            found.add(name)
            waiting += nodes[name].inputs
    return found


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
    names = {}
    for operation in getattr(model, "operations", model.layers):  # a Sequential shows layers alone
        # Of a model of ours what brings features to the head's scale stands in no block.
        is_of_target = operation.name.startswith(f"{TARGET}.")
        block = block_of.get(operation.name, TARGET if is_of_target else "")
        names[operation.name] = operation.name, block
    return Graph([Part(model, (INPUT,), names, nested=False)], tuple(model.inputs[0].shape[1:]))


class _Token:
    """Stands for a tensor while the graph is read; knows which output of which node it is."""

    def __init__(self, node: str, number: int = 0):
        self.node, self.number = node, number


def part_of(model: Any, reads: tuple[str, ...]) -> Part:
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
