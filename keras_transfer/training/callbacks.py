"""Callbacks of the user's: a fresh one for each fit."""

from __future__ import annotations

import copy
from typing import Any

from keras_transfer.errors import InvalidParameterError, InvalidTypeError

__all__ = ["fresh_callbacks"]


def fresh_callbacks(callbacks: Any) -> list[Any]:
    """Make the callbacks of one fit.

    Parameters
    ----------
    callbacks : list or tuple, or None
        Callables without arguments that return a Keras callback, or callbacks, which are copied: a
        callback keeps the model that it was called with, and scikit-learn's ``clone`` would then
        copy that too.

    Returns
    -------
    list of keras.callbacks.Callback

    Raises
    ------
    InvalidTypeError
    InvalidParameterError
        If a callback has served a model already.
    """
    if callbacks is None:
        return []
    if not isinstance(callbacks, (list, tuple)):
        raise InvalidTypeError(
            f"callbacks: expected a list of Keras callbacks, or of callables without arguments "
            f"that return one. Received: {callbacks!r}."
        )
    if not callbacks:
        return []
    import keras

    fresh = []
    for given in callbacks:
        made = given
        if not isinstance(given, keras.callbacks.Callback) and callable(given):
            made = given()
        if not isinstance(made, keras.callbacks.Callback):
            raise InvalidTypeError(
                f"callbacks: expected Keras callbacks, or callables without arguments that return "
                f"one. Received: {given!r}."
            )
        if made is given:
            if made.model is not None:
                raise InvalidParameterError(
                    f"callbacks: expected callbacks that no model has used. Received: {given!r}, "
                    f"which holds one. Pass a function that makes it: "
                    f"callbacks=[lambda: {type(given).__name__}(...)]."
                )
            made = copy.deepcopy(given)
        fresh.append(made)
    return fresh
