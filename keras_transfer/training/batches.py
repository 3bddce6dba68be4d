"""Prepared arrays as batches for training and validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["ordered_batches", "shuffled_batches"]


def shuffled_batches(
    inputs: np.ndarray,
    targets: np.ndarray,
    batch_size: int,
    seed: int,
    augment: Callable[[Any], Any] | None = None,
) -> Any:
    """Make a dataset that is shuffled anew in every epoch.

    Parameters
    ----------
    inputs : numpy.ndarray of shape (n, ...)
    targets : numpy.ndarray of shape (n,)
    batch_size : int
    seed : int
    augment : callable, optional
        Applied to each batch of inputs, anew in every epoch.

    Returns
    -------
    tf.data.Dataset
        Batches of (inputs, targets).
    """
    import tensorflow as tf

    # Row numbers are shuffled, not rows: a buffer of all pictures would hold them twice.
    rows = tf.data.Dataset.range(len(inputs)).shuffle(
        len(inputs), seed=seed, reshuffle_each_iteration=True
    )
    everything, all_targets = tf.constant(inputs), tf.constant(targets)
    dataset = rows.batch(batch_size).map(
        lambda row: (tf.gather(everything, row), tf.gather(all_targets, row)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if augment is not None:
        # One at a time: the random layers draw from a state, whose order must not vary.
        dataset = dataset.map(lambda x, y: (augment(x), y))
    return dataset.prefetch(tf.data.AUTOTUNE)


def ordered_batches(inputs: np.ndarray, targets: np.ndarray, batch_size: int) -> Any:
    """Make a dataset in the order of the arrays.

    Parameters
    ----------
    inputs : numpy.ndarray of shape (n, ...)
    targets : numpy.ndarray of shape (n,)
    batch_size : int

    Returns
    -------
    tf.data.Dataset
        Batches of (inputs, targets).
    """
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(batch_size)
