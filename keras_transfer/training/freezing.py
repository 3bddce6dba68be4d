"""The only place that writes ``.trainable``."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import Block, layers_by_block
from keras_transfer.backbones.walk import is_batch_norm, leaf_layers
from keras_transfer.errors import InvalidParameterError, UnknownNameError
from keras_transfer.training.stage import Stage

__all__ = [
    "freeze_for",
    "frozen_weights",
    "has_fresh_batch_norm",
    "settle",
    "trained_weights",
]


@contextlib.contextmanager
def freeze_for(model: Any, blocks: Sequence[Block], stage: Stage) -> Iterator[None]:
    """Set what trains in a stage; inside the context frozen blocks compute as in inference.

    ``trainable`` stays as set after the context. Inside it, layers of frozen blocks are called
    with ``training=False``, since a frozen block is a fixed function: no dropout, no stochastic
    depth, no random changes, no statistics of a batch. To be called before ``compile``: Keras's
    compiled step does not see a change (it is silently ignored).

    Parameters
    ----------
    model : keras.Model
        Flat.
    blocks : sequence of Block
        The model's blocks.
    stage : Stage

    Raises
    ------
    UnknownNameError
        If the stage names a block that the model does not have.
    """
    names = [block.name for block in blocks]
    for name in stage.trained:
        if name not in names:
            raise UnknownNameError(f"stage {stage.name!r}: block", name, names, model.name)
    _check_trainable(model, blocks, stage)
    with contextlib.ExitStack() as held:
        # A frozen parent hides what trains inside it; setting it sets every child: it comes first.
        model.trainable = True
        for layer, block in layers_by_block(model, blocks):
            trains = block in stage.trained
            # Outermost only: setting a parent sets everything inside it.
            _set_flag(layer, trains)
            for inner in leaf_layers(layer):
                if is_batch_norm(inner):
                    _apply_batch_norm(inner, trains, stage.batch_norm)
                    if trains and stage.batch_norm == "train" and hasattr(inner, "momentum"):
                        held.enter_context(_momentum(inner, stage.batch_norm_momentum))
                if not trains:
                    held.enter_context(_calls_as_in_inference(inner))
        yield


def _check_trainable(model: Any, blocks: Sequence[Block], stage: Stage) -> None:
    """Refuse what the blocks of a SavedModel cannot do."""
    known: dict[str, bool] = {}
    for layer, block in layers_by_block(model, blocks):
        if block not in stage.trained or not hasattr(layer, "can_train"):
            continue
        known[block] = known.get(block, False) or layer.can_train
        norms = [inner for inner in leaf_layers(layer) if is_batch_norm(inner)]
        if stage.batch_norm == "train" and not all(norm.can_move for norm in norms):
            raise InvalidParameterError(
                f"batch_norm: expected 'affine' or 'frozen' for a SavedModel that has no function "
                f"of training with which statistics would move. Received: 'train', and block "
                f"{block!r}."
            )
    if known and not any(known.values()):
        raise InvalidParameterError(
            f"train_blocks: expected blocks with weights that train. Received: "
            f"{', '.join(known)}, of a SavedModel that has nothing there to train. Leave them "
            f"frozen: recipe='structure'."
        )


@contextlib.contextmanager
def _momentum(layer: Any, momentum: float | None) -> Iterator[None]:
    own = layer.momentum
    layer.momentum = own if momentum is None else momentum
    try:
        yield
    finally:
        layer.momentum = own


@contextlib.contextmanager
def _calls_as_in_inference(layer: Any) -> Iterator[None]:
    """Make a layer ignore that the model around it is in training.

    ``training=False`` on the call of a layer does not hold in a functional model (Keras 3.15): the
    model passes its own ``training`` on.
    """
    if "training" not in inspect.signature(layer.call).parameters:
        yield
        return
    call = layer.call

    @functools.wraps(call)
    def quiet(*args: Any, training: Any = None, **kwargs: Any) -> Any:
        return call(*args, training=False, **kwargs)

    layer.call = quiet
    try:
        yield
    finally:
        del layer.call  # the class's own shows again


def settle(model: Any) -> None:
    """Give the variables of each BatchNorm their layer's flag again.

    Keras saves the flag of a layer but not that of a variable: a model that is saved while gamma
    and beta train alone would come back with other trainable weights than it had.
    """
    for layer in model.layers:
        for inner in leaf_layers(layer):
            if is_batch_norm(inner):
                _set_flag(inner, inner.trainable)


def frozen_weights(model: Any, blocks: Sequence[Block], stage: Stage) -> list[Any]:
    """List the weights that must not move in a stage: bit-equal after it.

    Parameters
    ----------
    model : keras.Model
        As `freeze_for` left it.
    blocks : sequence of Block
    stage : Stage

    Returns
    -------
    list of keras.Variable
        Every weight outside the blocks that train, and in these the BatchNorm weights that the
        policy holds. State that a trained layer of another kind keeps for itself may move.
    """
    frozen = []
    for layer, block in layers_by_block(model, blocks):
        if block not in stage.trained:
            frozen += layer.weights
        elif stage.batch_norm != "train":
            for inner in leaf_layers(layer):
                if is_batch_norm(inner):
                    frozen += [weight for weight in inner.weights if not weight.trainable]
    return frozen


def trained_weights(layer: Any) -> list[Any]:
    """List the weights of a layer that train.

    ``layer.trainable_weights`` is empty for a BatchNorm whose statistics are held, though its
    gamma and beta train, and are among the model's.
    """
    return [weight for weight in layer.weights if weight.trainable]


def has_fresh_batch_norm(layers: Iterable[Any]) -> bool:
    """Say whether the BatchNorm statistics of layers were never trained.

    A network of random weights, however it came here, has no statistics to keep: with theirs
    frozen it would run without any normalisation.
    """
    norms = [inner for layer in layers for inner in leaf_layers(layer) if is_batch_norm(inner)]
    # Statistics inside a SavedModel may go by other names, or be there for good.
    norms = [n for n in norms if n.moving_mean is not None and getattr(n, "can_move", True)]
    return bool(norms) and all(
        bool(np.all(norm.moving_mean.numpy() == 0))
        and bool(np.all(norm.moving_variance.numpy() == 1))
        for norm in norms
    )


def _set_flag(layer: Any, value: bool) -> None:
    """Set a layer's flag and that of everything inside it.

    TensorFlow's attribute tracking skips an assignment of the value that is there already, and with
    it what Keras would do to the variables and sublayers: those of a frozen layer that were set to
    train by themselves would go on training.
    """
    layer.trainable = not value
    layer.trainable = value


def _apply_batch_norm(layer: Any, trains: bool, policy: str) -> None:
    # What holds the statistics is the layer's own flag alone: training=False on the call, or a
    # frozen parent, does not in a functional model (Keras 3.15).
    _set_flag(layer, trains and policy == "train")
    if trains and policy == "affine":
        for variable in (layer.gamma, layer.beta):
            if variable is not None:
                variable.trainable = True
