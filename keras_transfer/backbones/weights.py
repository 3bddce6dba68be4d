"""Keep the weights of a network, and set them so that what is derived from them follows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_transfer.backbones.walk import leaf_layers

__all__ = ["keep_weights", "set_weights"]


def set_weights(layer: Any, values: Sequence[Any]) -> None:
    """Set the weights of a layer or model.

    Keras's ``Normalization`` computes with a mean and variance that it derives from its weights
    when it is built or loaded, but not in ``set_weights``: an adapted one would go on with 0 and 1.

    Parameters
    ----------
    layer : keras.Layer
    values : sequence of numpy.ndarray
        In the order of ``layer.get_weights()``.
    """
    layer.set_weights(values)
    for inner in leaf_layers(layer):
        if hasattr(inner, "finalize_state"):
            inner.finalize_state()


def keep_weights(told: bytes, weights: Sequence[Any]) -> tuple[tuple[np.ndarray, ...], str]:
    """Copy weights so that they stay as they are, and tell them by a digest.

    Parameters
    ----------
    told : bytes
        What else the digest tells, such as what the weights belong to.
    weights : sequence of array-like

    Returns
    -------
    kept : tuple of numpy.ndarray
        Read-only.
    digest : str
        SHA-256, hexadecimal.
    """
    digest = hashlib.sha256(told)
    kept = []
    for weight in weights:
        weight = np.array(weight)
        weight.flags.writeable = False
        digest.update(weight.tobytes())
        kept.append(weight)
    return tuple(kept), digest.hexdigest()
