"""Blocks: they partition the weights, have stable names, and are read back from a flat model."""

import keras
import pytest
import tiny

from keras_transfer import get_backbone
from keras_transfer.backbones.partition import HEAD, partition, read_blocks, tap
from keras_transfer.errors import InvalidParameterError

SHAPE = (tiny.SIZE, tiny.SIZE, 3)

BLOCKS = {
    # function, patterns: the blocks that are to be found
    "a chain": (tiny.cnn, None, ["conv0", "conv1", "conv2"]),
    "residual units": (tiny.residual, None, ["stem", "unit0_conv", "unit1_conv"]),
    "models in a model": (tiny.nested, None, ["conv2d", "conv2d_1"]),
    "patterns": (
        tiny.residual,
        ((r"^(stem|unit0_)", "low"), (r"^unit1_", "high")),
        ["low", "high"],
    ),
    "patterns with groups": (
        tiny.residual,
        ((r"^stem", "stem"), (r"^unit(\d)_", r"u\1")),
        ["stem", "u0", "u1"],
    ),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_finds_blocks(case):
    build, patterns, expected = BLOCKS[case]
    leaves = partition(build(SHAPE), patterns)
    assert list(dict.fromkeys(leaf.block for leaf in leaves)) == expected


def test_a_residual_unit_ends_with_its_addition():
    leaves = partition(tiny.residual(SHAPE))
    assert tap(leaves, "unit0_conv").path == "unit0_add"
    assert tap(leaves, "stem").path == "stem"


def test_unnamed_merges_close_a_block_and_unnamed_poolings_open_one():
    """As in ConvNeXt (an addition without a name) and ResNetV2 (the pooling of a shortcut)."""
    inputs = keras.Input(SHAPE)
    a = keras.layers.Conv2D(4, 3, padding="same", name="a_conv")(inputs)
    x = a + keras.layers.Conv2D(4, 1, name="a_scale")(a)
    shortcut = keras.layers.MaxPooling2D(1, 2)(x)
    y = keras.layers.Conv2D(4, 3, 2, padding="same", name="b_conv")(x)
    model = keras.Model(inputs, keras.layers.Add(name="b_add")([shortcut, y]))
    leaves = partition(model, ((r"^a_", "a"), (r"^b_", "b")))
    by_kind = {type(leaf.operation).__name__: leaf.block for leaf in leaves if leaf.block}
    assert by_kind["MaxPooling2D"] == "b"
    assert tap(leaves, "a").operation is not model.get_layer("a_scale")
    assert type(tap(leaves, "a").operation).__name__ == "Add"


def test_names_do_not_depend_on_what_was_built_before():
    first = [leaf.name for leaf in partition(tiny.nested(SHAPE))]
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization(), keras.layers.ReLU()
    second = [leaf.name for leaf in partition(tiny.nested(SHAPE))]
    assert first == second
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("build", [tiny.cnn, tiny.residual, tiny.nested])
def test_blocks_partition_the_weights_and_survive_saving(build, tmp_path):
    model = tiny.classifier(get_backbone(build), 3, input_shape=SHAPE)
    blocks = read_blocks(model)
    held = [w.path for b in blocks for name in b.layers for w in model.get_layer(name).weights]
    assert sorted(held) == sorted(w.path for w in model.weights)
    assert sum(block.parameters for block in blocks) == model.count_params()
    assert [block.name for block in blocks][-1] == HEAD

    model.save(tmp_path / "model.keras")
    assert read_blocks(keras.models.load_model(tmp_path / "model.keras")) == blocks


def test_a_subclassed_model_is_one_block_and_takes_no_reserved_name():
    class Opaque(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.layer = keras.layers.Dense(4)

        def call(self, x):
            return self.layer(x)

    model = Opaque(name="head")
    model(keras.ops.zeros((1, 5)))
    assert [leaf.block for leaf in partition(model)] == ["head_1"]


def test_dots_in_foreign_names_mean_nothing():
    names = ["enc.a", "enc.b", "head.fc", "z"]
    model = keras.Sequential(
        [keras.Input((4,)), *(keras.layers.Dense(3, name=name) for name in names)]
    )
    leaves = partition(model)
    assert [leaf.path for leaf in leaves] == names
    assert len({leaf.block for leaf in leaves}) == 4
    built = tiny.classifier(get_backbone(model), 2)
    assert built.count_params() == model.count_params() + 8


def test_a_model_of_ours_in_another_leaves_its_head_too():
    own = tiny.classifier(get_backbone(tiny.cnn), 7, input_shape=SHAPE)
    outer = keras.Sequential([keras.Input(SHAPE), own])
    assert [leaf.block for leaf in partition(outer)] == [leaf.block for leaf in partition(own)]


def test_a_block_with_several_outputs_cannot_be_read():
    inputs = keras.Input((4,))
    one, two = (keras.layers.Dense(3, name=f"a{n}")(inputs) for n in (1, 2))
    model = keras.Model(inputs, keras.layers.Concatenate(name="cat")([one, two]))
    leaves = partition(model, ((r"^a", "A"), (r"^cat", "B")))
    with pytest.raises(InvalidParameterError, match="'A', which has 2: a1, a2"):
        tap(leaves, "A")
    assert tap(leaves, "B").path == "cat"


def test_refuses_a_layer_in_two_blocks():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="one")])
    with pytest.raises(InvalidParameterError, match="'one' in 'body' and 'head'"):
        read_blocks(model, {"body": ".*", HEAD: "one"})


def test_foreign_models_need_their_blocks():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="one"), keras.layers.Dense(2, name="two")]
    )
    with pytest.raises(InvalidParameterError, match=r"Pass blocks="):
        read_blocks(model)
    blocks = read_blocks(model, {"low": "on.", HEAD: ["two"]})
    assert [(b.name, b.layers, b.parameters) for b in blocks] == [
        ("low", ("one",), 15),
        (HEAD, ("two",), 8),
    ]


MISTAKES = {
    "a pattern that matches nothing": (
        ((r"^stem", "stem"), (r"^unti", "u")),
        "'\\^unti' matches no",
    ),
    "a reserved name": (((r".", "head"),), "Received 'head'"),
    "a name with a dot": (((r".", "a.b"),), "Received 'a.b'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses_patterns(case):
    patterns, message = MISTAKES[case]
    with pytest.raises(InvalidParameterError, match=message):
        partition(tiny.residual(SHAPE), patterns)


def test_refuses_a_block_of_a_foreign_model_that_matches_nothing():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="one")])
    with pytest.raises(InvalidParameterError, match=r"blocks\['head'\]: 'on' matches no layer"):
        read_blocks(model, {HEAD: "on"})
