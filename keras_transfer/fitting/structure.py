"""Structure: where a network is read, and which of its blocks train, given or chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from keras_transfer.backbones.partition import Block
from keras_transfer.choosing.block_choice import BlockChoice, choose_blocks
from keras_transfer.choosing.readout_choice import (
    AUTO,
    ReadoutChoice,
    choose_readout,
    given_readout,
)
from keras_transfer.choosing.trial import Trial
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.readout import Readout, as_readout
from keras_transfer.recipe import Recipe
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.progress import Silent
from keras_transfer.training.train_blocks import AUTO_BLOCKS

__all__ = ["Structure", "choose_structure"]


@dataclass(frozen=True)
class Structure:
    """Where a network is read, and which of its blocks train.

    Attributes
    ----------
    blueprint : Blueprint
        That reads there.
    network : LazyNetwork
    readout : ReadoutChoice
    train_blocks : BlockChoice or None
        If they were left to choose.
    recipe : Recipe
        With these blocks in its place.
    """

    blueprint: Blueprint
    network: LazyNetwork
    readout: ReadoutChoice
    train_blocks: BlockChoice | None
    recipe: Recipe

    @property
    def blocks(self) -> list[Block]:
        """Of the network, the head last."""
        return self.network.outline.blocks

    @property
    def pretrained(self) -> bool:
        """Whether it starts from a source task's weights."""
        return not self.network.is_random


def choose_structure(
    blueprint: Blueprint,
    trial: Trial,
    recipe: Recipe,
    readout: Any,
    *,
    deadline: float | None,
    display: Silent,
) -> Structure:
    """Choose what was left to choose, on the training examples.

    Parameters
    ----------
    blueprint : Blueprint
        Of the model; what it reads is left open.
    trial : Trial
    recipe : Recipe
    readout : "auto", "last", str or Readout
    deadline : float or None
        On the clock of ``time.monotonic``.
    display : Silent
        Told what was chosen.
    """
    is_auto = isinstance(recipe.train_blocks, str) and recipe.train_blocks == AUTO_BLOCKS
    choice, read, reason = None, Readout(), "the last block: all is trained along"
    if readout != AUTO:
        read, reason = as_readout(readout), "given"
    elif recipe.chooses_readout:
        with display.counting("where to read", len(trial.targets)) as advance:
            choice = choose_readout(
                blueprint,
                trial,
                train_blocks=None if is_auto else recipe.train_blocks,
                advance=advance,
                deadline=deadline,
            )
        if choice.ranking:
            display.say(f"read at {choice}")
        read = choice.readout
    blueprint = replace(blueprint, readout=read)
    network = trial.network(blueprint)
    if choice is None:
        choice = given_readout(read, network, reason)
    chosen = None
    if is_auto:
        chosen = choose_blocks(network, trial, network.outline.blocks, deadline)
        display.say(f"trains {chosen}")
        recipe = recipe.replace(train_blocks=chosen.names)
    return Structure(blueprint, network, choice, chosen, recipe)
