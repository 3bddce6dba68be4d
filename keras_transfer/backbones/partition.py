"""Group a network's layers into blocks, input side first, and give them stable names.

A layer of block ``block3a`` is called ``block3a.<rest>`` in every model that keras_transfer builds.
The blocks are read back from these names, also from a reloaded file, by :func:`read_blocks`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_transfer.backbones.walk import (
    call_leaves,
    holds_batch_norm,
    is_graph,
)
from keras_transfer.errors import InvalidParameterError

__all__ = [
    "FEATURES",
    "HEAD",
    "LOGITS",
    "OURS",
    "RESERVED",
    "STANDARDISED",
    "TARGET",
    "Block",
    "BlockPatterns",
    "Leaf",
    "check_block_names",
    "describe_layer",
    "join_blocks",
    "layers_by_block",
    "partition",
    "read_blocks",
]

HEAD, TARGET = "head", "target"
# The last linear layer of a head: of a classifier, and of a regression in standardised numbers.
LOGITS, STANDARDISED = f"{HEAD}.logits", f"{HEAD}.standardised"
# Of a regression: what brings the features that its head reads to one scale.
FEATURES = f"{TARGET}.features"
# First parts of layer names that are not blocks of a backbone.
RESERVED = ("preprocess", "readout", TARGET, HEAD)
# How the names of the models that keras_transfer builds begin.
OURS = "transfer_from_"

# Pairs of (regular expression, block name); the name may use the expression's groups (``\1``).
BlockPatterns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Block:
    """A named, ordered group of a backbone's weights.

    Attributes
    ----------
    name : str
        The block's name, such as ``"block3a"``.
    layers : tuple of str
        Names of its layers, input side first.
    parameters : int
        How many numbers its weights hold, BatchNorm statistics included.
    batch_norm : bool, default=False
        Whether it holds a BatchNorm.
    whole_since : str, default=""
        Of the one block of a SavedModel: why it has no more.
    """

    name: str
    layers: tuple[str, ...]
    parameters: int
    batch_norm: bool = False
    whole_since: str = ""


@dataclass(eq=False)
class Leaf:
    """One layer or operation of a source network, with its place in the graph."""

    path: str
    operation: Any
    inputs: list[Leaf] = field(default_factory=list)
    consumers: list[Leaf] = field(default_factory=list)
    reads_input: bool = False
    block: str = ""
    name: str = ""
    # The name of a match without the block's part, such as ``expand_conv`` of block3a_expand_conv.
    rest: str = ""


class _Token:
    """Stands for a tensor while the graph is read; knows which leaf made it (None: the input)."""

    def __init__(self, leaf: Leaf | None):
        self.leaf = leaf


def read_leaves(model: Any) -> list[Leaf]:
    """List the layers and operations of a model in the order in which data meets them."""
    import keras

    if not is_graph(model):  # a subclassed model does not show its inside
        return [Leaf(model.name, model)]
    leaves: dict[str, Leaf] = {}

    def record(path: str, operation: Any, n_outputs: int, *args: Any, **kwargs: Any) -> Any:
        leaf = leaves.setdefault(path, Leaf(path, operation))
        for value in keras.tree.flatten((args, kwargs)):
            if not isinstance(value, _Token):
                continue
            if value.leaf is None:
                leaf.reads_input = True
            else:
                leaf.inputs.append(value.leaf)
                value.leaf.consumers.append(leaf)
        tokens = [_Token(leaf) for _ in range(n_outputs)]
        return tokens if n_outputs > 1 else tokens[0]

    call_leaves(model, [_Token(None) for _ in model.inputs], record)
    return list(leaves.values())


def partition(model: Any, patterns: BlockPatterns | None = None) -> list[Leaf]:
    """Give every layer of a network its block and its stable name.

    Parameters
    ----------
    model : keras.Model
        The source network.
    patterns : tuple of (str, str), optional
        Which layer names make which block. Without them the blocks are the stretches between the
        points that all data must pass, one for each stretch that holds a kernel of its own (a
        residual unit is one block); a model that keras_transfer built keeps its blocks.

    Returns
    -------
    list of Leaf
        In graph order, each with ``block`` and ``name`` set.

    Raises
    ------
    InvalidParameterError
        If a pattern matches nothing, or a block has a reserved name.
    """
    leaves = read_leaves(model)
    is_ours = model.name.startswith(OURS) or any(
        ".".join(_own_parts(leaf)) in (LOGITS, STANDARDISED) for leaf in leaves
    )
    if is_ours:
        leaves = _without_head(leaves)
    if patterns is not None:
        _match(leaves, patterns)
    elif is_ours:
        for leaf in leaves:
            block, rest = _own_parts(leaf)
            if rest and block not in RESERVED:
                leaf.block, leaf.rest = block, rest
    else:
        _group_stretches(leaves)
    _place_unmatched(leaves)
    _name(leaves)
    return leaves


def tap(leaves: Sequence[Leaf], block: str) -> Leaf:
    """Return the leaf whose output is the output of a block."""
    inside = [leaf for leaf in leaves if leaf.block == block]
    exits = [
        leaf
        for leaf in inside
        if not leaf.consumers or any(consumer.block != block for consumer in leaf.consumers)
    ]
    if len(exits) > 1 and leaves[-1] not in inside:
        raise InvalidParameterError(
            f"readout: expected a block with one output. Received: {block!r}, which has "
            f"{len(exits)}: {', '.join(leaf.path for leaf in exits)}. Read one behind the point "
            f"where they meet."
        )
    return exits[-1]


def layers_by_block(model: Any, blocks: Sequence[Block]) -> Iterator[tuple[Any, str]]:
    """Iterate over the layers of a flat model, each with its block.

    Parameters
    ----------
    model : keras.Model
        The whole of which the blocks are, or a part of it.
    blocks : sequence of Block

    Yields
    ------
    layer : keras.Layer
    block : str
        Its name; empty for a layer that stands in none.
    """
    block_of = {layer: block.name for block in blocks for layer in block.layers}
    for layer in model.layers:
        yield layer, block_of.get(layer.name, "")


def describe_layer(layer: Any, block: str, name: str) -> Block:
    """Describe what a layer or operation is of its block."""
    n_weights = getattr(layer, "count_params", int)()
    why_one = getattr(layer, "whole_since", "")
    return Block(block, (name,), n_weights, holds_batch_norm(layer), why_one)


def join_blocks(parts: Iterable[Block]) -> list[Block]:
    """Put the parts of each block together, in the order in which the blocks begin."""
    groups: dict[str, list[Block]] = {}
    for part in parts:
        groups.setdefault(part.name, []).append(part)
    return [
        Block(
            name,
            tuple(layer for each in own for layer in each.layers),
            sum(each.parameters for each in own),
            any(each.batch_norm for each in own),
            next((each.whole_since for each in own if each.whole_since), ""),
        )
        for name, own in groups.items()
    ]


def read_blocks(model: Any, blocks: Mapping[str, Sequence[str]] | None = None) -> list[Block]:
    """Read the blocks of a flat model back from its layers' names.

    Parameters
    ----------
    model : keras.Model
        A model that keras_transfer built, in this process or another; or any other with ``blocks``.
    blocks : mapping of str to sequence of str, optional
        For a foreign model: each block's layers, each named or matched in full by a regular
        expression. Layers that stand in no block stay frozen.

    Returns
    -------
    list of Block
        Input side first, the head last.

    Raises
    ------
    InvalidParameterError
        If the names tell nothing and ``blocks`` is not given, or a name matches no layer.
    """
    found: list[Block] = []
    taken: dict[str, str] = {}
    if blocks is None:
        for layer in model.layers:
            block, dot, _ = layer.name.partition(".")
            if dot and block not in RESERVED[:-1]:
                found.append(describe_layer(layer, block, layer.name))
        if HEAD not in {each.name for each in found}:
            raise InvalidParameterError(
                f"Expected a model that keras_transfer built, with layers named 'block.layer' and "
                f"a block {HEAD!r}. Received {model.name!r} with layers "
                f"{[layer.name for layer in model.layers[:4]]} ... Pass "
                f"blocks={{block: [layer name, ...], {HEAD!r}: [...]}}."
            )
        found.sort(key=lambda each: each.name == HEAD)  # the head last, the others as they come
    else:
        for block, wanted in blocks.items():
            for expression in [wanted] if isinstance(wanted, str) else wanted:
                layers = [la for la in model.layers if re.fullmatch(expression, la.name)]
                if not layers:
                    raise InvalidParameterError(
                        f"blocks[{block!r}]: {expression!r} matches no layer of {model.name!r}. "
                        f"Its layers: {', '.join(layer.name for layer in model.layers)}."
                    )
                for layer in layers:
                    if layer.name in taken:
                        raise InvalidParameterError(
                            f"blocks: expected each layer in one block, once. Received: "
                            f"{layer.name!r} in {taken[layer.name]!r} and {block!r}. Narrow one."
                        )
                    taken[layer.name] = block
                    found.append(describe_layer(layer, block, layer.name))
    return join_blocks(found)


def _without_head(leaves: list[Leaf]) -> list[Leaf]:
    """Leave out the readout and head of a model that keras_transfer built: they are of its task."""
    kept = [leaf for leaf in leaves if _own_parts(leaf)[0] not in ("readout", HEAD, TARGET)]
    for leaf in kept:
        leaf.consumers = [consumer for consumer in leaf.consumers if consumer in kept]
    return kept


def _own_parts(leaf: Leaf) -> tuple[str, str]:
    """Split a layer's name into block and rest, as keras_transfer puts it together."""
    block, _, rest = leaf.path.rpartition("/")[2].partition(".")
    return block, rest


def check_block_names(names: Iterable[str]) -> None:
    """Make sure that layers can be called by these blocks.

    Raises
    ------
    InvalidParameterError
    """
    for name in names:
        if name in RESERVED or "." in name or "/" in name:
            raise InvalidParameterError(
                f"Expected a block name without '.' and '/' other than {', '.join(RESERVED)}. "
                f"Received {name!r}."
            )


def _match(leaves: list[Leaf], patterns: BlockPatterns) -> None:
    for pattern, template in patterns:
        expression = re.compile(pattern)
        matched = False
        for leaf in leaves:
            # A layer inside a nested model may be named by its parent.
            found = expression.search(leaf.path.rpartition("/")[2]) or expression.search(leaf.path)
            if found is None:
                continue
            matched = True
            if not leaf.block:
                leaf.block = found.expand(template)
                leaf.rest = leaf.path.rpartition("/")[2]
        if not matched:
            raise InvalidParameterError(
                f"blocks: pattern {pattern!r} matches no layer. The layers: "
                f"{', '.join(leaf.path for leaf in leaves)}."
            )
    check_block_names(leaf.block for leaf in leaves)


def _group_stretches(leaves: list[Leaf]) -> None:
    """Make a block of each stretch between the points that all data must pass."""
    position = {id(leaf): index for index, leaf in enumerate(leaves)}
    # How far the edges reach that start before the present leaf; one that passes over it means
    # that the data has another way round.
    reach = max((i for i, leaf in enumerate(leaves) if leaf.reads_input), default=0)
    stretch: list[Leaf] = []
    block, taken = "", set[str]()
    for index, leaf in enumerate(leaves):
        stretch.append(leaf)
        is_passage = reach <= index
        reach = max([reach, *(position[id(consumer)] for consumer in leaf.consumers)])
        if is_passage or index == len(leaves) - 1:
            kernel = next((inner for inner in stretch if _has_kernel(inner)), None)
            if kernel is not None:
                block = _first_free(_local_name(kernel).replace(".", "_"), {*taken, *RESERVED})
                taken.add(block)
            for inner in stretch:
                inner.block = block
            stretch = []


def _has_kernel(leaf: Leaf) -> bool:
    """Say whether a layer can learn a new map (a normalisation alone only rescales one)."""
    return any(len(weight.shape) > 1 for weight in getattr(leaf.operation, "weights", []))


def _place_unmatched(leaves: list[Leaf]) -> None:
    """Put the layers that no pattern names into the block that they serve.

    A layer that merges closes the block that its inputs come from (the addition of a residual
    unit); any other prepares the block that it feeds (padding, the pooling of a shortcut).
    """
    names = dict.fromkeys(leaf.block for leaf in leaves if leaf.block)
    order = {block: place for place, block in enumerate(names)}
    if not order:
        for leaf in leaves:
            leaf.block = "backbone"
        return
    for leaf in leaves:
        known = [source.block for source in leaf.inputs if source.block]
        if not leaf.block and len(leaf.inputs) > 1 and known:
            leaf.block = max(known, key=order.__getitem__)
    for leaf in reversed(leaves):
        known = [consumer.block for consumer in leaf.consumers if consumer.block]
        if not leaf.block and known:
            leaf.block = min(known, key=order.__getitem__)
    for leaf in leaves:
        known = [source.block for source in leaf.inputs if source.block]
        if not leaf.block:
            leaf.block = max(known, key=order.__getitem__) if known else next(iter(order))


def _local_name(leaf: Leaf) -> str:
    """Return a layer's own name, or one by its kind where Keras numbered it."""
    name = leaf.rest or leaf.path.rpartition("/")[2]
    kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(leaf.operation).__name__)
    kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()
    # Keras numbers unnamed layers through the whole process: conv2d_7 here is conv2d_12 there.
    return kind if re.fullmatch(rf"{kind}(_\d+)?", name) else name


def _name(leaves: list[Leaf]) -> None:
    taken: set[str] = set()
    for leaf in leaves:
        local = _local_name(leaf)
        shorter = re.sub(rf"^(.*_)?{re.escape(leaf.block)}_", "", local)
        base = f"{leaf.block}.{(shorter or local).replace('.', '_')}"
        leaf.name = _first_free(base, taken)
        taken.add(leaf.name)


def _first_free(name: str, taken: set[str]) -> str:
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    return next(n for n in itertools.chain([name], numbered) if n not in taken)
