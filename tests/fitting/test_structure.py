"""Where a network is read, and which of its blocks train: given or chosen."""

import numpy as np
import pytest
import tiny

from keras_transfer import CompositeTransfer, ParameterTransfer, Readout, StructureTransfer
from keras_transfer.choosing.trial import Trial
from keras_transfer.fitting.structure import choose_structure
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.heads import Head
from keras_transfer.training.progress import Silent

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, Y = tiny.pictures()
X, Y = X.astype("float32"), np.unique(Y, return_inverse=True)[1]


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def choose(recipe, readout="auto"):
    keys = [bytes([row]) * 16 for row in range(len(X))]
    trial = Trial(X, keys, Y, "multiclass", 3, np.ones(len(X)))
    blueprint = Blueprint(
        tiny.settled(tiny.cnn, SHAPE), Head("multiclass", 3, 0.0), SHAPE, Readout(), 0
    )
    display = Listening()
    return choose_structure(
        blueprint, trial, recipe, readout, deadline=None, display=display
    ), display.said


def test_what_is_given_stands():
    recipe = StructureTransfer(train_blocks=1)
    found, said = choose(recipe, "last")
    assert found.readout.reason == "given"
    assert found.recipe is recipe
    assert found.train_blocks is None
    assert found.blocks[-1].name == "head"
    assert found.pretrained
    assert said == []


def test_what_is_left_open_is_chosen_and_said():
    found, said = choose(StructureTransfer())
    assert "chosen among" in found.readout.reason
    assert found.blueprint.readout == found.readout.readout
    assert said == [f"read at {found.readout}"]


@pytest.mark.parametrize("readout", ["auto", "last"])
def test_blocks_are_chosen_below_the_readout(readout):
    recipe = CompositeTransfer(train_blocks="auto", epochs=3)
    found, said = choose(recipe, readout)
    names = [block.name for block in found.blocks]
    assert set(found.train_blocks.names) < set(names)
    assert found.recipe.train_blocks == found.train_blocks.names
    assert found.recipe.epochs == 3
    assert recipe.train_blocks == "auto"  # the user's own is as it was
    assert said[-1] == f"trains {found.train_blocks}"


def test_where_all_is_trained_along_the_last_is_read():
    found, _ = choose(ParameterTransfer())
    assert found.readout.reason == "the last block: all is trained along"
    assert found.readout.readout == choose(ParameterTransfer(), "last")[0].readout.readout
