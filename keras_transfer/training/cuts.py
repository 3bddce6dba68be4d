"""Cuts: where each stage reads what is frozen, and why not where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keras_transfer.training.boundary import Boundary
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.stage import Stage
from keras_transfer.training.stored_outputs import StoredOutputs

__all__ = ["Cut", "plan_cuts"]


@dataclass(frozen=True)
class Cut:
    """Where a stage reads what is frozen.

    Attributes
    ----------
    nodes : tuple of str
        Whose outputs are stored; empty: nothing is.
    note : str
        ``"stored at block_12"``, or why not.
    """

    nodes: tuple[str, ...]
    note: str


def plan_cuts(
    network: LazyNetwork,
    stored: StoredOutputs | None,
    stages: Sequence[Stage],
    n_rows: int,
    augmented: bool = False,
) -> list[Cut]:
    """Find out for each stage where its frozen part ends, and whether that can be stored.

    Parameters
    ----------
    network : LazyNetwork
    stored : StoredOutputs or None
        None: nothing is stored.
    stages : sequence of Stage
    n_rows : int
        How many there would be.
    augmented : bool
        Whether inputs are changed anew in every epoch.
    """
    trained: set[str] = set()

    def plan(stage: Stage) -> Cut:
        # What an earlier stage trains is not what it was, even where it is frozen by now.
        trained.update(stage.trained)
        boundary: Boundary = network.boundary(trained)
        if not boundary:
            return Cut((), f"not stored: {boundary.where}")
        if stored is None:
            return Cut((), "not stored: memory=False")
        if stage.mix is not None:
            return Cut((), f"not stored: {stage.mix} makes new pictures in every step")
        if augmented and stage.solver != "exact":
            return Cut((), "not stored: augmentation changes the pictures; n_views fixes them")
        if problem := stored.lacks_room(n_rows, boundary.cut):
            return Cut((), f"not stored: {problem}")
        return Cut(boundary.cut, f"stored at {boundary.where}")

    return [plan(stage) for stage in stages]
