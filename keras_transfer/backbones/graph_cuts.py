"""Cut a flat graph into one piece per block, so that what is frozen is computed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras_transfer.backbones.flat_graph import FlatGraph, GraphError, node_of

__all__ = ["INPUT", "Piece", "align_pieces", "cut_graph", "find_stretches"]

# What stands for the graph's own input among pieces.
INPUT = -1
# What only asks for the sizes of a tensor: it is asked again by each piece that wants to know.
_SIZES = ("Shape", "ShapeN", "Size", "Rank")
# What prepares the input of the operation behind it, and belongs to that one's block.
_PREPARES = ("Pad", "PadV2", "MirrorPad", "SpaceToBatchND")


@dataclass(frozen=True)
class Piece:
    """What one block computes.

    Attributes
    ----------
    nodes : tuple of NodeDef
    reads : tuple of str
        Tensors of pieces before it, or the graph's input.
    sources : tuple of (int, int)
        Where these come from: a piece, or `INPUT`, and the number among what it gives.
    gives : tuple of str
        Tensors that later pieces read, or the graph's output.
    values, handles : dict of str to int
        As of the graph: variables, by their places.
    updates : dict of int to str
        What variables become, by their places.
    seeds : tuple of str
    """

    nodes: tuple[Any, ...]
    reads: tuple[str, ...]
    sources: tuple[tuple[int, int], ...]
    gives: tuple[str, ...]
    values: dict[str, int]
    handles: dict[str, int]
    updates: dict[int, str]
    seeds: tuple[str, ...]


def cut_graph(graph: FlatGraph, block_of: Sequence[int | None], n_blocks: int) -> list[Piece]:
    """Cut a graph between blocks.

    Each operation stands in the last block that it depends on, so that data goes from a block to
    later ones alone. What depends on variables or sizes only is computed in each piece anew.

    Parameters
    ----------
    graph : FlatGraph
    block_of : sequence of int or None
        The number of each variable's block, in the order of the data; None for one of none, such
        as a counter.
    n_blocks : int

    Returns
    -------
    list of Piece
        One per block.

    Raises
    ------
    GraphError
        If the variables of a block are used in another block too.
    """
    data = _places(graph, block_of)
    if data.get(node_of(graph.output)) != n_blocks - 1:
        raise GraphError("its output does not depend on its last block")
    parts = []
    for block in range(n_blocks):
        updates = {place: new for place, new in graph.updates.items() if block_of[place] == block}
        own = [name for name, where in data.items() if where == block]
        nodes, _ = _closure(graph, data, block, own)
        # What becomes of a state, such as that of a random generator, is told where it is used.
        used = {each for name in nodes for each in graph.nodes[name].input}
        for name, place in graph.values.items():
            if name in used and block_of[place] is None and place in graph.updates:
                updates[place] = graph.updates[place]
        parts.append(_closure(graph, data, block, [*own, *map(node_of, updates.values())]))
    gives: list[list[str]] = [[] for _ in range(n_blocks)]
    for tensor in dict.fromkeys([*(each for _, reads in parts for each in reads), graph.output]):
        if tensor not in graph.inputs:
            gives[data[node_of(tensor)]].append(tensor)
    pieces = []
    for block, (nodes, reads) in enumerate(parts):
        if not reads:
            raise GraphError("one of its blocks reads no data")
        used = {each for name in nodes for each in graph.nodes[name].input} | set(gives[block])
        states = {p for name, p in graph.values.items() if name in used and block_of[p] is None}
        updates = {
            place: new
            for place, new in graph.updates.items()
            if block_of[place] == block or place in states
        }
        sources = [
            (INPUT, 0)
            if tensor in graph.inputs
            else (data[node_of(tensor)], gives[data[node_of(tensor)]].index(tensor))
            for tensor in reads
        ]
        pieces.append(
            Piece(
                nodes=tuple(graph.nodes[name] for name in nodes),
                reads=tuple(reads),
                sources=tuple(sources),
                gives=tuple(gives[block]),
                values={name: place for name, place in graph.values.items() if name in used},
                handles={name: place for name, place in graph.handles.items() if name in used},
                updates=updates,
                seeds=tuple(seed for seed in graph.seeds if seed in used),
            )
        )
    _check_variables(graph, pieces, block_of)
    return pieces


@dataclass(frozen=True)
class _Data:
    """What the nodes of a graph compute with.

    Attributes
    ----------
    depth : dict of str to int
        Of the nodes that compute with data: the last block that they depend on.
    own : dict of str to int
        The last block whose variables a node computes with, data apart; -1: none.
    reads : dict of str to set of str
        The nodes of data that a node reads, also if it asks for their sizes alone.
    variables : dict of str to set of int
        The variables that a node computes with, data apart.
    """

    depth: dict[str, int]
    own: dict[str, int]
    reads: dict[str, set[str]]
    variables: dict[str, set[int]]


def _follow_data(graph: FlatGraph, block_of: Sequence[int | None]) -> _Data:
    places = {**graph.values, **graph.handles}
    depth: dict[str, int] = {}
    kinds: dict[str, int] = {}  # 0: of no data, 1: of its sizes alone, 2: of the data itself
    reads: dict[str, set[str]] = {}
    variables: dict[str, set[int]] = {}
    for name, node in graph.nodes.items():
        sources = [node_of(each) for each in node.input]
        given = [places[each] for each in node.input if each in places]
        kind = max([0, *(kinds.get(each, 0) for each in sources)])
        if any(each in graph.inputs for each in node.input):
            kind = 2
        kinds[name] = min(kind, 1) if node.op in _SIZES else kind
        depth[name] = max([0, *(depth.get(each, 0) for each in sources)])
        depth[name] = max([depth[name], *(block_of[place] or 0 for place in given)])
        variables[name], reads[name] = set(given), set()
        for source in sources:
            if kinds.get(source, 0) == 2:
                reads[name].add(source)
            else:
                reads[name] |= reads.get(source, set())
                variables[name] |= variables.get(source, set())
    own = {
        name: max([-1, *(block_of[place] or 0 for place in used)])
        for name, used in variables.items()
    }
    data = {name: depth[name] for name, kind in kinds.items() if kind == 2}
    return _Data(data, own, reads, variables)


def find_stretches(graph: FlatGraph) -> list[int | None]:
    """Say of each variable in which stretch it is used, between the points that all data passes.

    Parameters
    ----------
    graph : FlatGraph

    Returns
    -------
    list of int or None
        One for each variable; None for one that no data meets.
    """
    found = _follow_data(graph, [None] * len(graph.variables))
    names = list(found.depth)
    position = {name: place for place, name in enumerate(names)}
    # How far the edges reach that start before the present node; one that passes over it means
    # that the data has another way round.
    last_reader = list(range(len(names)))
    for name in names:
        for source in found.reads[name]:
            last_reader[position[source]] = position[name]
    stretches: list[int | None] = [None] * len(graph.variables)
    starts = [n for n in names if any(each in graph.inputs for each in graph.nodes[n].input)]
    reach = max((position[name] for name in starts), default=0)
    number = 0
    for place, name in enumerate(names):
        for variable in found.variables[name]:
            if stretches[variable] is None:
                stretches[variable] = number
        number += reach <= place
        reach = max(reach, last_reader[place])
    return stretches


def _places(graph: FlatGraph, block_of: Sequence[int | None]) -> dict[str, int]:
    """Say in which block each node stands that computes with data."""
    found = _follow_data(graph, block_of)
    data = dict(found.depth)
    readers: dict[str, set[str]] = {name: set() for name in data}
    for name in data:
        for source in found.reads[name]:
            readers[source].add(name)
    for block in range(max(data.values(), default=0)):
        inside = [name for name, where in data.items() if where == block]
        fixed = {name for name in inside if found.own[name] == block}
        if block == 0:
            fixed |= {name for name in inside if not found.reads[name]}
        for name in reversed(_behind_narrowest(inside, fixed, readers)):
            data[name] = min(data[each] for each in readers[name])
    for name in reversed(data):
        behind = {data[each] for each in readers[name]}
        if graph.nodes[name].op in _PREPARES and len(behind) == 1:
            data[name] = behind.pop()
    return data


def _behind_narrowest(
    inside: Sequence[str], fixed: set[str], readers: Mapping[str, set[str]]
) -> list[str]:
    """List the nodes of a block behind the last place where the fewest of its tensors pass.

    What computes with no weights could stand in the next block as well. A normalisation begins
    with the mean of what the block gives: with it in the block behind, one tensor goes there, and
    not four.
    """
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    number = {name: place for place, name in enumerate(inside)}
    last = [name for name in inside if any(each not in number for each in readers[name])]
    if len(last) < 2:
        return []
    # Each node is an edge that one tensor can pass; what it is read by, one that any number can.
    n, many = len(inside), len(inside)
    source, sink = 2 * n, 2 * n + 1
    edges = [(place, n + place, 1) for place in range(n)]
    edges += [
        (n + number[name], number[each], many)
        for name in inside
        for each in readers[name]
        if each in number
    ]
    edges += [(source, number[name], many) for name in fixed]
    edges += [(n + number[name], sink, many) for name in last]
    starts, ends, sizes = np.array(edges, dtype=np.int32).T
    network = csr_array((sizes, (starts, ends)), shape=(2 * n + 2, 2 * n + 2), dtype=np.int32)
    left = network - maximum_flow(network, source, sink).flow
    left.eliminate_zeros()
    behind = set(breadth_first_order(left.T.tocsr(), sink, return_predecessors=False).tolist())
    return [name for name in inside if number[name] in behind and name not in fixed]


def _closure(
    graph: FlatGraph, data: dict[str, int], block: int, wanted: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Return the nodes that a block computes these with, and what it reads of blocks before it."""
    found: set[str] = set()
    reads: set[str] = set()
    waiting = [name for name in wanted if name in graph.nodes]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if data.get(name, block) != block:
            raise GraphError("a block's variables follow what later blocks compute")
        found.add(name)
        for tensor in graph.nodes[name].input:
            source = node_of(tensor)
            if tensor in graph.inputs or data.get(source, block) < block:
                reads.add(tensor)
            elif source in graph.nodes:
                waiting.append(source)
    order = {name: place for place, name in enumerate(graph.nodes)}
    nodes = sorted(found, key=order.__getitem__)
    return nodes, sorted(reads, key=lambda tensor: (order.get(node_of(tensor), -1), tensor))


def _check_variables(
    graph: FlatGraph, pieces: Sequence[Piece], block_of: Sequence[int | None]
) -> None:
    updated = Counter(place for piece in pieces for place in piece.updates)
    for place in graph.updates:
        if updated[place] != 1:
            raise GraphError(f"{graph.variables[place].name} is written by several blocks, or none")
    for number, piece in enumerate(pieces):
        for place in (*piece.values.values(), *piece.handles.values()):
            if block_of[place] not in (None, number):
                raise GraphError(f"{graph.variables[place].name} is used by several blocks")


def align_pieces(pieces: Sequence[Piece], model: Sequence[Piece]) -> list[Piece]:
    """Order what the pieces of one graph give and read as another's do.

    Parameters
    ----------
    pieces : sequence of Piece
        Such as of the function in training.
    model : sequence of Piece
        Of the same network in inference.

    Returns
    -------
    list of Piece

    Raises
    ------
    GraphError
        If other data goes between their blocks.
    """
    new_place: dict[tuple[int, int], int] = {}
    gives = []
    for number, (piece, like) in enumerate(zip(pieces, model, strict=True)):
        readers = [_readers(pieces, (number, place)) for place in range(len(piece.gives))]
        order = []
        for place in range(len(like.gives)):
            wanted = _readers(model, (number, place))
            free = [p for p, by in enumerate(readers) if by == wanted and p not in order]
            if not free or len(piece.gives) != len(like.gives):
                raise GraphError("in training it hands other data from block to block")
            order.append(free[0])
        new_place.update({(number, old): new for new, old in enumerate(order)})
        gives.append(tuple(piece.gives[old] for old in order))
    aligned = []
    for piece, like, given in zip(pieces, model, gives, strict=True):
        read = {
            (block, 0 if block == INPUT else new_place[block, place]): tensor
            for (block, place), tensor in zip(piece.sources, piece.reads, strict=True)
        }
        if set(read) != set(like.sources):
            raise GraphError("in training it hands other data from block to block")
        reads = tuple(read[source] for source in like.sources)
        aligned.append(replace(piece, reads=reads, sources=like.sources, gives=given))
    return aligned


def _readers(pieces: Sequence[Piece], source: tuple[int, int]) -> list[int]:
    return [number for number, piece in enumerate(pieces) if source in piece.sources]
