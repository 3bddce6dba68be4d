"""The Keras layers that run a SavedModel; imported only where something is built."""

from __future__ import annotations

import base64
import contextlib
import contextvars
import io
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

# Keras has no public way to ask whether it reads a file that is not trusted.
from keras.src.saving.serialization_lib import in_safe_mode

from keras_transfer.backbones.saved_model import PROGRAM
from keras_transfer.errors import InvalidParameterError, UnsafeFileError

__all__ = ["SavedModelLayer", "VariableGroup", "find_variables", "unpack"]

# What the weights of a BatchNorm are called, in Keras and in TensorFlow's own libraries.
STATISTICS = ("moving_mean", "moving_variance")
_AFFINE = ("gamma", "beta")


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


class _LoadedVariable(keras.Variable):
    """A variable that a SavedModel brought with it, as Keras knows variables."""

    def __init__(self, variable: tf.Variable, name: str):
        self._loaded = variable
        super().__init__(
            lambda shape, dtype: None,
            shape=variable.shape,
            dtype=variable.dtype.name,
            trainable=variable.trainable,
            autocast=False,
            name=name,
        )

    def _initialize_with_initializer(self, initializer: Any) -> None:
        self._initialize(self._loaded)


class VariableGroup(keras.layers.Layer):
    """Some variables of a SavedModel that are frozen together: those of one layer in it.

    Parameters
    ----------
    variables : sequence of tf.Variable
    names : sequence of str
        Their last parts, such as ``"kernel"``.
    name : str
    """

    def __init__(self, variables: Sequence[tf.Variable], names: Sequence[str], name: str):
        super().__init__(name=name)
        # Paths tell weights apart, in optimizers and tables.
        self.group = [
            _LoadedVariable(variable, f"{name}.{each}")
            for variable, each in zip(variables, names, strict=True)
        ]
        known = dict(zip(names, self.group, strict=True))
        self.is_batch_norm = all(name in known for name in STATISTICS)
        if self.is_batch_norm:
            self.moving_mean, self.moving_variance = (known[name] for name in STATISTICS)
            self.gamma, self.beta = (known.get(name) for name in _AFFINE)
        # As the SavedModel has it: whether they may train at all.
        self.can_train = any(variable.trainable for variable in variables)
        self.built = True


@keras.saving.register_keras_serializable("keras_transfer")
class SavedModelLayer(keras.layers.Layer):
    """Runs a SavedModel, whose variables are its weights, grouped into blocks.

    Parameters
    ----------
    archive : str
        The SavedModel without its weights, zipped, in base64.
    signature : str or None
        Which signature runs; None: the object itself.
    output_key : str or None
        Which of several outputs is given.
    takes_training : bool
        Whether the object takes ``training``.
    batch_size : int or None
        What it is fixed to.
    groups : sequence of (str, str, list of (int, str))
        Block and name of each group, and its variables: their places in `find_variables` and their
        names.
    """

    def __init__(
        self,
        archive: str,
        signature: str | None,
        output_key: str | None,
        takes_training: bool,
        batch_size: int | None,
        groups: Sequence[Any],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._config = {
            "archive": archive,
            "signature": signature,
            "output_key": output_key,
            "takes_training": takes_training,
            "batch_size": batch_size,
            "groups": groups,
        }
        self._folder = unpack(base64.b64decode(archive))
        self._object = tf.saved_model.load(self._folder.name)
        if not any(Path(self._folder.name, "assets").glob("*")):  # else an export copies them
            self._folder.cleanup()
        self._call = self._object if signature is None else self._object.signatures[signature]
        spec = input_spec(self._object, signature)
        self._input_dtype, self._input_name = spec.dtype, spec.name
        variables = find_variables(self._object, signature)
        self.block_layers: dict[str, list[VariableGroup]] = {}
        for block, name, members in groups:
            group = VariableGroup(
                [variables[place] for place, _ in members], [each for _, each in members], name
            )
            self.block_layers.setdefault(block, []).append(group)
        self._groups = [group for layers in self.block_layers.values() for group in layers]
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.built = True

    def set_values(self, values: Sequence[Any]) -> None:
        """Set the weights, in the order of the groups; Keras's own has what trains first."""
        variables = [variable for group in self._groups for variable in group.group]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    @property
    def trains_whole(self) -> bool:
        """Whether all of it trains, statistics included: one function is in training or not."""
        return all(group.trainable for group in self._groups)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Run the SavedModel.

        Parameters
        ----------
        inputs : tensor of shape (batch, ...)
        training : bool, optional
            Passed on where all of it trains. A block that is frozen, or a BatchNorm whose
            statistics stay, would move otherwise: the inside of a SavedModel is one function.
        """
        is_training = bool(training) and self.trains_whole
        if self._input_dtype.is_integer:
            inputs = tf.round(inputs)
        inputs = tf.cast(inputs, self._input_dtype)
        outputs = self._run_in_batches(inputs, is_training)
        if is_training:
            for loss in getattr(self._object, "regularization_losses", None) or ():
                self.add_loss(loss())
        return tf.cast(outputs, self.compute_dtype)

    def _run_in_batches(self, inputs: Any, training: bool) -> Any:
        size = self._config["batch_size"]
        if size is None:
            return self._run(inputs, training)
        count = tf.shape(inputs)[0]
        missing = -count % size
        padding = [[0, missing]] + [[0, 0]] * (len(inputs.shape) - 1)
        padded = tf.pad(inputs, padding)
        chunks = tf.reshape(padded, (-1, size, *inputs.shape[1:]))
        parts = tf.map_fn(
            lambda chunk: self._run(chunk, training), chunks, fn_output_signature=tf.float32
        )
        return tf.reshape(parts, (-1, *parts.shape[2:]))[:count]

    def _run(self, inputs: Any, training: bool) -> Any:
        if self._config["signature"] is not None:
            outputs = self._call(**{self._input_name: inputs})
        elif self._config["takes_training"]:
            outputs = self._call(inputs, training=training)
        else:
            outputs = self._call(inputs)
        key = self._config["output_key"]
        return tf.cast(outputs if key is None else outputs[key], tf.float32)

    def compute_output_spec(self, inputs: Any, training: Any = None) -> Any:
        """Return shape and dtype of the output, found by running it once on zeros."""
        shape = tuple(inputs.shape[1:])
        if shape not in self._shapes:
            with tf.init_scope():
                zeros = tf.zeros((self._config["batch_size"] or 1, *shape), self._input_dtype)
                self._shapes[shape] = tuple(self._run(zeros, False).shape[1:])
        return keras.KerasTensor((inputs.shape[0], *self._shapes[shape]), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return all that the layer is made of, its weights apart."""
        return {**super().get_config(), **self._config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SavedModelLayer:
        """Make the layer anew, unless that is of a file that nobody trusts.

        Raises
        ------
        UnsafeFileError
        """
        if in_safe_mode() and not _is_allowed.get():
            raise UnsafeFileError(PROGRAM)
        return cls(**config)


def unpack(archive: bytes) -> tempfile.TemporaryDirectory[str]:
    """Write the files of a zipped SavedModel into a folder that goes with the object."""
    folder = tempfile.TemporaryDirectory(prefix="keras_transfer_")
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        packed.extractall(folder.name)  # it leaves out what would lead out of the folder
    return folder


def functions_of(loaded: Any, signature: str | None) -> list[Any]:
    """List the concrete functions of a loaded SavedModel, or the one of a signature."""
    if signature is not None:
        return [loaded.signatures[signature]]
    # Of a SavedModel that cannot be called there is no function, though the object is a callable.
    call = getattr(loaded, "__call__", None)  # noqa: B004
    return list(getattr(call, "concrete_functions", ()))


def input_spec(loaded: Any, signature: str | None) -> tf.TensorSpec:
    """Return what a loaded SavedModel reads: of several variants the one that fixes least.

    Raises
    ------
    InvalidParameterError
        If it reads several tensors, or none.
    """
    found = []
    for function in functions_of(loaded, signature):
        positional, named = function.structured_input_signature
        specs = [
            each for each in tf.nest.flatten((positional, named)) if isinstance(each, tf.TensorSpec)
        ]
        if signature is not None and len(named) == 1:
            (name,) = named
            specs = [tf.TensorSpec(specs[0].shape, specs[0].dtype, name)]
        if len(specs) == 1:
            found.append(specs[0])
    if not found:
        what = "the object" if signature is None else f"signature {signature!r}"
        raise InvalidParameterError(
            f"signature: expected a function of one tensor. Received: {what}, which reads several "
            f"or none. Choose another of {sorted(loaded.signatures)}."
        )
    return min(found, key=lambda spec: _fixed(spec.shape))


def _fixed(shape: tf.TensorShape) -> float:
    return -1 if shape.rank is None else sum(size is not None for size in shape)


def find_variables(loaded: Any, signature: str | None) -> list[tf.Variable]:
    """List the variables that a loaded SavedModel computes with, in the order of their first use.

    That of the calls while it was traced, which is that of the data through the network.
    """
    found: dict[int, tf.Variable] = {}
    for function in functions_of(loaded, signature):
        by_handle = {id(variable.handle): variable for variable in function.graph.variables}
        for captured in function.captured_inputs:
            variable = by_handle.get(id(captured))
            # Counters and the states of random generators are no weights.
            if variable is not None and variable.dtype.is_floating:
                found.setdefault(id(variable), variable)
    return list(found.values())
