"""Set weights so that layers which derive more from them follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_transfer.backbones.walk import leaf_layers

__all__ = ["set_weights"]


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
