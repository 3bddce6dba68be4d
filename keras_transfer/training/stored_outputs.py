"""Outputs of a network's frozen part: read from the store, or computed and kept there."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_transfer.store.activation_store import Memory, open_store
from keras_transfer.training.activations import Activations
from keras_transfer.training.frozen import FrozenPart, digest_graph
from keras_transfer.training.lazy_network import LazyNetwork

__all__ = ["StoredOutputs"]

# Frozen parts that stay compiled, by the bytes of their weights.
_KEPT_BYTES = 1 << 29
# Rows after which the pace is that of all: the first batches compile.
_COMPILED = 64


class StoredOutputs:
    """What the frozen part of a network gives for inputs; each is computed once.

    Parameters
    ----------
    network : LazyNetwork
        Its weights below the cuts that are asked for must not change any more.
    memory : Memory
        Where outputs are kept.
    reader : str
        What tells how raw inputs become the network's: inputs of equal content are equal only if
        they are read in the same way.
    """

    def __init__(self, network: LazyNetwork, memory: Memory, reader: str = ""):
        self.network = network
        self._reader = reader
        self._folded = not memory.exact
        self._store = open_store(memory)
        self._digests: dict[str, str] = {}
        self._own: dict[tuple[str, ...], FrozenPart] = {}

    def lacks_room(self, n_rows: int, cut: Sequence[str]) -> str:
        """Say why so many rows cannot be kept; empty if they can."""
        size = 4 * sum(int(np.prod(shape)) for shape in self.network.shapes(cut))
        if n_rows <= self._store.room(size):
            return ""
        return f"{n_rows:,} rows of {size:,} bytes are more than memory's size_limit has room for"

    def activations(
        self,
        inputs: Any,
        keys: Sequence[bytes],
        cuts: Sequence[tuple[str, ...]],
        *,
        advance: Callable[[int], None] = lambda n: None,
        deadline: float | None = None,
        keep: bool = True,
    ) -> list[Activations] | None:
        """Return the frozen part's outputs for inputs; only what is not kept is computed.

        Parameters
        ----------
        inputs : numpy.ndarray of shape (n, ...) or EncodedPictures
        keys : sequence of bytes, length n
            Equal for equal inputs, as `row_keys` gives them.
        cuts : sequence of tuple of str
            Several cuts are computed in one pass.
        advance : callable
            Called with the number of rows that were computed.
        deadline : float, optional
            On the clock of ``time.monotonic``.
        keep : bool, default=True
            Whether what is computed is kept.

        Returns
        -------
        list of Activations or None
            One for each cut; None if they would not be ready before the deadline.
        """
        places: dict[bytes, int] = {}
        rows = np.array([places.setdefault(key, len(places)) for key in keys], np.int64)
        names = list(places)
        first = np.unique(rows, return_index=True)[1]
        has = [self._store.contains(self._space(cut), names) for cut in cuts]
        missing = np.flatnonzero(~np.all(has, axis=0))
        computed: list[list[list[np.ndarray]]] = [[] for _ in cuts]
        began, done = time.monotonic(), 0
        for some, outputs in self._compute(inputs, first[missing], cuts):
            for own, cut, arrays in zip(computed, cuts, outputs, strict=True):
                if keep:
                    wanted = [names[row] for row in missing[some]]
                    self._store.write(self._space(cut), wanted, arrays)
                else:  # it stays here for as long as it is needed
                    own.append(arrays)
            done += len(some)
            advance(len(some))
            now = time.monotonic()
            left = (now - began) / done * (len(missing) - done)
            if deadline is not None and done > _COMPILED and now + left > deadline:
                return None
        found = []
        for parts, cut in zip(computed, cuts, strict=True):
            joined = [np.concatenate(each) for each in zip(*parts, strict=True)] if parts else None
            read = self._reading(inputs, names, first, cut, missing, joined)
            found.append(Activations(read, rows, self.network.shapes(cut)))
        return found

    def keep(self, cut: tuple[str, ...], keys: Sequence[bytes], arrays: list[np.ndarray]) -> None:
        """Keep outputs that were come by otherwise, such as by joining others.

        Parameters
        ----------
        cut : tuple of str
        keys : sequence of bytes, length n
        arrays : list of numpy.ndarray of shape (n, ...)
            One for each node of the cut.
        """
        self._store.write(self._space(cut), keys, arrays)

    def _reading(
        self,
        inputs: Any,
        names: Sequence[bytes],
        first: np.ndarray,
        cut: tuple[str, ...],
        missing: np.ndarray,
        own: list[np.ndarray] | None,
    ) -> Callable[[np.ndarray], list[np.ndarray]]:
        """Return what reads distinct rows: what was computed, from the store, or computed again."""
        places = np.full(len(names), -1)
        places[missing] = np.arange(len(missing)) if own is not None else -1

        def read(rows: np.ndarray) -> list[np.ndarray]:
            outputs = [
                np.empty((len(rows), *shape), np.float32) for shape in self.network.shapes(cut)
            ]
            kept = places[rows] >= 0
            if own is not None:
                for output, array in zip(outputs, own, strict=True):
                    output[kept] = array[places[rows[kept]]]
            asked = np.flatnonzero(~kept)
            mask, arrays = self._store.read(self._space(cut), [names[row] for row in rows[asked]])
            if arrays is not None:
                for output, array in zip(outputs, arrays, strict=True):
                    output[asked[mask]] = array
            lost = asked[~mask]  # others needed the room
            for some, (arrays,) in self._compute(inputs, first[rows[lost]], [cut]):
                for output, array in zip(outputs, arrays, strict=True):
                    output[lost[some]] = array
            return outputs

        return read

    def _compute(
        self, inputs: Any, rows: np.ndarray, cuts: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[np.ndarray, list[list[np.ndarray]]]]:
        """Compute rows of inputs: yields places among them, and the arrays of each cut."""
        if not len(rows):
            return
        names = tuple(dict.fromkeys(name for cut in cuts for name in cut))
        part = self._frozen_part(names)
        start = 0
        # Without a copy where all are missing.
        is_all = len(rows) == len(inputs) and (rows == np.arange(len(rows))).all()
        for arrays in part.on_inputs(inputs if is_all else inputs[rows]):
            by_name = dict(zip(names, arrays, strict=True))
            places = np.arange(start, start + len(arrays[0]))
            yield places, [[by_name[name] for name in cut] for cut in cuts]
            start += len(places)

    def _frozen_part(self, names: tuple[str, ...]) -> FrozenPart:
        if names in self._own:
            return self._own[names]
        if not self._folded:  # its weights are the graph's own
            self._own[names] = FrozenPart(self.network.graph, names, folded=False)
            return self._own[names]
        key = self._digest(names)
        with _lock:
            if key in _frozen_parts:
                _frozen_parts.move_to_end(key)
                return _frozen_parts[key]
        part = FrozenPart(self.network.graph, names)
        with _lock:
            _frozen_parts[key] = part
            while (
                len(_frozen_parts) > 1
                and sum(each.n_bytes for each in _frozen_parts.values()) > _KEPT_BYTES
            ):
                _frozen_parts.popitem(last=False)
        return part

    def _space(self, cut: tuple[str, ...]) -> str:
        told = f"{self._digest(cut)}:{self._reader}"
        return hashlib.blake2b(told.encode(), digest_size=20).hexdigest()

    def _digest(self, cut: tuple[str, ...]) -> str:
        """Return what tells the frozen part below a cut: its structure and its weights."""
        name = f"digest:{int(self._folded)}:{json.dumps(cut)}"
        if name not in self._digests:
            digest = self.network.read_note(name)
            if digest is None:
                digest = digest_graph(self.network.graph, cut, folded=self._folded)
                self.network.write_note(name, digest)
            self._digests[name] = digest
        return self._digests[name]


_frozen_parts: OrderedDict[str, FrozenPart] = OrderedDict()
_lock = threading.Lock()
