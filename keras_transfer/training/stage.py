"""Stage: one stretch of training, as one readable value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from keras_transfer.backbones.partition import HEAD
from keras_transfer.errors import InvalidParameterError
from keras_transfer.graph.mixing import MIXES
from keras_transfer.parameters import (
    NONE,
    Constraint,
    find_problems,
    integer,
    number,
    one_of,
    raise_problems,
)
from keras_transfer.training.schedules import SCHEDULES

__all__ = [
    "AVERAGES",
    "BATCH_NORM_POLICIES",
    "CONSTRAINTS",
    "SOLVERS",
    "STEP_SETTINGS",
    "Stage",
]

BATCH_NORM_POLICIES = ("frozen", "affine", "train")
SOLVERS = ("gradient", "exact")
AVERAGES = ("ema",)
CONSTRAINTS: Mapping[str, Constraint] = {
    "epochs": integer(1),
    "batch_norm": one_of(*BATCH_NORM_POLICIES),
    "batch_norm_momentum": NONE | number(0, 1),
    "patience": integer(1),
    "solver": one_of(*SOLVERS),
    "penalty": NONE | number(0),
    "label_smoothing": number(0, 1, below=True),
    "focal_gamma": NONE | number(0),
    "mix": NONE | one_of(*MIXES),
    "schedule": one_of(*SCHEDULES),
    "warm_up": NONE | number(0, 1),
    "weight_decay": NONE | number(0),
    "average": one_of(None, *AVERAGES),
}
# What a recipe says once for all stages that take steps.
STEP_SETTINGS = (
    "label_smoothing",
    "focal_gamma",
    "mix",
    "schedule",
    "warm_up",
    "weight_decay",
    "average",
)


@dataclass(frozen=True)
class Stage:
    """One stretch of training with one set of trainable blocks, rates and epochs.

    Parameters
    ----------
    name : str
        Shown in tables and in the history.
    learning_rates : mapping of str to float
        Learning rate of each block that trains, the head among them; a block that is not named is
        frozen.
    epochs : int
        The most epochs to train.
    batch_norm : {"frozen", "affine", "train"}, default="frozen"
        What BatchNorm does in blocks that train: nothing moves; gamma and beta train, the
        statistics stay; everything moves. In a frozen block it is always frozen.
    batch_norm_momentum : float, optional
        Momentum of the moving statistics under ``"train"``; by default each layer's own.
    optimizer : str or callable, default="adam"
        Keras's name of an optimizer, or a callable without arguments that returns one.
    patience : int, default=5
        Where there is validation: stop after so many epochs in which neither its score nor its
        loss got better.
    solver : {"gradient", "exact"}, default="gradient"
        ``"exact"``: the head alone trains, and is solved as the convex problem that it is, in
        place of all epochs.
    penalty : float, optional
        Of the exact head: on half the sum of its squared weights, for features of about variance 1.
        By default chosen by leaving each example out in turn.
    label_smoothing : float, default=0.0
        Of classes and labels, from 0 to below 1: so much of each target is spread evenly over all
        classes, or between yes and no.
    focal_gamma : float, optional
        Of classes and labels: each counts by the share that was not foreseen, to this power. 0 and
        None are the same.
    mix : {"mixup", "cutmix"}, optional
        Training pictures are mixed with one another, anew in every step (`build_mixing`).
    schedule : {"constant", "cosine", "one_cycle"}, default="constant"
        How the rates move over the steps of all epochs (`rate_factor`); the highest are
        `learning_rates`. A stage that stops early leaves the rest of it out.
    warm_up : float, optional
        Share of these steps in which the rates rise linearly, from 0 to 1; by default the
        schedule's own: 0.3 for ``"one_cycle"``, else 0.
    weight_decay : float, optional
        Before each step, what trains and has two or more axes (no bias, nothing of BatchNorm)
        shrinks by this times its rate, apart from the gradient [1]_. By default the optimizer's
        own holds.
    average : None or "ema", default=None
        ``"ema"``: what is validated, and what the stage ends with, is the exponential moving
        average of the weights that train, over about the last fifth of the steps [2]_. Statistics
        of BatchNorm, which are moving averages already, stay as they are.
    rate_test : bool, default=False
        Whether `find_rate` scales the rates, all alike, before the stage begins.

    References
    ----------
    .. [1] Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019, arXiv 1711.05101).
    .. [2] Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992).

    Examples
    --------
    >>> from keras_transfer import Stage
    >>> Stage("head", {"head": 1e-2}, epochs=20).trained
    ('head',)
    """

    name: str
    learning_rates: Mapping[str, float]
    epochs: int
    batch_norm: str = "frozen"
    batch_norm_momentum: float | None = None
    optimizer: str | Callable[[], Any] = "adam"
    patience: int = 5
    solver: str = "gradient"
    penalty: float | None = None
    label_smoothing: float = 0.0
    focal_gamma: float | None = None
    mix: str | None = None
    schedule: str = "constant"
    warm_up: float | None = None
    weight_decay: float | None = None
    average: str | None = None
    rate_test: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rates", MappingProxyType(dict(self.learning_rates)))
        if not self.learning_rates:
            raise InvalidParameterError(f"stage {self.name!r}: expected a block that trains.")
        problems = find_problems(f"stage {self.name!r}", vars(self), CONSTRAINTS)
        for block, rate in self.learning_rates.items():
            problems += find_problems(
                f"stage {self.name!r}: learning_rates", {block: rate}, {block: number(0)}
            )
        raise_problems(problems)
        if self.solver != "exact":
            return
        if self.trained != (HEAD,):
            raise InvalidParameterError(
                f"stage {self.name!r}: expected the head alone to train, which is what can be "
                f"solved exactly. Received: {', '.join(self.trained)}. Take solver='gradient'."
            )
        given = {name: getattr(self, name) for name in (*STEP_SETTINGS, "rate_test")}
        asked = {name: value for name, value in given.items() if value and value != "constant"}
        if asked:
            shown = ", ".join(f"{name}={value!r}" for name, value in asked.items())
            raise InvalidParameterError(
                f"stage {self.name!r}: expected no setting of steps or of their loss where the "
                f"head is solved, at once and for the plain loss. Received: {shown}. Take "
                f"solver='gradient'."
            )

    def __reduce__(self) -> Any:  # a mapping proxy does not pickle
        values = {**self.__dict__, "learning_rates": dict(self.learning_rates)}
        return _restore, (values,)

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the blocks that train."""
        return tuple(self.learning_rates)

    @property
    def highest_rate(self) -> float:
        """The highest learning rate."""
        return max(self.learning_rates.values())

    @property
    def is_scheduled(self) -> bool:
        """Whether the learning rates move."""
        return self.schedule != "constant" or bool(self.warm_up)

    def at_rate(self, rate: float) -> Stage:
        """Return the stage with another highest learning rate; the others keep their proportion."""
        highest = self.highest_rate
        rates = {block: rate * (own / highest) for block, own in self.learning_rates.items()}
        return replace(self, learning_rates=rates)


def _restore(values: dict[str, Any]) -> Stage:
    return Stage(**values)
