"""Learning rates over time: the factor on them, and what a stage trains at."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Stage, StructureTransfer, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import InvalidParameterError
from keras_transfer.training.batches import shuffled_batches
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.schedules import SCHEDULES, rate_factor

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, Y = tiny.pictures()
X, Y = X.astype("float32"), np.unique(Y, return_inverse=True)[1]
RATES = {"conv2": 1e-3, "head": 1e-2}


def make():
    with isolated_seed(0):
        return tiny.classifier(get_backbone(tiny.cnn), 3, input_shape=SHAPE)


def batches():
    return shuffled_batches((X, Y), 8, 0)


class Rates(keras.callbacks.Callback):
    """Notes the rates that each step is made at, the highest first."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        parts = getattr(self.model.optimizer, "optimizers", [self.model.optimizer])
        self.seen.append(sorted((float(part.learning_rate) for part in parts), reverse=True))


FACTORS = {
    "constant": ("constant", None, [1, 1, 1, 1, 1]),
    "constant, warmed up": ("constant", 0.5, [0, 0.5, 1, 1, 1]),
    "cosine": ("cosine", None, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
    "cosine, warmed up": ("cosine", 0.5, [0, 0.5, 1, 0.5, 0]),
    "one cycle": ("one_cycle", 0.5, [0.04, 0.52, 1, 0.5, 0]),
    "rising all the time": ("one_cycle", 1.0, [0.04, 0.28, 0.52, 0.76, 1]),
    "not rising": ("one_cycle", 0.0, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0]),
}


@pytest.mark.parametrize("case", FACTORS)
def test_factors(case):
    schedule, warm_up, expected = FACTORS[case]
    factors = [rate_factor(schedule, quarter / 4, warm_up) for quarter in range(5)]
    assert factors == pytest.approx(expected)


def test_one_cycle_is_highest_after_its_own_warm_up():
    assert rate_factor("one_cycle", 0.3) == 1
    assert max(rate_factor("one_cycle", step / 100) for step in range(101) if step != 30) < 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_steps_than_were_announced(schedule):
    assert rate_factor(schedule, 1.5) == rate_factor(schedule, 1.0)


@pytest.mark.parametrize("shared", [False, True])
def test_each_step_is_made_at_its_rates(shared):
    stage = Stage("s", RATES, epochs=2, schedule="cosine", warm_up=0.5)
    rates = Rates()
    result = tiny.run_stages(
        make(), read_blocks(make()), [stage], batches(), callbacks=[rates], shared=shared
    )
    factors = [1 / 6, 3 / 6, 5 / 6, *((1 + np.cos(np.pi * np.array([1, 3, 5]) / 6)) / 2)]
    expected = np.outer(factors, [1e-2, 1e-3])
    np.testing.assert_allclose(rates.seen, expected, rtol=1e-6)
    assert result.history["learning_rate"] == pytest.approx([expected[2, 0], expected[5, 0]])


def test_nothing_is_set_where_nothing_moves():
    rates = Rates()
    stage = Stage("s", {"head": 1e-2}, epochs=2)

    class Halve(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate.assign(self.model.optimizer.learning_rate / 2)

    model = make()
    tiny.run_stages(model, read_blocks(model), [stage], batches(), callbacks=[Halve(), rates])
    np.testing.assert_allclose(np.ravel(rates.seen), 1e-2 / 2.0 ** np.arange(1, 7), rtol=1e-6)


def test_a_constant_schedule_of_no_warm_up_changes_nothing():
    weights = []
    for options in ({}, {"schedule": "constant", "warm_up": 0.0}):
        model = make()
        stage = Stage("s", RATES, epochs=2, **options)
        tiny.run_stages(model, read_blocks(model), [stage], batches())
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_schedules_share_what_is_compiled():
    made = []

    class Counting(keras.callbacks.Callback):
        def set_model(self, model):
            super().set_model(model)
            made.append(model.optimizer)

    model = make()
    stages = [
        Stage("one", RATES, epochs=1, schedule="one_cycle"),
        Stage("two", RATES, epochs=1),
    ]
    result = tiny.run_stages(model, read_blocks(model), stages, batches(), callbacks=[Counting()])
    assert made[0] is made[1]
    assert result.history["learning_rate"][1] == 1e-2


def test_a_single_step_moves_the_weights():
    model = make()
    stage = Stage("s", {"head": 1e-2}, epochs=1, schedule="cosine", warm_up=0.5)
    before = model.get_layer("head.logits").get_weights()[0]
    tiny.run_stages(model, read_blocks(model), [stage], batches().take(1))
    assert np.abs(model.get_layer("head.logits").get_weights()[0] - before).max() > 1e-3


def test_a_dataset_that_does_not_know_its_length():
    unknown = batches().filter(lambda x, y: True)
    stage = Stage("s", {"head": 1e-2}, epochs=1, schedule="cosine")
    model = make()
    with pytest.raises(InvalidParameterError, match="assert_cardinality"):
        tiny.run_stages(model, read_blocks(model), [stage], unknown)
    recipe = StructureTransfer(epochs=2, learning_rate=1e-2, schedule="cosine")  # it has counted
    result = recipe.fit(model, unknown, verbose=False)
    factors = (1 + np.cos(np.pi * np.array([2.5, 5.5]) / 6)) / 2
    assert result.history["learning_rate"] == pytest.approx(1e-2 * factors)
