"""A SavedModel as functions of its weights, one for each block."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from keras_transfer.backbones.flat_graph import FlatGraph, GraphError, call_nodes, flatten
from keras_transfer.backbones.graph_cuts import (
    INPUT,
    Piece,
    align_pieces,
    cut_graph,
    find_stretches,
)
from keras_transfer.errors import InvalidParameterError

__all__ = ["PieceFunction", "Program", "functions_of", "input_spec", "load_program_files"]


class PieceFunction:
    """What one block computes, as a function without side effects.

    Parameters
    ----------
    piece : Piece
    graph : FlatGraph
        What it is a piece of.
    places : sequence of int
        Of the graph's variables in the program's.

    Attributes
    ----------
    values, handles : list of int
        The variables whose values it is given, and those that are given themselves.
    updates : list of int
        The variables that it tells what they become.
    n_seeds : int
    """

    def __init__(self, piece: Piece, graph: FlatGraph, places: Sequence[int]):
        import tensorflow as tf

        self.values = [places[each] for each in piece.values.values()]
        self.handles = [places[each] for each in piece.handles.values()]
        self.updates = [places[each] for each in piece.updates]
        self.n_seeds = len(piece.seeds)
        names = [*piece.reads, *piece.values, *piece.handles, *piece.seeds]
        wanted = [*piece.gives, *piece.updates.values()]

        def run(given: list[Any]) -> list[Any]:
            known = dict(zip(names, given, strict=True))
            for name, captured in graph.resources.items():
                known[name] = tf.identity(captured)  # which this graph knows, then
            return call_nodes(piece.nodes, graph.library, known, wanted)

        # Without a function around them, TensorFlow's tape does not see nodes that are imported.
        self._run = tf.function(run, autograph=False)
        self._n_given = len(piece.gives)

    def trace(self, inputs: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        """Return what the block gives, on the graph alone, for inputs of these types."""
        import tensorflow as tf

        values = [tf.TensorSpec(variables[p].shape, variables[p].dtype) for p in self.values]
        handles = [variables[place].handle for place in self.handles]
        seeds = [tf.TensorSpec((2,), "int64")] * self.n_seeds
        traced = self._run.get_concrete_function([*inputs, *values, *handles, *seeds])
        return list(traced.outputs[: self._n_given])

    def __call__(
        self, inputs: Sequence[Any], values: Sequence[Any], handles: Sequence[Any], seeds: Any
    ) -> tuple[list[Any], list[Any]]:
        """Return what the block gives, and what variables become."""
        made = self._run([*inputs, *values, *handles, *seeds])
        return made[: self._n_given], made[self._n_given :]


class Program:
    """What a SavedModel computes; nothing until it is cut.

    Parameters
    ----------
    loaded : object
        What ``tf.saved_model.load`` returned.
    signature : str or None
        Which signature runs; None: the object itself.
    output_key : str or None
        Which of several outputs is given.

    Attributes
    ----------
    spec : tf.TensorSpec
        What it reads.
    weights : list of tf.Variable
        In the order in which data meets them.
    may_train : list of bool
        Which weights may train.
    variables : list of tf.Variable
        The weights, and what else it computes with, such as states of random generators.
    pieces : list of Piece
        One for each block.
    dtypes : list of list of tf.DType
        Of what each block gives.
    """

    def __init__(self, loaded: Any, signature: str | None, output_key: str | None):
        self._loaded = loaded  # what its functions captured goes with it
        self.spec = input_spec(loaded, signature)
        inference, training = _functions(loaded, signature, self.spec)
        output = _output(inference, output_key)
        self._graph = flatten(inference, output)
        self.weights = [each for each in self._graph.variables if each.dtype.is_floating]
        self._in_training: FlatGraph | None = None
        if training is not None and self.batch_size is None:
            with contextlib.suppress(GraphError):  # it writes in a way that cannot be told
                self._in_training = flatten(training, output, self.weights)
        self.variables = list(self.weights)
        for graph in (self._graph, self._in_training):
            for each in [] if graph is None else graph.variables:
                if not any(each is known for known in self.variables):
                    self.variables.append(each)
        # Some are of training alone, such as the vectors of a spectral normalisation.
        self.variables.sort(key=lambda variable: not variable.dtype.is_floating)
        self.weights = [each for each in self.variables if each.dtype.is_floating]
        # What its author lets train; of a plain one, what TensorFlow does.
        named = getattr(loaded, "trainable_variables", None)
        self.may_train = [
            each.trainable and (named is None or any(each is other for other in named))
            for each in self.weights
        ]
        losses = getattr(loaded, "regularization_losses", None) or ()
        self._losses = [
            flatten(function, 0)
            for loss in losses
            for function in getattr(loss, "concrete_functions", ())
        ]

    @property
    def stretches(self) -> list[int | None]:
        """Between which points that all data passes each weight is used; None: training alone."""
        found = find_stretches(self._graph)
        by_variable = {
            id(variable): stretch
            for variable, stretch in zip(self._graph.variables, found, strict=True)
        }
        return [by_variable.get(id(weight)) for weight in self.weights]

    @property
    def updated(self) -> set[int]:
        """The places of weights that move in training without a gradient, and do not train."""
        graph = self._in_training
        moving = [] if graph is None else [id(graph.variables[place]) for place in graph.updates]
        return {
            place
            for place, weight in enumerate(self.weights)
            if id(weight) in moving and not self.may_train[place]
        }

    @property
    def batch_size(self) -> int | None:
        """What it is fixed to."""
        return self.spec.shape[0] if self.spec.shape.rank else None

    @property
    def resources(self) -> Any:
        """What was loaded, if more of it is needed than its graph, such as tables."""
        captured = self._graph.resources.values()
        return self._loaded if any(each.dtype.name == "resource" for each in captured) else None

    def cut(self, block_of: Sequence[int]) -> None:
        """Cut it into one piece per block.

        Parameters
        ----------
        block_of : sequence of int
            The block of each weight.

        Raises
        ------
        GraphError
            If it cannot be cut there.
        """
        n_blocks = max(block_of, default=0) + 1
        if n_blocks > 1 and self.batch_size is not None:
            raise GraphError(f"it takes batches of {self.batch_size} and no others")
        blocks: list[int | None] = [*block_of]
        blocks += [None] * (len(self.variables) - len(blocks))
        places = self._places(self._graph)
        self.pieces = cut_graph(self._graph, [blocks[each] for each in places], n_blocks)
        self._functions = [PieceFunction(each, self._graph, places) for each in self.pieces]
        self.dtypes = self._find_dtypes()
        self._losses_of: list[list[PieceFunction]] = [[] for _ in range(n_blocks)]
        for loss in self._losses:
            self._place_loss(loss, blocks)
        self._training_functions = self._cut_training(blocks, n_blocks)

    def _cut_training(
        self, blocks: Sequence[int | None], n_blocks: int
    ) -> list[PieceFunction] | None:
        graph = self._in_training
        if graph is None:
            return None
        places = self._places(graph)
        try:
            pieces = cut_graph(graph, [blocks[each] for each in places], n_blocks)
            pieces = align_pieces(pieces, self.pieces)
        except GraphError:
            return None
        written = {places[each] for each in graph.updates}
        if any(each >= len(self.weights) and not self.is_state(each) for each in written):
            return None  # counts something
        return [PieceFunction(each, graph, places) for each in pieces]

    def _place_loss(self, loss: FlatGraph, blocks: Sequence[int | None]) -> None:
        known = self._places(loss)
        found = {blocks[place] for place in known}
        if len(known) < len(loss.variables) or not found:
            return  # on what the output does not depend on
        if len(found) > 1:
            raise GraphError("one of its losses is on the weights of several blocks")
        (block,) = found
        piece = Piece(
            nodes=tuple(loss.nodes.values()),
            reads=(),
            sources=(),
            gives=(loss.output,),
            values=loss.values,
            handles=loss.handles,
            updates={},
            seeds=tuple(loss.seeds),
        )
        self._losses_of[block or 0].append(PieceFunction(piece, loss, known))

    def _places(self, graph: FlatGraph) -> list[int]:
        known = {id(variable): place for place, variable in enumerate(self.variables)}
        return [known[id(variable)] for variable in graph.variables if id(variable) in known]

    def constant(self, place: int) -> Any:
        """Return the value of a variable that is no weight."""
        return self.variables[place].read_value()

    def is_state(self, place: int) -> bool:
        """Say whether a variable is the state of one of Keras's random generators."""
        variable = self.variables[place]
        return variable.dtype.name in ("int64", "uint32") and tuple(variable.shape) == (2,)

    def function(self, block: int, *, training: bool) -> PieceFunction:
        """Return what a block computes; in training the same where nothing else is known."""
        if training and self._training_functions is not None:
            return self._training_functions[block]
        return self._functions[block]

    @property
    def has_training(self) -> bool:
        """Whether it computes something of its own in training."""
        return self._training_functions is not None

    def losses(self, block: int) -> list[PieceFunction]:
        """Return the losses on a block's weights."""
        return self._losses_of[block]

    def _find_dtypes(self) -> list[list[Any]]:
        import tensorflow as tf

        made: list[list[Any]] = []
        for piece, function in zip(self.pieces, self._functions, strict=True):
            inputs = [self.spec if b == INPUT else made[b][place] for b, place in piece.sources]
            outputs = function.trace(inputs, self.variables)
            made.append([tf.TensorSpec(each.shape, each.dtype) for each in outputs])
        if not all(each.dtype.is_floating for outputs in made[:-1] for each in outputs):
            raise GraphError("something else than data goes from block to block")
        return [[each.dtype for each in outputs] for outputs in made]

    def check(self, shape: Sequence[int]) -> None:
        """Make sure that what goes from block to block is one row for each example.

        Parameters
        ----------
        shape : sequence of int
            Of one input.

        Raises
        ------
        GraphError
        """
        import tensorflow as tf

        for count in (2, 3):
            made: list[list[Any]] = []
            for piece, function in zip(self.pieces, self._functions, strict=True):
                start = tf.zeros((count, *shape), self.spec.dtype)
                inputs = [start if b == INPUT else made[b][place] for b, place in piece.sources]
                values = [self.variables[each].read_value() for each in function.values]
                handles = [self.variables[each].handle for each in function.handles]
                made.append(function(inputs, values, handles, _seeds(function))[0])
                if any(len(each.shape) == 0 or len(each) != count for each in made[-1]):
                    raise GraphError("something else than data goes from block to block")


def _seeds(function: PieceFunction) -> list[Any]:
    import tensorflow as tf

    return [tf.zeros(2, "int64")] * function.n_seeds


def load_program_files(folder: str) -> Any:
    """Load a SavedModel, outside of any strategy, which would spread its variables."""
    import tensorflow as tf

    with ThreadPoolExecutor(1) as executor:  # strategies are in force in their own thread
        return executor.submit(tf.saved_model.load, folder).result()


def functions_of(loaded: Any, signature: str | None) -> list[Any]:
    """List the concrete functions of a loaded SavedModel, or the one of a signature."""
    if signature is not None:
        return [loaded.signatures[signature]]
    # Of a SavedModel that cannot be called there is no function, though the object is a callable.
    call = getattr(loaded, "__call__", None)  # noqa: B004
    return list(getattr(call, "concrete_functions", ()))


def input_spec(loaded: Any, signature: str | None) -> Any:
    """Return what a loaded SavedModel reads: of several variants the one that fixes least.

    Raises
    ------
    InvalidParameterError
        If it reads several tensors, or none.
    """
    found = [spec for spec, _ in _variants(loaded, signature)]
    if not found:
        what = "the object" if signature is None else f"signature {signature!r}"
        raise InvalidParameterError(
            f"signature: expected a function of one tensor. Received: {what}, which reads several "
            f"or none. Choose another of {sorted(loaded.signatures)}."
        )
    return min(found, key=_n_fixed)


def _variants(loaded: Any, signature: str | None) -> list[tuple[Any, Any]]:
    """List the functions of one tensor, each with what it reads."""
    import tensorflow as tf

    found = []
    for function in functions_of(loaded, signature):
        read = tf.nest.flatten(function.structured_input_signature)
        specs = [each for each in read if isinstance(each, tf.TensorSpec)]
        if len(specs) == 1:
            found.append((specs[0], function))
    return found


def _n_fixed(spec: Any) -> int:
    return -1 if spec.shape.rank is None else sum(size is not None for size in spec.shape)


def _functions(loaded: Any, signature: str | None, spec: Any) -> tuple[Any, Any]:
    """Choose the function of inference, and that of training if there is one."""
    found = [function for each, function in _variants(loaded, signature) if each == spec]
    if signature is not None:
        return found[0], None
    parameters = list(inspect.signature(loaded.__call__).parameters)
    by_training: dict[bool, Any] = {}
    for function in found:
        positional, named = function.structured_input_signature
        given = {**dict(zip(parameters, positional, strict=False)), **named}
        by_training.setdefault(given.get("training") is True, function)
    inference = by_training.get(False)
    if inference is None:
        raise InvalidParameterError(
            "source: expected a SavedModel that can be called with training=False. Received: one "
            "of training alone."
        )
    return inference, by_training.get(True)


def _output(function: Any, output_key: str | None) -> int:
    outputs = function.structured_outputs
    return 0 if output_key is None else sorted(outputs).index(output_key)
