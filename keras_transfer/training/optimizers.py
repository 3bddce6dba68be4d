"""Optimizers: one for each learning rate of a stage, holding exactly the weights named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from keras_transfer.backbones.partition import Block, layers_by_block
from keras_transfer.errors import (
    FreezeError,
    InvalidParameterError,
    InvalidTypeError,
    UnknownNameError,
)
from keras_transfer.training.freezing import trained_weights
from keras_transfer.training.stage import Stage

__all__ = [
    "OPTIMIZERS",
    "build_optimizer",
    "check_optimizer",
    "held_weights",
    "make_optimizer",
    "plain_rate",
    "set_average",
    "set_rates",
    "trace_key",
]

# The steps that a moving average of the weights is over, as a share of those made so far: wherever
# a stage ends, hardly anything is left of its first weights. Of Keras's momentum of 0.99 it would
# be 22 % after 150 steps.
_AVERAGED_SHARE = 0.2

# Of a stage, what its compiled step does not depend on.
_NOT_TRACED = (
    "name",
    "epochs",
    "patience",
    "solver",
    "penalty",
    "schedule",
    "warm_up",
    "rate_test",
)
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "lion", "nadam", "adagrad")


def build_optimizer(model: Any, blocks: Sequence[Block], stage: Stage) -> Any:
    """Make the optimizer of a stage.

    Parameters
    ----------
    model : keras.Model
        As `freeze_for` left it.
    blocks : sequence of Block
    stage : Stage

    Returns
    -------
    keras.optimizers.Optimizer
        A plain one where all blocks share a rate, else a ``MultiOptimizer``: scaling gradients
        instead would do nothing under Adam, which divides by their size.
    """
    import keras

    rates = _distinct_rates(stage)
    flat = [weight for weight in model.trainable_weights if len(weight.shape) < 2]
    if len(rates) == 1:
        return _one(stage, rates[0], flat)
    by_rate = {rate: _one(stage, rate, flat) for rate in rates}
    for number, optimizer in enumerate(by_rate.values()):
        optimizer.name = f"{optimizer.name}_{number}"
    by_path = {
        weight.path: by_rate[stage.learning_rates[block]]
        for layer, block in layers_by_block(model, blocks)
        if block in stage.trained
        for weight in trained_weights(layer)
    }
    # Whole paths as keys: a pattern that matches nothing would go unnoticed.
    default = by_rate[rates[0]]
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(default, by_path))


def _distinct_rates(stage: Stage) -> list[float]:
    return sorted(set(stage.learning_rates.values()), reverse=True)


def set_rates(optimizer: Any, stage: Stage, factor: float = 1.0) -> None:
    """Set the learning rates; they are variables of the optimizer: nothing is compiled anew.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        From `build_optimizer`, for a stage of the same `trace_key`.
    stage : Stage
    factor : float, default=1.0
        On all rates of the stage.
    """
    rates = _distinct_rates(stage)
    if len(rates) == 1:
        optimizer.learning_rate = rates[0] * factor
        return
    for part in optimizer.optimizers:
        part.learning_rate = rates[int(part.name.rpartition("_")[2])] * factor


def set_average(optimizer: Any, steps: int) -> None:
    """Set over how many steps the moving average of the weights is; it is a variable, too.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        From `build_optimizer`, for a stage with ``average="ema"``.
    steps : int
        That were made: the average is over about the last fifth of them.
    """
    momentum = max(0.0, 1 - 1 / (_AVERAGED_SHARE * max(1, steps)))
    for part in getattr(optimizer, "optimizers", [optimizer]):
        part.ema_momentum.assign(momentum)


def trace_key(stage: Stage, task: str) -> str | None:
    """Return all that a compiled step of a stage depends on, beside the network.

    The rates are variables of the optimizer: only which blocks share one is compiled in.

    Returns
    -------
    str or None
        None for an optimizer that is not Keras's own: its name and settings may not tell all.
    """
    import keras

    optimizer = make_optimizer(stage.optimizer)
    if not type(optimizer).__module__.startswith("keras."):
        return None
    config = keras.optimizers.serialize(optimizer)
    config["config"].pop("learning_rate", None)
    config["config"].pop("name", None)
    rates = _distinct_rates(stage)
    # All but what is named here: a setting that is forgotten costs a compilation, no more.
    told = {field.name: getattr(stage, field.name) for field in fields(stage)}
    for name in _NOT_TRACED:
        del told[name]
    told |= {
        "task": task,
        "optimizer": config,
        "learning_rates": {
            block: rates.index(rate) for block, rate in stage.learning_rates.items()
        },
        "focal_gamma": stage.focal_gamma or None,
        # How they are mixed is not compiled in, but targets and metrics are others.
        "mix": stage.mix is not None,
    }
    return json.dumps(told, sort_keys=True, default=repr)


def held_weights(optimizer: Any) -> list[Any]:
    """List the weights that a built optimizer changes."""
    return list(optimizer._trainable_variables)  # Keras shows only the optimizer's own state


def check_optimizer(model: Any, optimizer: Any, stage: Stage) -> tuple[str, ...]:
    """Make sure that the optimizer holds exactly the weights that train.

    Returns
    -------
    tuple of str
        Their paths.

    Raises
    ------
    FreezeError
    """
    held = {id(weight): weight.path for weight in held_weights(optimizer)}
    named = {id(weight): weight.path for weight in model.trainable_weights}
    if held.keys() != named.keys():
        odd = sorted({**held, **named}[key] for key in held.keys() ^ named.keys())
        raise FreezeError(
            f"stage {stage.name!r}: expected the optimizer to hold the {len(named)} weights that "
            f"train. It holds {len(held)}; they differ in {odd[:3]}. Was "
            f"trainable changed between stages?"
        )
    return tuple(held.values())


def _one(stage: Stage, learning_rate: float, flat: Sequence[Any]) -> Any:
    """Make an optimizer at one rate; weights of fewer than two axes are flat."""
    import keras

    made = make_optimizer(stage.optimizer)
    plain_rate(made)
    made.learning_rate = learning_rate
    if stage.weight_decay is not None:
        made.weight_decay = stage.weight_decay
        made.exclude_from_weight_decay(var_list=flat)
    if stage.average == "ema":
        made.use_ema = True
        made.ema_momentum = keras.Variable(0.99, trainable=False, name="ema_momentum")
    return made


def plain_rate(optimizer: Any) -> float:
    """Return the learning rate of an optimizer that has one for all steps.

    Raises
    ------
    InvalidParameterError
        If it has a schedule: a stage sets its rate.
    """
    import keras

    if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        raise InvalidParameterError(
            f"optimizer: expected one with a plain learning rate, which each stage sets. "
            f"Received: {type(optimizer).__name__} with a "
            f"{type(optimizer._learning_rate).__name__}. Pass the rate as learning_rate."
        )
    return float(optimizer.learning_rate)


def make_optimizer(optimizer: Any) -> Any:
    """Make a new optimizer from a name or a callable without arguments.

    Raises
    ------
    UnknownNameError
    InvalidTypeError
    """
    import keras

    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", optimizer, OPTIMIZERS)
        return keras.optimizers.get(optimizer)
    made = optimizer() if callable(optimizer) else None
    if not isinstance(made, keras.optimizers.Optimizer):
        raise InvalidTypeError(
            f"optimizer: expected one of {', '.join(OPTIMIZERS)} or a callable without arguments "
            f"that returns a Keras optimizer. Received: {optimizer!r}."
        )
    return made
