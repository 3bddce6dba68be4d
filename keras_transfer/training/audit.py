"""What trains in a stage, block by block: the table shown before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.backbones.partition import Block, layers_by_block
from keras_transfer.training.freezing import trained_weights
from keras_transfer.training.stage import Stage

__all__ = ["AuditRow", "audit"]


@dataclass(frozen=True)
class AuditRow:
    """One block in one stage.

    Attributes
    ----------
    block : str
    parameters : int
        Numbers in the block's weights.
    trained : int
        How many of them the optimizer changes.
    learning_rate : float or None
        None where nothing trains; NaN where a head is solved.
    batch_norm : str
        The policy in force, or ``"-"`` where the block has no BatchNorm.
    """

    block: str
    parameters: int
    trained: int
    learning_rate: float | None
    batch_norm: str


def audit(model: Any, blocks: Sequence[Block], stage: Stage) -> list[AuditRow]:
    """Read from a frozen model what will train.

    Parameters
    ----------
    model : keras.Model
        As `freeze_for` left it: the whole, or the part of it that trains.
    blocks : sequence of Block
        Of the whole.
    stage : Stage

    Returns
    -------
    list of AuditRow
        One for each block, input side first.
    """
    trained = dict.fromkeys((block.name for block in blocks), 0)
    for layer, name in layers_by_block(model, blocks):
        if name:
            trained[name] += sum(math.prod(weight.shape) for weight in trained_weights(layer))
    rows = []
    for block in blocks:
        trains = block.name in stage.trained
        policy = (stage.batch_norm if trains else "frozen") if block.batch_norm else "-"
        rate = stage.learning_rates.get(block.name)
        if trains and stage.solver == "exact":
            rate = math.nan
        rows.append(AuditRow(block.name, block.parameters, trained[block.name], rate, policy))
    return rows
