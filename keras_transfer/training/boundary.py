"""The freeze boundary: the deepest points of a graph below which nothing trains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from keras_transfer.backbones.partition import HEAD, TARGET
from keras_transfer.graph.nodes import INPUT, Node, ancestors

__all__ = ["Boundary", "find_boundary"]


@dataclass(frozen=True)
class Boundary:
    """Where a graph is cut.

    Attributes
    ----------
    cut : tuple of str
        The nodes whose outputs are kept; without any, the network is read from its input.
    below : frozenset of str
        The nodes that are not computed again, those of the cut among them.
    where : str
        The blocks that end there, in words; or why there is no cut.
    """

    cut: tuple[str, ...]
    below: frozenset[str]
    where: str

    def __bool__(self) -> bool:
        return bool(self.cut)


def find_boundary(nodes: Mapping[str, Node], output: str, trained: Collection[str]) -> Boundary:
    """Find the deepest cut below which nothing trains.

    Parameters
    ----------
    nodes : mapping of str to Node
        In graph order.
    output : str
        The node that the graph ends in; what does not lead to it counts for nothing.
    trained : collection of str
        Names of the blocks that train. The head, and what brings features to its scale, are
        above the cut in any case: they belong to the target task.

    Returns
    -------
    Boundary
        Several nodes where the graph has no single one.
    """
    needed = ancestors(nodes, [output])
    nodes = {name: node for name, node in nodes.items() if name in needed}
    own = {*trained, HEAD, TARGET}
    above = _with_dependents(nodes, {name for name, node in nodes.items() if node.block in own})
    crossing = _crossing(nodes, output, above)
    # The output of one that has several cannot be kept as one.
    while split := {name for name in crossing if name != INPUT and nodes[name].outputs != 1}:
        above = _with_dependents(nodes, above | split)
        crossing = _crossing(nodes, output, above)
    below = frozenset(name for name in nodes if name not in above)
    if not any(nodes[name].parameters for name in below) or INPUT in crossing:
        return Boundary((), frozenset(), "it trains from the input")
    cut = tuple(name for name in nodes if name in crossing)
    blocks = dict.fromkeys(nodes[name].block for name in cut)
    return Boundary(cut, below, " and ".join(blocks))


def _with_dependents(nodes: Mapping[str, Node], names: set[str]) -> set[str]:
    found = set(names)
    for name, node in nodes.items():
        if not found.isdisjoint(node.inputs):
            found.add(name)
    return found


def _crossing(nodes: Mapping[str, Node], output: str, above: Collection[str]) -> set[str]:
    """List what stands below and is read above, or is the end of the graph."""
    read = {source for name in above for source in nodes[name].inputs if source not in above}
    return read if output in above else {*read, output}
