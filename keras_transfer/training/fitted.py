"""FittedNetwork: what a fit learned; the whole model is built when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import Block
from keras_transfer.graph.nodes import Graph, graph_of_model
from keras_transfer.store.activation_store import Memory
from keras_transfer.training.compiled import tensors_at
from keras_transfer.training.inference import Inference
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.run import hand_over
from keras_transfer.training.stage import Stage
from keras_transfer.training.stored_outputs import StoredOutputs

__all__ = ["FittedNetwork"]

# Of inputs to answer for, so many for each one of the fit are kept: as many as a search asks for
# again, and not all that a server ever saw.
_KEPT_SHARE = 2
_OURS = f"{__name__.partition('.')[0]}."


class FittedNetwork:
    """What a fit learned: the part that trained, and the way to the whole.

    Parameters
    ----------
    network : LazyNetwork or None
        Whose weights below the cut are the frozen ones.
    part : keras.Model or None
        What trained, above the cut; None where nothing stands there.
    cut : tuple of str
        The nodes whose outputs the part reads; empty: it is the whole.
    n_fitted : int
        With how many examples.
    model : keras.Model, optional
        The whole, where it is there already: the two others are then not needed.
    blocks, last, task : sequence of Block, Stage, str, optional
        As the whole is to be left: frozen and compiled for its last stage.
    """

    def __init__(
        self,
        network: LazyNetwork | None,
        part: Any,
        cut: tuple[str, ...],
        n_fitted: int,
        *,
        model: Any = None,
        blocks: Sequence[Block] = (),
        last: Stage | None = None,
        task: str = "",
    ):
        self.cut = tuple(cut)
        self.n_fitted = n_fitted
        self._network, self._part = network, part
        self._model = part if model is None and not cut else model
        self._left = blocks, last, task
        self._stored: dict[tuple[Memory, str], StoredOutputs] = {}
        self._graph: Graph | None = None
        self._whole: Inference | None = None
        self._above: Inference | None = None

    @property
    def model(self) -> Any:
        """The whole model. From the first time on it is what answers, with the weights it has."""
        if self._model is None:
            assert self._network is not None
            with isolated_seed(0):
                model = self._network.build_whole(self._part)
                blocks, last, task = self._left
                if last is not None:
                    hand_over(model, blocks, last, task)
            self._model, self._network, self._part = model, None, None
            self._stored, self._above = {}, None
        return self._model

    def answer(
        self,
        inputs: Any,
        keys: Sequence[bytes],
        batch_size: int,
        what: str,
        memory: Memory | None,
        reader: str,
    ) -> np.ndarray:
        """Return the answers for prepared inputs.

        Parameters
        ----------
        inputs : numpy.ndarray of shape (n, ...) or EncodedPictures
        keys : sequence of bytes, length n
            As `row_keys` gives them; not looked at without a memory.
        batch_size : int
        what : {"outputs", "features", "logits"}
            As for `Inference.on_inputs`.
        memory : Memory or None
            None: the whole network runs, from its input on.
        reader : str
            As for `StoredOutputs`.

        Returns
        -------
        numpy.ndarray of shape (n, n_outputs)
        """
        if memory is None or not self.cut:
            if self._whole is None:
                self._whole = Inference(self.model)
            return self._whole.on_inputs(inputs, batch_size, what)
        stored = self._stored_outputs(memory, reader)
        found = stored.activations(
            inputs, keys, [self.cut], keep=len(keys) <= _KEPT_SHARE * self.n_fitted
        )
        assert found is not None  # there is no deadline
        if self._ends_in_cut():
            return found[0].arrays[0]
        if self._above is None:
            self._above = Inference(self._model or self._part, cut=self.cut)
        return self._above.on_inputs(found[0], batch_size, what)

    def _ends_in_cut(self) -> bool:
        """Say whether nothing stands above the cut."""
        if self._model is None:
            return self._part is None
        return tensors_at(self._model, self.cut)[0] is self._model.outputs[0]

    def _stored_outputs(self, memory: Memory, reader: str) -> StoredOutputs:
        if self._model is not None:
            # It is the user's as well, who may have changed its weights since.
            if self._graph is None:
                self._graph = graph_of_model(self._model, [])
            return StoredOutputs(LazyNetwork(self._graph), memory, reader)
        if (memory, reader) not in self._stored:
            assert self._network is not None
            self._stored = {(memory, reader): StoredOutputs(self._network, memory, reader)}
        return self._stored[memory, reader]

    def release(self) -> None:
        """Let go of what can be built again."""
        if self._network is not None:
            self._network.release()

    def __getstate__(self) -> dict[str, Any]:
        # Compiled functions do not pickle, and a backbone may be another one elsewhere.
        model = self.model
        # Pickle imports a class, and Keras only knows those of ours that are imported: before it
        # comes to the model.
        own = [kind for kind in map(type, model.layers) if kind.__module__.startswith(_OURS)]
        return {"layers": own, "cut": self.cut, "n_fitted": self.n_fitted, "model": model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(None, None, state["cut"], state["n_fitted"], model=state["model"])  # type: ignore[misc]
