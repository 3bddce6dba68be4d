"""The modes: which stages they plan."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    Recipe,
    StructureTransfer,
)
from keras_transfer.backbones.partition import Block
from keras_transfer.errors import (
    InvalidParameterError,
    InvalidTypeError,
    UnknownNameError,
)
from keras_transfer.modes import as_recipe

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


BLOCKS = [Block(name, (), 0) for name in ("stem", "low", "high", "head")]


def trained(recipe, **options):
    return [stage.trained for stage in recipe.stages(BLOCKS, 100, **options)]


PLANS = {
    "parameter": (ParameterTransfer(), [("stem", "low", "high", "head")]),
    "parameter, some": (ParameterTransfer(2), [("low", "high", "head")]),
    "structure": (StructureTransfer(), [("head",)]),
    "structure, last": (StructureTransfer(1), [("high", "head")]),
    "structure, named": (StructureTransfer(["high", "stem"]), [("stem", "high", "head")]),
    "structure, all": (StructureTransfer("all"), [("stem", "low", "high", "head")]),
    "composite": (CompositeTransfer(), [("head",), ("stem", "low", "high", "head")]),
    "composite, none": (CompositeTransfer(0), [("head",)]),
    "composite, two": (CompositeTransfer(2), [("head",), ("low", "high", "head")]),
    "gradual": (
        CompositeTransfer("gradual"),
        [
            ("head",),
            ("high", "head"),
            ("low", "high", "head"),
            ("stem", "low", "high", "head"),
        ],
    ),
}


@pytest.mark.parametrize("case", PLANS)
def test_plans(case):
    recipe, expected = PLANS[case]
    assert trained(recipe) == expected


def test_settings_reach_the_stages():
    recipe = CompositeTransfer(
        1,
        epochs=7,
        learning_rate=1e-4,
        head_learning_rate=1e-2,
        optimizer="sgd",
        batch_norm="frozen",
    )
    head, blocks = recipe.stages(BLOCKS, 100)
    assert dict(head.learning_rates) == {"head": 1e-2}
    assert dict(blocks.learning_rates) == {"high": 1e-4, "head": 1e-2}
    assert {(s.epochs, s.optimizer, s.batch_norm) for s in (head, blocks)} == {(7, "sgd", "frozen")}
    (only,) = StructureTransfer(learning_rate=0.5).stages(BLOCKS, 100)
    assert dict(only.learning_rates) == {"head": 0.5}


SPREAD = {"schedule": "one_cycle", "warm_up": 0.1, "weight_decay": 0.01, "average": "ema"}


def test_what_is_spread_over_steps_reaches_the_stages_that_have_some():
    head, blocks = CompositeTransfer(1, learning_rate="auto", **SPREAD).stages(BLOCKS, 100)
    assert head == CompositeTransfer(1).stages(BLOCKS, 100)[0]
    assert head.solver == "exact"
    assert {name: getattr(blocks, name) for name in SPREAD} == SPREAD
    assert blocks.rate_test
    assert blocks.learning_rates == CompositeTransfer(1).stages(BLOCKS, 100)[1].learning_rates
    # A head that is trained, before the blocks: at a rate of its own.
    head, blocks = CompositeTransfer(1, learning_rate="auto", dropout=0.5, **SPREAD).stages(
        BLOCKS, 100
    )
    assert {name: getattr(head, name) for name in SPREAD} == SPREAD
    assert (head.rate_test, blocks.rate_test) == (False, True)
    (only,) = StructureTransfer(learning_rate="auto").stages(BLOCKS, 100)
    assert (only.solver, only.rate_test) == ("gradient", True)
    gradual = CompositeTransfer("gradual", learning_rate="auto").stages(BLOCKS, 100)
    assert [stage.rate_test for stage in gradual] == [False, True, True, True]


def test_a_range_test_chooses_the_heads_rate_too():
    with pytest.raises(InvalidParameterError, match="head_learning_rate: expected None with"):
        CompositeTransfer(learning_rate="auto", head_learning_rate=0.1).check()


def test_rates_fall_from_block_to_block():
    recipe = CompositeTransfer(learning_rate=1e-2, layer_decay=0.5)
    head, blocks = recipe.stages(BLOCKS, 100)
    assert dict(blocks.learning_rates) == {
        "stem": 1e-2 / 4,
        "low": 1e-2 / 2,
        "high": 1e-2,
        "head": 1e-2,
    }
    assert head.learning_rates == CompositeTransfer().stages(BLOCKS, 100)[0].learning_rates
    gradual = CompositeTransfer("gradual", learning_rate=1e-2, layer_decay=0.5)
    assert dict(gradual.stages(BLOCKS, 100)[2].learning_rates) == {
        "low": 1e-2 / 2,
        "high": 1e-2,
        "head": 1e-2,
    }


def test_blocks_move_as_far_as_their_rates_say():
    X, y = tiny.pictures()
    targets = np.unique(y, return_inverse=True)[1]
    batch = tf.data.Dataset.from_tensor_slices((X.astype("float32") / 255, targets)).batch(24)
    moved = {}
    for decay in (None, 0.5):
        keras.utils.set_random_seed(0)
        recipe = ParameterTransfer(
            epochs=1, learning_rate=1e-2, layer_decay=decay, optimizer="sgd", batch_norm="frozen"
        )
        model = recipe.build(tiny.cnn, outputs=3, input_shape=SHAPE)
        before = {w.path: w.numpy() for w in model.trainable_weights}
        recipe.fit(model, batch, pretrained=True, verbose=False)
        moved[decay] = {w.path: w.numpy() - before[w.path] for w in model.trainable_weights}
    for path, share in (("conv0.conv0", 1 / 4), ("conv1.conv1", 1 / 2), ("conv2.conv2", 1.0)):
        path = f"{path}/kernel"
        np.testing.assert_allclose(
            moved[0.5][path], share * moved[None][path], rtol=0.01, atol=1e-7
        )


def test_the_rate_of_the_head_follows_in_later_stages():
    head, blocks = CompositeTransfer(learning_rate=1e-4).stages(BLOCKS, 100)
    assert set(blocks.learning_rates.values()) == {1e-4}
    assert head.learning_rates["head"] > 1e-4


def test_an_optimizers_own_rate_holds():
    own = StructureTransfer(optimizer=lambda: keras.optimizers.SGD(0.5))
    assert own.stages(BLOCKS, 100)[0].learning_rates["head"] == 0.5
    given = StructureTransfer(optimizer=lambda: keras.optimizers.SGD(0.5), learning_rate=0.1)
    assert given.stages(BLOCKS, 100)[0].learning_rates["head"] == 0.1


def test_names_of_the_modes():
    assert isinstance(as_recipe("composite"), CompositeTransfer)
    recipe = StructureTransfer(1)
    assert as_recipe(recipe) is recipe


def test_the_settings_of_the_loss_stand_in_the_stages_that_have_one():
    asked = {"label_smoothing": 0.1, "focal_gamma": 2.0, "mix": "mixup"}
    head, blocks = CompositeTransfer(1, **asked).stages(BLOCKS, 100)
    assert (head.label_smoothing, head.focal_gamma, head.mix) == (0.0, None, None)
    assert (blocks.label_smoothing, blocks.focal_gamma, blocks.mix) == tuple(asked.values())


def test_composite_transfer_without_blocks_does_what_is_asked_of_its_head():
    blocks = [Block("head", ("head.logits",), 0)]
    for settings in ({"epochs": 7}, {"schedule": "cosine"}, {"average": "ema"}):
        (stage,) = CompositeTransfer(0, **settings).stages(blocks, 40)
        assert stage.solver == "gradient"
    assert CompositeTransfer(0).stages(blocks, 40)[0].solver == "exact"


MISTAKES = {
    "an unknown mode": (
        lambda: as_recipe("composit"),
        UnknownNameError,
        "Did you mean 'composite'",
    ),
    "a class for a mode": (
        lambda: as_recipe(StructureTransfer),
        InvalidTypeError,
        "a Recipe instance",
    ),
    "no mode": (lambda: Recipe(), TypeError, "abstract"),
    "gradual structure": (
        lambda: StructureTransfer("gradual").check(),
        InvalidParameterError,
        "train_blocks",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses(case):
    call, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        call()
