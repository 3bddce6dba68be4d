"""A trial answers by exact heads on what a network reads, for examples they have not seen."""

import time

import numpy as np
import pytest
import tiny

from keras_transfer.choosing.out_of_fold import out_of_fold
from keras_transfer.choosing.trial import Trial
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.heads import Head
from keras_transfer.graph.readout import Readout
from keras_transfer.store.activation_store import Memory

pytestmark = pytest.mark.usefixtures("empty_store")

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, Y = tiny.pictures()
X, Y = X.astype("float32"), np.unique(Y, return_inverse=True)[1]
KEYS = [bytes([row]) * 16 for row in range(len(X))]
BLUEPRINT = Blueprint(
    tiny.settled(tiny.cnn, SHAPE), Head("multiclass", 3, 0.0), SHAPE, Readout(), 0
)


def trial(**changes):
    return Trial(X, KEYS, Y, "multiclass", 3, np.ones(len(X)), **changes)


def test_answers_are_those_of_heads_on_the_features(computed):
    found = trial().answer_from(BLUEPRINT)
    features = BLUEPRINT.backbone.load()(X).numpy().mean(axis=(1, 2))
    expected = out_of_fold(features, Y, "multiclass", n_outputs=3)
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)
    np.testing.assert_allclose(found.hits, expected.hits)
    assert computed == [len(X)]


@pytest.mark.parametrize("memory", [None, Memory()])
def test_after_the_deadline_nothing_is_answered(computed, memory):
    given = trial(memory=memory)
    if memory is not None:  # also where the answer is at hand
        given.answer_from(BLUEPRINT)
        computed.clear()
    assert given.answer_from(BLUEPRINT, time.monotonic() - 1) is None
    assert computed == []
    assert given.answer_from(BLUEPRINT, time.monotonic() + 600) is not None
