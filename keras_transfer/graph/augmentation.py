"""Augmentation: random changes of training pictures, by Keras's own layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_transfer.errors import InvalidTypeError, UnknownNameError

__all__ = ["AUGMENTATIONS", "augmentation_names", "build_augmentation"]

_RANGE = (0.0, 255.0)


def _flip(keras: Any, seed: int) -> list[Any]:
    return [keras.layers.RandomFlip("horizontal", seed=seed)]


def _crop(keras: Any, seed: int) -> list[Any]:
    return [
        keras.layers.RandomZoom((-0.25, 0.0), fill_mode="nearest", seed=seed),
        keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", seed=seed + 1),
    ]


def _rotate(keras: Any, seed: int) -> list[Any]:
    return [keras.layers.RandomRotation(15 / 360, fill_mode="nearest", seed=seed)]


def _colour(keras: Any, seed: int) -> list[Any]:
    return [
        keras.layers.RandomBrightness(0.15, value_range=_RANGE, seed=seed),
        keras.layers.RandomContrast(0.2, value_range=_RANGE, seed=seed + 1),
        keras.layers.RandomSaturation((0.4, 0.6), value_range=_RANGE, seed=seed + 2),
    ]


# Adding an augmentation is adding a row.
AUGMENTATIONS: dict[str, Callable[[Any, int], list[Any]]] = {
    "flip": _flip,
    "crop": _crop,
    "rotate": _rotate,
    "colour": _colour,
}


def augmentation_names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Check an ``augmentation`` parameter.

    Parameters
    ----------
    value : None, "all", or one or more of "flip", "crop", "rotate", "colour"

    Returns
    -------
    tuple of str

    Raises
    ------
    UnknownNameError
    InvalidTypeError
    """
    if value is None:
        return ()
    if value == "all":
        return tuple(AUGMENTATIONS)
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        raise InvalidTypeError(
            f"augmentation: expected None, 'all' or a list of {', '.join(AUGMENTATIONS)}. "
            f"Received: {value!r}."
        )
    for name in names:
        if name not in AUGMENTATIONS:
            raise UnknownNameError("augmentation", name, [*AUGMENTATIONS, "all"])
    return tuple(names)


def build_augmentation(names: Sequence[str], seed: int) -> Callable[[Any], Any]:
    """Make one function of a batch of pictures from augmentations.

    It stands outside the model, since it is no part of what is served.

    Parameters
    ----------
    names : sequence of str
    seed : int

    Returns
    -------
    callable
        From and to float32 pictures ``(batch, height, width, 3)`` of 0..255.
    """
    import keras

    layers = [
        layer
        for number, name in enumerate(names)
        for layer in AUGMENTATIONS[name](keras, seed + 10 * number)
    ]

    def augment(pictures: Any) -> Any:
        for layer in layers:
            pictures = layer(pictures, training=True)
        # Saturation and contrast leave the range that the backbone was trained on.
        return keras.ops.clip(pictures, *_RANGE)

    return augment
