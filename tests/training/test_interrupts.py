"""Ctrl-C while stages run: what was learned is kept, and what trained can train again."""

import math
import os
import signal
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import Stage, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.training import compiled
from keras_transfer.training.batches import ordered_batches, shuffled_batches
from keras_transfer.training.interrupts import Interrupts
from keras_transfer.training.progress import Silent
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.validation import Validation

X, Y = tiny.pictures()
X, Y = X.astype("float32"), np.unique(Y, return_inverse=True)[1]
STEPS = 3  # of 8 pictures
HEAD = Stage("head", {"head": 1e-2}, epochs=3)
BLOCKS = Stage("blocks", {"unit1_conv": 1e-3, "head": 1e-2}, epochs=2, batch_norm="train")


@pytest.fixture(autouse=True)
def as_in_a_terminal(empty_pool):
    """Workers of pytest-xdist ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    signal.raise_signal(signal.SIGINT)


class At(keras.callbacks.Callback):
    """Does something at the n-th call of a hook."""

    def __init__(self, hook, number, action=press):
        super().__init__()
        self.number, self.action = number, action
        setattr(self, hook, self._count)

    def _count(self, *args, **kwargs):
        self.number -= 1
        if self.number == 0:
            self.action()


def make(seed=0):
    with isolated_seed(seed):
        backbone = get_backbone(tiny.residual)
        return tiny.classifier(backbone, 3, input_shape=(tiny.SIZE, tiny.SIZE, 3), dropout=0.3)


def run(model, *callbacks, stages=(HEAD, BLOCKS), **options):
    with isolated_seed(0):
        data = shuffled_batches((X, Y), 8, 0)
        return tiny.run_stages(
            model, read_blocks(model), stages, data, callbacks=callbacks, **options
        )


def scored(model, values, **options):
    """Held-out data with given scores, and the weights that each was given for."""
    seen = []

    def score(targets, outputs, weights):
        seen.append(model.get_weights())
        return values[len(seen) - 1]

    return Validation(ordered_batches((X, Y), 8), score=score, **options), seen


def assert_same(weights, others):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)


def outcome(result):
    return [(record.stage.name, record.reason, record.epochs) for record in result.records]


def rows(result):
    (length,) = {len(column) for column in result.history.values()}
    return length


# === What is kept ===

# hook, which call; epochs that ended, the best of them
MOMENTS = {
    "after a batch": ("on_train_batch_end", 2 * STEPS + 2, 2, 0),
    "before a batch": ("on_train_batch_begin", 2 * STEPS + 2, 2, 0),
    "after the last batch of an epoch": ("on_train_batch_end", 2 * STEPS, 1, 0),
    "at an epoch's end": ("on_epoch_end", 2, 2, 0),
    "at the end of the last epoch": ("on_epoch_end", 3, 3, 2),
    "at the end of the stage": ("on_train_end", 1, 3, 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_best_weights_come_back(moment):
    hook, number, epochs, best = MOMENTS[moment]
    model = make()
    frozen = model.get_layer("stem.stem").get_weights()
    validation, seen = scored(model, [0.7, 0.2, 0.8])
    result = run(model, At(hook, number), validation=validation)
    assert result.interrupted
    assert outcome(result) == [("head", "interrupted", epochs)]
    assert rows(result) == len(seen) == epochs
    assert result.score == [0.7, 0.2, 0.8][best]
    assert_same(model.get_weights(), seen[best])
    assert_same(model.get_layer("stem.stem").get_weights(), frozen)
    assert model.optimizer is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_the_middle_of_a_validation():
    """A real Ctrl-C, which another thread notices first."""
    model = make()
    validation, seen = scored(model, [0.7, 0.2, 0.8])
    batches = []

    def read(x, y):
        batches.append(1)
        if len(batches) == STEPS + 2:
            os.kill(os.getpid(), signal.SIGINT)
        return x, y

    def kept(x, y):
        inputs, targets = tf.py_function(read, (x, y), (x.dtype, y.dtype))
        return tf.ensure_shape(inputs, x.shape), tf.ensure_shape(targets, y.shape)

    validation.dataset = validation.dataset.map(kept)
    result = run(model, validation=validation)
    assert outcome(result) == [("head", "interrupted", 1)]
    assert len(seen) == rows(result) == 1
    assert_same(model.get_weights(), seen[0])


def test_an_earlier_stage_may_hold_the_best():
    model = make()
    validation, seen = scored(model, [0.7, 0.9, 0.2, 0.3, 0.4])
    result = run(model, At("on_train_batch_end", 4 * STEPS + 1), validation=validation)
    assert outcome(result) == [("head", "epochs", 3), ("blocks", "interrupted", 1)]
    assert rows(result) == 4
    assert_same(model.get_weights(), seen[1])
    assert result.score == 0.9


@pytest.mark.parametrize("few", [False, True], ids=["no validation", "it only measures"])
def test_without_steering_the_weights_stay_as_they_stand(few):
    model, kept = make(), []
    validation = scored(model, [0.7, 0.2, 0.8], steers=False)[0] if few else None

    def stop():
        kept.append(model.get_weights())
        press()

    result = run(model, At("on_train_batch_end", STEPS + 1, stop), validation=validation)
    assert outcome(result) == [("head", "interrupted", 1)]
    assert_same(model.get_weights(), kept[0])
    assert math.isnan(result.score)  # nobody measured these


def test_what_was_measured_last_keeps_its_score():
    model = make()
    validation, _ = scored(model, [0.7, 0.2], steers=False)
    assert run(model, At("on_epoch_end", 2), validation=validation).score == 0.2


@pytest.mark.parametrize("number", [1, STEPS])
def test_in_the_first_epoch_the_history_is_empty(number):
    result = run(make(), At("on_train_batch_end", number))
    assert outcome(result) == [("head", "interrupted", 0)]
    assert result.history == {"stage": [], "epoch": []}


# === Before the first batch ===


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("hook", ["on_train_begin", "on_train_batch_begin"])
def test_before_anything_is_learned_it_is_raised(hook, shared):
    model, before = make(), make()
    with pytest.raises(KeyboardInterrupt):
        run(model, At(hook, 1), shared=shared)
    assert_same(model.get_weights(), before.get_weights())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("shared", [False, True])
def test_a_later_stage_that_learned_nothing_is_left_out(shared):
    model, alone = make(), make()
    expected = run(alone, stages=[HEAD], shared=shared)
    result = run(model, At("on_train_batch_begin", HEAD.epochs * STEPS + 1), shared=shared)
    assert result.interrupted
    assert outcome(result) == [("head", "epochs", 3)]
    assert result.history["loss"] == expected.history["loss"]
    assert_same(model.get_weights(), alone.get_weights())
    paths = [weight.path for weight in model.trainable_weights]
    assert paths == [weight.path for weight in alone.trainable_weights]


# === Training again ===


def twice():
    press()
    press()


def raised():
    raise KeyboardInterrupt


# what is done, at which batch; how many of the two stages stay compiled
AGAIN = {
    "once": (press, STEPS + 1, 1),
    "while it is compiled": (press, 1, 1),
    "twice": (twice, STEPS + 1, 0),
    "another handler": (raised, STEPS + 1, 0),
    "twice in the second stage": (twice, 3 * STEPS + 2, 1),
}


@pytest.mark.parametrize("kind", AGAIN)
def test_the_next_fit_on_the_shared_network_is_the_same_to_the_bit(kind):
    action, number, n_kept = AGAIN[kind]
    fresh, other, again = make(), make(5), make()
    expected = run(fresh, shared=True).history["loss"]
    compiled._pool.clear()
    with isolated_seed(3):
        at = At("on_train_batch_begin", number, action)
        if number == 1:
            with pytest.raises(KeyboardInterrupt):
                run(other, at, shared=True)
        else:
            assert run(other, at, shared=True).interrupted
    (network,) = compiled._pool.values()
    assert len(network._trainers) == n_kept
    assert not network.lock.locked()
    assert run(again, shared=True).history["loss"] == expected
    assert_same(again.get_weights(), fresh.get_weights())
    assert list(compiled._pool.values()) == [network]


def test_a_forward_pass_is_kept_only_when_it_was_traced_whole(monkeypatch):
    network = compiled.CompiledNetwork(make())
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "__call__", lambda *_, **__: press())
        with pytest.raises(KeyboardInterrupt):
            network.forward(network.network, X[:2])
    assert not network._forwards
    network.forward(network.network, X[:2])
    assert network._forwards


# === The second Ctrl-C ===


def test_the_second_one_stops_at_once():
    model, reached = make(), []

    def stop():
        press()
        reached.append(1)
        press()
        reached.append(2)

    result = run(model, At("on_train_batch_begin", STEPS + 2, stop))
    assert outcome(result) == [("head", "interrupted", 1)]
    assert reached == [1]


def test_the_second_one_may_come_out_as_another_error():
    def stop():
        press()
        try:
            press()
        except KeyboardInterrupt:
            raise SystemError("as from inside TensorFlow") from None

    result = run(make(), At("on_train_batch_begin", 3 * STEPS + 1, stop))
    assert result.interrupted
    assert [record.stage.name for record in result.records] == ["head"]
    with pytest.raises(KeyboardInterrupt):
        run(make(), At("on_train_batch_begin", 1, stop))


def test_while_the_weights_are_put_back_it_is_raised():
    class Impatient(Silent):
        def end_stage(self, reason):
            press()

    model, before = make(), make()
    with pytest.raises(KeyboardInterrupt):
        run(model, At("on_train_batch_end", 4), display=Impatient(), shared=True)
    assert_same(model.get_weights(), before.get_weights())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_after_the_last_batch_is_said_too():
    class Late(Silent):
        def end_stage(self, reason):
            if reason == "epochs":
                press()

    model, whole = make(), make()
    run(whole, stages=[HEAD])
    result = run(model, display=Late())
    assert result.interrupted
    assert outcome(result) == [("head", "epochs", 3)]
    assert_same(model.get_weights(), whole.get_weights())


# === Interrupts ===


def test_is_noticed_and_raised_where_it_is_asked_for():
    noticed = []
    interrupts = Interrupts(lambda: noticed.append(1))
    with interrupts.held():
        interrupts.check()
        press()
        assert interrupts.came
        assert noticed == [1]
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        assert interrupts.is_clean
        with pytest.raises(KeyboardInterrupt):
            press()
        assert not interrupts.is_clean
    with pytest.raises(KeyboardInterrupt):
        press()


def test_another_handler_stays():
    taken = []

    def own(*args):
        taken.append(1)

    signal.signal(signal.SIGINT, own)
    interrupts = Interrupts()
    with interrupts.held():
        press()
    assert taken == [1]
    assert not interrupts.came
    assert signal.getsignal(signal.SIGINT) is own


def test_outside_the_main_thread_nothing_is_changed():
    seen = []

    def work():
        with Interrupts().held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
