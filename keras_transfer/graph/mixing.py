"""Mixing: training pictures mixed with others of their batch, and their labels with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["MIXES", "Mixing", "build_mixing"]


def _mixup(seed: int) -> Any:
    import keras

    # 0.2 is the paper's for ImageNet: most pictures are hardly mixed.
    return keras.layers.MixUp(alpha=0.2, seed=seed, dtype="float32")


def _cutmix(seed: int) -> Any:
    import keras

    # The paper's alpha of 1: all shares of the area are as likely. Keras's own default draws a
    # smaller alpha for each batch, which mixes less.
    return keras.layers.CutMix(factor=(1.0, 1.0), seed=seed, dtype="float32")


# Adding a way to mix is adding a row.
MIXES: dict[str, Callable[[int], Any]] = {"mixup": _mixup, "cutmix": _cutmix}

# An augmentation of the same seed takes it and those above it, ten for each step.
_APART = 999


class Mixing:
    """One function of a batch: its pictures, targets and weights, each mixed with another's.

    Parameters
    ----------
    layer : keras.layers.Layer
        Mixes a dictionary of ``"images"`` and ``"labels"``.
    task : {"multiclass", "multilabel", "regression"}
    n_outputs : int
        Number of classes, labels or numbers.
    """

    def __init__(self, layer: Any, task: str, n_outputs: int):
        self._layer = layer
        self._task = task
        self._n_outputs = n_outputs

    def __call__(self, pictures: Any, targets: Any, weights: Any = None) -> tuple[Any, ...]:
        """Return a batch of as many mixed pictures.

        A row of weight 0 is in none of the others, and stays what it is.

        Parameters
        ----------
        pictures : tensor of shape (batch, height, width, channels)
        targets : tensor of shape (batch,) or (batch, n_outputs)
            Class indices, rows of 0 and 1, or standardised numbers.
        weights : tensor of shape (batch,), optional
            How much each counts.

        Returns
        -------
        tuple of tensors
            All float32: the pictures; targets of shape ``(batch, n_outputs)``, of classes their
            shares; where there were weights, weights of shape ``(batch,)``. The loss of the mixed
            targets, weighted, is that of each of the two, at its share of its own weight, wherever
            the loss is linear in them.
        """
        import tensorflow as tf

        pictures = tf.cast(pictures, "float32")
        rows = self._as_rows(targets)
        given = tf.ones_like(rows[:, :1])
        if weights is not None:
            given = tf.reshape(tf.cast(weights, "float32"), (-1, 1))
        is_absent = tf.cast(given == 0, "float32")
        # Of two labels each is to count by its share of the picture and by its weight. The layer
        # draws the shares and keeps them, but what it mixes with them it gives back.
        labels = tf.concat([rows * given, given, is_absent], axis=1)
        mixed = self._layer({"images": pictures, "labels": labels}, training=True)
        weighted, total, absent = tf.split(mixed["labels"], [self._n_outputs, 1, 1], axis=1)
        stays = absent > 0
        pictures = tf.where(stays[:, :, tf.newaxis, tf.newaxis], pictures, mixed["images"])
        rows = tf.where(stays, rows, tf.math.divide_no_nan(weighted, total))
        if weights is None:
            return pictures, rows
        return pictures, rows, tf.where(stays, given, total)[:, 0]

    def _as_rows(self, targets: Any) -> Any:
        """Return targets as float32 of shape (batch, n_outputs)."""
        import tensorflow as tf

        if self._task == "multiclass":
            indices = tf.reshape(tf.cast(targets, "int32"), (-1,))
            return tf.one_hot(indices, self._n_outputs)
        return tf.reshape(tf.cast(targets, "float32"), (-1, self._n_outputs))


def build_mixing(mix: str, task: str, n_outputs: int, seed: int) -> Mixing:
    """Make one function of a batch that mixes its examples.

    It stands outside the model, since it is no part of what is served.

    Parameters
    ----------
    mix : {"mixup", "cutmix"}
        Each picture becomes a mean of itself and another of its batch, or gets a rectangle of the
        other; its label is mixed by the same share.
    task : {"multiclass", "multilabel", "regression"}
    n_outputs : int
    seed : int
        Apart from that of an augmentation with the same number.

    Returns
    -------
    Mixing

    References
    ----------
    Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018, arXiv 1710.09412). Yun et al.,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (2019,
    arXiv 1905.04899).
    """
    return Mixing(MIXES[mix](seed + _APART), task, n_outputs)
