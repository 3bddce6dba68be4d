"""The Keras layers that run a SavedModel; imported only where something is built."""

from __future__ import annotations

import base64
import contextlib
import contextvars
import io
import tempfile
import types
import weakref
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

# Keras has no public way to ask whether it reads a file that is not trusted.
from keras.src.saving.serialization_lib import in_safe_mode

from keras_transfer.backbones.graph_cuts import INPUT
from keras_transfer.backbones.saved_model import PROGRAM, Plan
from keras_transfer.backbones.saved_model_program import PieceFunction, Program, load_program_files
from keras_transfer.backbones.variable_blocks import AFFINE, STATISTICS
from keras_transfer.errors import InvalidParameterError, UnsafeFileError

__all__ = ["SavedModelBlock", "VariableGroup", "build_blocks", "programs_allowed"]

_is_allowed: contextvars.ContextVar[bool] = contextvars.ContextVar("_is_allowed", default=False)


@contextlib.contextmanager
def programs_allowed(allowed: bool = True) -> Iterator[None]:
    """Let layers that run SavedModels be made from a configuration, also in Keras's safe mode.

    For what stood in this process before, or came from a file that its user trusts.
    """
    before = _is_allowed.set(allowed)
    try:
        yield
    finally:
        _is_allowed.reset(before)


class VariableGroup(keras.layers.Layer):
    """Some variables of a SavedModel that are frozen together: those of one layer in it.

    Parameters
    ----------
    program : Program
    members : sequence of (int, str)
        Their places in it, and their last parts, such as ``"kernel"``.
    name : str
    """

    def __init__(self, program: Program, members: Sequence[tuple[int, str]], name: str):
        super().__init__(name=name)
        self.group = [
            keras.Variable(
                program.weights[place].numpy(),
                trainable=program.may_train[place] and own not in STATISTICS,
                autocast=False,
                name=f"{name}.{own}",  # paths tell weights apart, in optimizers and tables
            )
            for place, own in members
        ]
        known = dict(zip((own for _, own in members), self.group, strict=True))
        self.moving_mean, self.moving_variance = (known.get(name) for name in STATISTICS)
        self.gamma, self.beta = (known.get(name) for name in AFFINE)
        # Whatever else moves without a gradient is held and let go as statistics are.
        has_statistics = self.moving_mean is not None and self.moving_variance is not None
        self.is_batch_norm = has_statistics or any(place in program.updated for place, _ in members)
        self.can_move = program.has_training
        self.built = True


class LoadedProgram:
    """A SavedModel of an archive, cut as a plan says.

    Parameters
    ----------
    archive : bytes
        The SavedModel without its weights, zipped.
    plan : Plan
    """

    def __init__(self, archive: bytes, plan: Plan):
        self.archive, self.plan = archive, plan
        self._folder = _unpack(archive)
        loaded = load_program_files(self._folder.name)
        if not any(Path(self._folder.name, "assets").glob("*")):  # else an export copies them
            self._folder.cleanup()
        self.program = Program(loaded, plan.signature, plan.output_key)
        self.program.cut(plan.block_of)
        # Of what each block gives, by that of what it reads.
        self.shapes: dict[int, dict[Any, list[tuple[int, ...]]]] = {}


# Loaded once for all models of a process; the last are kept for the next fit.
_programs: weakref.WeakValueDictionary[str, LoadedProgram] = weakref.WeakValueDictionary()
_last: deque[LoadedProgram] = deque(maxlen=2)


def _find_program(archive: bytes, plan: Plan) -> LoadedProgram:
    digest = plan.digest(archive)
    known = _programs.get(digest)
    if known is None:
        known = _programs[digest] = LoadedProgram(archive, plan)
        _last.append(known)
    return known


@keras.saving.register_keras_serializable("keras_transfer")
class SavedModelBlock(keras.layers.Layer):
    """One block of a SavedModel, whose variables are its weights.

    Parameters
    ----------
    program : str
        The digest of what is run.
    block : int
    archive : str, optional
        The SavedModel without its weights, zipped, in base64: of the first block, which holds it
        for all.
    plan : str, optional
        Of the first block, as JSON.
    """

    def __init__(
        self,
        program: str,
        block: int,
        archive: str | None = None,
        plan: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._digest, self._block = program, block
        if archive is not None and plan is not None:
            self._loaded = _find_program(base64.b64decode(archive), Plan.from_json(plan))
        elif program in _programs:
            self._loaded = _programs[program]
        else:
            raise InvalidParameterError(
                f"{self.name}: expected a model with all blocks of a SavedModel up to this one. "
                f"Received: one without the first, which holds the program. Save the whole model."
            )
        self._program = self._loaded.program
        self.whole_since = self._loaded.plan.whole_since
        self._resources = self._program.resources  # tracked, so that an export finds them
        self.groups = []
        known: dict[int, keras.Variable] = {}
        for scope, members in self._loaded.plan.members(block):
            group = VariableGroup(self._program, members, scope)
            self.groups.append(group)
            known.update(zip((place for place, _ in members), group.group, strict=True))
        # As the SavedModel has it: whether any of it may train at all.
        self.can_train = any(variable.trainable for variable in known.values())
        in_training = self._program.function(block, training=True)
        self._seeds = [keras.random.SeedGenerator(0)] if in_training.n_seeds else []
        self._generators = []
        for place in dict.fromkeys(in_training.values):
            if self._program.is_state(place):
                generator = keras.random.SeedGenerator(0)
                generator.state.assign(self._program.variables[place].numpy())
                self._generators.append(generator)
                known[place] = generator.state
        # Not a dict, which Keras would track: the groups and generators have the variables.
        self._known = types.MappingProxyType(known)
        self.built = True

    def set_values(self, values: Sequence[Any]) -> None:
        """Set the weights, in the order of the groups; Keras's own has what trains first."""
        variables = [variable for group in self.groups for variable in group.group]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Compute what the block gives.

        Parameters
        ----------
        inputs : tensor of shape (batch, ...) or list of tensor
        training : bool, optional
            Without effect where statistics of a BatchNorm stay: they would move, since what the
            SavedModel does in training is one function.
        """
        norms = [group for group in self.groups if group.is_batch_norm]
        moves = self.trainable and all(group.trainable for group in norms)
        given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        outputs = self._run(given, training=bool(training) and moves)
        if training and self.trainable:
            for loss in self._program.losses(self._block):
                self.add_loss(self._apply(loss, [])[0][0])
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, inputs: Sequence[Any], training: bool) -> list[Any]:
        function = self._program.function(self._block, training=training)
        given = []
        sources = self._program.pieces[self._block].sources
        for tensor, (block, place) in zip(inputs, sources, strict=True):
            reads = (
                self._program.spec.dtype if block == INPUT else self._program.dtypes[block][place]
            )
            given.append(tf.cast(tf.round(tensor) if reads.is_integer else tensor, reads))
        if self._program.batch_size is not None:
            outputs = [
                _in_batches(
                    self._program.batch_size,
                    given[0],
                    lambda batch: self._apply(function, [batch])[0][0],
                )
            ]
        else:
            outputs, updates = self._apply(function, given)
            for place, value in zip(function.updates, updates, strict=True):
                self._known[place].assign(value)
        return [tf.cast(each, self.compute_dtype) for each in outputs]

    def _apply(self, function: PieceFunction, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        values = [self._value(place) for place in function.values]
        handles = [_handle(self._known[place]) for place in function.handles]
        seeds = [tf.cast(self._seeds[0].next(), "int64") for _ in range(function.n_seeds)]
        return function(inputs, values, handles, seeds)

    def _value(self, place: int) -> Any:
        known = self._known.get(place)
        if known is not None:
            return tf.convert_to_tensor(known.value)
        return self._program.constant(place)

    def compute_output_spec(self, inputs: Any, training: Any = None) -> Any:
        """Return shapes and dtype of the outputs, found by computing them once of zeros."""
        given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        shapes = tuple(tuple(each.shape[1:]) for each in given)
        known = self._loaded.shapes.setdefault(self._block, {})
        if shapes not in known:
            with tf.init_scope():
                count = self._program.batch_size or 1
                zeros = [tf.zeros((count, *shape)) for shape in shapes]
                outputs = self._run(zeros, training=False)
                known[shapes] = [tuple(each.shape[1:]) for each in outputs]
        count = given[0].shape[0]
        specs = [keras.KerasTensor((count, *shape), self.compute_dtype) for shape in known[shapes]]
        return specs[0] if len(specs) == 1 else specs

    def get_config(self) -> dict[str, Any]:
        """Return all that the layer is made of, its weights apart."""
        config = {**super().get_config(), "program": self._digest, "block": self._block}
        if self._block == 0:
            config["archive"] = base64.b64encode(self._loaded.archive).decode()
            config["plan"] = self._loaded.plan.to_json()
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SavedModelBlock:
        """Make the layer anew, unless that is of a file that nobody trusts.

        Raises
        ------
        UnsafeFileError
        """
        if in_safe_mode() and not _is_allowed.get():
            raise UnsafeFileError(PROGRAM)
        return cls(**config)


def build_blocks(
    archive: bytes, plan: Plan, weights: Sequence[Any], input_shape: tuple[int, ...], name: str
) -> keras.Model:
    """Build the network of a SavedModel, one layer per block.

    Parameters
    ----------
    archive : bytes
    plan : Plan
    weights : sequence of numpy.ndarray
        In the order of the plan.
    input_shape : tuple of int
    name : str
        Of the model.
    """
    loaded = _find_program(archive, plan)
    inputs = keras.Input(input_shape, dtype="float32")
    made: list[list[Any]] = []
    values = iter(weights)
    for block, (own, piece) in enumerate(zip(plan.blocks, loaded.program.pieces, strict=True)):
        layer = SavedModelBlock(
            plan.digest(archive),
            block,
            *([base64.b64encode(archive).decode(), plan.to_json()] if block == 0 else []),
            name=f"{own}.saved_model",
        )
        layer.set_values([next(values) for group in layer.groups for _ in group.group])
        given = [inputs if b == INPUT else made[b][place] for b, place in piece.sources]
        outputs = layer(given[0] if len(given) == 1 else given)
        made.append(list(outputs) if isinstance(outputs, (list, tuple)) else [outputs])
    return keras.Model(inputs, made[-1][0], name=name)


def _handle(variable: keras.Variable) -> Any:
    """Return the handle of a variable that a loop inside the SavedModel reads."""
    # What Keras gives where weights are replaced, as in what is folded, has none.
    value = variable.value if isinstance(variable.value, tf.Variable) else variable._value
    if tf.distribute.in_cross_replica_context():  # as while a model is built
        value = tf.distribute.get_strategy().experimental_local_results(value)[0]
    value.read_value()  # so that a tape watches it
    return value.handle


def _in_batches(size: int, inputs: Any, run: Any) -> Any:
    """Run what takes batches of one size on any number of rows."""
    count = tf.shape(inputs)[0]
    padding = [[0, -count % size]] + [[0, 0]] * (len(inputs.shape) - 1)
    chunks = tf.reshape(tf.pad(inputs, padding), (-1, size, *inputs.shape[1:]))
    parts = tf.map_fn(
        lambda chunk: tf.cast(run(chunk), tf.float32), chunks, fn_output_signature=tf.float32
    )
    return tf.reshape(parts, (-1, *parts.shape[2:]))[:count]


def _unpack(archive: bytes) -> tempfile.TemporaryDirectory[str]:
    """Write the files of a zipped SavedModel into a folder that goes with the object."""
    folder = tempfile.TemporaryDirectory(prefix="keras_transfer_")
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        packed.extractall(folder.name)  # it leaves out what would lead out of the folder
    return folder
