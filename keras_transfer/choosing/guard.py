"""Guard: whether the source task helps at all, told on the training data alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_transfer.backbones.backbone import AS_GIVEN, Backbone
from keras_transfer.backbones.registry import get_backbone, list_backbones
from keras_transfer.choosing.out_of_fold import OutOfFold
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.readout import Readout

__all__ = ["BETTER", "GUARDS", "Rival", "SourceCheck", "check_source"]

GUARDS = ("warn", "best")
_PIXELS = 16
# The mean of two paired standard scores, of the losses and of the right answers, from which on a
# rival counts as better. Over 10 draws of 5, 10 and 20 labels a class of every second of
# scikit-learn's digits it was 0.32 to 3 at 5, and 1 or more at 10 and 20, for raw pixels against
# the last layer, and -2 or less against earlier blocks; on emoji that are in no benchmark, against
# earlier blocks, 0.1 or less in 17 of 18 draws, and 0.6 in one.
BETTER = 0.45


@dataclass(frozen=True)
class Rival:
    """What the source task is compared with.

    Attributes
    ----------
    name : str
        Such as ``"raw pixels"``.
    loss : float
        Out of fold, on the same folds.
    right : float
        Share of right answers out of fold; NaN for numbers.
    evidence : float
        By how many standard errors it is better than the source (`OutOfFold.evidence_over`).
    backbone : Backbone
    readout : Readout
    """

    name: str
    loss: float
    right: float
    evidence: float
    backbone: Backbone
    readout: Readout

    @property
    def is_better(self) -> bool:
        """Whether it is, by more than chance."""
        return self.evidence > BETTER


@dataclass(frozen=True)
class SourceCheck:
    """Whether the source task helps.

    Attributes
    ----------
    name : str
        The backbone, and where it is read.
    loss, right : float
        As for `Rival`.
    n_examples : int
        That were answered for.
    rivals : tuple of Rival
    """

    name: str
    loss: float
    right: float
    n_examples: int
    rivals: tuple[Rival, ...]

    @property
    def best(self) -> Rival | None:
        """The rival that is better than the source by most; None if none is."""
        better = [rival for rival in self.rivals if rival.is_better]
        return max(better, key=lambda rival: rival.evidence, default=None)

    def __str__(self) -> str:
        shown = ", ".join(f"{rival.name} {_figures(rival)}" for rival in self.rivals)
        own = f"{self.name} {_figures(self)}, {shown}; out of fold, {self.n_examples} examples"
        if self.best is None:
            return f"the source helps: {own}"
        return (
            f"the source does not help: {self.best.name} does better: {own}. readout='auto' looks "
            f"for earlier blocks, another backbone may suit better, guard='best' takes "
            f"{self.best.name}."
        )


def check_source(
    blueprint: Blueprint,
    own: OutOfFold,
    answer: Callable[[Blueprint], OutOfFold | None],
) -> SourceCheck:
    """Compare an exact head on a pretrained network with cheap rivals, on the same folds.

    Rivals are the raw inputs (of pictures 16 x 16 pixels) and, of a backbone by name, the same
    network with random weights, read in the same place.

    Parameters
    ----------
    blueprint : Blueprint
        Of the model.
    own : OutOfFold
        Of an exact head on what it reads.
    answer : callable
        From a blueprint to the same of that, or None if there is no time.

    Returns
    -------
    SourceCheck

    References
    ----------
    Wang et al., "Characterizing and Avoiding Negative Transfer" (2019, arXiv 1811.09751), for what
    is to be guarded against.
    """
    raw = "raw pixels" if len(blueprint.input_shape) == 3 else "raw features"
    inputs = _raw_backbone(blueprint.input_shape)
    rivals = [(raw, replace(blueprint, backbone=inputs, readout=Readout(), head=None))]
    backbone = blueprint.backbone
    if backbone.name in list_backbones() and backbone.weights not in (None, AS_GIVEN):
        random = get_backbone(backbone.name, weights=None)
        rivals.append(("random weights", replace(blueprint, backbone=random, head=None)))
    found = []
    for name, rival in rivals:
        theirs = answer(rival)
        if theirs is None:
            continue
        found.append(
            Rival(
                name,
                theirs.loss,
                theirs.right,
                theirs.evidence_over(own),
                rival.backbone,
                rival.readout,
            )
        )
    n_examples = int(np.count_nonzero(own.weights))
    name = f"{backbone.name} read at {blueprint.readout.description}"
    return SourceCheck(name, own.loss, own.right, n_examples, tuple(found))


def _figures(one: Rival | SourceCheck) -> str:
    if np.isnan(one.right):
        return f"(loss {one.loss:.3g})"
    return f"({one.right:.0%} right, loss {one.loss:.3g})"


@functools.lru_cache(maxsize=8)
def _raw_backbone(shape: Sequence[int]) -> Backbone:
    """Return what hands a model's inputs through; of pictures a small copy."""
    import keras

    layers: list[Any] = [keras.Input(shape)]
    if len(shape) == 3:
        size = [min(_PIXELS, side) for side in shape[:2]]
        layers.append(keras.layers.Resizing(*size, antialias=True, name="pixels"))
    layers.append(keras.layers.Flatten(name="raw"))
    return get_backbone(keras.Sequential(layers, name="raw_inputs"))
