"""Stage: one stretch of training, as one readable value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from keras_transfer.errors import InvalidParameterError, UnknownNameError

__all__ = ["BATCH_NORM_POLICIES", "Stage"]

BATCH_NORM_POLICIES = ("frozen", "affine", "train")


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rates", MappingProxyType(dict(self.learning_rates)))
        if not self.learning_rates:
            raise InvalidParameterError(f"stage {self.name!r}: expected a block that trains.")
        if self.batch_norm not in BATCH_NORM_POLICIES:
            raise UnknownNameError("batch_norm", self.batch_norm, BATCH_NORM_POLICIES)
        if self.epochs < 1:
            raise InvalidParameterError(
                f"stage {self.name!r}: expected at least one epoch. Received: {self.epochs}."
            )

    def __reduce__(self) -> Any:  # a mapping proxy does not pickle
        values = {**self.__dict__, "learning_rates": dict(self.learning_rates)}
        return _restore, (values,)

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the blocks that train."""
        return tuple(self.learning_rates)


def _restore(values: dict[str, Any]) -> Stage:
    return Stage(**values)
