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

        signature = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
        # XLA on a CPU is 5 to 15 times slower here.
        self._run = tf.function(
            lambda inputs: model(inputs, training=False),
            input_signature=[signature],
            jit_compile=bool(tf.config.list_physical_devices("GPU")),
        )

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
        batches = [
            self._run(inputs[start : start + batch_size]).numpy()
            for start in range(0, len(inputs), batch_size)
        ]
        return np.concatenate(batches)

    def on_dataset(self, dataset: Any) -> np.ndarray:
        """Return the outputs for a ``tf.data.Dataset`` of batches whose first item is the input."""
        batches = [
            self._run(batch[0] if isinstance(batch, tuple) else batch).numpy() for batch in dataset
        ]
        return np.concatenate(batches)
