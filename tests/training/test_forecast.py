"""A forecast says what the stages will take, and changes nothing of the training."""

import dataclasses
import math
import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import Stage, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import InvalidParameterError
from keras_transfer.training import compiled, forecast, rate_test
from keras_transfer.training.batches import ordered_batches, shuffled_batches
from keras_transfer.training.forecast import StageForecast, begins_after
from keras_transfer.training.progress import Silent
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.validation import Validation

X, Y = tiny.pictures()
X, Y = X.astype("float32"), np.unique(Y, return_inverse=True)[1]
STAGES = [
    Stage("head", {"head": 1e-2}, epochs=2),
    # Two rates, dropout inside unit0, and statistics that move.
    Stage("blocks", {"unit0_conv": 1e-3, "unit1_conv": 1e-3, "head": 1e-2}, 2, batch_norm="train"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch, empty_pool):
    """Time only as many batches as must be."""
    monkeypatch.setattr(forecast, "_TIMED_SECONDS", 0.0)


def make(build=tiny.residual, seed=0):
    with isolated_seed(seed):
        backbone = get_backbone(build)
        return tiny.classifier(backbone, 3, input_shape=(tiny.SIZE, tiny.SIZE, 3), dropout=0.3)


def batches():
    return shuffled_batches((X, Y), 8, 0)


def sample():
    """The same, as a dataset of its own."""
    return shuffled_batches((X[:16], Y[:16]), 8, 1)


def run(model, stages=STAGES, dataset=None, **options):
    with isolated_seed(0):
        dataset = batches() if dataset is None else dataset
        return tiny.run_stages(model, read_blocks(model), stages, dataset, **options)


def assert_same_state(one, other):
    """Weights, and the states of random generators."""
    for a, b in zip(one.layers, other.layers, strict=True):
        for value, expected in zip(a.variables, b.variables, strict=True):
            np.testing.assert_array_equal(value.numpy(), expected.numpy())


@pytest.mark.parametrize("shared", [False, True])
def test_the_training_is_the_same_to_the_bit(shared):
    options = {"shared": shared, "validation": Validation(ordered_batches((X, Y), 8))}
    plain, timed, again = make(), make(), make()
    expected = run(plain, **options)
    compiled._pool.clear()
    for model in (timed, again):  # freshly compiled by the forecast, and compiled before
        result = run(model, **options, sample=sample())
        assert {**result.history, "seconds": 0} == {**expected.history, "seconds": 0}
        assert result.score == expected.score
        assert_same_state(model, plain)
    assert [(f.stage, f.epochs, f.steps) for f in result.forecast] == [
        ("head", 2, 3),
        ("blocks", 2, 3),
    ]
    assert expected.forecast == []


def test_seedless_layers_draw_the_same():
    @keras.saving.register_keras_serializable("test_forecast")
    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            return x + keras.random.normal((1,), stddev=0.1) if training else x

    def build(shape):
        inputs = keras.Input(shape)
        x = keras.layers.Conv2D(4, 3, name="unit1_conv")(inputs)
        return keras.Model(inputs, Noise(name="noise")(x))

    stages = [Stage("all", {"unit1_conv": 1e-2, "head": 1e-2}, 2)]
    plain, timed = (
        run(make(build), stages, sample=given, shared=False).history["loss"]
        for given in (None, sample())
    )
    assert plain == timed


def test_more_stages_than_are_kept_are_not_compiled_twice(monkeypatch):
    monkeypatch.setattr(compiled, "_KEPT_STAGES", 2)
    made = []
    make_trainer = compiled.Trainer.__init__

    def count(self, *args, **kwargs):
        made.append(1)
        make_trainer(self, *args, **kwargs)

    monkeypatch.setattr(compiled.Trainer, "__init__", count)
    stages = [Stage(name, {"head": 1e-2}, 1, optimizer=name) for name in ("adam", "sgd", "lion")]
    result = run(make(), stages, sample=sample())
    assert [forecast.is_measured for forecast in result.forecast] == [True, True, False]
    assert len(made) == 3


def test_the_last_batch_of_another_size_is_compiled_before_it_is_timed():
    traced = []

    class Counting(Validation):
        def __call__(self, inference):
            (network,) = compiled._pool.values()
            traced.append(network._forwards[()][0].experimental_get_tracing_count())
            return super().__call__(inference)

    validation = Counting(ordered_batches((X[:20], Y[:20]), 8))
    run(make(), sample=sample(), validation=validation, shared=True)
    assert len(traced) > 2
    assert len(set(traced)) == 1


def test_a_forecast_ends_at_the_deadline():
    def slow():
        def wait(*batch):
            time.sleep(0.3)
            return batch

        waiting = sample().map(
            lambda *batch: tf.numpy_function(wait, batch, [d.dtype for d in batch])
        )
        return waiting

    spec = batches().element_spec
    slowly = slow().map(
        lambda *batch: tuple(
            tf.ensure_shape(part, each.shape) for part, each in zip(batch, spec, strict=True)
        )
    )
    run(make())  # compiled
    started = time.monotonic()
    result = run(make(), sample=slowly, deadline=started + 1.0)
    assert time.monotonic() - started < 3.0
    assert result.records


def test_nothing_is_compiled_twice():
    traced = []

    @keras.saving.register_keras_serializable("test_forecast")
    class Counting(keras.layers.Layer):
        def call(self, x):
            traced.append(1)
            return x

    def build(shape):
        inputs = keras.Input(shape)
        x = keras.layers.Conv2D(4, 3, name="unit1_conv")(inputs)
        return keras.Model(inputs, Counting(name="count")(x))

    def count(model, **options):
        traced.clear()
        run(model, stages, **options)
        return len(traced)

    model = make(build)
    block = read_blocks(model)[0].name
    stages = [Stage("head", {"head": 1e-2}, 2), Stage("all", {block: 1e-3, "head": 1e-2}, 2)]
    once = count(model)
    assert once > 0
    assert count(make(build), sample=sample()) == once


def test_says_what_the_stages_will_take():
    """Batches that take 0.05 s to read, and 0.03 s to validate."""

    def slow(seconds):
        def wait(x, y):
            time.sleep(seconds)
            return x, y

        def read(x, y):
            inputs, targets = tf.py_function(wait, (x, y), (x.dtype, y.dtype))
            return tf.ensure_shape(inputs, x.shape), tf.ensure_shape(targets, y.shape)

        return read

    validation = Validation(ordered_batches((X, Y), 4).map(slow(0.03)))
    shown = []

    class Shown(Silent):
        def show_forecast(self, *given):
            shown.append(given)

    result = run(
        make(),
        dataset=batches().map(slow(0.05)),
        sample=sample().map(slow(0.05)),
        validation=validation,
        display=Shown(),
    )
    for timed, record in zip(result.forecast, result.records, strict=True):
        assert timed.batch_seconds > 0.05
        assert timed.validation_seconds > 6 * 0.03
        assert timed.first_batch_seconds > 3 * timed.batch_seconds  # it compiles
        assert timed.seconds > 2 * (3 * 0.05 + 6 * 0.03)
        # The machine may be busy; compilation, several seconds, is not in either of them.
        assert timed.seconds / 3 < record.seconds < timed.seconds * 3
    assert shown == [(result.forecast, True, None)]


def test_a_range_test_takes_its_time():
    stage = dataclasses.replace(STAGES[0], rate_test=True)
    result = run(make(), [stage], sample=sample())
    (timed,) = result.forecast
    training = 2 * 3 * timed.batch_seconds
    assert timed.seconds > rate_test.TEST_STEPS * timed.batch_seconds
    assert timed.seconds > 5 * training
    assert result.records[0].rate_curve is not None


def test_quick_batches_are_timed_for_a_while(monkeypatch):
    monkeypatch.setattr(forecast, "_TIMED_SECONDS", 0.6)
    ended = []

    class Ended(Silent):
        def show_forecast(self, *given):
            ended.append(time.monotonic())

    validation = Validation(ordered_batches((X, Y), 8))
    options = {"display": Ended(), "validation": validation, "shared": True}
    run(make(), STAGES[:1], sample=sample(), **options)  # compiles
    began = time.monotonic()
    run(make(), STAGES[:1], sample=sample(), **options)
    assert 1.2 < ended[-1] - began < 5


def test_stages_of_few_and_of_many_batches():
    one = shuffled_batches((X, Y), 24, 0)
    (timed,) = run(make(), STAGES[:1], one, sample=one).forecast
    assert timed.steps == 1
    assert timed.seconds == pytest.approx(2 * timed.batch_seconds)
    many = shuffled_batches((X, Y), 2, 0)
    (timed,) = run(make(), STAGES[:1], many, sample=many).forecast
    assert timed.steps == 12
    assert timed.seconds > 2 * 11 * timed.batch_seconds


def test_a_dataset_that_does_not_know_its_length():
    dataset = batches().filter(lambda x, y: True)
    (timed,) = run(make(), STAGES[:1], dataset, sample=sample()).forecast
    assert timed.steps == 0
    assert timed.batch_seconds > 0
    assert math.isnan(timed.seconds)


def test_a_validation_that_does_not_know_its_length():
    """Batches are counted, and each takes its time."""

    def wait(x, y):
        time.sleep(0.05)
        return x, y

    def slowly(x, y, weights):
        inputs, targets = tf.py_function(wait, (x, y), (x.dtype, y.dtype))
        return tf.ensure_shape(inputs, x.shape), tf.ensure_shape(targets, y.shape), weights

    known = ordered_batches((X, Y, np.ones(len(Y), "float32")), 4).map(slowly)
    unknown = known.filter(lambda *batch: True)
    assert unknown.cardinality() == tf.data.UNKNOWN_CARDINALITY
    (timed,) = run(make(), STAGES[:1], sample=sample(), validation=Validation(unknown)).forecast
    assert timed.validation_seconds > 6 * 0.05
    assert timed.seconds > 2 * timed.validation_seconds


def test_an_optimizer_of_the_users_own_is_not_timed():
    class Mine(keras.optimizers.SGD):
        pass

    stages = [Stage("s", {"head": 1e-2}, 1, optimizer=Mine), STAGES[0]]
    result = run(make(), stages, sample=sample())
    assert [each.is_measured for each in result.forecast] == [False, True]
    assert len(result.records) == 2


def test_refuses_batches_of_another_kind():
    other = shuffled_batches((X.astype("uint8"), Y), 8, 0)
    with pytest.raises(InvalidParameterError, match="sample: expected batches like the dataset's"):
        run(make(), sample=other)


# === When it ends ===


def raises(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("handler", [signal.default_int_handler, raises])
def test_a_ctrl_c_leaves_all_as_it_was(shared, handler):
    wired = tiny.pressing(3)
    model, same, plain = make(), make(), make()
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(model, sample=sample().map(wired), shared=shared)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert_same_state(model, same)
    kept = [len(network._trainers) for network in compiled._pool.values()]
    assert kept == ([int(handler is not raises)] if shared else [])
    run(plain)
    run(model, shared=shared)
    assert_same_state(model, plain)


def test_after_the_deadline_nothing_is_timed():
    result = run(make(), sample=sample(), deadline=time.monotonic() - 1)
    assert [each.is_measured for each in result.forecast] == [False, False]
    assert [record.reason for record in result.records] == ["time budget"]


def test_a_stage_for_which_no_time_is_left_is_not_compiled():
    model, shown = make(), []

    class Shown(Silent):
        def show_forecast(self, *given):
            shown.append(given)

    stages = [Stage("head", {"head": 1e-2}, epochs=10**6), STAGES[1]]
    result = run(
        model,
        stages,
        sample=sample(),
        deadline=time.monotonic() + 5,
        shared=True,
        display=Shown(),
    )
    assert [each.is_measured for each in result.forecast] == [True, False]
    assert [record.reason for record in result.records] == ["time budget"]
    (network,) = compiled._pool.values()
    assert len(network._trainers) == 1
    ((_, may_stop_early, left),) = shown
    assert not may_stop_early
    assert 0 <= left < 5


def test_what_the_next_stage_takes_to_begin():
    timed = StageForecast("one", 2, 3, 20.0, 0.1, 0.0, 0.6)
    blank = StageForecast("two", 2, 3)
    assert begins_after([], 1, 3.0) == 3.0
    assert begins_after([timed, timed], 1, 3.0) == 3.0  # compiled already
    assert begins_after([timed, blank], 1, 3.0) == 20.0
    assert begins_after([blank, blank], 1, 3.0) == 3.0
