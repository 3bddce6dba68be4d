"""Mode by backbone kind by BatchNorm policy: what must hold of every weight."""

import dataclasses

import keras
import numpy as np
import pytest
import tiny
from sklearn.base import clone

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
    get_backbone,
)
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.backbones.walk import leaf_layers
from keras_transfer.training.batches import shuffled_batches

SHAPE = (tiny.SIZE, tiny.SIZE, 3)

MODES = {
    "parameter": ParameterTransfer(epochs=2),
    "structure": StructureTransfer(train_blocks=1, epochs=2),
    "composite": CompositeTransfer(train_blocks=1, epochs=2, head_learning_rate=1e-2),
}
POLICIES = ("frozen", "affine", "train")
BACKBONES = {
    "callable": lambda: get_backbone(tiny.cnn),
    "keras.Model": lambda: tiny.settled(tiny.residual, SHAPE),
    "nested": lambda: get_backbone(tiny.nested),
}


def batch_norm_weights(model, block_layers):
    """Return (statistics, affine) variables of the BatchNorm layers among some layers."""
    layers = [
        inner
        for name in block_layers
        for inner in leaf_layers(model.get_layer(name))
        if isinstance(inner, keras.layers.BatchNormalization)
    ]
    statistics = [w for la in layers for w in (la.moving_mean, la.moving_variance)]
    return statistics, [w for la in layers for w in (la.gamma, la.beta)]


MATRIX = [(m, k, p) for m in MODES.values() for k in BACKBONES for p in POLICIES]
# Every block in turn, a stage each; and a stage in which no block trains.
MATRIX += [(CompositeTransfer("gradual", epochs=1), "keras.Model", "affine")]
MATRIX += [(StructureTransfer(epochs=2), kind, "train") for kind in BACKBONES]


@pytest.mark.parametrize(("recipe", "kind", "policy"), MATRIX)
def test_every_weight_does_what_its_stage_says(recipe, kind, policy):
    recipe = clone(recipe).set_params(batch_norm=policy)
    keras.utils.set_random_seed(0)
    model = tiny.classifier(BACKBONES[kind](), 3, input_shape=SHAPE)
    blocks = read_blocks(model)
    X, y = tiny.pictures()
    targets = np.unique(y, return_inverse=True)[1]
    dataset = shuffled_batches((X.astype(np.float32), targets), 8, seed=0)

    for stage in recipe.stages(blocks, len(X), batch_size=8):
        before = {w.path: w.numpy() for w in model.weights}
        (record,) = tiny.run_stages(model, blocks, [stage], dataset).records
        moved = {w.path for w in model.weights if not np.array_equal(before[w.path], w.numpy())}

        expected = set()
        for block in blocks:
            if block.name not in stage.trained:
                continue
            statistics, affine = batch_norm_weights(model, block.layers)
            special = {w.path for w in statistics + affine}
            for name in block.layers:
                expected |= {w.path for w in model.get_layer(name).weights if w.path not in special}
            if policy in ("affine", "train"):
                expected |= {w.path for w in affine}
            if policy == "train":
                expected |= {w.path for w in statistics}
        # A bias before a BatchNorm that subtracts the batch's mean has no gradient but noise.
        idle = {path for path in expected - moved if path.endswith("/bias") and policy == "train"}
        assert moved == expected - idle

        # The optimizer held exactly those named.
        assert set(record.weights) == {p for p in expected if not p.endswith(("mean", "variance"))}


@pytest.mark.slow  # tracing 52 BatchNorm layers takes half a minute each
@pytest.mark.parametrize("policy", POLICIES)
def test_mobilenet_keeps_its_statistics(policy):
    """The trap of FACTS: in Keras 3.15 35 of 52 layers drift with training=False alone."""
    keras.utils.set_random_seed(0)
    model = tiny.classifier(get_backbone("MobileNetV2", weights=None), 3, input_shape=(32, 32, 3))
    blocks = read_blocks(model)
    X, y = tiny.pictures(size=32)
    targets = np.unique(y, return_inverse=True)[1]
    dataset = shuffled_batches((X.astype(np.float32), targets), 8, seed=0)
    (stage,) = ParameterTransfer(epochs=1, batch_norm=policy).stages(blocks, len(X), batch_size=8)
    # Statistics of a real batch: with 0 and 1 random weights shrink what passes them until the
    # gradients of 52 layers are too small to move a gamma of 1 in float32.
    settled = {"batch_norm": "train", "batch_norm_momentum": 0.0}
    tiny.run_stages(model, blocks, [dataclasses.replace(stage, **settled)], dataset)
    statistics, affine = batch_norm_weights(model, [n for b in blocks for n in b.layers])
    before = [w.numpy() for w in statistics], [w.numpy() for w in affine]
    tiny.run_stages(model, blocks, [stage], dataset)
    still = [np.array_equal(b, w.numpy()) for b, w in zip(before[0], statistics, strict=True)]
    moved = [not np.array_equal(b, w.numpy()) for b, w in zip(before[1], affine, strict=True)]
    assert len(statistics) == 2 * 52
    assert not any(still) if policy == "train" else all(still)
    assert not any(moved) if policy == "frozen" else all(moved)
