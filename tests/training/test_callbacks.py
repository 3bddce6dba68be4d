"""Callbacks of the user's: a fresh one for each fit."""

import keras
import pytest
import tiny

from keras_transfer.errors import InvalidParameterError, InvalidTypeError
from keras_transfer.training.callbacks import fresh_callbacks


class Notes(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []


def test_none():
    assert fresh_callbacks(None) == fresh_callbacks([]) == fresh_callbacks(()) == []


def test_instances_are_copied():
    given = Notes()
    one, two = fresh_callbacks([given]), fresh_callbacks([given])
    one[0].seen.append(1)
    assert given.seen == two[0].seen == []
    assert type(one[0]) is Notes


def test_factories_are_called():
    given = [Notes, lambda: keras.callbacks.EarlyStopping("loss", patience=3)]
    one, two = fresh_callbacks(given), fresh_callbacks(given)
    assert one[0] is not two[0]
    assert [type(c) for c in one] == [Notes, keras.callbacks.EarlyStopping]


def test_refuses_what_holds_a_model():
    used = Notes()
    used.set_model(tiny.dense((3,)))
    with pytest.raises(InvalidParameterError, match=r"callbacks=\[lambda: Notes\(\.\.\.\)\]"):
        fresh_callbacks([used])


BAD = [3, "EarlyStopping", Notes(), [3], [lambda: 3], ["x"]]


@pytest.mark.parametrize("given", BAD, ids=range(len(BAD)))
def test_refuses(given):
    with pytest.raises(InvalidTypeError, match="callbacks: expected"):
        fresh_callbacks(given)
