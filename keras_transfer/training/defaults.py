"""Settings that depend on how many examples there are: one pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["StageDefaults", "stage_defaults"]

# Steps of a batch after which training no longer gained, on OpenMoji classes that are kept out of
# every benchmark. A linear head starts from nothing; pretrained blocks start near their goal.
HEAD_STEPS = 150
BLOCK_STEPS = 150
SCRATCH_STEPS = 600
# Under this many steps moving averages with momentum 0.99 never settle (it forgets a start only
# after some hundreds), and the network scores at chance in inference.
FEW_STEPS = 1000


@dataclass(frozen=True)
class StageDefaults:
    """Settings of a stage that were left to choose.

    Attributes
    ----------
    epochs : int
        The most epochs.
    learning_rate : float
    batch_norm : str
    batch_norm_momentum : float or None
    """

    epochs: int
    learning_rate: float
    batch_norm: str
    batch_norm_momentum: float | None


def stage_defaults(
    n_examples: int, *, batch_size: int, trains_backbone: bool, pretrained: bool
) -> StageDefaults:
    """Choose what a user left open.

    Parameters
    ----------
    n_examples : int
        Training examples.
    batch_size : int
    trains_backbone : bool
        Whether blocks of the backbone train, or the head alone.
    pretrained : bool
        Whether these blocks start from a source task's weights.

    Returns
    -------
    StageDefaults

    Notes
    -----
    What must be reached is a number of steps, not of epochs, so few examples get many epochs. Many
    get at least 10: there validation ends a stage when it no longer gains.

    A head alone takes a rate ten times that of pretrained blocks, which a large step would push
    away from what they know; under Adam the step is the rate, whatever the gradient.

    BatchNorm statistics of the source stay where pretrained blocks train, since those of a few
    small batches are noise; gamma and beta train. Random weights have no statistics to keep.
    """
    steps_per_epoch = max(1, math.ceil(n_examples / batch_size))
    if not trains_backbone:
        steps, learning_rate = HEAD_STEPS, 3e-3
    elif pretrained:
        steps, learning_rate = BLOCK_STEPS, 3e-4
    else:
        steps, learning_rate = SCRATCH_STEPS, 1e-3
    epochs = max(10, math.ceil(steps / steps_per_epoch))
    few = epochs * steps_per_epoch < FEW_STEPS or not pretrained
    return StageDefaults(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_norm="affine" if pretrained else "train",
        batch_norm_momentum=0.9 if few else None,
    )
