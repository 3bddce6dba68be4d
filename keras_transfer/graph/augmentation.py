"""Augmentation: random changes of training pictures, by Keras's own layers or the user's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from keras_transfer.errors import InvalidTypeError, UnknownNameError

__all__ = ["AUGMENTATIONS", "Augmentation", "as_augmentation", "build_augmentation"]

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


def as_augmentation(value: Any) -> tuple[str | Callable[[Any], Any], ...]:
    """Check an ``augmentation`` parameter.

    Parameters
    ----------
    value : None, "all", or one or more of "flip", "crop", "rotate", "colour" and functions

    Returns
    -------
    tuple of str or callable

    Raises
    ------
    UnknownNameError
    InvalidTypeError
    """
    if value is None:
        return ()
    if isinstance(value, str) and value == "all":
        return tuple(AUGMENTATIONS)
    steps = value if isinstance(value, (list, tuple)) else (value,)
    for step in steps:
        if isinstance(step, str):
            if step not in AUGMENTATIONS:
                raise UnknownNameError("augmentation", step, [*AUGMENTATIONS, "all"])
        elif not callable(step) or isinstance(step, type):
            raise InvalidTypeError(
                f"augmentation: expected None, 'all' or a list of {', '.join(AUGMENTATIONS)} or "
                f"functions of a batch of pictures. Received: {step!r}."
            )
    return tuple(steps)


class Augmentation:
    """One function of a batch of pictures, float32 ``(batch, height, width, 3)`` of 0..255.

    Parameters
    ----------
    changes : sequence of callable
        Made one after the other.
    layers : sequence of keras.layers.Layer
        Those among them that draw random numbers from states of their own.
    """

    def __init__(self, changes: Sequence[Callable[[Any], Any]], layers: Sequence[Any]):
        self._changes = tuple(changes)
        self._layers = tuple(layers)

    def __call__(self, pictures: Any) -> Any:
        """Return the pictures, changed."""
        import keras

        for change in self._changes:
            pictures = change(pictures)
        # Saturation and contrast leave the range that the backbone was trained on.
        return keras.ops.clip(pictures, *_RANGE)

    @property
    def random_states(self) -> list[Any]:
        """The variables, of two numbers each, that its random numbers are drawn from."""
        return [variable for layer in self._layers for variable in layer.variables]


def build_augmentation(steps: Sequence[str | Callable[[Any], Any]], seed: int) -> Augmentation:
    """Make one function of a batch of pictures from augmentations.

    It stands outside the model, since it is no part of what is served.

    Parameters
    ----------
    steps : sequence of str or callable
        As `as_augmentation` returns them.
    seed : int
        Of those with a name.

    Returns
    -------
    Augmentation

    Raises
    ------
    InvalidTypeError
        While training, if a function of the user's returns anything but pictures of that shape.
    """
    import keras

    changes: list[Callable[[Any], Any]] = []
    random: list[Any] = []
    for number, step in enumerate(steps):
        if callable(step):
            changes.append(_checked(step))
        else:
            layers = AUGMENTATIONS[step](keras, seed + 10 * number)
            changes += [functools.partial(layer, training=True) for layer in layers]
            random += layers
    return Augmentation(changes, random)


def _checked(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the user's function, its answer checked and in float32."""
    import tensorflow as tf

    def checked(pictures: Any) -> Any:
        changed = tf.convert_to_tensor(change(pictures))
        if not changed.shape.is_compatible_with(pictures.shape):
            raise InvalidTypeError(
                f"augmentation: expected {getattr(change, '__name__', change)!r} to return "
                f"pictures of shape {tuple(pictures.shape)}. Received: {tuple(changed.shape)}."
            )
        return tf.ensure_shape(tf.cast(changed, pictures.dtype), pictures.shape)

    return checked
