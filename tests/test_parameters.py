"""Checks of parameter values: what each constraint allows, and how a mistake is worded."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from keras_transfer.errors import InvalidParameterError
from keras_transfer.parameters import (
    NONE,
    Constraint,
    check_parameters,
    find_problems,
    instance_of,
    integer,
    number,
    one_of,
    raise_problems,
    satisfying,
    sequence_of,
)

# Name -> a constraint, what it allows, what it does not.
TABLE = {
    "none": (NONE, [None], [0, "", False, "None"]),
    "number": (
        number(),
        [0, 0.0, 1, 2.5, np.float32(1), np.int64(3), Fraction(1, 3), 1e300],
        [-1, -1e-9, math.nan, math.inf, np.nan, True, np.True_, "1", None, 1j, Decimal(1), [1]],
    ),
    "number above": (number(0, above=True), [1e-9, 1], [0, 0.0, -0.0, -1, math.inf]),
    "number within": (number(0, 0.9), [0, 0.9, np.float64(0.5)], [0.91, 1, -0.1]),
    "number above and at most": (number(0, 1, above=True), [1, 0.5], [0, 1.001]),
    "number below": (number(0, 1, below=True), [0, 0.999], [1, 1.0, -1e-9, 2]),
    "any number": (number(-math.inf), [-1e300, 0, 5], [-math.inf, math.nan, True]),
    "a number beyond floats": (number(), [], [10**400, -(10**400)]),
    "integer": (
        integer(),
        [0, 5, 10**400, np.int64(2), np.uint8(2)],
        [-1, 1.0, True, np.True_, "1", None, math.nan, np.array([1])],
    ),
    "integer from": (integer(3), [3, 4], [2, 0]),
    "names": (
        one_of("auto", "all"),
        ["auto", "all"],
        ["Auto", "", None, 0, ["auto"], b"auto", np.array(["auto"])],
    ),
    # What GridSearchCV takes from np.array(["auto", "all"]).
    "names as NumPy gives them": (one_of("auto", "all"), [np.str_("auto")], [np.str_("other")]),
    "names and numbers": (one_of("auto", True, 0), ["auto", True, 0], [False, 1, 0.0, "0"]),
    "instance": (instance_of((str, bytes), "text"), ["a", b"a"], [1, None, ["a"]]),
    "satisfying": (satisfying(int, "an int"), ["3", 3, 2.5], ["x", None, []]),
    "sequence": (
        sequence_of(integer(1)),
        [[1], (1, 2)],
        [[], (), [0], [1, None], "12", 1, {1}, None],
    ),
    "either": (NONE | integer(1) | one_of("all"), [None, 1, "all"], [0, "al", 1.5, [1]]),
}


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        pytest.param(c, v, id=f"{k}-{v!r:.30}")
        for k, (c, allowed, _) in TABLE.items()
        for v in allowed
    ],
)
def test_allowed(constraint, value):
    assert constraint.allows(value)
    check_parameters("Thing", {"p": value}, {"p": constraint})


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        pytest.param(c, v, id=f"{k}-{v!r:.30}")
        for k, (c, _, refused) in TABLE.items()
        for v in refused
    ],
)
def test_refused(constraint, value):
    assert not constraint.allows(value)
    with pytest.raises(InvalidParameterError) as e:
        check_parameters("Thing", {"p": value}, {"p": constraint})
    assert str(e.value).startswith(f"Thing: p: expected {constraint.expected}. Received: {value!r}")


WORDS = {
    "None": NONE,
    "a number of at least 0": number(),
    "a number above 0": number(0, above=True),
    "a number of at least 0 and at most 0.95": number(0, 0.95),
    "a number": number(-math.inf),
    "an int of at least 1": integer(1),
    "one of 'auto', True, 0": one_of("auto", True, 0),
    "a list of an int of at least 1": sequence_of(integer(1)),
    "None or an int of at least 0 or one of 'all'": NONE | integer() | one_of("all"),
    "block names": instance_of(str, "block names"),
    "what int takes": satisfying(int, "what int takes"),
}


@pytest.mark.parametrize("words", WORDS)
def test_words(words):
    assert WORDS[words].expected == words


def test_other_errors_than_of_values_get_through():
    def broken(value):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        satisfying(broken, "anything").allows(1)


CONSTRAINTS = {"mode": one_of("composite", "structure"), "epochs": NONE | integer(1)}


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"mode": "structure", "epochs": 3}, []),
        ({}, []),
        ({"other": object()}, []),
        (
            {"mode": "structur"},
            [
                "R: mode: expected one of 'composite', 'structure'. Received: 'structur'. Did you "
                "mean 'structure'?"
            ],
        ),
        ({"mode": "q"}, ["R: mode: expected one of 'composite', 'structure'. Received: 'q'."]),
        ({"mode": 5}, ["R: mode: expected one of 'composite', 'structure'. Received: 5."]),
        (
            {"epochs": 0, "mode": None},
            [
                "R: mode: expected one of 'composite', 'structure'. Received: None.",
                "R: epochs: expected None or an int of at least 1. Received: 0.",
            ],
        ),
        # A number is never near a name.
        (
            {"epochs": "comp"},
            ["R: epochs: expected None or an int of at least 1. Received: 'comp'."],
        ),
    ],
    ids=["right", "empty", "not constrained", "typo", "far off", "no text", "two", "no options"],
)
def test_problems(values, problems):
    assert find_problems("R", values, CONSTRAINTS) == problems
    if problems:
        with pytest.raises(InvalidParameterError) as e:
            check_parameters("R", values, CONSTRAINTS)
        assert str(e.value) == "\n".join(problems)
    else:
        check_parameters("R", values, CONSTRAINTS)


def test_the_nearest_name_is_found_on_either_side_of_an_or():
    for constraint in (NONE | one_of("all"), one_of("all") | NONE, one_of("some") | one_of("all")):
        (problem,) = find_problems("R", {"p": "al"}, {"p": constraint})
        assert problem.endswith("Did you mean 'all'?")


def test_raise_problems_takes_what_is_made_on_the_way():
    raise_problems(iter([]))
    with pytest.raises(InvalidParameterError, match=r"^a\nb$"):
        raise_problems(word for word in "ab")


def test_a_constraint_of_ones_own():
    even = NONE | Constraint("an even number", lambda value: value % 2 == 0)
    assert even.expected == "None or an even number"
    assert [even.allows(value) for value in (None, 2, 3)] == [True, True, False]
