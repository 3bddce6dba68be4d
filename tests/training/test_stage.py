"""Stage: a frozen, readable value."""

import copy
import pickle

import pytest

from keras_transfer import Stage
from keras_transfer.errors import InvalidParameterError, UnknownNameError


def test_is_a_value():
    rates = {"block1": 1e-4, "head": 1e-2}
    stage = Stage("two", rates, epochs=3)
    rates["block2"] = 1.0
    assert stage.trained == ("block1", "head")
    with pytest.raises(TypeError):
        stage.learning_rates["block1"] = 1.0
    with pytest.raises(AttributeError):
        stage.epochs = 4
    assert pickle.loads(pickle.dumps(stage)) == copy.deepcopy(stage) == stage


def test_at_another_rate_the_proportions_stay():
    stage = Stage("s", {"low": 1e-4, "high": 2e-4, "head": 3e-4}, 1).at_rate(0.1)
    assert dict(stage.learning_rates) == pytest.approx({"low": 1 / 30, "high": 2 / 30, "head": 0.1})
    assert stage.highest_rate == 0.1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"learning_rates": {}}, InvalidParameterError, "a block that trains"),
        ({"epochs": 0}, InvalidParameterError, "at least one epoch. Received: 0"),
        ({"batch_norm": "freeze"}, UnknownNameError, "Did you mean 'frozen'"),
        ({"label_smoothing": 1.0}, InvalidParameterError, "below 1. Received: 1.0"),
        ({"focal_gamma": -0.5}, InvalidParameterError, "0 or more. Received: -0.5"),
        ({"mix": "mix_up"}, UnknownNameError, "Did you mean 'mixup'"),
        ({"mix": "mixup", "solver": "exact"}, InvalidParameterError, "Take solver='gradient'"),
        ({"focal_gamma": 1.0, "solver": "exact"}, InvalidParameterError, "the plain loss"),
        ({"schedule": "cosine", "solver": "exact"}, InvalidParameterError, "no setting of steps"),
        ({"average": "ema", "solver": "exact"}, InvalidParameterError, "no setting of steps"),
        ({"schedule": "cosin"}, UnknownNameError, "Did you mean 'cosine'"),
        ({"average": "emma"}, UnknownNameError, "Did you mean 'ema'"),
        ({"warm_up": 1.5}, InvalidParameterError, "warm_up from 0 to 1, a share of the steps"),
        ({"warm_up": float("nan")}, InvalidParameterError, "Received: nan"),
        ({"weight_decay": -1}, InvalidParameterError, "weight_decay of 0 or more. Received: -1"),
    ],
)
def test_refuses(settings, error, message):
    with pytest.raises(error, match=message):
        Stage(**{"name": "x", "learning_rates": {"head": 0.1}, "epochs": 1, **settings})
