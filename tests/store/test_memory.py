"""The parameter ``memory``."""

from pathlib import Path

import numpy as np
import pytest

from keras_transfer.errors import InvalidParameterError, InvalidTypeError, UnknownNameError
from keras_transfer.store.memory import LEAST_SIZE, Memory, as_memory


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Memory()),
        (False, None),
        ("a", Memory("a")),
        (Path("a"), Memory(Path("a"))),
        (Memory("b", exact=True), Memory("b", exact=True)),
    ],
)
def test_as_memory(value, expected):
    assert as_memory(value) == expected


@pytest.mark.parametrize("value", [True, 0, b"a", ["a"], {}])
def test_as_memory_of_another_type(value):
    with pytest.raises(InvalidTypeError, match="memory: expected None, False, a folder"):
        as_memory(value)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"folder": 3}, InvalidTypeError, "folder: expected a str or path, or None"),
        ({"folder": b"a"}, InvalidTypeError, "Received: bytes"),
        ({"folder": ""}, InvalidParameterError, "folder: expected the name of a folder"),
        (
            {"size_limit": LEAST_SIZE - 1},
            InvalidParameterError,
            "at least 1,048,576 bytes.*=False",
        ),
        ({"size_limit": -1}, InvalidParameterError, "Received: -1"),
        ({"size_limit": 1e9}, InvalidParameterError, "size_limit: expected an int"),
        ({"size_limit": True}, InvalidParameterError, "Received: True"),
        ({"size_limit": None}, InvalidParameterError, "Received: None"),
        ({"dtype": "float61"}, UnknownNameError, "Did you mean 'float16'"),
        ({"dtype": np.float32}, UnknownNameError, "Expected one of: float32, float16"),
        ({"exact": "yes"}, InvalidTypeError, "exact: expected True or False"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        Memory(**parameters)


def test_the_least_size_is_allowed():
    assert Memory(size_limit=LEAST_SIZE).size_limit == LEAST_SIZE
