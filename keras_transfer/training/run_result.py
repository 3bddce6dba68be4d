"""What a run did: its stages, its history, and what its weights are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from keras_transfer.training.audit import AuditRow
from keras_transfer.training.forecast import StageForecast
from keras_transfer.training.rate_test import RateCurve
from keras_transfer.training.stage import Stage
from keras_transfer.training.validation import Answers, Score, standard_error

__all__ = ["RunResult", "StageRecord"]


@dataclass(frozen=True)
class StageRecord:
    """What happened in one stage.

    Attributes
    ----------
    stage : Stage
        With the rates that a range test chose, if it was asked for one.
    rows : tuple of AuditRow
        What trained, block by block.
    weights : tuple of str
        Paths of the weights that the optimizer held.
    reason : str
        Why it ended: ``"epochs"``, ``"solved"``, ``"early stopping"``, ``"target score"``,
        ``"time budget"``, ``"interrupted"`` by Ctrl-C, or ``"callback"`` where one of the user's
        ended it.
    epochs : int
        How many are in the history: also one that the time budget cut short, but not one that was
        interrupted.
    seconds : float
        Compilation included.
    first_batch_seconds : float
        Of the batch that includes it.
    stored : str
        ``"stored at block_12"``: where the outputs of what is frozen were kept; or why they were
        computed again in every epoch.
    rate_curve : RateCurve or None
        What the range test measured, if the stage was asked for one.
    """

    stage: Stage
    rows: tuple[AuditRow, ...]
    weights: tuple[str, ...]
    reason: str
    epochs: int
    seconds: float
    first_batch_seconds: float
    stored: str = ""
    rate_curve: RateCurve | None = None


@dataclass
class RunResult:
    """What `run_stages` did.

    Attributes
    ----------
    records : list of StageRecord
        The stages that ran.
    history : dict of str to list
        One entry for each epoch, ``stage`` among the columns.
    score : float
        The validation score of the weights that were kept; NaN if they were not validated.
    answers : tuple of numpy.ndarray or None
        Targets, outputs and weights that the score is of.
    interrupted : bool
        Whether Ctrl-C ended the training.
    forecast : list of StageForecast
        One for each stage, if a forecast was asked for.
    score_function : callable or None
        As for `Validation`.
    start : list of numpy.ndarray or None
        The weights as the first stage began that trains blocks, after one that trained the head
        alone; None if there was none.
    share : float
        How much of the way from there the weights have gone: less than 1 with ``average="wise"``.
    """

    records: list[StageRecord] = field(default_factory=list)
    history: dict[str, list[Any]] = field(default_factory=dict)
    score: float = math.nan
    answers: Answers | None = None
    interrupted: bool = False
    forecast: list[StageForecast] = field(default_factory=list)
    score_function: Score | None = field(default=None, repr=False)
    start: list[Any] | None = field(default=None, repr=False)
    share: float = 1.0

    @property
    def standard_error(self) -> float:
        """By how much the score would differ on other examples of the same kind."""
        if self.answers is None or self.score_function is None:
            return math.nan
        return standard_error(self.score_function, self.answers)
