"""The built-in example data: small, real, and at hand without a network; and the user's own.

``load_openmoji`` draws the emoji of the OpenMoji font, six classes of pictures;
``load_turned_openmoji`` turns each by an angle to be found; ``load_digit_pictures`` gives
scikit-learn's digits as pictures and ``load_mnist_pictures`` those of MNIST; ``load_pictures``
lists the user's; ``per_class_split`` splits any labels into a few training examples per class and
the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras_transfer.datasets import digits, openmoji
from keras_transfer.datasets.digits import load_digit_pictures, load_mnist_pictures
from keras_transfer.datasets.openmoji import load_openmoji, load_turned_openmoji
from keras_transfer.datasets.own import load_pictures, per_class_split

__all__ = [
    "DATASETS",
    "DataSet",
    "load_digit_pictures",
    "load_mnist_pictures",
    "load_openmoji",
    "load_pictures",
    "load_turned_openmoji",
    "per_class_split",
]


@dataclass(frozen=True)
class DataSet:
    """A built-in data set, as a recipe file names it.

    Attributes
    ----------
    load : callable
        ``load(image_size=...)`` returns a ``Bunch`` with ``images`` and ``target``.
    classes : tuple of str or None
        The names of its classes, in any order; None where the target is numbers.
    """

    load: Callable[..., Any]
    classes: tuple[str, ...] | None


DATASETS = {
    "openmoji": DataSet(load_openmoji, tuple(openmoji.CLASSES)),
    "openmoji_turned": DataSet(load_turned_openmoji, None),
    "mnist": DataSet(load_mnist_pictures, digits.CLASSES),
    "digits": DataSet(load_digit_pictures, digits.CLASSES),
}
