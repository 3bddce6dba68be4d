"""The modes: what they build, which stages they plan, and how they run on one's own data."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from sklearn.base import clone

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    Recipe,
    StructureTransfer,
    TransferClassifier,
    get_backbone,
)
from keras_transfer.backbones.partition import Block, read_blocks
from keras_transfer.errors import (
    DataError,
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


def test_parameters_are_scikit_learns():
    recipe = CompositeTransfer(train_blocks=2)
    assert clone(recipe).get_params() == recipe.get_params()
    assert clone(recipe) is not recipe
    clf = TransferClassifier(recipe=recipe).set_params(recipe__train_blocks=1)
    assert clf.recipe.train_blocks == 1
    assert repr(clf) == "TransferClassifier(recipe=CompositeTransfer(train_blocks=1))"


def test_an_optimizers_own_rate_holds():
    own = StructureTransfer(optimizer=lambda: keras.optimizers.SGD(0.5))
    assert own.stages(BLOCKS, 100)[0].learning_rates["head"] == 0.5
    given = StructureTransfer(optimizer=lambda: keras.optimizers.SGD(0.5), learning_rate=0.1)
    assert given.stages(BLOCKS, 100)[0].learning_rates["head"] == 0.1


def test_build_is_a_plain_model_with_the_modes_blocks_trainable():
    model = ParameterTransfer(["conv2"]).build(tiny.cnn, outputs=5, input_shape=SHAPE)
    assert type(model) is keras.Model or type(model).__name__ == "Functional"
    assert model.output_shape == (None, 5)
    paths = {w.path.partition(".")[0] for w in model.trainable_weights}
    assert paths == {"conv2", "head"}
    head_only = StructureTransfer().build(tiny.cnn, outputs=5, input_shape=SHAPE)
    assert len(head_only.trainable_weights) == 2
    first_stage = CompositeTransfer().build(tiny.cnn, outputs=5, input_shape=SHAPE)
    assert len(first_stage.trainable_weights) == 2


def dataset(n_per_class=8):
    X, y = tiny.pictures(n_per_class)
    targets = np.unique(y, return_inverse=True)[1]
    return tf.data.Dataset.from_tensor_slices((X.astype("float32"), targets)).batch(8)


def test_fit_on_a_dataset_of_ones_own(tmp_path):
    recipe = CompositeTransfer(1, epochs=15, learning_rate=1e-2)
    model = recipe.build(tiny.settled(tiny.cnn, SHAPE), outputs=3)
    # The blocks are recovered from the names, also of a reloaded model.
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    result = recipe.fit(model, dataset(), validation_data=dataset(), verbose=False)
    assert list(dict.fromkeys(result.history["stage"])) == ["head", "fine-tuning"]
    model.compile(metrics=["accuracy"], loss="sparse_categorical_crossentropy")
    assert model.evaluate(dataset(), verbose=0)[1] == pytest.approx(result.score)
    assert result.score > 0.8


def test_a_score_on_a_dataset_has_a_standard_error():
    recipe = StructureTransfer()
    model = recipe.build(tiny.settled(tiny.cnn, SHAPE), outputs=3)
    result = recipe.fit(model, dataset(), validation_data=dataset(), verbose=False)
    n, share = 24, result.score
    assert 0 < share < 1
    # By theory, were all classes alike; the bootstrap draws within each.
    assert result.standard_error == pytest.approx((share * (1 - share) / n) ** 0.5, rel=0.3)
    assert np.isnan(recipe.fit(model, dataset(), verbose=False).standard_error)


def test_fit_on_a_foreign_model():
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(8, name="body"),
            keras.layers.Dense(3, activation="softmax", name="top"),
        ]
    )
    before = model.get_layer("body").get_weights()
    blocks = {"body": ["body"], "head": ["top"]}
    StructureTransfer(epochs=1).fit(model, dataset(), blocks=blocks, verbose=False)
    for one, other in zip(before, model.get_layer("body").get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    result = ParameterTransfer(epochs=1).fit(model, dataset(), blocks=blocks, verbose=False)
    assert result.records[0].stage.trained == ("body", "head")


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_augmentation_of_a_dataset(kind):
    """One epoch with a rate so small that only the data can change the loss."""

    def loss(recipe):
        keras.utils.set_random_seed(0)
        model = recipe.build(tiny.settled(tiny.cnn, SHAPE), outputs=3)
        data = dataset().map(lambda x, y: (tf.cast(x, kind), y))
        return recipe.fit(model, data, validation_data=data, verbose=False).history["loss"]

    options = {"epochs": 1, "learning_rate": 1e-9, "optimizer": "sgd"}
    still, again = (loss(StructureTransfer(**options)) for _ in range(2))
    assert still == again
    changed = loss(StructureTransfer(augmentation=["rotate", "colour"], **options))
    assert changed != still
    assert changed == loss(StructureTransfer(augmentation=["rotate", "colour"], **options))


def test_pretrained_can_be_said():
    model = StructureTransfer().build(tiny.dense, 3, input_shape=SHAPE[:1])
    rates = {}
    for pretrained in (True, False):
        data = tf.data.Dataset.from_tensors((np.ones((4, 16), "float32"), np.arange(4) % 3))
        result = ParameterTransfer(epochs=1).fit(model, data, pretrained=pretrained, verbose=False)
        rates[pretrained] = result.history["learning_rate"]
    assert rates[True] != rates[False]


def test_target_score_and_time_budget_of_a_dataset():
    recipe = StructureTransfer(epochs=500)
    model = recipe.build(tiny.cnn, outputs=3, input_shape=SHAPE)
    result = recipe.fit(
        model, dataset(), validation_data=dataset(), target_score=0.0, verbose=False
    )
    assert [(r.reason, r.epochs) for r in result.records] == [("target score", 1)]
    result = recipe.fit(model, dataset(), time_budget=1e-3, verbose=False)
    assert [(r.reason, r.epochs) for r in result.records] == [("time budget", 1)]


def test_names_of_the_modes():
    assert isinstance(as_recipe("composite"), CompositeTransfer)
    recipe = StructureTransfer(1)
    assert as_recipe(recipe) is recipe


def test_makes_its_estimator():
    recipe = StructureTransfer(1)
    clf = recipe.classifier("MobileNetV2", image_size=96)
    assert isinstance(clf, TransferClassifier)
    assert (clf.recipe, clf.backbone, clf.image_size) == (recipe, "MobileNetV2", 96)


def infinite():
    return dataset().repeat()


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
    "no dataset": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE), tiny.pictures()
        ),
        InvalidTypeError,
        r"from_tensor_slices",
    ),
    "an infinite dataset": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE), infinite()
        ),
        InvalidParameterError,
        "Leave repeat",
    ),
    "a dataset without targets": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE),
            dataset().map(lambda x, y: x),
        ),
        InvalidParameterError,
        "batches of",
    ),
    "validation arrays": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE),
            dataset(),
            validation_data=tiny.pictures(),
        ),
        InvalidTypeError,
        "validation_data: expected a tf.data.Dataset",
    ),
    "one-hot targets": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE),
            dataset().map(lambda x, y: (x, tf.one_hot(y, 3))),
        ),
        DataError,
        "argmax",
    ),
    "a model that ends in logits": (
        lambda: StructureTransfer().fit(
            keras.Sequential(
                [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3, name="top")]
            ),
            dataset(),
            blocks={"head": "top"},
        ),
        InvalidParameterError,
        "ends in probabilities",
    ),
    "a target without validation": (
        lambda: StructureTransfer().fit(
            StructureTransfer().build(tiny.cnn, 3, input_shape=SHAPE), dataset(), target_score=0.5
        ),
        InvalidParameterError,
        "Pass validation_data",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses(case):
    call, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        call()


SETTINGS = {
    "train_blocks": [-1, True, 1.5, [], [1], "some"],
    "epochs": [0, 1.5, "3"],
    "learning_rate": [0, -1e-3, float("nan"), float("inf"), "fast", "aut"],
    "head_learning_rate": [0],
    "layer_decay": [0, 1.1, -0.5, "half"],
    "optimizer": ["adan", 3, None],
    "dropout": [-0.1, 1.0, None],
    "augmentation": ["flop", 3, ["flip", "flop"]],
    "batch_norm": ["freeze", True],
    "label_smoothing": [-0.1, 1, None],
    "focal_gamma": [-1, "2"],
    "mix": ["mix", True, ["mixup"]],
    "schedule": ["cosin", None, 3],
    "warm_up": [-0.1, 1.1, "half"],
    "weight_decay": [-1e-3, float("nan"), "little"],
    "average": ["emma", True, 0.9],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in SETTINGS.items() for value in values]
)
def test_refuses_settings(name, value):
    with pytest.raises(InvalidParameterError, match=rf"CompositeTransfer: {name}: expected"):
        CompositeTransfer(**{name: value}).check()


def test_reports_all_settings_at_once():
    with pytest.raises(InvalidParameterError) as caught:
        CompositeTransfer(epochs=0, dropout=2, batch_norm="freeze").check()
    assert [line.split(":")[1].strip() for line in str(caught.value).splitlines()] == [
        *("epochs", "dropout", "batch_norm")
    ]


def test_check_accepts_what_is_documented():
    CompositeTransfer(
        "gradual", 3, 1e-3, 1e-2, 0.8, keras.optimizers.SGD, 0.5, "all", "train"
    ).check()
    ParameterTransfer(np.int64(2), augmentation=("flip", "crop")).check()
    ParameterTransfer(label_smoothing=np.float32(0.1), focal_gamma=2, mix="mixup").check()
    CompositeTransfer(head_solver="exact", mix="cutmix").check()  # the blocks' stage mixes


ALONE = {
    "structure": StructureTransfer(head_solver="exact", mix="mixup"),
    "structure, none": StructureTransfer(0, head_solver="exact", label_smoothing=0.1),
    "composite, none": CompositeTransfer(0, head_penalty=1.0, focal_gamma=2.0),
}


@pytest.mark.parametrize("recipe", ALONE.values(), ids=ALONE)
def test_what_only_epochs_can_follow_is_refused_of_an_exact_head(recipe):
    (asked,) = recipe._asked_of_epochs()
    with pytest.raises(InvalidParameterError, match=rf"head_solver: .*and {asked} is asked"):
        recipe.check()
    recipe.set_params(train_blocks=1).check()


def test_the_settings_of_the_loss_stand_in_the_stages_that_have_one():
    asked = {"label_smoothing": 0.1, "focal_gamma": 2.0, "mix": "mixup"}
    head, blocks = CompositeTransfer(1, **asked).stages(BLOCKS, 100)
    assert (head.label_smoothing, head.focal_gamma, head.mix) == (0.0, None, None)
    assert (blocks.label_smoothing, blocks.focal_gamma, blocks.mix) == tuple(asked.values())


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_mixing_a_dataset(mix, kind):
    """As above, only the data can change the loss."""

    def loss(recipe, seed=0):
        keras.utils.set_random_seed(0)
        model = recipe.build(tiny.settled(tiny.cnn, SHAPE), outputs=3)
        data = dataset().map(lambda x, y: (tf.cast(x, kind), y[:, tf.newaxis]))
        result = recipe.fit(model, data, validation_data=data, random_state=seed, verbose=False)
        assert result.records[-1].stored == f"not stored: {mix} makes new pictures in every step"
        assert model.loss == "sparse_categorical_crossentropy"
        assert result.score == pytest.approx(model.evaluate(data, verbose=0)[1])
        return result.history["loss"]

    options = {"epochs": 2, "learning_rate": 1e-9, "optimizer": "sgd", "mix": mix}
    one, two = loss(StructureTransfer(**options)), loss(StructureTransfer(**options), seed=1)
    assert one == loss(StructureTransfer(**options))
    assert one != two
    assert one[0] != one[1]  # new in every epoch


def test_a_dataset_that_cannot_be_mixed_or_smoothed():
    vectors = tf.data.Dataset.from_tensors((np.ones((4, 16), "float32"), np.arange(4) % 3))
    recipe = ParameterTransfer(epochs=1, mix="mixup")
    model = recipe.build(tiny.dense, 3, input_shape=(16,))
    with pytest.raises(InvalidParameterError, match="mix: expected None where X holds no pictures"):
        recipe.fit(model, vectors)
    recipe = StructureTransfer(1, epochs=1, focal_gamma=2.0)
    model = recipe.build(tiny.settled(tiny.cnn, SHAPE), 1, task="regression")
    with pytest.raises(InvalidParameterError, match="focal_gamma: expected None for a regression"):
        recipe.fit(model, dataset())


def test_read_blocks_of_what_build_returns():
    model = StructureTransfer().build(
        get_backbone(tiny.residual), 2, input_shape=SHAPE, readout="unit0_conv"
    )
    assert [block.name for block in read_blocks(model)] == ["stem", "unit0_conv", "head"]


def test_composite_transfer_without_blocks_does_what_is_asked_of_its_head():
    blocks = [Block("head", ("head.logits",), 0)]
    for settings in ({"epochs": 7}, {"schedule": "cosine"}, {"average": "ema"}):
        (stage,) = CompositeTransfer(0, **settings).stages(blocks, 40)
        assert stage.solver == "gradient"
    assert CompositeTransfer(0).stages(blocks, 40)[0].solver == "exact"
