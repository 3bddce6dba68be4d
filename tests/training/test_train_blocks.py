"""Which blocks train: what a parameter names in a model."""

import numpy as np
import pytest

from keras_transfer.backbones.partition import Block
from keras_transfer.errors import InvalidParameterError, UnknownNameError
from keras_transfer.training.train_blocks import (
    TRAIN_BLOCKS,
    names_blocks,
    names_none,
    select_blocks,
)

BLOCKS = [Block(name, (), 0) for name in ("stem", "low", "high", "head")]


@pytest.mark.parametrize(
    ("train_blocks", "expected"),
    [
        (0, ()),
        (1, ("high",)),
        (np.int64(2), ("low", "high")),
        ("all", ("stem", "low", "high")),
        (["high", "stem"], ("stem", "high")),
    ],
    ids=str,
)
def test_names_blocks_input_side_first(train_blocks, expected):
    assert TRAIN_BLOCKS.allows(train_blocks)
    assert select_blocks(train_blocks, BLOCKS) == expected
    assert names_none(train_blocks) == (not expected)
    assert names_blocks(train_blocks) == (train_blocks not in (0, "all"))


MISTAKES = {
    "more than there are": (
        4,
        InvalidParameterError,
        r"at most 3, .*\(stem, low, high\)\. Received: 4",
    ),
    "an unknown one": (["hihg"], UnknownNameError, "Did you mean 'high'"),
    "the head": (["head"], UnknownNameError, "'head'"),
    "chosen, without data": ("auto", InvalidParameterError, "an estimator chooses"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_says_what_is_wrong(case):
    train_blocks, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        select_blocks(train_blocks, BLOCKS)
