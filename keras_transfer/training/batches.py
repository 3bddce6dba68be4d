"""Prepared examples as batches for training and validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_transfer.inputs.picture_files import EncodedPictures
from keras_transfer.training.activations import Activations

__all__ = ["SEEDS_OF_A_STAGE", "augmented", "mixed", "ordered_batches", "shuffled_batches"]

# Each step of an augmentation takes ten, and mixing the last one.
SEEDS_OF_A_STAGE = 1000


def shuffled_batches(
    arrays: tuple[Any, ...],
    batch_size: int,
    seed: int,
    augment: Callable[[Any], Any] | None = None,
    mix: Callable[..., tuple[Any, ...]] | None = None,
) -> Any:
    """Make a dataset that is shuffled anew in every epoch.

    Parameters
    ----------
    arrays : tuple of numpy.ndarray
        Inputs, targets and, if there are any, weights; of the same length. The inputs may be
        `EncodedPictures`, which are decoded in parallel, ahead of the training, `PictureViews`, or
        `Activations`, whose batches hold a tuple of arrays where there are several tensors.
    batch_size : int
    seed : int
    augment : callable, optional
        Applied to each batch of inputs, anew in every epoch.
    mix : callable, optional
        Applied after that to each batch, its arrays as arguments.

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
    dataset = _read(rows, arrays, batch_size)
    if augment is not None:
        dataset = augmented(dataset, augment)
    if mix is not None:
        dataset = mixed(dataset, mix)
    return dataset.prefetch(tf.data.AUTOTUNE)


def augmented(dataset: Any, augment: Callable[[Any], Any]) -> Any:
    """Change the inputs of each batch, anew in every epoch.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Of (inputs, ...).
    augment : callable

    Returns
    -------
    tf.data.Dataset
    """
    import tensorflow as tf

    # Not rewritten by AutoGraph, which would make another error of what a user's function raises.
    @tf.autograph.experimental.do_not_convert
    def change(inputs: Any, *rest: Any) -> tuple[Any, ...]:
        return (augment(inputs), *rest)

    # One at a time: the random layers draw from a state, whose order must not vary.
    return dataset.map(change)


def mixed(dataset: Any, mix: Callable[..., tuple[Any, ...]]) -> Any:
    """Mix the examples of each batch, anew in every epoch.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Of (inputs, targets) or (inputs, targets, weights).
    mix : callable
        Of such a batch; a `Mixing`.

    Returns
    -------
    tf.data.Dataset
    """
    # One at a time: the layer draws from a state, whose order must not vary.
    return dataset.map(mix)


def ordered_batches(arrays: tuple[Any, ...], batch_size: int) -> Any:
    """Make a dataset in the order of the arrays.

    Parameters
    ----------
    arrays : tuple of numpy.ndarray
        As for `shuffled_batches`.
    batch_size : int

    Returns
    -------
    tf.data.Dataset
        Batches of the arrays.
    """
    import tensorflow as tf

    rows = tf.data.Dataset.range(len(arrays[0]))
    return _read(rows, arrays, batch_size).prefetch(tf.data.AUTOTUNE)


def _read(rows: Any, arrays: tuple[Any, ...], batch_size: int) -> Any:
    """Turn a dataset of row numbers into one of batches."""
    import tensorflow as tf

    parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    inputs, *others = arrays
    rest = [tf.constant(array) for array in others]

    def gather(row: Any) -> tuple[Any, ...]:
        return tuple(tf.gather(array, row) for array in rest)

    if isinstance(inputs, EncodedPictures):
        read = inputs.reader()
        return rows.map(lambda row: (read(row), *gather(row)), **parallel).batch(batch_size)
    take = _taking(inputs)
    return rows.batch(batch_size).map(lambda row: (take(row), *gather(row)), **parallel)


def _taking(inputs: Any) -> Callable[[Any], Any]:
    """Return a function of row numbers to these rows of arrays or activations."""
    import tensorflow as tf

    is_held = isinstance(inputs, np.ndarray) or getattr(inputs, "is_held", False)
    if not is_held:

        def read(row: Any) -> Any:
            types = [tf.float32] * len(inputs.shapes)
            tensors = tf.numpy_function(inputs.take, [row], types, stateful=False)
            for tensor, shape in zip(tensors, inputs.shapes, strict=True):
                tensor.set_shape((None, *shape))
            return tensors[0] if len(tensors) == 1 else tuple(tensors)

        return read
    arrays = inputs.arrays if isinstance(inputs, Activations) else [inputs]
    kept = [tf.constant(array) for array in arrays]

    def gather(row: Any) -> Any:
        tensors = tuple(tf.gather(each, row) for each in kept)
        return tensors[0] if len(tensors) == 1 else tensors

    return gather
