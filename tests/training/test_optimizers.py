"""Optimizers hold exactly the weights named, at their rates."""

import dataclasses

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import Stage, get_backbone
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import (
    FreezeError,
    InvalidParameterError,
    InvalidTypeError,
    UnknownNameError,
)
from keras_transfer.training.batches import shuffled_batches
from keras_transfer.training.freezing import freeze_for
from keras_transfer.training.optimizers import (
    OPTIMIZERS,
    build_optimizer,
    check_optimizer,
    trace_key,
)

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return tiny.classifier(get_backbone(tiny.cnn), 3, input_shape=SHAPE)


def batches():
    X, y = tiny.pictures()
    return shuffled_batches((X.astype("float32"), np.unique(y, return_inverse=True)[1]), 8, 0)


def test_each_block_moves_at_its_rate(model):
    """Adam's first step is its rate, whatever the gradient."""
    blocks = read_blocks(model)
    rates = {"conv1": 1e-4, "conv2": 1e-3, "head": 1e-2}
    before = {w.path: w.numpy() for w in model.weights}
    stage = Stage("s", rates, epochs=1, batch_norm="affine")
    (record,) = tiny.run_stages(model, blocks, [stage], batches().take(1)).records
    for block in blocks:
        for name in block.layers:
            for w in model.get_layer(name).weights:
                step = np.abs(w.numpy() - before[w.path]).max()
                if not w.path.endswith(("mean", "variance")):
                    np.testing.assert_allclose(step, rates.get(block.name, 0), rtol=0.02)
    assert {path.partition(".")[0] for path in record.weights} == set(rates)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name_trains(model, name):
    before = model.get_layer("head.logits").get_weights()[0]
    stage = Stage("s", {"head": 1e-2}, epochs=1, optimizer=name)
    tiny.run_stages(model, read_blocks(model), [stage], batches())
    assert not np.array_equal(before, model.get_layer("head.logits").get_weights()[0])


def test_a_callable_gives_a_fresh_one_at_the_stages_rate(model):
    blocks = read_blocks(model)
    stage = Stage("s", {"head": 0.5}, 1, optimizer=lambda: keras.optimizers.SGD(momentum=0.9))
    with freeze_for(model, blocks, stage):
        one, two = build_optimizer(model, blocks, stage), build_optimizer(model, blocks, stage)
    assert one is not two
    assert (float(one.learning_rate), one.momentum) == (0.5, 0.9)


def test_notices_what_changed_behind_its_back(model):
    blocks = read_blocks(model)
    stage = Stage("s", {"head": 0.5}, 1)
    with freeze_for(model, blocks, stage):
        optimizer = build_optimizer(model, blocks, stage)
        optimizer.build(model.trainable_weights)
    check_optimizer(model, optimizer, stage)
    with freeze_for(model, blocks, Stage("t", {"conv2": 0.5, "head": 0.5}, 1)):
        pass
    with pytest.raises(FreezeError, match="differ in"):
        check_optimizer(model, optimizer, stage)


# === Weight decay ===

DECAYED = {"one rate": {"conv2": 1e-3, "head": 1e-3}, "two rates": {"conv2": 1e-3, "head": 1e-2}}


def moved(rates, optimizer, **options):
    """How far each weight moved in one step, by its path."""
    keras.utils.set_random_seed(0)
    model = tiny.classifier(get_backbone(tiny.cnn), 3, input_shape=SHAPE)
    for weight in model.weights:  # biases and beta are 0 at first: nothing of them could decay
        weight.assign(weight.numpy() + 0.5)
    before = {weight.path: weight.numpy() for weight in model.weights}
    stage = Stage("s", rates, 1, batch_norm="affine", optimizer=optimizer, **options)
    tiny.run_stages(model, read_blocks(model), [stage], batches().take(1))
    return before, {weight.path: weight.numpy() - before[weight.path] for weight in model.weights}


@pytest.mark.parametrize("rates", DECAYED.values(), ids=DECAYED)
@pytest.mark.parametrize("optimizer", ["lion", "adam", "adamw"])
def test_kernels_alone_decay_by_their_rate(rates, optimizer):
    before, plain = moved(rates, optimizer, weight_decay=0.0)
    _, decayed = moved(rates, optimizer, weight_decay=0.1)
    shrunk = set()
    for path, step in decayed.items():
        rate = rates.get(path.partition(".")[0], 0.0)
        is_kernel = rate > 0 and path.endswith("kernel")
        expected = -0.1 * rate * before[path] if is_kernel else 0.0 * before[path]
        np.testing.assert_allclose(step - plain[path], expected, rtol=1e-2, atol=3e-7)
        shrunk |= {path} if is_kernel else set()
        assert is_kernel or np.array_equal(step, plain[path])
    assert shrunk == {"conv2.conv2/kernel", "head.logits/kernel"}


def test_an_optimizers_own_decay_holds_unless_it_is_given(model):
    blocks = read_blocks(model)
    for given, expected in ((None, 0.004), (0.0, 0.0), (0.1, 0.1)):
        stage = Stage("s", {"head": 0.5}, 1, optimizer="adamw", weight_decay=given)
        with freeze_for(model, blocks, stage):
            assert build_optimizer(model, blocks, stage).weight_decay == expected


def test_what_is_compiled_in_is_in_the_key():
    stage = Stage("s", {"head": 0.5}, 1)
    keys = {
        trace_key(dataclasses.replace(stage, **options), "multiclass")
        for options in ({}, {"weight_decay": 0.1}, {"weight_decay": 0.2}, {"average": "ema"})
    }
    assert len(keys) == 4
    same = dataclasses.replace(stage, schedule="cosine", warm_up=0.5, rate_test=True)
    assert trace_key(same, "multiclass") in keys


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        ("adan", UnknownNameError, "Did you mean 'adam'"),
        (lambda: "adam", InvalidTypeError, "callable without arguments"),
        (3, InvalidTypeError, "Received: 3"),
        (
            lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)),
            InvalidParameterError,
            "Adam with a CosineDecay",
        ),
    ],
)
def test_refuses(model, optimizer, error, message):
    stage = Stage("s", {"head": 0.1}, 1, optimizer=optimizer)
    with pytest.raises(error, match=message):
        build_optimizer(model, read_blocks(model), stage)
