"""Learning rates over time: a table of schedules, and the factor on the rates of a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["SCHEDULES", "Schedule", "rate_factor"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rates of a stage move over its steps.

    Attributes
    ----------
    warm_up : float
        Share of the steps in which they rise, unless the stage says another.
    start : float
        The factor from which they rise, linearly, to 1.
    falls : bool
        Whether they fall afterwards, as half a cosine, to 0; else they stay.
    """

    warm_up: float = 0.0
    start: float = 0.0
    falls: bool = False


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(),
    "cosine": Schedule(falls=True),
    # The share and the start are those of fastai's and PyTorch's one-cycle policy, which let the
    # paper's second, linear fall go down as a cosine.
    "one_cycle": Schedule(warm_up=0.3, start=1 / 25, falls=True),
}


def rate_factor(schedule: str, progress: float, warm_up: float | None = None) -> float:
    """Return the factor on the learning rates of a stage.

    Parameters
    ----------
    schedule : {"constant", "cosine", "one_cycle"}
    progress : float
        From 0 to 1: the share of the stage's steps that is done; beyond 1 as at 1.
    warm_up : float, optional
        Share of the steps in which the rates rise; by default the schedule's own.

    Returns
    -------
    float
        From 0 to 1.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017, arXiv
    1608.03983), for the cosine. Smith and Topin, "Super-Convergence: Very Fast Training of Neural
    Networks Using Large Learning Rates" (2018, arXiv 1708.07120), for the one cycle.

    Examples
    --------
    >>> from keras_transfer.training.schedules import rate_factor
    >>> [round(rate_factor("cosine", progress, warm_up=0.2), 2) for progress in (0.1, 0.2, 0.6, 1)]
    [0.5, 1.0, 0.5, 0.0]
    """
    row = SCHEDULES[schedule]
    rising = row.warm_up if warm_up is None else warm_up
    progress = min(progress, 1.0)
    if progress < rising:
        return row.start + (1 - row.start) * progress / rising
    if not row.falls or rising == 1:
        return 1.0
    return (1 + math.cos(math.pi * (progress - rising) / (1 - rising))) / 2
