"""Blocks of a SavedModel, told by the scopes of its variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from keras_transfer.backbones.applications import FAMILIES
from keras_transfer.backbones.partition import RESERVED, BlockPatterns, check_block_names
from keras_transfer.errors import InvalidParameterError

__all__ = ["AFFINE", "STATISTICS", "WHOLE", "VariableNames", "group_variables"]

# The one block, where neither scopes nor the graph tell any.
WHOLE = "saved_model"
# What the weights of a BatchNorm are called, in Keras and in TensorFlow's own libraries.
STATISTICS = ("moving_mean", "moving_variance")
AFFINE = ("gamma", "beta")
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
    names: Sequence[str],
    patterns: BlockPatterns | None,
    stretches: Sequence[int | None] | None = None,
    ranks: Sequence[int] = (),
    updated: Collection[int] = (),
) -> tuple[VariableNames, ...]:
    """Group variables by the layer that their scope names, and these into blocks.

    Parameters
    ----------
    names : sequence of str
        In the order in which data meets them, such as ``"block_1_expand/kernel"``.
    patterns : tuple of (str, str), optional
        Over scopes; by default the blocks are told by what families of networks call them, or else
        by the stretches, or there is one.
    stretches : sequence of int or None, optional
        Between which points that all data passes each is used; None joins others of its scope.
    ranks : sequence of int, optional
        Of their shapes: a stretch begins a block if it learns a new map, as a kernel does.
    updated : collection of int, optional
        The places of those that move in training without a gradient, as statistics do.

    Returns
    -------
    tuple of (str, str, tuple of (int, str))
        Block, scope, and of each variable its place in ``names`` and its own name; the blocks in
        the order in which they begin. The weights of a BatchNorm, which follow a policy of their
        own, stand apart from others of their scope.

    Raises
    ------
    InvalidParameterError
        If a pattern matches nothing, or makes a name that no block can have.
    """
    scopes = [name.rpartition("/")[0] or name for name in names]
    if patterns:
        blocks = _blocks_by_patterns(scopes, patterns)
    else:
        blocks = (
            _blocks_by_name(scopes)
            or _blocks_by_stretch(scopes, stretches or [None] * len(scopes), ranks)
            or [WHOLE] * len(scopes)
        )
    groups: dict[tuple[str, str, bool], list[tuple[int, str]]] = {}
    taken: set[tuple[str, str, str]] = set()
    norms = _scopes_of_norms(names, scopes)
    for place, (name, scope, block) in enumerate(zip(names, scopes, blocks, strict=True)):
        own = name.rpartition("/")[2]
        key = block, scope.replace("/", ".")
        numbered = own
        while (*key, numbered) in taken:  # scopes of several layers may be called alike
            numbered += "_"
        taken.add((*key, numbered))
        is_of_norm = place in updated or (scope in norms and own in (*STATISTICS, *AFFINE))
        groups.setdefault((*key, is_of_norm), []).append((place, numbered))
    order = list(dict.fromkeys(block for block, _, _ in groups))
    return tuple(
        (block, scope, tuple(members))
        for wanted in order
        for (block, scope, _), members in groups.items()
        if block == wanted
    )


def _scopes_of_norms(names: Sequence[str], scopes: Sequence[str]) -> set[str]:
    own: dict[str, set[str]] = {}
    for name, scope in zip(names, scopes, strict=True):
        own.setdefault(scope, set()).add(name.rpartition("/")[2])
    return {scope for scope, found in own.items() if found.issuperset(STATISTICS)}


def _blocks_by_patterns(scopes: Sequence[str], patterns: BlockPatterns) -> list[str]:
    """Name the block of each variable by a user's patterns; unnamed ones join those before."""
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
    before = next(found[scope] for scope in scopes if scope in found)
    for scope in scopes:
        before = found.setdefault(scope, before)
    return [found[scope] for scope in scopes]


def _blocks_by_name(scopes: Sequence[str]) -> list[str]:
    """Name the block of each variable where the scopes tell it; else return nothing."""
    for patterns in dict.fromkeys(family.blocks for family in FAMILIES.values()):
        # A layer inside another may be named by that one.
        named = [_match(s.rpartition("/")[2], patterns) or _match(s, patterns) for s in scopes]
        if len(set(named)) > 1 and all(named):
            return [name or "" for name in named]
    for patterns in _GENERIC:
        named = [_match(scope, patterns) for scope in scopes]
        places = [place for place, name in enumerate(named) if name]
        if len(set(named) - {None}) < 2 or not all(named[places[0] : places[-1] + 1]):
            continue
        return [
            name or ("stem" if place < places[0] else "top") for place, name in enumerate(named)
        ]
    return []


def _blocks_by_stretch(
    scopes: Sequence[str], stretches: Sequence[int | None], ranks: Sequence[int]
) -> list[str]:
    """Make a block of each stretch with a kernel, called as its first layer is."""
    first: dict[int | None, str] = {}
    begun: set[str] = set()
    for scope, stretch, rank in zip(scopes, stretches, ranks, strict=False):
        # A layer of two kernels, one after the other, is one block.
        if rank > 1 and stretch is not None and scope not in begun:
            begun.add(scope)
            first.setdefault(stretch, scope.rpartition("/")[2].replace(".", "_"))
    if len(first) < 2:
        return []
    names: dict[int | None, str] = {}
    for stretch, own in first.items():
        numbered = (own, *(f"{own}_{number}" for number in range(1, len(first) + 1)))
        taken = {*names.values(), *RESERVED}
        names[stretch] = next(name for name in numbered if name not in taken)
    blocks, before = [], next(iter(names.values()))
    of_scope: dict[str, str] = {}
    for scope, stretch in zip(scopes, stretches, strict=True):
        before = names.get(stretch, before) if stretch is not None else of_scope.get(scope, before)
        of_scope.setdefault(scope, before)
        blocks.append(before)
    return blocks


def _match(name: str, patterns: BlockPatterns) -> str | None:
    for pattern, template in patterns:
        if (found := re.search(pattern, name)) is not None:
            return found.expand(template)
    return None
