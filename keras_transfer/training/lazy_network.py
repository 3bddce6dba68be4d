"""A network that is built no further than is asked for."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_transfer.backbones.backbone import CallableSource
from keras_transfer.backbones.partition import HEAD, RESERVED, Block, join_blocks
from keras_transfer.errors import DataError
from keras_transfer.graph.assembly import Assembly, build_head
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.nodes import Graph, Node, ancestors
from keras_transfer.store.activation_store import ActivationStore
from keras_transfer.training.boundary import Boundary, find_boundary
from keras_transfer.training.compiled import copy_state
from keras_transfer.training.freezing import has_fresh_batch_norm
from keras_transfer.training.random_state import isolated_seed

__all__ = ["LazyNetwork", "Outline"]

# How many parts are kept as they begin: a search starts from the same one in each fit.
_KEPT_PARTS = 4
_KEPT_ANSWERS = 32


@dataclass(frozen=True)
class Outline:
    """What a plan needs to know of a network, without the network.

    Attributes
    ----------
    nodes : dict of str to Node
        Those that lead to the output, in graph order.
    is_fresh : bool
        Whether its BatchNorm statistics were never trained.
    """

    nodes: dict[str, Node]
    is_fresh: bool

    @classmethod
    def of(cls, graph: Graph) -> Outline:
        """Read it from a graph."""
        needed = ancestors(graph.nodes, [graph.output])
        nodes = {name: node for name, node in graph.nodes.items() if name in needed}
        return cls(nodes, has_fresh_batch_norm(graph.operations[name] for name in nodes))

    @classmethod
    def from_plain(cls, value: Any) -> Outline:
        """Read what `to_plain` gave."""
        nodes = {}
        for each in value["nodes"]:
            shape = None if each["shape"] is None else tuple(each["shape"])
            node = Node(**{**each, "inputs": tuple(each["inputs"]), "shape": shape})
            nodes[node.name] = node
        return cls(nodes, value["is_fresh"])

    def to_plain(self) -> Any:
        """Return it as JSON knows it."""
        return {"nodes": [asdict(node) for node in self.nodes.values()], "is_fresh": self.is_fresh}

    @property
    def output(self) -> str:
        """The node that the network ends in."""
        return list(self.nodes)[-1]

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the backbone, input side first, then the head."""
        found = [
            node.part
            for node in self.nodes.values()
            if node.block and node.block not in RESERVED[:-1]
        ]
        return join_blocks(sorted(found, key=lambda part: part.name == HEAD))


class LazyNetwork:
    """A network that is built no further than is asked for.

    Where the outputs of its frozen part are known, that part is never built; where only the head
    trains, nothing else is.

    Parameters
    ----------
    origin : Blueprint or Graph
        What the network is made of, or the network.
    store : ActivationStore, optional
        Where what was found out about a network is noted, for the next one like it.

    Attributes
    ----------
    identity : str or None
        What tells the network without building it.
    """

    def __init__(self, origin: Blueprint | Graph, store: ActivationStore | None = None):
        self._blueprint = origin if isinstance(origin, Blueprint) else None
        self._graph = None if isinstance(origin, Blueprint) else origin
        self._store = store
        self._outline: Outline | None = None
        self.identity = None if self._blueprint is None else self._blueprint.identity()

    # === What there is ===

    @property
    def graph(self) -> Graph:
        """The network's graph; its backbone is loaded for it."""
        if self._graph is None:
            assert self._blueprint is not None
            if self._blueprint.identity() != self.identity:
                raise DataError(
                    f"model_: expected {self._blueprint.backbone.name} with the weights that it "
                    f"had in fit. Received: another file of weights. Fit again."
                )
            with isolated_seed(self._blueprint.seed):
                self._graph = self._blueprint.assemble()
        return self._graph

    @property
    def is_built(self) -> bool:
        """Whether the graph is there."""
        return self._graph is not None

    def release(self) -> None:
        """Let go of the graph, if it can be built again."""
        if self.identity is not None:
            self._graph = None

    @property
    def outline(self) -> Outline:
        """The network as far as a plan needs to know it."""
        if self._outline is None:
            # The identity does not tell the head.
            name = f"outline:{None if self._blueprint is None else self._blueprint.head}"
            plain = self.read_note(name)
            if plain is None:
                self._outline = Outline.of(self.graph)
                self.write_note(name, self._outline.to_plain())
            else:
                self._outline = Outline.from_plain(plain)
        return self._outline

    @property
    def is_random(self) -> bool:
        """Whether the backbone's weights are random: then no source task speaks from them."""
        blueprint = self._blueprint
        assert blueprint is not None
        backbone = blueprint.backbone
        if backbone.weights is None or self.outline.is_fresh:
            return True
        if not isinstance(backbone.source, CallableSource):
            return False
        # What a function returns differs with the seed, or it does not.
        key = backbone.source.function, blueprint.input_shape
        with _lock, contextlib.suppress(TypeError):  # one that cannot be hashed
            if key in _is_random:
                return _is_random[key]
        weights = []
        for seed in (blueprint.seed, blueprint.seed + 1):
            with isolated_seed(seed):
                weights.append(backbone.load(blueprint.input_shape).get_weights())
        n_differ = sum(
            one.size for one, other in zip(*weights, strict=True) if not np.array_equal(one, other)
        )
        is_random = 2 * n_differ > sum(weight.size for weight in weights[0])
        with _lock, contextlib.suppress(TypeError):
            _is_random[key] = is_random
            while len(_is_random) > _KEPT_ANSWERS:
                _is_random.popitem(last=False)
        return is_random

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes, in graph order."""
        return self.outline.nodes if self._graph is None else self._graph.nodes

    def boundary(self, trained: Collection[str] = ()) -> Boundary:
        """Find where the network is cut while some blocks train; by default below the head."""
        return find_boundary(self.nodes, self.outline.output, trained)

    def shapes(self, cut: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the shape of one row of each tensor of a cut."""
        return [self.nodes[name].shape or () for name in cut]

    def read_note(self, name: str) -> Any:
        """Return what was noted of a network of this identity; None if nothing was."""
        if self.identity is None or self._store is None:
            return None
        return self._store.read_note(f"{self.identity}:{name}")

    def write_note(self, name: str, value: Any) -> None:
        """Note something about the network, its head apart."""
        if self.identity is not None and self._store is not None:
            self._store.write_note(f"{self.identity}:{name}", value)

    # === What is built ===

    def build_part(self, boundary: Boundary) -> Any:
        """Build the part above a boundary, with the weights that it starts from.

        Returns
        -------
        keras.Model
            The whole where there is no cut.
        """
        blueprint = self._blueprint
        assert blueprint is not None
        key = (self.identity, blueprint.head, blueprint.seed, boundary.cut)
        with isolated_seed(blueprint.seed):
            if boundary and boundary == self.boundary() and blueprint.head is not None:
                (features,), ((n_features,),) = boundary.cut, self.shapes(boundary.cut)
                return build_head(
                    blueprint.head, blueprint.backbone, features, n_features, blueprint.seed
                )
            with _lock:
                kept = _parts.get(key) if self.identity is not None else None
            if kept is not None:
                return _copy_of(kept)
            assembly = self.graph
            assert isinstance(assembly, Assembly)
            if not boundary:
                return assembly.build()
            part = assembly.build_above(boundary.cut, boundary.below)
            if self.identity is not None:
                with _lock:
                    _parts[key] = _copy_of(part)
                    while len(_parts) > _KEPT_PARTS:
                        _parts.popitem(last=False)
            return part

    def build_whole(self, part: Any) -> Any:
        """Build the whole model, with the weights that a part of it, if any, has learned.

        Raises
        ------
        DataError
            If the backbone's weights are other ones than when the part was built.
        """
        assembly = self.graph
        assert isinstance(assembly, Assembly)
        assert self._blueprint is not None
        with isolated_seed(self._blueprint.seed):
            whole = assembly.build()
        layers = [] if part is None else part.layers
        learned = {layer.name: layer for layer in layers if layer.weights}
        for layer in whole.layers:
            if layer.name in learned:
                layer.set_weights(learned[layer.name].get_weights())
        return whole


_parts: OrderedDict[Any, Any] = OrderedDict()
_is_random: OrderedDict[Any, bool] = OrderedDict()
_lock = threading.Lock()


def _copy_of(part: Any) -> Any:
    import keras

    from keras_transfer.backbones.saved_model_layer import programs_allowed

    with programs_allowed():
        copy = keras.Model.from_config(part.get_config())
    copy_state(part, copy)
    return copy
