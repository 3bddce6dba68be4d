"""Where to read: chosen by how well an exact head answers for examples that it has not seen."""

from __future__ import annotations

import itertools
import numbers
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_transfer.backbones.partition import HEAD, RESERVED, Block
from keras_transfer.choosing.out_of_fold import OutOfFold
from keras_transfer.choosing.trial import Trial
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.nodes import Node
from keras_transfer.graph.readout import CONCATENATE, LAST, Pooling, Readout
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.train_blocks import names_blocks, select_blocks

__all__ = [
    "AUTO",
    "ReadoutChoice",
    "ScoredReadout",
    "candidate_readouts",
    "choose_readout",
    "given_readout",
]

AUTO = "auto"

# The grids that are tried beside the average; a finer one is hardly ever better, and takes more.
_GRIDS = ((2, 2), (4, 4))
_LARGEST_FEATURES = 4096
# Neighbouring blocks give much the same; of a deeper network every second or third is tried.
_MOST_BLOCKS = 18
# In how many stretches of the depth the best is looked for, to be joined. One block alone is chosen
# by chance among many alike: joining the best of each half was better by 0.01 to 0.02 of accuracy,
# over 5 to 20 labels a class from emoji and digits that are in no benchmark. Joining thirds was
# worse by 0.005 and by 0.009 ± 0.006 on two sets of draws.
_PARTS = 2
# The simplest within so many standard errors of the best, of their difference. It costs no accuracy
# there (0.806 against 0.802), and leaves out 0.42 of the blocks in place of 0.33.
_STANDARD_ERRORS = 1.0


@dataclass(frozen=True)
class ScoredReadout:
    """A readout, and how well an exact head on it answers for examples that it has not seen.

    Attributes
    ----------
    readout : Readout
    loss : float
        Out-of-fold: in nats; of numbers the squared error in units of their variance.
    standard_error : float
        Of the loss, over the examples.
    n_features : int
    """

    readout: Readout
    loss: float
    standard_error: float
    n_features: int


@dataclass(frozen=True)
class ReadoutChoice:
    """Where the head reads, and why.

    Attributes
    ----------
    readout : Readout
    reason : str
        ``"chosen among 44, joined in 9 ways"``, ``"given"``, or why there was no choice.
    ranking : tuple of ScoredReadout
        Those that were solved for fold by fold, best first; empty where there was no choice.
    parameters : int
        Numbers in the weights of the backbone up to the readout.
    left_out : int
        Numbers in the weights above it, which are no part of the model; 0 if that is not known.
    seconds : float
        That the choice took, its pass of the backbone included.
    """

    readout: Readout
    reason: str
    ranking: tuple[ScoredReadout, ...] = ()
    parameters: int = 0
    left_out: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        words = f"{self.readout.description}, {self.reason}"
        if not self.ranking:
            return words
        chosen = next(each for each in self.ranking if each.readout == self.readout)
        words += f": out-of-fold loss {chosen.loss:.3g} ± {chosen.standard_error:.2g}"
        for other in [each for each in self.ranking if each is not chosen][:1]:
            words += f", of {other.readout.description} {other.loss:.3g}"
        return f"{words}; {self.left_out / (self.parameters + self.left_out):.0%} left out above it"


def candidate_readouts(nodes: Mapping[str, Node]) -> list[Readout]:
    """List what the head could read: each block's output, averaged and in grids.

    Parameters
    ----------
    nodes : mapping of str to Node
        Of the network that reads the last block.

    Returns
    -------
    list of Readout
        Input side first, fewer features first. Blocks of several outputs are left out, and grids
        finer than the map or of more than 4096 features.
    """
    shapes = _block_shapes(nodes)
    names = list(shapes)
    if len(names) > _MOST_BLOCKS:  # spread over the depth, the last among them
        places = np.linspace(len(names) - 1, 0, _MOST_BLOCKS).round().astype(int)
        names = [names[place] for place in sorted(set(places.tolist()))]
    found = []
    for name in names:
        shape = shapes[name]
        found.append(Readout(name))
        for rows, columns in _GRIDS if len(shape) == 3 else ():
            is_finer = rows < shape[0] and columns < shape[1]
            is_whole = rows == shape[0] and columns == shape[1]
            if (is_finer or is_whole) and rows * columns * shape[2] <= _LARGEST_FEATURES:
                found.append(Readout(name, (rows, columns)))
    return found


def _block_shapes(nodes: Mapping[str, Node]) -> dict[str, tuple[int, ...]]:
    """Return the shape of the output of each block that has one."""
    blocks: dict[str, list[Node]] = {}
    readers: dict[str, set[str]] = {}
    for node in nodes.values():
        if node.block and node.block not in RESERVED:
            blocks.setdefault(node.block, []).append(node)
        for name in node.inputs:
            readers.setdefault(name, set()).add(node.block)
    shapes = {}
    for name, inside in blocks.items():
        exits = [node for node in inside if readers.get(node.name, {""}) != {name}]
        shape = exits[-1].shape
        if len(exits) == 1 and shape is not None and len(shape) in (1, 2, 3):
            shapes[name] = shape
    return shapes


def given_readout(readout: Readout, network: LazyNetwork, reason: str = "given") -> ReadoutChoice:
    """Return what stands for a readout that a user gave, of the network that reads so."""
    blocks = [block for block in network.outline.blocks if block.name != HEAD]
    resolved = readout.resolve([block.name for block in blocks], "the backbone")
    return ReadoutChoice(resolved, reason, (), sum(block.parameters for block in blocks))


def choose_readout(
    blueprint: Blueprint,
    trial: Trial,
    *,
    train_blocks: Any = None,
    advance: Callable[[int], None] = lambda n: None,
    deadline: float | None = None,
) -> ReadoutChoice:
    """Choose where the head reads, on the training examples.

    All candidates are computed in one pass of the backbone, and kept: what is chosen is not
    computed again. They are ranked by how well a ridge foretells each example from the others.
    For each depth at which the model could end the best ones of the halves of that depth are
    joined, and an exact head is solved for all folds but one and answers for that. The least deep
    of those within one standard error of the best is taken.

    Parameters
    ----------
    blueprint : Blueprint
        Of the model; what it reads is left open.
    trial : Trial
        The training examples.
    train_blocks : object
        The recipe's: a number or names of blocks, which the model then holds.
    advance : callable
        Called with the number of rows that were computed.
    deadline : float, optional
        On the clock of ``time.monotonic``.

    Returns
    -------
    ReadoutChoice

    References
    ----------
    Evci et al., "Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning"
    (2022, arXiv 2201.03529), for reading between the layers. Breiman et al., "Classification and
    Regression Trees" (1984), for the simplest within a standard error.
    """
    began = time.monotonic()

    def network_of(readout: Readout, **changes: Any) -> LazyNetwork:
        return trial.network(replace(blueprint, readout=readout, **changes))

    whole = network_of(Readout(LAST), head=None)
    least = _least_depth(train_blocks, whole.outline.blocks)
    depths = [block.name for block in whole.outline.blocks]
    sizes = {block.name: block.parameters for block in whole.outline.blocks}

    def result(readout: Readout, reason: str, ranking: Sequence[ScoredReadout] = ()) -> Any:
        resolved = readout.resolve(depths, blueprint.backbone.name)
        deepest = max(map(depths.index, resolved.blocks))
        return ReadoutChoice(
            resolved,
            reason,
            tuple(ranking),
            sum(sizes[name] for name in depths[: deepest + 1]),
            sum(sizes[name] for name in depths[deepest + 1 :]),
            time.monotonic() - began,
        )

    if whole.is_random:
        return result(Readout(LAST), "the last block: its weights are random")
    candidates = candidate_readouts(whole.outline.nodes)
    deepest = depths.index(candidates[-1].blocks[0]) if candidates else -1
    if len(candidates) < 2 or deepest < least:
        return result(Readout(LAST), "the last block: no other can be read")
    if trial.why_not:
        return result(Readout(LAST), f"the last block: {trial.why_not}")

    # === One pass for all ===
    n_examples = len(trial.targets)
    computed = np.arange(n_examples) if n_examples <= 2 * len(trial.rows) else trial.rows
    joined = network_of(
        Readout([each.blocks[0] for each in candidates], [each.pooling[0] for each in candidates]),
        head=None,
    )
    cuts = [(end,) for end in joined.nodes[CONCATENATE].inputs]
    found = trial.activations(joined, cuts, computed, advance=advance, deadline=deadline)
    if found is None:
        return result(Readout(LAST), "the last block: one pass takes longer than the time budget")
    places = np.searchsorted(computed, trial.rows)
    features = {
        readout: outputs.take(places)[0] for readout, outputs in zip(candidates, found, strict=True)
    }

    # === Which of them ===
    def answer(readout: Readout) -> OutOfFold:
        return trial.answer(np.concatenate([features[part] for part in _parts(readout)], axis=1))

    quick = {each: trial.answer_quickly(features[each]) for each in candidates}
    # Where the model could end: for each depth the best of each stretch of what lies below.
    blocks = list(dict.fromkeys(each.blocks[0] for each in candidates))
    answers: dict[Readout, OutOfFold] = {}
    for n_blocks in range(-(-len(blocks) // 2), len(blocks) + 1):
        if depths.index(blocks[n_blocks - 1]) < least:
            continue
        stretches = [
            list(part) for part in np.array_split(np.array(blocks[:n_blocks], object), _PARTS)
        ]
        stretches[-1] = [name for name in stretches[-1] if depths.index(name) >= least]
        best_of_each = [
            min((each for each in candidates if each.blocks[0] in names), key=quick.__getitem__)
            for names in stretches
            if names
        ]
        readout = _join(best_of_each)
        if readout not in answers:
            answers[readout] = answer(readout)
    best = min(answers, key=lambda each: answers[each].loss)

    def is_as_good(each: Readout) -> bool:
        above, error = answers[each].difference(answers[best])
        return each == best or above <= _STANDARD_ERRORS * error

    def size(readout: Readout) -> int:
        return sum(features[part].shape[1] for part in _parts(readout))

    chosen = min(
        filter(is_as_good, answers),
        key=lambda each: (max(map(depths.index, each.blocks)), size(each)),
    )
    ranking = [
        ScoredReadout(each, answers[each].loss, answers[each].standard_error, size(each))
        for each in sorted(answers, key=lambda each: answers[each].loss)
    ]
    if len(chosen.blocks) > 1:  # each part is kept; what reads them joined is to find them so
        outputs = dict(zip(candidates, found, strict=True))
        arrays = [outputs[part].arrays[0] for part in _parts(chosen)]
        trial.keep(network_of(chosen), computed, np.concatenate(arrays, axis=1))
    reason = f"chosen among {len(candidates)}, joined in {len(answers)} ways"
    return result(chosen, reason, ranking)


def _least_depth(train_blocks: Any, blocks: Sequence[Block]) -> int:
    """Return the place of the block that must be there for a recipe's blocks to train."""
    if not names_blocks(train_blocks):  # "all", "gradual": whatever is there
        return 0
    selected = select_blocks(train_blocks, blocks)  # refuses what does not exist
    if isinstance(train_blocks, numbers.Integral):
        return max(len(selected), 1) - 1
    return [block.name for block in blocks].index(selected[-1])


def _parts(readout: Readout) -> list[Readout]:
    return list(itertools.starmap(Readout, zip(readout.blocks, readout.pooling, strict=True)))


def _join(parts: Sequence[Readout]) -> Readout:
    blocks: list[str] = []
    pooling: list[Pooling] = []
    for part in parts:
        blocks += part.blocks
        pooling += part.pooling
    return Readout(blocks, pooling)
