"""The seeds of a fit, and the settings of who takes the source's place."""

import time

import numpy as np

from keras_transfer import CompositeTransfer, Readout, StructureTransfer, get_backbone
from keras_transfer.choosing.guard import Rival
from keras_transfer.fitting.settings import FitSettings, Seeds
from keras_transfer.training.progress import Silent
from keras_transfer.training.validation import default_score

RIVAL = Rival(
    name="raw pixels",
    loss=0.1,
    right=0.9,
    evidence=2.0,
    backbone=get_backbone("MobileNetV2", weights=None),
    readout=Readout("last"),
)


def settings(**changes):
    options = {
        "backbone": get_backbone("EfficientNetLite0"),
        "recipe": CompositeTransfer(epochs=7),
        "readout": "auto",
        "batch_size": 32,
        "validation": "auto",
        "score": default_score("multiclass"),
        "target_score": None,
        "deadline": None,
        "calibration": "auto",
        "guard": "best",
        "memory": None,
        "callbacks": [],
        "seeds": Seeds.draw(np.random.RandomState(0)),
        "display": Silent(),
    }
    return FitSettings(**{**options, **changes})


def test_seeds_follow_the_random_state():
    one, same = (Seeds.draw(np.random.RandomState(3)) for _ in range(2))
    state = np.random.RandomState(3)
    assert one == same == Seeds.draw(state)
    other = Seeds.draw(state)  # the stream has moved on
    values = [*vars(one).values(), *vars(other).values()]
    assert len(set(values)) == 10
    assert all(type(value) is int and 0 <= value < 2**31 for value in values)


def test_a_rival_is_a_head_alone_that_nobody_compares():
    given = settings()
    taken = given.of_rival(RIVAL)
    assert (taken.backbone, taken.readout) == (RIVAL.backbone, RIVAL.readout)
    assert isinstance(taken.recipe, StructureTransfer)
    assert taken.recipe.get_params() == StructureTransfer().get_params()
    assert taken.guard is None
    assert taken.deadline is None
    assert (taken.seeds, taken.batch_size) == (given.seeds, given.batch_size)


def test_it_has_a_second_left():
    now = time.monotonic()
    assert not settings(deadline=now + 60).is_late
    assert settings(deadline=now - 60).is_late
    assert settings(deadline=now - 60).of_rival(RIVAL).deadline >= now + 1
    assert settings(deadline=now + 60).of_rival(RIVAL).deadline == now + 60
