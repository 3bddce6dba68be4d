"""Stages: freeze, compile, fit; when they stop, and which weights they keep."""

import math
import time

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Stage, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import DivergedError, FreezeError
from keras_transfer.training.batches import ordered_batches, shuffled_batches
from keras_transfer.training.inference import Inference
from keras_transfer.training.random_state import isolated_seed
from keras_transfer.training.validation import Validation

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
HEAD = Stage("head", {"head": 1e-2}, epochs=3)
BLOCKS = Stage("blocks", {"conv2": 1e-3, "head": 1e-3}, epochs=2)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return tiny.classifier(get_backbone(tiny.cnn), 3, input_shape=SHAPE)


def data(seed=0, n_per_class=8):
    X, y = tiny.pictures(n_per_class, seed=seed)
    return X.astype("float32"), np.unique(y, return_inverse=True)[1]


def run(model, stages, X=None, y=None, **options):
    if X is None:
        X, y = data()
    with isolated_seed(0):
        return tiny.run_stages(
            model, read_blocks(model), stages, shuffled_batches((X, y), 8, 0), **options
        )


def validation(score=None, seed=1, **options):
    X, y = data(seed)
    options.update({} if score is None else {"score": score})
    return Validation(ordered_batches((X, y), 8), **options)


def scores(values):
    """A score that takes given values in turn."""
    stream = iter(values)
    return lambda targets, outputs, weights: next(stream)


def test_one_history_of_all_stages(model):
    result = run(model, [HEAD, BLOCKS], validation=validation())
    assert result.history["stage"] == ["head"] * 3 + ["blocks"] * 2
    assert result.history["epoch"] == [1, 2, 3, 4, 5]
    assert result.history["learning_rate"] == [1e-2] * 3 + [1e-3] * 2
    assert {len(column) for column in result.history.values()} == {5}
    assert {"loss", "accuracy", "val_loss", "val_score", "seconds"} <= result.history.keys()
    assert [(r.stage, r.reason, r.epochs) for r in result.records] == [
        (HEAD, "epochs", 3),
        (BLOCKS, "epochs", 2),
    ]
    trained = [{row.block: row.trained for row in record.rows} for record in result.records]
    assert trained[0] == {"conv0": 0, "conv1": 0, "conv2": 0, "head": 21}
    assert trained[1]["conv2"] == 330  # frozen BatchNorm: the convolution alone


def test_the_same_loss_as_plain_keras(model):
    """The stages add nothing to the mathematics."""
    X, y = data()
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    result = run(model, [HEAD], X, y)
    for layer in plain.layers:
        layer.trainable = layer.name == "head.logits"
    plain.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    with isolated_seed(0):
        history = plain.fit(
            shuffled_batches((X, y), 8, 0), epochs=3, verbose=0, shuffle=False
        ).history
    np.testing.assert_allclose(result.history["loss"], history["loss"], rtol=1e-5)


def test_keeps_the_best_weights_of_all_stages(model):
    kept = []

    def score(targets, outputs, weights):
        kept.append(model.get_weights())
        return [0.1, 0.9, 0.2, 0.3, 0.4][len(kept) - 1]

    result = run(model, [HEAD, BLOCKS], validation=validation(score))
    assert result.score == 0.9
    assert len(kept) == 5
    for one, other in zip(model.get_weights(), kept[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_loss_decides_between_equal_scores(model):
    result = run(model, [HEAD], validation=validation(lambda targets, outputs, weights: 0.5))
    inference = Inference(model)
    loss, _ = validation()(inference)
    assert loss == pytest.approx(min(result.history["val_loss"]), abs=1e-6)
    assert result.history["val_loss"].index(min(result.history["val_loss"])) > 0


def test_an_undefined_score_is_the_worst(model):
    stream = scores([math.nan, 0.4, math.nan])
    assert run(model, [HEAD], validation=validation(stream)).score == 0.4


def test_a_few_examples_measure_and_do_not_steer(model):
    long = Stage("head", {"head": 1e-2}, epochs=8, patience=2)
    stream = scores([0.9, *[0.1] * 7])
    result = run(model, [long], validation=validation(stream, steers=False))
    assert (result.records[0].reason, result.records[0].epochs) == ("epochs", 8)
    assert result.score == 0.1  # that of the weights that are left


def test_no_time_left_for_another_stage(model):
    X, y = data()
    result = run(model, [HEAD, BLOCKS], X, y)
    first = result.records[0].first_batch_seconds
    assert 0 < first < result.records[0].seconds
    # As long as the first stage takes: nothing is left for the next one to compile in.
    deadline = time.monotonic() + result.records[0].seconds
    result = run(model, [HEAD, BLOCKS], X, y, deadline=deadline)
    assert [record.stage.name for record in result.records] == ["head"]


def misleading(score):
    """Validation on wrong labels: what is learned makes its loss rise."""
    X, y = data(1)
    return Validation(ordered_batches((X, (y + 1) % 3), 8), score=score)


def test_stops_early(model):
    long = Stage("head", {"head": 1e-2}, epochs=50, patience=3)
    result = run(model, [long], validation=misleading(scores([0.5, 0.6, *[0.1] * 48])))
    losses = result.history["val_loss"]
    last_gain = max(1, losses.index(min(losses)))
    assert result.records[0].reason == "early stopping"
    assert result.records[0].epochs == last_gain + 1 + 3
    assert result.score == 0.6


def test_goes_on_while_the_loss_still_falls(model):
    long = Stage("head", {"head": 1e-3}, epochs=12, patience=2)
    result = run(model, [long], validation=validation(scores([0.9] + [0.1] * 11)))
    assert result.history["val_loss"] == sorted(result.history["val_loss"], reverse=True)
    assert (result.records[0].reason, result.records[0].epochs) == ("epochs", 12)


def test_without_validation_all_epochs_run(model):
    result = run(model, [HEAD])
    assert (result.records[0].reason, result.records[0].epochs) == ("epochs", 3)
    assert math.isnan(result.score)
    assert "val_score" not in result.history


def test_a_target_score_skips_what_is_left(model):
    result = run(
        model, [HEAD, BLOCKS], validation=validation(scores([0.2, 0.8])), target_score=0.75
    )
    assert [(r.stage.name, r.reason, r.epochs) for r in result.records] == [
        ("head", "target score", 2)
    ]
    assert result.score == 0.8


def test_a_time_budget_stops_within_a_batch(model):
    X, y = data(n_per_class=200)
    slow = Stage("head", {"head": 1e-2}, epochs=10_000, patience=10_000)
    run(model, [HEAD], X, y)  # what TensorFlow does once is not what is measured
    started = time.monotonic()
    result = run(model, [slow, BLOCKS], X, y, deadline=started + 4, validation=validation())
    took = time.monotonic() - started
    assert [(r.stage.name, r.reason) for r in result.records] == [("head", "time budget")]
    assert took < 4 * 1.5  # the promise is 10 % or one batch; a loaded machine gets the rest
    assert took > 4 * 0.5
    assert math.isfinite(result.score)


def test_a_deadline_that_has_passed_trains_one_batch(model):
    result = run(model, [HEAD, BLOCKS], deadline=time.monotonic() - 1)
    assert [(r.stage.name, r.reason, r.epochs) for r in result.records] == [
        ("head", "time budget", 1)
    ]


def test_a_loss_that_is_no_number(model):
    wild = Stage("wild", {"head": 1e38}, epochs=20, optimizer="sgd")
    with pytest.raises(DivergedError, match=r"stage 'wild': the loss is .*Lower learning_rate"):
        run(model, [wild])


def test_notices_a_frozen_weight_that_moves():
    """A layer that assigns to its own weights, as some normalisations do."""

    @keras.saving.register_keras_serializable("test_run")
    class Restless(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(1,), initializer="zeros", trainable=False, name="n")

        def call(self, x):
            self.count.assign_add(keras.ops.ones((1,)))
            return x

    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, name="low")(inputs)
    source = keras.Model(inputs, Restless(name="restless")(x))
    model = tiny.classifier(get_backbone(source), 2)
    X, y = tiny.vectors()
    with pytest.raises(FreezeError, match=r"low\.restless.*It moved"):
        run(model, [HEAD], X.astype("float32"), np.unique(y, return_inverse=True)[1])


def test_notices_that_nothing_trains(model):
    model.get_layer("head.logits").kernel.assign(model.get_layer("head.logits").kernel * 0)
    with pytest.raises(FreezeError, match="None moved"):
        run(model, [Stage("conv", {"conv2": 1e-3}, epochs=1, optimizer="sgd")])


def test_takes_example_weights(model):
    """A batch of (inputs, targets, weights), as Keras takes it."""
    import tensorflow as tf

    X, y = data()
    X = np.concatenate([X, X])
    wrong = np.concatenate([y, (y + 1) % 3])
    weights = np.repeat([1.0, 0.0], len(y)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((X, wrong, weights)).batch(len(X))
    stage = Stage("head", {"conv2": 1e-2, "head": 1e-2}, epochs=60)
    tiny.run_stages(model, read_blocks(model), [stage], dataset)
    assert np.mean(Inference(model).on_inputs(X[: len(y)], 8).argmax(axis=1) == y) > 0.9
