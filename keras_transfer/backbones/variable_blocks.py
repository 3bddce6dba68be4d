"""Blocks of a SavedModel, told by the scopes of its variables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from keras_transfer.backbones.applications import FAMILIES
from keras_transfer.backbones.partition import BlockPatterns, check_block_names
from keras_transfer.errors import InvalidParameterError

__all__ = ["WHOLE", "VariableNames", "group_variables"]

# The one block, where the scopes tell none.
WHOLE = "saved_model"
# Block, scope, and of each variable its place and its own name.
VariableNames = tuple[str, str, tuple[tuple[int, str], ...]]

# Which blocks the scopes of variables make; the first set by which at least two are found, and
# nothing in between is left unnamed, is taken. What comes before the first block is its stem, what
# comes after the last its top.
_GENERIC: tuple[BlockPatterns, ...] = (
    ((r"(?:^|/)(block_?\d+[a-z]?)(?:[_/]|$)", r"\1"),),
    ((r"(?:^|/)(?:encoder|transformer)[^/]*/(?:layer|block)s?[_/]?(\d+)", r"layer_\1"),),
    ((r"(?:^|/)(stage_?\d+|group_?\d+|conv_?\d+|mixed_?\w+?)(?:[_/]|$)", r"\1"),),
    ((r"(?:^|/)((?:layer|dense|cell)_?\d+)(?:[_/]|$)", r"\1"),),
)


def group_variables(
    names: Sequence[str], patterns: BlockPatterns | None
) -> tuple[VariableNames, ...]:
    """Group variables by the layer that their scope names, and these into blocks.

    Parameters
    ----------
    names : sequence of str
        In the order in which data meets them, such as ``"block_1_expand/kernel"``.
    patterns : tuple of (str, str), optional
        Over scopes; by default the blocks are told by what families of networks call them, or
        there is one.

    Returns
    -------
    tuple of (str, str, tuple of (int, str))
        Block, scope, and of each variable its place in ``names`` and its own name; the blocks in
        the order in which they begin.

    Raises
    ------
    InvalidParameterError
        If a pattern matches nothing, or makes a name that no block can have.
    """
    scopes = [name.rpartition("/")[0] or name for name in names]
    block_of = _blocks_by_patterns(scopes, patterns) if patterns else _blocks_by_name(scopes)
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    taken: set[tuple[str, str, str]] = set()
    for place, (name, scope) in enumerate(zip(names, scopes, strict=True)):
        own = name.rpartition("/")[2]
        key = block_of[scope], scope.replace("/", ".")
        numbered = own
        while (*key, numbered) in taken:  # scopes of several layers may be called alike
            numbered += "_"
        taken.add((*key, numbered))
        groups.setdefault(key, []).append((place, numbered))
    order = list(dict.fromkeys(block for block, _ in groups))
    return tuple(
        (block, scope, tuple(members))
        for wanted in order
        for (block, scope), members in groups.items()
        if block == wanted
    )


def _blocks_by_patterns(scopes: Sequence[str], patterns: BlockPatterns) -> dict[str, str]:
    """Name the block of each scope by a user's patterns; what none names joins the one before."""
    found: dict[str, str] = {}
    for pattern, template in patterns:
        matches = {scope: re.search(pattern, scope) for scope in scopes}
        if not any(matches.values()):
            raise InvalidParameterError(
                f"blocks: pattern {pattern!r} matches no variable. Their scopes: "
                f"{', '.join(dict.fromkeys(scopes))}."
            )
        for scope, match in matches.items():
            if match is not None:
                found.setdefault(scope, match.expand(template))
    check_block_names(found.values())
    first = next(found[scope] for scope in scopes if scope in found)
    for scope in scopes:
        first = found.setdefault(scope, first)
    return found


def _blocks_by_name(scopes: Sequence[str]) -> dict[str, str]:
    """Name the blocks where the scopes tell them; else there is one."""
    for patterns in dict.fromkeys(family.blocks for family in FAMILIES.values()):
        # A layer inside another may be named by that one.
        named = {s: _match(s.rpartition("/")[2], patterns) or _match(s, patterns) for s in scopes}
        if all(named.values()) and len(set(named.values())) > 1:
            return {scope: name or "" for scope, name in named.items()}
    for patterns in _GENERIC:
        matched = [_match(scope, patterns) for scope in scopes]
        places = [place for place, name in enumerate(matched) if name]
        if len({name for name in matched if name}) < 2:
            continue
        inside = matched[places[0] : places[-1] + 1]
        if not all(inside):
            continue
        return {
            scope: name or ("stem" if place < places[0] else "top")
            for place, (scope, name) in enumerate(zip(scopes, matched, strict=True))
        }
    return dict.fromkeys(scopes, WHOLE)


def _match(name: str, patterns: BlockPatterns) -> str | None:
    for pattern, template in patterns:
        if (found := re.search(pattern, name)) is not None:
            return found.expand(template)
    return None
