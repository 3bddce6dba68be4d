"""The frozen part of a network as one fast function, and what tells two of them apart."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from keras_transfer.backbones.backbone import is_kerass_own
from keras_transfer.backbones.walk import leaf_layers
from keras_transfer.graph.nodes import Graph, ancestors
from keras_transfer.training.compiled import has_gpu
from keras_transfer.training.inference import as_batches

__all__ = ["FrozenPart", "digest_graph"]

# How many inputs are computed at once, whatever the batch size of the training: what an input gives
# must not depend on the others, nor on the training's settings.
_BATCH = 32
# Two batches at once use two cores better than one batch on both: 1.1 to 1.2 times as fast.
_WORKERS = 2
# Raised when the same layers and weights are to be stored anew.
_VERSION = 1


class FrozenPart:
    """The outputs of some nodes of a graph, in inference.

    Parameters
    ----------
    graph : Graph
        Its weights as they are now.
    cut : sequence of str
        The nodes.
    folded : bool
        Whether weights are constants, so that TensorFlow folds each BatchNorm into the convolution
        before it: 1.5 to 2 times as fast, and up to 1e-5 of the outputs' scale different.
    """

    def __init__(self, graph: Graph, cut: Sequence[str], *, folded: bool = True):
        import tensorflow as tf

        needed = ancestors(graph.nodes, cut)
        variables = _variables(graph, needed)
        values = [variable.numpy() for variable in variables] if folded else None
        masks = _makes_masks(graph, needed)

        def run(inputs: Any) -> list[Any]:
            import keras

            def call(name: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
                if name not in needed:
                    return None
                return _call(operation, args, kwargs, directly=not masks)

            state: list[Any] = []
            if values is not None:
                state = list(zip(variables, map(tf.constant, values), strict=True))
            with keras.StatelessScope(state_mapping=state):
                made = graph.walk(inputs, call)
            return [tf.cast(made[name], "float32") for name in cut]

        spec = tf.TensorSpec((None, *graph.input_shape), "float32")
        traced = tf.function(run, autograph=False, jit_compile=has_gpu())
        self._run = traced.get_concrete_function(spec)
        # Only what is compiled is kept; weights that are not folded in, with it, such as those that
        # a loop inside a SavedModel reads.
        self._kept = variables if self._run.graph.variables else None
        self.n_bytes = sum(variable.numpy().nbytes for variable in variables)

    def on_inputs(self, inputs: Any) -> Iterator[list[np.ndarray]]:
        """Compute the outputs for prepared inputs, a batch at a time, reading few of them ahead.

        Parameters
        ----------
        inputs : numpy.ndarray of shape (n, ...) or EncodedPictures

        Yields
        ------
        list of numpy.ndarray of shape (n_batch, ...)
            Float32, one for each node; the batches in the order of the inputs.
        """
        waiting: deque[Future[list[np.ndarray]]] = deque()
        with ThreadPoolExecutor(_WORKERS) as executor:
            try:
                for batch, n_rows in as_batches(inputs, _BATCH):
                    waiting.append(executor.submit(self._on_batch, batch, n_rows))
                    if len(waiting) > _WORKERS:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:  # so that Ctrl-C does not wait for them
                    future.cancel()

    def _on_batch(self, batch: Any, n_rows: int) -> list[np.ndarray]:
        import tensorflow as tf

        return [output.numpy()[:n_rows] for output in self._run(tf.cast(batch, "float32"))]


def digest_graph(graph: Graph, cut: Sequence[str], *, folded: bool) -> str:
    """Return what is equal for frozen parts that compute the same: structure, weights, versions.

    Parameters
    ----------
    graph : Graph
    cut : sequence of str
        The nodes whose outputs it gives.
    folded : bool

    Returns
    -------
    str
        Hexadecimal.
    """
    import keras
    import tensorflow as tf

    needed = ancestors(graph.nodes, cut)
    names = [name for name in graph.nodes if name in needed]
    number = {name: str(index) for index, name in enumerate(names)}
    head = [_VERSION, keras.__version__, tf.__version__, bool(folded), *graph.input_shape]
    head += [number[name] for name in cut]
    digest = hashlib.blake2b(json.dumps(head).encode(), digest_size=20)

    def tell(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return [number.get(argument[0], argument[0]), argument[1]]
        if argument is None or isinstance(argument, (bool, int, float, str)):
            return argument
        if not hasattr(argument, "shape"):  # such as a slice
            return repr(argument)
        # Of an array repr would leave out the middle.
        array = np.ascontiguousarray(argument)
        return [array.tobytes().hex(), str(array.dtype), array.shape]

    is_told = True
    for name in names:
        operation = graph.operations[name]
        config = _config(operation)
        is_told = is_told and type(operation).__module__.startswith(("keras.", "keras_transfer."))
        is_told = is_told and is_kerass_own(config)
        called = [[tell(argument) for argument in call] for call in graph.arguments[name]]
        kind = f"{type(operation).__module__}.{type(operation).__qualname__}"
        digest.update(json.dumps([kind, config, called], sort_keys=True, default=repr).encode())
        # Not the states of random generators, which are drawn anew, and serve training alone.
        for variable in getattr(operation, "weights", []):
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    if not is_told:
        # What a class or function of the user's does can change under its name: ask it.
        probe = np.random.default_rng(0).uniform(0, 255, (2, *graph.input_shape))
        for outputs in FrozenPart(graph, cut, folded=False).on_inputs(probe.astype(np.float32)):
            for output in outputs:
                digest.update(output.tobytes())
    return digest.hexdigest()


def _config(operation: Any) -> Any:
    try:
        config = dict(operation.get_config())
    except (TypeError, ValueError, NotImplementedError):
        return repr(type(operation))
    # Names, and how weights were drawn, change nothing.
    for key in ("name", "trainable", "seed"):
        config.pop(key, None)
    return {key: value for key, value in config.items() if not key.endswith("_initializer")}


def _variables(graph: Graph, needed: set[str]) -> list[Any]:
    found = {
        id(variable): variable
        for name in graph.nodes
        if name in needed
        for variable in getattr(graph.operations[name], "variables", [])
    }
    return list(found.values())


def _makes_masks(graph: Graph, needed: set[str]) -> bool:
    import keras

    makers = (keras.layers.Masking, keras.layers.Embedding)
    inside = [layer for name in needed for layer in leaf_layers(graph.operations[name])]
    return any(isinstance(layer, makers) for layer in inside)


def _call(operation: Any, args: Any, kwargs: Any, *, directly: bool) -> Any:
    """Call a layer or operation in inference."""
    target: Callable[..., Any] = operation
    if directly and _is_plain(operation):
        # What Keras does around a call takes three times as long as TensorFlow to trace it.
        target = operation.call
    kwargs = {key: value for key, value in kwargs.items() if key != "training"}
    if "training" in inspect.signature(operation.call).parameters:
        kwargs["training"] = False
    return target(*args, **kwargs)


def _is_plain(operation: Any) -> bool:
    """Say whether a layer's call alone does all that calling it does, masks apart."""
    return (
        len(leaf_layers(operation)) == 1
        and type(operation).__module__.startswith("keras.")
        and operation.compute_dtype == operation.variable_dtype == "float32"
    )
