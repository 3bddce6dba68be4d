"""The moving average of the weights: what is validated, kept, and left at a stage's end."""

import signal

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Stage, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.training.averaging import set_share
from keras_transfer.training.batches import ordered_batches, shuffled_batches
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.validation import Validation

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, Y = tiny.pictures()
X, Y = X.astype("float32"), np.unique(Y, return_inverse=True)[1]
RATES = {"one rate": {"head": 1e-2}, "two rates": {"conv2": 1e-3, "head": 1e-2}}
EPOCHS, STEPS = 4, 3


def make():
    with isolated_seed(0):
        return tiny.classifier(get_backbone(tiny.cnn), 3, input_shape=SHAPE)


def run(model, stages, **options):
    with isolated_seed(0):
        return tiny.run_stages(
            model, read_blocks(model), stages, shuffled_batches((X, Y), 8, 0), **options
        )


def stage(rates, average="ema", **options):
    return Stage("s", rates, EPOCHS, average=average, **options)


class Weights(keras.callbacks.Callback):
    """Notes the weights that train, after each step and each epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.epochs, self.begun = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(self._values())

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self._values())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self._values())

    def _values(self):
        return [weight.numpy() for weight in self.model.trainable_weights]


def averages(steps):
    """By hand: of the weights after each step, over the last fifth of the steps so far."""
    mean, means = steps[0], []
    for number, weights in enumerate(steps, 1):
        momentum = max(0, 1 - 5 / number)
        pairs = zip(mean, weights, strict=True)
        mean = [momentum * old + (1 - momentum) * new for old, new in pairs]
        means.append(mean)
    return means


def assert_close(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_is_the_average_by_hand(rates):
    model, seen, plain = make(), Weights(), Weights()
    scored = []

    def score(targets, outputs, weights):
        scored.append([weight.numpy() for weight in model.trainable_weights])
        return 0.5

    held = Validation(ordered_batches((X, Y), 8), score=score, steers=False)
    run(model, [stage(rates)], callbacks=[seen], validation=held)
    run(make(), [stage(rates, None)], callbacks=[plain])
    for one, other in zip(seen.steps, plain.steps, strict=True):  # what trains is not touched
        assert_equal(one, other)
    assert_equal(seen.begun[1], seen.steps[STEPS - 1])
    means = averages(seen.steps)
    for epoch in range(EPOCHS):
        mean = means[(epoch + 1) * STEPS - 1]
        assert_close(scored[epoch], mean)
        assert_equal(seen.epochs[epoch], scored[epoch])
    assert_equal([weight.numpy() for weight in model.trainable_weights], scored[-1])
    assert np.abs(means[-1][0] - seen.steps[-1][0]).max() > 1e-4


def test_the_best_weights_are_averages():
    model, seen = make(), Weights()
    values = iter([0.1, 0.9, 0.2, 0.3])
    held = Validation(ordered_batches((X, Y), 8), score=lambda *given: next(values))
    run(model, [stage(RATES["two rates"])], callbacks=[seen], validation=held)
    assert_equal([weight.numpy() for weight in model.trainable_weights], seen.epochs[1])


def test_what_is_frozen_stays():
    model = make()
    before = {weight.path: weight.numpy() for weight in model.weights}
    run(model, [stage(RATES["two rates"], batch_norm="affine")])
    moved = {
        weight.path.partition(".")[0]
        for weight in model.weights
        if not np.array_equal(weight.numpy(), before[weight.path])
    }
    assert moved == {"conv2", "head"}


def test_a_stage_after_it_begins_there():
    one, both = make(), make()
    first = stage(RATES["one rate"])
    seen = Weights()
    run(one, [first])
    run(both, [first, Stage("t", RATES["one rate"], 1)], callbacks=[seen])
    assert_equal(
        seen.begun[EPOCHS], [weight.numpy() for weight in one.get_layer("head.logits").weights]
    )


@pytest.mark.parametrize("shared", [False, True])
def test_twice_the_same(shared):
    weights = []
    for _ in range(2):
        model = make()
        run(model, [stage(RATES["two rates"])], shared=shared)
        weights.append(model.get_weights())
    assert_equal(*weights)


def test_other_steps_take_what_is_compiled():
    made = []

    class Counting(keras.callbacks.Callback):
        def set_model(self, model):
            super().set_model(model)
            made.append(model.optimizer)

    short = Stage("short", RATES["one rate"], 1, average="ema")
    run(make(), [stage(RATES["one rate"]), short], callbacks=[Counting()])
    assert made[0] is made[1]
    assert float(made[0].ema_momentum) == 0  # of 3 steps the last fifth is the last one


@pytest.mark.parametrize("number", [2, STEPS + 2])
def test_a_ctrl_c_leaves_the_average(number):
    class Press(Weights):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if len(self.steps) == number:
                signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    model, seen = make(), Press()
    try:
        result = run(model, [stage(RATES["two rates"])], callbacks=[seen])
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.interrupted
    assert len(seen.steps) == number
    left = [weight.numpy() for weight in model.trainable_weights]
    assert_close(left, averages(seen.steps)[-1])


def test_the_model_is_handed_over_without(tmp_path):
    model = make()
    run(model, [stage(RATES["two rates"])])
    assert not any(part.use_ema for part in model.optimizer.optimizers)
    model.save(tmp_path / "model.keras")
    assert_equal(
        keras.models.load_model(tmp_path / "model.keras").get_weights(), model.get_weights()
    )


def test_set_share():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    start = [np.array([[1.0], [0.1]], np.float32), np.array([3.0], np.float32)]
    end = [np.array([[2.0], [0.1]], np.float32), np.array([7.0], np.float32)]
    for share, kernel, bias in ((0.0, 1.0, 3.0), (0.25, 1.25, 4.0), (1.0, 2.0, 7.0)):
        set_share(model, start, end, share)
        got = model.get_weights()
        assert got[0][0] == kernel
        assert got[0][1] == np.float32(0.1)  # what did not move stays to the bit
        assert got[1] == bias
