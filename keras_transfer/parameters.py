"""Checks of parameter values, as data: one table for estimators, recipes and recipe files."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_transfer.errors import InvalidParameterError, nearest_name

__all__ = ["Constraint", "check_parameters", "find_problems"]


@dataclass(frozen=True)
class Constraint:
    """What a parameter may be.

    Attributes
    ----------
    expected : str
        In words, after "expected".
    allows : callable
        From a value to whether it may be.
    options : tuple of str
        The names among the allowed values, to suggest the nearest.
    """

    expected: str
    allows: Callable[[Any], bool]
    options: tuple[str, ...] = ()

    def __or__(self, other: Constraint) -> Constraint:
        return Constraint(
            f"{self.expected} or {other.expected}",
            lambda value: self.allows(value) or other.allows(value),
            self.options + other.options,
        )


NONE = Constraint("None", lambda value: value is None)


def number(
    low: float = 0.0, high: float = math.inf, *, above: bool = False, below: bool = False
) -> Constraint:
    """Allow finite real numbers from ``low`` (or above it) to ``high`` (or below it)."""
    words = "a number"
    if low != -math.inf:
        words += f" {'above' if above else 'of at least'} {low:g}"
    words += "" if high == math.inf else f" and {'below' if below else 'at most'} {high:g}"

    def allows(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        try:
            value = float(value)
        except OverflowError:
            return False
        is_enough = low < value if above else low <= value
        return math.isfinite(value) and is_enough and (value < high if below else value <= high)

    return Constraint(words, allows)


def integer(low: int = 0) -> Constraint:
    """Allow whole numbers from ``low`` on."""
    return Constraint(
        f"an int of at least {low}",
        lambda v: isinstance(v, numbers.Integral) and not isinstance(v, bool) and int(v) >= low,
    )


def one_of(*names: Any) -> Constraint:
    """Allow a few values."""
    texts = tuple(name for name in names if isinstance(name, str))

    def allows(value: Any) -> bool:
        if isinstance(value, str):  # NumPy's strings too, as from a search over an array
            return value in texts
        return any(type(value) is type(name) and value == name for name in names)

    return Constraint("one of " + ", ".join(map(repr, names)), allows, texts)


def instance_of(kind: type | tuple[type, ...], words: str) -> Constraint:
    """Allow instances of a type."""
    return Constraint(words, lambda value: isinstance(value, kind))


def satisfying(check: Callable[[Any], Any], words: str) -> Constraint:
    """Allow what a function accepts without a `ValueError` or `TypeError`."""

    def allows(value: Any) -> bool:
        try:
            check(value)
        except (ValueError, TypeError):
            return False
        return True

    return Constraint(words, allows)


def sequence_of(item: Constraint) -> Constraint:
    """Allow a non-empty list or tuple of allowed items."""
    return Constraint(
        f"a list of {item.expected}",
        lambda v: isinstance(v, (list, tuple)) and len(v) > 0 and all(map(item.allows, v)),
    )


def find_problems(
    owner: str, values: Mapping[str, Any], constraints: Mapping[str, Constraint]
) -> list[str]:
    """Word what is wrong with parameter values, one sentence each."""
    problems = []
    for name, constraint in constraints.items():
        if name in values and not constraint.allows(values[name]):
            value = values[name]
            nearest = nearest_name(value, constraint.options) if isinstance(value, str) else None
            hint = f" Did you mean {nearest!r}?" if nearest else ""
            problems.append(
                f"{owner}: {name}: expected {constraint.expected}. Received: {value!r}.{hint}"
            )
    return problems


def check_parameters(
    owner: str, values: Mapping[str, Any], constraints: Mapping[str, Constraint]
) -> None:
    """Raise if a parameter has a value that it may not have.

    Raises
    ------
    InvalidParameterError
    """
    raise_problems(find_problems(owner, values, constraints))


def raise_problems(problems: Sequence[str] | Iterable[str]) -> None:
    """Raise one error for all problems, if there are any."""
    problems = list(problems)
    if problems:
        raise InvalidParameterError("\n".join(problems))
