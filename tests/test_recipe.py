"""Recipe: its settings, what contradicts what, and the models that it builds."""

import keras
import numpy as np
import pytest
import tiny
from sklearn.base import clone

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    Recipe,
    StructureTransfer,
    TransferClassifier,
    TransferRegressor,
    get_backbone,
)
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import (
    InvalidParameterError,
)

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


def test_parameters_are_scikit_learns():
    recipe = CompositeTransfer(train_blocks=2)
    assert clone(recipe).get_params() == recipe.get_params()
    assert clone(recipe) is not recipe
    clf = TransferClassifier(recipe=recipe).set_params(recipe__train_blocks=1)
    assert clf.recipe.train_blocks == 1
    assert repr(clf) == "TransferClassifier(recipe=CompositeTransfer(train_blocks=1))"


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


@pytest.mark.parametrize(
    ("make", "kind"),
    [(Recipe.classifier, TransferClassifier), (Recipe.regressor, TransferRegressor)],
)
def test_makes_its_estimator(make, kind):
    recipe = StructureTransfer(1)
    made = make(recipe, "MobileNetV2", image_size=96)
    assert type(made) is kind
    assert (made.recipe, made.backbone, made.image_size) == (recipe, "MobileNetV2", 96)


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


def test_read_blocks_of_what_build_returns():
    model = StructureTransfer().build(
        get_backbone(tiny.residual), 2, input_shape=SHAPE, readout="unit0_conv"
    )
    assert [block.name for block in read_blocks(model)] == ["stem", "unit0_conv", "head"]
