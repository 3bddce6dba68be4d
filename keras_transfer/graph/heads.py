"""Heads: the new output layers for the target task."""

from __future__ import annotations

import numbers
from typing import Any

from keras_transfer.backbones.partition import HEAD
from keras_transfer.errors import InvalidParameterError

__all__ = ["LOGITS", "PROBABILITIES", "attach_classifier"]

LOGITS = f"{HEAD}.logits"
PROBABILITIES = f"{HEAD}.probabilities"


def attach_classifier(features: Any, outputs: int, dropout: float = 0.0) -> Any:
    """Put a linear classifier on features.

    Parameters
    ----------
    features : Keras tensor of shape (batch, n_features)
    outputs : int
        Number of classes, at least 2.
    dropout : float, default=0.0
        Share of the features left out at random in each training step.

    Returns
    -------
    Keras tensor of shape (batch, outputs)
        Probabilities, float32 whatever the precision of the backbone.
    """
    import keras

    if isinstance(outputs, bool) or not isinstance(outputs, numbers.Integral) or outputs < 2:
        raise InvalidParameterError(
            f"outputs: expected the number of classes, an int of at least 2. Received: {outputs!r}."
        )
    if dropout:
        features = keras.layers.Dropout(dropout, name=f"{HEAD}.dropout")(features)
    # In half precision a softmax over many classes loses the small ones.
    logits = keras.layers.Dense(int(outputs), name=LOGITS, dtype="float32")(features)
    return keras.layers.Activation("softmax", name=PROBABILITIES, dtype="float32")(logits)
