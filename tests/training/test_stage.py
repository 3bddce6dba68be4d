"""Stage: a frozen, readable value."""

import copy
import pickle

import pytest

from keras_transfer import Stage
from keras_transfer.errors import InvalidParameterError


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
    ("settings", "expected"),
    [({}, False), ({"warm_up": 0.0}, False), ({"warm_up": 0.1}, True)],
    ids=str,
)
def test_whether_the_rates_move(settings, expected):
    assert Stage("s", {"head": 0.1}, 1, **settings).is_scheduled is expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rates": {}}, "a block that trains"),
        ({"learning_rates": {"head": -1.0}}, r"learning_rates: head: .*at least 0\. Received: -1"),
        ({"epochs": 0}, "epochs: expected an int of at least 1. Received: 0"),
        ({"epochs": 2.5}, "epochs: expected an int of at least 1. Received: 2.5"),
        ({"patience": -3}, "patience: expected an int of at least 1"),
        ({"batch_norm": "freeze"}, "Did you mean 'frozen'"),
        ({"label_smoothing": 1.0}, "below 1. Received: 1.0"),
        ({"focal_gamma": -0.5}, "focal_gamma: .*at least 0. Received: -0.5"),
        ({"mix": "mix_up"}, "Did you mean 'mixup'"),
        ({"mix": "mixup", "solver": "exact"}, r"mix='mixup'\. Take solver='gradient'"),
        ({"focal_gamma": 1.0, "solver": "exact"}, "for the plain loss. Received: focal_gamma=1.0"),
        ({"schedule": "cosine", "solver": "exact"}, "no setting of steps.*schedule='cosine'"),
        ({"average": "ema", "solver": "exact"}, "no setting of steps.*average='ema'"),
        ({"rate_test": True, "solver": "exact"}, "no setting of steps.*rate_test=True"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"average": "emma"}, "Did you mean 'ema'"),
        ({"warm_up": 1.5}, "warm_up: .*at most 1. Received: 1.5"),
        ({"warm_up": float("nan")}, "Received: nan"),
        ({"solver": "newton"}, "solver: expected one of 'gradient', 'exact'. Received: 'newton'"),
        ({"penalty": -1}, "penalty: .*at least 0. Received: -1"),
        ({"weight_decay": -1}, "weight_decay: .*at least 0. Received: -1"),
    ],
    ids=str,
)
def test_refuses(settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        Stage(**{"name": "x", "learning_rates": {"head": 0.1}, "epochs": 1, **settings})


def test_says_all_that_is_wrong():
    with pytest.raises(InvalidParameterError) as caught:
        Stage("x", {"head": 0.1}, 0, batch_norm="freeze", warm_up=2)
    assert str(caught.value).count("stage 'x': ") == 3
