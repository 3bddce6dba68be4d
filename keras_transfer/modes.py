"""The three transfer modes: what trains, in which stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_transfer.backbones.partition import Block
from keras_transfer.errors import InvalidTypeError, UnknownNameError
from keras_transfer.parameters import NONE, Constraint, one_of
from keras_transfer.recipe import Recipe
from keras_transfer.training.averaging import WISE
from keras_transfer.training.train_blocks import TRAIN_BLOCKS, select_blocks

__all__ = [
    "RECIPES",
    "CompositeTransfer",
    "ParameterTransfer",
    "StructureTransfer",
    "as_recipe",
]


class ParameterTransfer(Recipe):
    """Start from the source's weights and train on from all of them.

    What the field calls full fine-tuning.

    Parameters
    ----------
    train_blocks, epochs, learning_rate, ...
        As for `Recipe`; ``train_blocks=None`` trains all.

    Examples
    --------
    >>> from keras_transfer import ParameterTransfer
    >>> ParameterTransfer(learning_rate=1e-4)
    ParameterTransfer(learning_rate=0.0001)
    """

    chooses_readout = False

    def plan(self, blocks: Sequence[Block]) -> list[tuple[str, Sequence[str]]]:
        """Plan one stage with the blocks and the head."""
        train_blocks = "all" if self.train_blocks is None else self.train_blocks
        return [("fine-tuning", select_blocks(train_blocks, blocks))]


class StructureTransfer(Recipe):
    """Keep the source's structure frozen; train the head and only the blocks named.

    What the field calls feature extraction, a linear probe, or partial fine-tuning.

    Parameters
    ----------
    train_blocks, epochs, learning_rate, ...
        As for `Recipe`; ``train_blocks=None`` trains no block, the head alone.

    Examples
    --------
    >>> from keras_transfer import StructureTransfer
    >>> StructureTransfer(train_blocks=2, dropout=0.2)
    StructureTransfer(dropout=0.2, train_blocks=2)
    """

    def plan(self, blocks: Sequence[Block]) -> list[tuple[str, Sequence[str]]]:
        """Plan one stage with the head and the blocks named."""
        trained = select_blocks(self.train_blocks or 0, blocks)
        return [("head and blocks" if trained else "head", trained)]

    @property
    def _is_head_alone(self) -> bool:
        return self.train_blocks is None or super()._is_head_alone


class CompositeTransfer(Recipe):
    """Structure transfer first, then parameter transfer, stage by stage.

    The head is trained on the frozen source first, so that what reaches the blocks afterwards is
    not the noise of a random head: linear probing, then fine-tuning.

    Parameters
    ----------
    train_blocks, epochs, learning_rate, ...
        As for `Recipe`; ``train_blocks=None`` trains all after the head. ``"gradual"`` trains them
        in turn, from the last down, a stage each.

    References
    ----------
    Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution"
    (2022, arXiv 2202.10054). Howard and Ruder, "Universal Language Model Fine-tuning for Text
    Classification" (2018, arXiv 1801.06146), for gradual unfreezing.

    Examples
    --------
    >>> from keras_transfer import CompositeTransfer
    >>> CompositeTransfer(train_blocks=2)
    CompositeTransfer(train_blocks=2)
    """

    _constraints: Mapping[str, Constraint] = {
        **Recipe._constraints,
        "train_blocks": NONE | TRAIN_BLOCKS | one_of("gradual"),
        "average": Recipe._constraints["average"] | one_of(WISE),
    }

    def plan(self, blocks: Sequence[Block]) -> list[tuple[str, Sequence[str]]]:
        """Plan the head's stage, then one with the blocks, or one for each block."""
        head: tuple[str, Sequence[str]] = ("head", ())
        train_blocks = "all" if self.train_blocks is None else self.train_blocks
        if isinstance(train_blocks, str) and train_blocks == "gradual":
            names = reversed(select_blocks("all", blocks))
            trained: list[str] = []
            stages = [head]
            for name in names:
                trained.insert(0, name)
                stages.append((f"from {name}", tuple(trained)))
            return stages
        found = select_blocks(train_blocks, blocks)
        return [head, ("fine-tuning", found)] if found else [head]


RECIPES: dict[str, type[Recipe]] = {
    "parameter": ParameterTransfer,
    "structure": StructureTransfer,
    "composite": CompositeTransfer,
}


def as_recipe(value: Any) -> Recipe:
    """Turn a mode's name or a `Recipe` into a `Recipe`.

    Raises
    ------
    UnknownNameError
    InvalidTypeError
    """
    if isinstance(value, Recipe):
        return value
    if isinstance(value, str):
        if value not in RECIPES:
            raise UnknownNameError("recipe", value, RECIPES)
        return RECIPES[value]()
    raise InvalidTypeError(
        f"recipe: expected one of {', '.join(RECIPES)} or a Recipe instance. Received: {value!r} "
        f"(type {type(value).__name__})."
    )
