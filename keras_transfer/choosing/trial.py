"""Trial: the training examples, as choices are made on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from keras_transfer.choosing.out_of_fold import (
    OutOfFold,
    out_of_fold,
    some_examples,
    why_not_answer,
)
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.inputs.splits import deal_folds
from keras_transfer.store.activation_store import Memory, open_store
from keras_transfer.training.activations import Activations
from keras_transfer.training.exact_head import leave_one_out_loss
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.stored_outputs import StoredOutputs

__all__ = ["Trial"]

# One part of so many is left out to see what a training does for examples that it has not seen.
_PARTS = 4
# More than this is not left out: a training on the little that remains would tell of another one.
_MOST_LEFT_OUT = 0.5


@dataclass(frozen=True)
class Trial:
    """Training examples, as choices are made on them: by exact heads, out of fold.

    Attributes
    ----------
    inputs : numpy.ndarray of shape (n, ...) or EncodedPictures
    keys : sequence of bytes, length n
    targets : numpy.ndarray of shape (n,) or (n, n_outputs)
        As for `solve_head`.
    task : {"multiclass", "multilabel", "regression"}
    n_outputs : int
    weights : numpy.ndarray of shape (n,)
    groups : numpy.ndarray of shape (n,) or None
        Examples of one group are never on both sides of a fold.
    memory : Memory or None
        Where the outputs of networks are kept; None: nowhere.
    reader : str
        As for `StoredOutputs`.
    seed : int
        Of the folds: all that is compared is compared on the same ones.
    """

    inputs: Any = field(repr=False)
    keys: Sequence[bytes] = field(repr=False)
    targets: np.ndarray = field(repr=False)
    task: str
    n_outputs: int
    weights: np.ndarray = field(repr=False)
    groups: np.ndarray | None = field(default=None, repr=False)
    memory: Memory | None = None
    reader: str = ""
    seed: int = 0

    @cached_property
    def rows(self) -> np.ndarray:
        """The examples that answers are given for: all, or some that are like all."""
        return some_examples(self.targets, self.task, self.groups, self.seed)

    @cached_property
    def why_not(self) -> str:
        """Why nothing can be told from them; empty if something can."""
        return why_not_answer(
            self.targets[self.rows],
            self.task,
            self.weights[self.rows],
            None if self.groups is None else self.groups[self.rows],
        )

    @cached_property
    def left_out(self) -> np.ndarray:
        """Which examples a training leaves out, to see what it does for them.

        About a quarter, and of classes that others stand for; none where groups do not let them be
        parted so.
        """
        dealt = self.targets.astype(np.float64) if self.task == "regression" else self.targets
        folds = deal_folds(dealt, _PARTS, np.random.default_rng(self.seed), self.groups)
        sizes = np.bincount(folds) / len(folds)
        fold = int(np.argmin(np.abs(sizes - 1 / _PARTS)))
        is_held = folds == fold
        counted = self.weights > 0
        if self.task == "multiclass":
            is_held &= ~is_held | np.isin(self.targets, self.targets[~is_held & counted])
        is_fit = sizes[fold] <= _MOST_LEFT_OUT and (is_held & counted).any()
        return is_held if is_fit else np.zeros(len(folds), bool)

    def network(self, blueprint: Blueprint) -> LazyNetwork:
        """Return a network that notes what is found out about it."""
        return LazyNetwork(blueprint, None if self.memory is None else open_store(self.memory))

    def activations(
        self,
        network: LazyNetwork,
        cuts: Sequence[tuple[str, ...]],
        rows: np.ndarray,
        *,
        advance: Callable[[int], None] = lambda n: None,
        deadline: float | None = None,
    ) -> list[Activations] | None:
        """Return what a network gives for some examples, as `StoredOutputs` does."""
        stored = StoredOutputs(network, self.memory or Memory(exact=True), self.reader)
        is_all = len(rows) == len(self.targets)
        return stored.activations(
            self.inputs if is_all else self.inputs[rows],
            [self.keys[row] for row in rows.tolist()],
            cuts,
            advance=advance,
            deadline=deadline,
            keep=self.memory is not None,
        )

    def keep(self, network: LazyNetwork, rows: np.ndarray, features: np.ndarray) -> None:
        """Keep what a network's head reads of some examples, where outputs are kept."""
        if self.memory is not None:
            stored = StoredOutputs(network, self.memory, self.reader)
            keys = [self.keys[row] for row in rows.tolist()]
            stored.keep(network.boundary().cut, keys, [features])

    def answer(self, features: np.ndarray, n_repeats: int | None = None) -> OutOfFold:
        """Let exact heads on features of the rows answer for those that they have not seen."""
        return out_of_fold(
            features,
            self.targets[self.rows],
            self.task,
            groups=None if self.groups is None else self.groups[self.rows],
            n_outputs=self.n_outputs,
            weights=self.weights[self.rows],
            n_repeats=n_repeats,
            seed=self.seed,
        )

    def answer_quickly(self, features: np.ndarray) -> float:
        """Return the loss by which features are ranked."""
        if self.groups is not None:  # leaving one out of a group tells nothing
            return self.answer(features, n_repeats=1).loss
        return leave_one_out_loss(
            features,
            self.targets[self.rows],
            self.task,
            n_outputs=self.n_outputs,
            weights=self.weights[self.rows],
        )

    def answer_from(self, blueprint: Blueprint, deadline: float | None = None) -> OutOfFold | None:
        """Let exact heads on what a network reads answer; None if it is not ready in time."""
        network = self.network(blueprint)
        cut = network.boundary().cut
        if not cut:  # nothing below the head has weights, as of raw inputs: all that it reads then
            network = self.network(replace(blueprint, head=None))
            cut = (network.outline.output,)
        if deadline is not None and time.monotonic() > deadline:
            return None
        found = self.activations(network, [cut], self.rows, deadline=deadline)
        return None if found is None else self.answer(found[0].arrays[0])
