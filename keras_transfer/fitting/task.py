"""Task: the examples of a fit, parted into those that train and those that are held out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_transfer.errors import InvalidParameterError
from keras_transfer.inputs.examples import Examples
from keras_transfer.inputs.reader import Reader
from keras_transfer.inputs.splits import has_enough, hold_out
from keras_transfer.inputs.targets import Targets
from keras_transfer.inputs.weights import class_weights

__all__ = ["HELD_OUT", "Task"]

# Share held out where there are enough examples, or where a target score asks for a validation.
HELD_OUT = 0.2


@dataclass(frozen=True)
class Task:
    """The examples of a fit, parted into those that train and those that are held out.

    Attributes
    ----------
    reader : Reader
        That brought the examples to the model's input.
    targets : Targets
    train : Examples
    held : Examples or None
    groups : numpy.ndarray of shape (n,) or None
        Of those that train.
    steers : bool
        Whether those that are held out steer the training, or only measure.
    class_weight : object
        As for `class_weights`.
    """

    reader: Reader
    targets: Targets
    train: Examples
    held: Examples | None = None
    groups: np.ndarray | None = None
    steers: bool = False
    class_weight: Any = None

    @classmethod
    def part(
        cls,
        examples: Examples,
        held: Examples | None,
        groups: np.ndarray | None,
        *,
        targets: Targets,
        validation: Any,
        has_target_score: bool,
        is_solved: bool,
        seed: int,
        **rest: Any,
    ) -> Task:
        """Part the examples.

        Parameters
        ----------
        examples : Examples
        held : Examples or None
            That the user held out: then none of the others are.
        groups : numpy.ndarray of shape (n,) or None
        targets
            As above.
        validation : "auto", float or None
            The share to hold out; ``"auto"``: a fifth, if there are enough of each class and the
            training can be steered by them, or a target score asks for some.
        has_target_score : bool
        is_solved : bool
            Whether nothing can be steered, since the head alone is solved.
        seed : int
        **rest
            As above.
        """
        enough = not is_solved and has_enough(examples.targets, groups)
        # A few examples held out for the sake of a target score only measure.
        steers = held is not None or validation != "auto" or enough
        share = validation
        if share == "auto":
            share = HELD_OUT if enough or has_target_score else None
        if held is None and share is not None:
            rng = np.random.default_rng(seed)
            train, rows = hold_out(examples.targets, share, rng, groups)
            examples, held = examples[train], examples[rows]
            groups = None if groups is None else groups[train]
        return cls(targets=targets, train=examples, held=held, groups=groups, steers=steers, **rest)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What is read from, as for `naming_broken_files`."""
        return self.train.inputs, None if self.held is None else self.held.inputs

    @cached_property
    def trained_targets(self) -> np.ndarray:
        """Targets of those that train, as the loss reads them."""
        return self.targets.standardise(self.train.targets)

    @cached_property
    def weights(self) -> np.ndarray:
        """How much each of those that train counts, by its own weight and that of its class."""
        return self.weigh(self.train)

    def weigh(self, examples: Examples) -> np.ndarray:
        """Multiply the weights of examples and of their classes.

        Raises
        ------
        InvalidParameterError
            If none is above 0.
        """
        factors = class_weights(self.class_weight, self.targets, examples.targets, examples.weights)
        weights = examples.weights * (1.0 if factors is None else factors)
        if weights.mean() <= 0:
            raise InvalidParameterError(
                f"class_weight: expected a class in y whose weight is above 0. Received: "
                f"{self.class_weight!r}."
            )
        return weights
