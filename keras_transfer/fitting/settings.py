"""Settings of one fit: what an estimator's parameters say, checked and resolved, and its seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.choosing.guard import Rival
from keras_transfer.modes import StructureTransfer
from keras_transfer.recipe import Recipe
from keras_transfer.store.activation_store import Memory
from keras_transfer.training.progress import Silent
from keras_transfer.training.validation import Score

__all__ = ["FitSettings", "Seeds"]

_SEED_RANGE = 2**31
# What is left for a fit of what does better than the source, however late it is: a head is soon
# solved.
_LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class Seeds:
    """The seeds of one fit: whoever draws, draws from its own.

    Attributes
    ----------
    weights, split, batches, augmentation, folds : int
    """

    weights: int
    split: int
    batches: int
    augmentation: int
    folds: int

    @classmethod
    def draw(cls, random_state: np.random.RandomState) -> Seeds:
        """Draw them, in this order."""
        return cls(*(int(n) for n in random_state.randint(_SEED_RANGE, size=5)))


@dataclass(frozen=True)
class FitSettings:
    """What an estimator's parameters say of a fit, checked and resolved.

    Attributes
    ----------
    backbone : Backbone
    recipe : Recipe
    readout : object
    batch_size : int
    validation : "auto", float or None
    score : callable
        As for `Validation`.
    target_score : float or None
    deadline : float or None
        On the clock of ``time.monotonic``.
    calibration : {"auto", None}
    guard : {"warn", "best", None}
    memory : Memory or None
    callbacks : sequence of keras.callbacks.Callback
        This fit's own.
    seeds : Seeds
    display : Silent
    """

    backbone: Backbone
    recipe: Recipe
    readout: Any
    batch_size: int
    validation: Any
    score: Score
    target_score: float | None
    deadline: float | None
    calibration: str | None
    guard: str | None
    memory: Memory | None
    callbacks: Sequence[Any]
    seeds: Seeds
    display: Silent

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def of_rival(self, rival: Rival) -> FitSettings:
        """Return the settings of a fit of what does better than the source."""
        deadline = self.deadline
        if deadline is not None:
            deadline = max(deadline, time.monotonic() + _LEAST_SECONDS)
        return replace(
            self,
            backbone=rival.backbone,
            recipe=StructureTransfer(),
            readout=rival.readout,
            guard=None,
            deadline=deadline,
            display=Silent(),
        )
