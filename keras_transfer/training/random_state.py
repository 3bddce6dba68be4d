"""Seeded work that leaves the process's random states as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["isolated_seed", "kept_random_states"]


@contextlib.contextmanager
def isolated_seed(seed: int) -> Iterator[None]:
    """Seed Python, NumPy, TensorFlow and Keras, and put their states back at the end.

    Building a Keras layer draws from Python's ``random``, so even a fit without shuffling would
    move the caller's state.

    Parameters
    ----------
    seed : int
        Of 32 bits.
    """
    import keras

    saved = _save()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        _restore(saved)


@contextlib.contextmanager
def kept_random_states() -> Iterator[None]:
    """Put the states of Python, NumPy, TensorFlow and Keras back at the end.

    TensorFlow's seedless operations keep a state of their own inside a compiled function; that one
    moves on.
    """
    from keras.src.random.seed_generator import global_seed_generator

    global_seed_generator()  # one made inside would be compiled in, and then be thrown away
    saved = _save()
    try:
        yield
    finally:
        _restore(saved)


# Keras keeps the generator behind seedless random functions under this name; TensorFlow keeps the
# eager seed and the generator that op seeds are drawn from in its context. Neither has a public
# getter; test_random_state.py shows when a release moves them.
_KERAS_GENERATOR = "global_seed_generator"


def _save() -> dict[str, Any]:
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context

    eager = context.context()
    generator = global_state.get_global_attribute(_KERAS_GENERATOR)
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the state of others is what is kept
        "keras_seed": global_state.get_global_attribute("global_random_seed"),
        "keras_generator": generator,
        "keras_generator_state": None if generator is None else generator.state.numpy(),
        "tf_seed": eager._seed,
        "tf_rng": eager._rng.getstate() if hasattr(eager, "_rng") else None,
    }


def _restore(saved: dict[str, Any]) -> None:
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context

    random.setstate(saved["python"])
    np.random.set_state(saved["numpy"])  # noqa: NPY002
    global_state.set_global_attribute("global_random_seed", saved["keras_seed"])
    global_state.set_global_attribute(_KERAS_GENERATOR, saved["keras_generator"])
    if saved["keras_generator"] is not None:
        saved["keras_generator"].state.assign(saved["keras_generator_state"])
    eager = context.context()
    eager._seed = saved["tf_seed"]
    if saved["tf_rng"] is not None:
        eager._rng.setstate(saved["tf_rng"])
