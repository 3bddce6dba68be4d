"""The model's answers, computed by one compiled function that lives as long as the model."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Inference"]


class Inference:
    """Run a model forward, compiled once.

    ``model.predict`` is compiled anew after every ``compile``, so after every stage; inference does
    not depend on what trains.

    Parameters
    ----------
    model : keras.Model
        With one input and one output.
    """

    def __init__(self, model: Any):
        import tensorflow as tf

        self._dtype = model.inputs[0].dtype
        signature = tf.TensorSpec(model.inputs[0].shape, self._dtype)
        # XLA on a CPU is 5 to 15 times slower here.
        self._run = tf.function(
            lambda inputs: model(inputs, training=False),
            input_signature=[signature],
            jit_compile=bool(tf.config.list_physical_devices("GPU")),
        )

    def __call__(self, inputs: Any) -> np.ndarray:
        """Return the outputs for one batch of prepared inputs, of any numeric type."""
        import tensorflow as tf

        return self._run(tf.cast(inputs, self._dtype)).numpy()

    def on_array(self, inputs: np.ndarray, batch_size: int) -> np.ndarray:
        """Return the outputs for prepared inputs.

        Parameters
        ----------
        inputs : numpy.ndarray of shape (n, ...)
        batch_size : int

        Returns
        -------
        numpy.ndarray of shape (n, n_outputs)
            Float32.
        """
        starts = range(0, len(inputs), batch_size)
        return np.concatenate([self(inputs[start : start + batch_size]) for start in starts])
