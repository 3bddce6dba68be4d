"""Blocks of variables: by what families call them, else by the graph, or by a user's patterns."""

import pytest

from keras_transfer.backbones.variable_blocks import group_variables
from keras_transfer.errors import InvalidParameterError


def blocks(names, patterns=None, **told):
    """Say which block each variable is in."""
    found = group_variables(names, patterns, **told)
    by_place = {place: block for block, _, members in found for place, _ in members}
    return [by_place[place] for place in range(len(names))]


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (
            ["Conv1", "block_1_expand", "block_2_add", "Conv_1"],
            ["stem", "block_1", "block_2", "top"],
        ),
        (["stem_conv", "block1a_dwconv", "block2a_bn", "top_conv"], None),
        (
            ["bert/embeddings", "bert/encoder/layer_0/dense", "bert/encoder/layer_1/dense", "pool"],
            ["stem", "layer_0", "layer_1", "top"],
        ),
        (["dense_8", "dense_9"], ["dense_8", "dense_9"]),
        (
            ["a_stem/a_stem_conv", "a_stage_0_block_0_conv", "a_downsampling_block_0/conv_0"],
            ["stem", "stage_0_block_0", "stage_1_block_0"],
        ),
    ],
)
def test_names_tell_blocks(scopes, expected):
    found = blocks([f"{scope}/kernel" for scope in scopes])
    assert found == (expected or ["stem", "block1a", "block2a", "top"])


def test_else_the_graph_does():
    names = ["one/kernel", "one/bias", "norm/gamma", "two/depthwise", "two/pointwise", "two/bias"]
    # A stretch without a kernel joins the one before; a layer is in one block.
    found = blocks(names, stretches=[0, 1, 2, 3, 4, 5], ranks=[4, 1, 1, 4, 4, 1])
    assert found == ["one"] * 3 + ["two"] * 3
    # What comes before the first kernel joins it; names are told apart.
    found = blocks(["scale", "a/kernel", "b/kernel"], stretches=[0, 1, 2], ranks=[1, 2, 2])
    assert found == ["a", "a", "b"]
    found = blocks(["x/head/w", "y/head/w"], stretches=[0, 1], ranks=[2, 2])
    assert found == ["head_1", "head_2"]


def test_else_there_is_one():
    assert blocks(["one/kernel", "one/bias"], stretches=[0, 1], ranks=[2, 1]) == ["saved_model"] * 2
    assert blocks(["one/kernel", "two/kernel"]) == ["saved_model"] * 2


def test_patterns_come_first_and_what_none_names_joins_the_one_before():
    names = ["block_1/kernel", "extra/kernel", "block_2/kernel"]
    assert blocks(names, ((r"_(\d)", r"part\1"),)) == ["part1", "part1", "part2"]
    with pytest.raises(InvalidParameterError, match=r"matches no variable\. Their scopes: block_1"):
        blocks(names, (("dense", "x"),))


def test_the_weights_of_a_batch_norm_stand_apart_in_their_scope():
    names = [f"block_1/{own}" for own in ("kernel", "gamma", "moving_mean", "moving_variance")]
    found = group_variables([*names, "block_2/kernel", "block_2/count"], None, updated={5})
    assert [[own for _, own in members] for _, _, members in found] == [
        ["kernel"],
        ["gamma", "moving_mean", "moving_variance"],
        ["kernel"],
        ["count"],
    ]


def test_variables_of_one_name_are_told_apart():
    ((_, _, members),) = group_variables(["layer/w", "layer/w", "layer/w"], None)
    assert members == ((0, "w"), (1, "w_"), (2, "w__"))
