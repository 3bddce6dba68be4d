"""The freeze boundary: the deepest points of a graph below which nothing trains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from keras_transfer.backbones.partition import HEAD, TARGET
from keras_transfer.graph.assembly import INPUT, Node

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


def find_boundary(nodes: Mapping[str, Node], trained: Collection[str]) -> Boundary:
    """Find the deepest cut below which nothing trains.

    Parameters
    ----------
    nodes : mapping of str to Node
        In graph order.
    trained : collection of str
        Names of the blocks that train. The head, and what brings features to its scale, are
        above the cut in any case: they belong to the target task.

    Returns
    -------
    Boundary
        Several nodes where the graph has no single one.
    """
    above: set[str] = set()
    for name, node in nodes.items():
        is_own = node.block in trained or node.block in (HEAD, TARGET)
        if is_own or any(source in above for source in node.inputs):
            above.add(name)
    crossing = _crossing(nodes, above)
    # The output of one that has several cannot be kept as one.
    while split := {name for name in crossing if name != INPUT and nodes[name].outputs != 1}:
        above |= split
        for name, node in nodes.items():
            if any(source in above for source in node.inputs):
                above.add(name)
        crossing = _crossing(nodes, above)
    below = frozenset(name for name in nodes if name not in above)
    if not any(nodes[name].parameters for name in below) or INPUT in crossing:
        return Boundary((), frozenset(), "it trains from the input")
    cut = tuple(name for name in nodes if name in crossing)
    blocks = dict.fromkeys(nodes[name].block for name in cut)
    return Boundary(cut, below, " and ".join(blocks))


def _crossing(nodes: Mapping[str, Node], above: Collection[str]) -> set[str]:
    """List what stands below and is read above, or is the end of the graph."""
    read = {source for name in above for source in nodes[name].inputs if source not in above}
    last = list(nodes)[-1]
    return read if last in above else {*read, last}
