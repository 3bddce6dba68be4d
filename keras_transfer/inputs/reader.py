"""Reader: what a fit decided about X, and the way from raw X to the model's input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from keras_transfer.backbones.backbone import Backbone

__all__ = ["Loaded", "Reader"]


class Reader(Protocol):
    """What a fit decided about X, and the way from raw X to the model's input.

    One for each modality, a frozen dataclass whose fields are what was decided; `READERS` lists
    them. What is equal reads alike: its repr stands in the keys of the activation store.

    Attributes
    ----------
    modality : str
    has_columns : bool
        Whether X is a table of numbers, of whose columns scikit-learn keeps number and names.
    input_tags : tuple of str
        What X may be, in the words of scikit-learn's ``InputTags``.
    plural : str
        What examples are called in messages.
    """

    modality: ClassVar[str]
    has_columns: ClassVar[bool]
    input_tags: ClassVar[tuple[str, ...]]
    plural: ClassVar[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input."""

    @property
    def fitted(self) -> dict[str, Any]:
        """What of it an estimator shows, by the attribute's name."""

    @classmethod
    def for_backbone(cls, X: Any, backbone: Backbone, image_size: Any) -> Reader:
        """Decide how a backbone is to read the training data.

        Raises
        ------
        InvalidParameterError
            If the backbone reads something else, or ``image_size`` cannot be used.
        DataError
        """

    def load(
        self, X: Any, *, on_error: str = "raise", advance: Callable[[], None] = lambda: None
    ) -> Loaded:
        """Bring X to the model's input.

        Parameters
        ----------
        X : object
        on_error : {"raise", "skip"}, default="raise"
            What is done about files that cannot be read.
        advance : callable
            Called after each file that was read.

        Raises
        ------
        DataError
        """


@dataclass(frozen=True)
class Loaded:
    """Raw X, brought to the model's input.

    Attributes
    ----------
    inputs : numpy.ndarray of shape (n, ...) or EncodedPictures
    kept : numpy.ndarray of shape (n,)
        Row numbers of X; without what could not be read.
    names : tuple of str
        What each is called in messages.
    digests : tuple of bytes
        Equal for examples of equal content; empty where nobody looked.
    skipped : tuple of (str, str)
        What could not be read, and why.
    n_oriented : int
        How many pictures carry an orientation in EXIF data, which is not applied.
    """

    inputs: Any
    kept: np.ndarray
    names: tuple[str, ...] = ()
    digests: tuple[bytes, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    n_oriented: int = 0
