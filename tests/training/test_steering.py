"""When to stop and which weights to keep; tests/training/test_run.py shows it over whole stages."""

import math
import time

import keras
import numpy as np
import pytest

from keras_transfer import Stage
from keras_transfer.training.inference import Inference
from keras_transfer.training.progress import Silent
from keras_transfer.training.steering import Steering, make_watch
from keras_transfer.training.validation import Validation


def network():
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="d")(inputs))


class Scores(Validation):
    """Held-out data whose (loss, score) are given, in turn."""

    def __init__(self, pairs, steers=True):
        self.pairs, self.steers, self.answers = iter(pairs), steers, None

    def __call__(self, inference):
        return next(self.pairs)


def make(pairs=(), steers=True, **options):
    model = network()
    options = {"target_score": None, "deadline": None, **options}
    return Steering(model, Inference(model), Scores(pairs, steers), **options)


def bias(steering, value):
    steering.network.get_layer("d").bias.assign(np.full(2, value))


def test_the_best_weights_come_back():
    steering = make([(0.5, 0.7), (0.6, 0.9), (0.1, 0.8)])
    for value in range(3):
        bias(steering, value)
        steering.score()
    steering.end_stage()
    assert steering.network.get_layer("d").bias.numpy().tolist() == [1, 1]
    assert (steering.best_loss, steering.best_score) == (0.6, 0.9)


def test_the_loss_decides_between_equal_scores_and_nan_is_the_worst():
    steering = make([(9.0, math.nan), (0.5, 0.7), (0.4, 0.7), (0.6, 0.7)])
    best = [steering.score() and steering.best_loss for _ in range(4)]
    assert best == [9.0, 0.5, 0.4, 0.4]


def test_what_only_measures_keeps_no_weights():
    steering = make([(0.5, 0.9), (0.6, 0.2)], steers=False)
    bias(steering, 3)
    steering.score()
    bias(steering, 4)
    assert steering.score() == {"val_loss": 0.6, "val_score": 0.2}
    steering.end_stage()
    assert steering.network.get_layer("d").bias.numpy().tolist() == [4, 4]
    assert steering.best_score == 0.2


def test_a_target_that_is_reached_ends_all():
    steering = make([(1, 0.4), (1, 0.5)], target_score=0.5)
    steering.score()
    assert not steering.is_over(0.0)
    steering.score()
    assert steering.is_over(0.0)
    assert steering.reason == "target score"


@pytest.mark.parametrize(("left", "over"), [(100, False), (1, True), (-1, True)])
def test_a_stage_begins_only_if_its_first_batch_ends_in_time(left, over):
    steering = make(deadline=time.monotonic() + left)
    assert steering.is_over(5.0) is over
    assert steering.reason == ("time budget" if over else "")


def test_a_stage_begins_only_if_its_validation_ends_in_time_too():
    steering = make(deadline=time.monotonic() + 100)
    steering.validation_seconds = 200.0
    steering.attend(steering.validation, steering.inference)
    assert steering.is_over(5.0)
    other = make(deadline=time.monotonic() + 100)
    other.validation_seconds = 200.0
    other.attend(Scores(()), other.inference)  # how long this one takes is not known
    assert not other.is_over(5.0)


def test_a_batch_begins_only_if_the_validation_ends_in_time_too():
    steering = make(deadline=time.monotonic() + 100)
    watch = make_watch(Stage("s", {"head": 0.1}, epochs=9), steering, Silent())
    watch.set_model(steering.network)
    for seconds, reason in ((0.0, ""), (200.0, "time budget")):
        steering.validation_seconds = seconds
        watch.on_train_batch_begin(0)
        watch.on_train_batch_end(0, {"loss": 1.0})
        assert watch.reason == steering.reason == reason
    assert steering.network.stop_training


def test_without_validation_there_is_no_score():
    steering = Steering(network(), None, None, None, None)
    assert steering.score() == {}
    steering.begin_stage()
    steering.end_stage()
    assert math.isnan(steering.best_score)
    assert not steering.is_over(1e9)
