"""Compiled functions, shared by all models of one structure.

Tracing a train step takes 20 to 40 s for a large network, whatever the data, and TensorFlow never
gives the memory back. Another fold, grid point, seed or refit differs in weights alone: it trains
on the network that is compiled already, with its own weights put in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np

from keras_transfer.backbones.backbone import is_kerass_own
from keras_transfer.backbones.partition import FEATURES, LOGITS, STANDARDISED
from keras_transfer.backbones.walk import is_graph, leaf_layers

__all__ = [
    "CompiledNetwork",
    "Snapshot",
    "Trainer",
    "borrow",
    "copy_state",
    "forward_for",
    "has_gpu",
    "tensors_at",
]

# How many structures are kept, and how many stages of each: a search visits one structure after
# the other, and gradual unfreezing has a stage for each block.
_KEPT_STRUCTURES, _KEPT_STAGES = 4, 32


class Trainer:
    """A model compiled for one kind of stage, to be fitted again and again.

    Parameters
    ----------
    model : keras.Model
        Compiled; its layers are those of the network.
    optimizer : keras.optimizers.Optimizer
        Built.
    """

    def __init__(self, model: Any, optimizer: Any):
        self.model = model
        self.optimizer = optimizer
        self._start = [variable.numpy() for variable in optimizer.variables]

    def reset(self) -> None:
        """Bring the optimizer back to its first step."""
        for variable, value in zip(self.optimizer.variables, self._start, strict=True):
            variable.assign(value)


class Snapshot:
    """The values of a model's variables, to compare with and to put back.

    Parameters
    ----------
    model : keras.Model
        Flat; the states of its random generators are taken along.
    """

    def __init__(self, model: Any):
        variables = {id(variable): variable for variable in (*_state(model), *model.weights)}
        self._variables = list(variables.values())
        self._values = {key: variable.numpy() for key, variable in variables.items()}

    def differs(self, variable: Any) -> bool:
        """Say whether a variable of the model has another value now."""
        return not np.array_equal(variable.numpy(), self._values[id(variable)], equal_nan=True)

    def restore(self) -> None:
        """Put the values back."""
        for variable in self._variables:
            variable.assign(self._values[id(variable)])


class CompiledNetwork:
    """A network with what was compiled for it.

    Parameters
    ----------
    network : keras.Model
        Flat, with one input and one output.
    """

    def __init__(self, network: Any):
        self.network = network
        self.lock = threading.Lock()
        self.n_kept = _KEPT_STAGES
        self._variables = _state(network)
        self._trainers: OrderedDict[Hashable, Trainer] = OrderedDict()
        self._forwards: dict[tuple[str, ...], Any] = {}

    def trainer(self, key: Hashable | None, make: Callable[[], Trainer]) -> Trainer:
        """Return the trainer of a kind of stage, made on first use, its optimizer at its start.

        Parameters
        ----------
        key : hashable or None
            All that is traced; None: nothing tells, so it is made anew.
        make : callable
            Without arguments.
        """
        if key is None:
            return make()
        if key not in self._trainers:
            self._trainers[key] = make()
        self._trainers.move_to_end(key)
        while len(self._trainers) > _KEPT_STAGES:
            self._trainers.popitem(last=False)
        self._trainers[key].reset()
        return self._trainers[key]

    def forget(self, key: Hashable | None) -> None:
        """Drop the trainer of a kind of stage: its next one is compiled anew.

        Parameters
        ----------
        key : hashable or None
        """
        self._trainers.pop(key, None)

    def forward(self, model: Any, inputs: Any, cut: tuple[str, ...] = ()) -> dict[str, Any]:
        """Run a model of this structure, in inference.

        Parameters
        ----------
        model : keras.Model
            The network itself, or another of its structure.
        inputs : tensor of shape (batch, ...), or tuple of them
        cut : tuple of str
            The operations whose outputs the inputs are; by default those of the model itself.

        Returns
        -------
        dict of str to tensor
            ``"outputs"``; of a model of ours ``"features"``, which its head reads; ``"logits"``
            where the head has some.
        """
        import tensorflow as tf

        run, dtypes = self._forwards.get(cut) or self._trace(cut)
        values = [variable.value for variable in _state(model)]
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        tensors = [tf.cast(each, dtype) for each, dtype in zip(inputs, dtypes, strict=True)]
        answers: dict[str, Any] = run(values, tensors)
        self._forwards[cut] = run, dtypes  # only now: not what was interrupted while it was traced
        return answers

    def _trace(self, cut: tuple[str, ...]) -> tuple[Any, list[str]]:
        import keras
        import tensorflow as tf

        network = self.network
        whole, signature, dtypes = network, None, ["float32"]
        as_read: list[str] = []
        if is_graph(network):  # the outputs of a Sequential have no name in the singular
            heads = {"outputs": network.outputs[0]}
            for layer in network.layers:
                if layer.name in (FEATURES, LOGITS, STANDARDISED):  # the first of them
                    # Dropout lets it through in inference.
                    heads.setdefault("features", layer.input)
                if layer.name == LOGITS:
                    heads["logits"] = layer.output
            read = tensors_at(network, cut)
            dtypes = [tensor.dtype for tensor in read]
            # A model that gives what it reads cannot be made from the middle of a graph.
            as_read = [key for key, tensor in heads.items() if tensor is read[0]]
            heads = {key: tensor for key, tensor in heads.items() if key not in as_read}
            whole = keras.Model(read[0] if len(read) == 1 else read, heads)
            # Traced once, for batches of every size.
            specs = [tf.TensorSpec(v.shape, v.dtype) for v in self._variables]
            inputs = [tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in read]
            signature = [specs, inputs]

        @tf.function(input_signature=signature, jit_compile=has_gpu(), reduce_retracing=True)
        def run(values: list[Any], inputs: list[Any]) -> dict[str, Any]:
            # The weights are an argument, so that one trace serves all models of the structure.
            tensors = [tf.convert_to_tensor(value) for value in values]
            state = zip(self._variables, tensors, strict=True)
            with keras.StatelessScope(state_mapping=list(state)):
                answers = whole(inputs[0] if len(inputs) == 1 else tuple(inputs), training=False)
            answers = answers if isinstance(answers, dict) else {"outputs": answers}
            return answers | dict.fromkeys(as_read, inputs[0])

        return run, dtypes


def tensors_at(network: Any, cut: tuple[str, ...]) -> tuple[Any, ...]:
    """Return what a network computes at some of its operations.

    Parameters
    ----------
    network : keras.Model
        Flat, with a graph.
    cut : tuple of str
        Names of operations that are called once; empty: the network's own inputs.

    Returns
    -------
    tuple of Keras tensors
    """
    layers = {layer.name: layer for layer in getattr(network, "operations", network.layers)}
    return tuple(layers[name].output for name in cut) or tuple(network.inputs)


def has_gpu() -> bool:
    """Say whether to compile with XLA, which on a CPU makes a network 5 to 15 times slower."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def copy_state(source: Any, target: Any) -> None:
    """Copy weights and the states of random generators to a model of the same structure."""
    for variable, value in zip(_state(target), _state(source), strict=True):
        variable.assign(value)


def forward_for(model: Any) -> CompiledNetwork:
    """Return what runs a model in inference: shared where its structure tells all about it."""
    key = _structure(model)
    return CompiledNetwork(model) if key is None else _shared(key, model)


@contextlib.contextmanager
def borrow(model: Any) -> Iterator[CompiledNetwork]:
    """Give a network that holds the model's weights; what trains there is put into the model.

    Parameters
    ----------
    model : keras.Model
        Flat. If the context is left by an exception, it stays as it was.

    Yields
    ------
    CompiledNetwork
        Shared by all models of the structure, or the model's own where another thread is using
        that, or where layers that are not Keras's own make the structure say too little.
    """
    key = _structure(model)
    shared = None if key is None else _shared(key, model)
    if shared is None or not shared.lock.acquire(blocking=False):
        yield CompiledNetwork(model)
        return
    try:
        copy_state(model, shared.network)
        yield shared
        copy_state(shared.network, model)
    finally:
        shared.lock.release()


_pool: OrderedDict[str, CompiledNetwork] = OrderedDict()
_pool_lock = threading.Lock()


def _shared(key: str, model: Any) -> CompiledNetwork:
    import keras

    with _pool_lock:
        if key not in _pool:
            # A network of its own, since the model belongs to the user.
            _pool[key] = CompiledNetwork(keras.Model.from_config(model.get_config()))
            copy_state(model, _pool[key].network)
            for layer in _deriving(_pool[key].network):
                layer.finalize_state()
        _pool.move_to_end(key)
        while len(_pool) > _KEPT_STRUCTURES:
            _pool.popitem(last=False)
        return _pool[key]


def _structure(model: Any) -> str | None:
    """Return a key that models of one structure share; None if it would not tell all."""
    config = model.get_config()
    if not is_kerass_own(config):
        return None
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for layer in _deriving(model):
        for weight in layer.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _deriving(model: Any) -> list[Any]:
    """List the layers that compute with constants derived from their weights: Normalization."""
    inside = [inner for layer in model.layers for inner in leaf_layers(layer)]
    return [layer for layer in inside if hasattr(layer, "finalize_state")]


def _state(model: Any) -> list[Any]:
    """List the variables of a flat model's layers; not what compiling added to it."""
    return [variable for layer in model.layers for variable in layer.variables]
