"""Which blocks train: the ``train_blocks`` parameter, and what it names in a model."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from keras_transfer.backbones.partition import HEAD, Block
from keras_transfer.errors import InvalidParameterError, UnknownNameError
from keras_transfer.parameters import instance_of, integer, one_of, sequence_of

__all__ = ["AUTO_BLOCKS", "TRAIN_BLOCKS", "names_blocks", "names_none", "select_blocks"]

AUTO_BLOCKS = "auto"
TRAIN_BLOCKS = (
    integer(0) | one_of("all", AUTO_BLOCKS) | sequence_of(instance_of(str, "block names"))
)


def names_none(train_blocks: Any) -> bool:
    """Say whether a ``train_blocks`` parameter leaves all blocks frozen, whatever there are."""
    return isinstance(train_blocks, numbers.Integral) and train_blocks == 0


def names_blocks(train_blocks: Any) -> bool:
    """Say whether a ``train_blocks`` parameter asks for blocks that there must be."""
    return isinstance(train_blocks, (list, tuple)) or (
        isinstance(train_blocks, numbers.Integral) and int(train_blocks) > 0
    )


def select_blocks(train_blocks: Any, blocks: Sequence[Block]) -> tuple[str, ...]:
    """Resolve a ``train_blocks`` parameter.

    Parameters
    ----------
    train_blocks : int, "all" or sequence of str
        ``"auto"`` is refused: it takes training data to choose.
    blocks : sequence of Block
        The head among them.

    Returns
    -------
    tuple of str
        Names of backbone blocks, input side first.

    Raises
    ------
    InvalidParameterError
        If more are asked for than there are.
    UnknownNameError
        If a name is not among them.
    """
    names = [block.name for block in blocks if block.name != HEAD]
    why_one = next((block.whole_since for block in blocks if block.whole_since), "")
    if isinstance(train_blocks, str) and train_blocks == "all":
        return tuple(names)
    if isinstance(train_blocks, str) and train_blocks == AUTO_BLOCKS:
        raise InvalidParameterError(
            f"train_blocks: expected a number, 'all' or names of blocks ({', '.join(names)}) here. "
            f"Received: 'auto', which an estimator chooses on the training data: use "
            f"classifier() or regressor()."
        )
    if isinstance(train_blocks, numbers.Integral):
        n_last = int(train_blocks)
        if n_last > len(names):
            raise InvalidParameterError(
                f"train_blocks: expected at most {len(names)}, the number of blocks below the "
                f"readout ({', '.join(names)}). Received: {train_blocks}. Use 'all' for all."
                f"{why_one and f' There is one, since {why_one}.'}"
            )
        return tuple(names[len(names) - n_last :])
    for name in train_blocks:
        if name not in names:
            owner = f"the model{why_one and f', which has one, since {why_one}'}"
            raise UnknownNameError("train_blocks: block", name, names, owner)
    return tuple(name for name in names if name in set(train_blocks))
