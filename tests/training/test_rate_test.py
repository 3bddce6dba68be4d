"""The range test: its curve, what it chooses, and that all else is put back."""

import dataclasses
import math
import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import CompositeTransfer, ParameterTransfer, Stage, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import DivergedError
from keras_transfer.training import compiled, rate_test, run
from keras_transfer.training.batches import shuffled_batches
from keras_transfer.training.feed import Feed
from keras_transfer.training.random_state import isolated_seed

pytestmark = pytest.mark.usefixtures("empty_pool")

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, Y = tiny.pictures()
X, Y = X.astype("float32") / 64, np.unique(Y, return_inverse=True)[1]
# Dropout inside unit0, statistics that move, rates in proportion.
RATES = {"unit0_conv": 1e-4, "unit1_conv": 2e-4, "head": 4e-4}
STAGE = Stage("all", RATES, 2, batch_norm="train", rate_test=True)


def make(seed=0):
    with isolated_seed(seed):
        backbone = get_backbone(tiny.residual)
        return tiny.classifier(backbone, 3, input_shape=SHAPE, dropout=0.3)


def batches(scale=1.0):
    return shuffled_batches((X * np.float32(scale), Y), 8, 0)


def train(model, stages, sample=None, dataset=None, **options):
    with isolated_seed(0):  # TensorFlow's, too, by which batches are shuffled
        feeds = [
            Feed(dataset or batches(), rate_sample=batches() if sample is None else sample)
            for _ in stages
        ]
        return run.run_stages(model, read_blocks(model), stages, feeds, **options)


def assert_same_state(one, other):
    """Weights, and the states of random generators."""
    for a, b in zip(one.layers, other.layers, strict=True):
        for value, expected in zip(a.variables, b.variables, strict=True):
            np.testing.assert_array_equal(value.numpy(), expected.numpy())


def test_the_rates_rise_and_the_fall_of_the_loss_decides():
    (record,) = train(make(), [STAGE]).records
    curve = record.rate_curve
    assert len(curve.rates) == len(curve.losses) <= rate_test.TEST_STEPS
    expected = 1e-6 * 10 ** (np.arange(len(curve.rates)) / 10)
    np.testing.assert_allclose(curve.rates, expected)
    level, lowest = np.median(curve.losses[:10]), min(curve.losses)
    chosen = curve.rates.index(curve.chosen)
    assert curve.losses[chosen] <= level - 3 / 4 * (level - lowest) < min(curve.losses[10:chosen])
    assert 1e-5 < curve.chosen < 0.1
    # It ends where the loss explodes, or at the last rate.
    assert not math.isfinite(curve.losses[-1]) or (
        curve.losses[-1] > 4 * curve.losses[9] or len(curve.rates) == rate_test.TEST_STEPS
    )
    assert max(curve.losses[10:-1]) <= 4 * curve.losses[9]
    with pytest.raises(dataclasses.FrozenInstanceError):
        curve.chosen = 1.0


def test_a_loss_that_does_not_fall_keeps_the_rates():
    # Examples that do not count: the loss is 0 at each rate.
    sample = batches().map(lambda x, y: (x, y, tf.zeros(tf.shape(y))))
    (record,) = train(make(), [STAGE], sample).records
    assert record.rate_curve.chosen == 4e-4
    assert dict(record.stage.learning_rates) == RATES


def test_the_losses_are_those_of_single_batches_smoothed():
    """At rates at which nothing moves: each batch's own loss, known from the model as it is."""
    model = make()
    stage = Stage("s", {"head": 1.0}, 1, rate_test=True)
    sample = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy()
    (record,) = train(without_dropout(model), [stage], sample).records
    each = [float(loss(y, plain(x, training=False))) for x, y in sample]
    mean, expected = 0.0, []
    for step in range(4):
        mean = 0.8 * mean + 0.2 * each[step % 3]
        expected.append(mean / (1 - 0.8 ** (step + 1)))
    np.testing.assert_allclose(record.rate_curve.losses[:4], expected, rtol=2e-3)


def without_dropout(model):
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("average", [None, "ema"])
def test_nothing_else_changes(shared, average):
    """As with the rates given: weights, random states and history are equal to the bit."""
    tested, given = make(), make()
    stage = dataclasses.replace(STAGE, average=average)
    result = train(tested, [stage], shared=shared)
    (record,) = result.records
    chosen = record.rate_curve.chosen
    rates = dict(record.stage.learning_rates)
    expected = {"unit0_conv": chosen / 4, "unit1_conv": chosen / 2, "head": chosen}
    assert rates == pytest.approx(expected)
    assert {row.block: row.learning_rate for row in record.rows if row.learning_rate} == rates
    compiled._pool.clear()
    plain = dataclasses.replace(stage, learning_rates=rates, rate_test=False)
    other = train(given, [plain], shared=shared)
    assert other.records[0].rate_curve is None
    assert_same_state(tested, given)
    assert {**result.history, "seconds": 0} == {**other.history, "seconds": 0}


def test_the_same_seed_chooses_the_same():
    one, other = (train(make(), [STAGE], shared=True).records[0] for _ in range(2))
    assert one.rate_curve == other.rate_curve


def test_an_estimator_takes_the_batches_as_if_there_were_none():
    chosen = None
    fitted = []
    for rate in ("auto", chosen):
        recipe = ParameterTransfer(
            epochs=2, learning_rate=chosen or rate, layer_decay=0.5, augmentation=["flip"]
        )
        clf = recipe.classifier(
            tiny.settled(tiny.cnn, SHAPE), readout="last", random_state=0, guard=None
        ).fit(X * 64, Y)
        chosen = clf.stages_[-1].rate_curve.chosen if chosen is None else chosen
        fitted.append(clf)
    auto, given = fitted
    assert auto.stages_[0].stage.learning_rates["head"] == chosen
    assert auto.history_["learning_rate"] == [chosen] * 2
    for one, other in zip(auto.model_.get_weights(), given.model_.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("augmentation", [None, ["flip"]])
def test_datasets_of_ones_own(augmentation):
    results, models = [], []
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    chosen = None
    for rate in ("auto", None):
        recipe = CompositeTransfer(
            1, epochs=2, learning_rate=chosen or rate, augmentation=augmentation
        )
        with isolated_seed(0):
            models.append(recipe.build(tiny.settled(tiny.cnn, SHAPE), 3))
        results.append(recipe.fit(models[-1], dataset, verbose=False))
        chosen = chosen or results[0].records[-1].rate_curve.chosen
    head, blocks = results[0].records
    assert head.rate_curve is None
    assert blocks.stage.learning_rates["head"] == chosen
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_tested():
    with pytest.raises(DivergedError, match="learning_rate='auto' expected finite losses") as told:
        train(make(), [STAGE], batches(np.nan), batches(np.nan))
    assert "Received: nan" in str(told.value)
    assert "set learning_rate" in str(told.value)


# === When it ends ===


def slow(seconds):
    def wait(x, y):
        time.sleep(seconds)
        return x, y

    def read(x, y):
        inputs, targets = tf.py_function(wait, (x, y), (x.dtype, y.dtype))
        return tf.ensure_shape(inputs, x.shape), tf.ensure_shape(targets, y.shape)

    return batches().map(read)


def test_a_time_budget_ends_it():
    train(make(), [STAGE], shared=True)  # compiled
    began = time.monotonic()
    (record,) = train(make(), [STAGE], slow(0.1), shared=True, deadline=began + 4).records
    curve = record.rate_curve
    assert len(curve.rates) < 30
    assert curve.chosen == 4e-4
    assert dict(record.stage.learning_rates) == RATES


def test_the_next_stage_begins_only_if_it_can_be_compiled():
    (record,) = train(make(), [STAGE]).records
    # The test's first batch is the one that compiles.
    assert record.first_batch_seconds > 0.2


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_ctrl_c_undoes_it(earlier):
    wired = tiny.pressing(5)
    model, same = make(), make()
    stages = [Stage("head", {"head": 1e-2}, 1)][:earlier]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if earlier:
            result = train(model, [*stages, STAGE], batches().map(wired))
            assert result.interrupted
            assert [record.stage.name for record in result.records] == ["head"]
        else:
            with pytest.raises(KeyboardInterrupt):
                train(model, [STAGE], batches().map(wired))
    finally:
        signal.signal(signal.SIGINT, before)
    if earlier:
        train(same, stages)
    assert_same_state(model, same)
