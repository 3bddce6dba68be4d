"""Whether fine-tuning helps over its own starting point, and how far to follow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_transfer.choosing.calibration import SPREAD
from keras_transfer.choosing.out_of_fold import OutOfFold
from keras_transfer.training.averaging import SHARES

__all__ = ["FineTuningCheck", "check_fine_tuning"]

# As many standard errors: of the ten to twenty examples of a fold, one answer more is chance.
_LOST = 1.0


@dataclass(frozen=True)
class FineTuningCheck:
    """What fine-tuning does for examples that it has not seen.

    Where to read and which blocks to train may have been chosen with them.

    Attributes
    ----------
    shares : tuple of float
        Of the way, in the space of weights, from the exact head on the pretrained network (0) to
        the fine-tuned network (1).
    losses, right : tuple of float
        At each share: the loss, and the share of right answers (NaN for numbers).
    temperatures : tuple of float
        At each share: what logits are to be divided by; 1 for numbers.
    evidence : float
        By how many standard errors the start is better than the end.
    n_examples : int
        That were answered for.
    taken : float
        The share at which the fitted network stands.
    """

    shares: tuple[float, ...]
    losses: tuple[float, ...]
    right: tuple[float, ...]
    temperatures: tuple[float, ...]
    evidence: float
    n_examples: int
    taken: float = 1.0

    @property
    def has_lost(self) -> bool:
        """Whether the start is better, by more than chance."""
        return self.evidence > _LOST

    @property
    def wisest(self) -> float:
        """The share with the least loss."""
        return self.shares[int(np.argmin(self.losses))]

    @property
    def temperature(self) -> float:
        """The temperature at the share that was taken."""
        return self.temperatures[self.shares.index(self.taken)]

    def __str__(self) -> str:
        figures = [
            f"(loss {loss:.3g})" if np.isnan(right) else f"({right:.0%} right, loss {loss:.3g})"
            for loss, right in zip(self.losses, self.right, strict=True)
        ]
        found = (
            f"the exact head alone {figures[0]}, fine-tuned {figures[-1]}; on {self.n_examples} "
            f"examples that it has not seen"
        )
        if not self.has_lost:
            return f"fine-tuning does no harm: {found}"
        return (
            f"fine-tuning does not help: {found}. recipe='structure' trains the head alone, a "
            f"lower learning_rate or fewer train_blocks may do less harm, guard='best' takes the "
            f"better."
        )


def check_fine_tuning(
    answer: Callable[[float], np.ndarray],
    targets: np.ndarray,
    task: str,
    weights: np.ndarray,
    shares: Sequence[float] = SHARES,
) -> FineTuningCheck | None:
    """Compare the networks between the start of fine-tuning and its end, on unseen examples.

    Parameters
    ----------
    answer : callable
        From a share of the way to logits or standardised numbers, of shape (n, n_outputs).
    targets : numpy.ndarray of shape (n,) or (n, n_outputs)
        As for `out_of_fold`.
    task : {"multiclass", "multilabel", "regression"}
    weights : numpy.ndarray of shape (n,)
    shares : sequence of float
        The first is the start, the last the end.

    Returns
    -------
    FineTuningCheck or None
        None where no example counts.

    References
    ----------
    Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models" (2022, arXiv 2109.01903), for the
    weights in between.
    """
    if not (weights > 0).any():
        return None
    found = [
        OutOfFold.of(answer(share)[np.newaxis].astype(np.float64), targets, task, weights, SPREAD)
        for share in shares
    ]
    return FineTuningCheck(
        tuple(shares),
        tuple(each.loss if np.isfinite(each.outputs).all() else np.inf for each in found),
        tuple(each.right for each in found),
        tuple(each.temperature for each in found),
        found[0].evidence_over(found[-1]),
        int(np.count_nonzero(weights)),
    )
