"""Prepared arrays as batches for training and validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["ordered_batches", "shuffled_batches"]


def shuffled_batches(
    arrays: tuple[np.ndarray, ...],
    batch_size: int,
    seed: int,
    augment: Callable[[Any], Any] | None = None,
) -> Any:
    """Make a dataset that is shuffled anew in every epoch.

    Parameters
    ----------
    arrays : tuple of numpy.ndarray
        Inputs, targets and, if there are any, weights; of the same length.
    batch_size : int
    seed : int
    augment : callable, optional
        Applied to each batch of inputs, anew in every epoch.

    Returns
    -------
    tf.data.Dataset
        Batches of the arrays.
    """
    import tensorflow as tf

    # Row numbers are shuffled, not rows: a buffer of all pictures would hold them twice.
    rows = tf.data.Dataset.range(len(arrays[0])).shuffle(
        len(arrays[0]), seed=seed, reshuffle_each_iteration=True
    )
    everything = [tf.constant(array) for array in arrays]
    dataset = rows.batch(batch_size).map(
        lambda row: tuple(tf.gather(array, row) for array in everything),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if augment is not None:
        # One at a time: the random layers draw from a state, whose order must not vary.
        dataset = dataset.map(lambda x, *rest: (augment(x), *rest))
    return dataset.prefetch(tf.data.AUTOTUNE)


def ordered_batches(arrays: tuple[np.ndarray, ...], batch_size: int) -> Any:
    """Make a dataset in the order of the arrays.

    Parameters
    ----------
    arrays : tuple of numpy.ndarray
        Inputs, targets and, if there are any, weights; of the same length.
    batch_size : int

    Returns
    -------
    tf.data.Dataset
        Batches of the arrays.
    """
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)
