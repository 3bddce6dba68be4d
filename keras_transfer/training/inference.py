"""The model's answers, computed by a function that is compiled once for all models like it."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_transfer.inputs.picture_files import EncodedPictures
from keras_transfer.training.compiled import CompiledNetwork, forward_for

__all__ = ["TILES", "Inference"]

# A multiple of the tile heights of the usual matrix kernels (4, 6, 8, 12, 16, 24, 32): rows left
# over from whole tiles go through other instructions, whose last bit differs.
TILES = 96


class Inference:
    """Run a model forward.

    ``model.predict`` is compiled anew for every model and after every ``compile``; inference
    depends on neither the weights nor what trains.

    Parameters
    ----------
    model : keras.Model
        With one input and one output.
    compiled : CompiledNetwork, optional
        What runs it; by default what models of its structure share.
    """

    def __init__(self, model: Any, compiled: CompiledNetwork | None = None):
        self._model = model
        self._compiled = compiled

    def __call__(self, inputs: Any, what: str = "outputs") -> np.ndarray:
        """Return the outputs for one batch of prepared inputs, of any numeric type."""
        if self._compiled is None:  # on first use: many a fitted model is never asked
            self._compiled = forward_for(self._model)
        return self._compiled.forward(self._model, inputs)[what].numpy()

    def on_inputs(self, inputs: Any, batch_size: int, what: str = "outputs") -> np.ndarray:
        """Return the outputs for prepared inputs.

        Parameters
        ----------
        inputs : numpy.ndarray of shape (n, ...) or EncodedPictures
        batch_size : int
            Vectors come in batches of their own size, so that the answer for one does not depend
            on the others.
        what : {"outputs", "features", "logits"}
            The model's answers, what a head of ours reads, or what a classifier's computes the
            answers from.

        Returns
        -------
        numpy.ndarray of shape (n, n_outputs)
            Float32.
        """
        if inputs.ndim == 2:
            return self._on_vectors(inputs, what)
        if isinstance(inputs, EncodedPictures):
            return np.concatenate([self(batch, what) for batch in inputs.batches(batch_size)])
        starts = range(0, len(inputs), batch_size)
        return np.concatenate([self(inputs[start : start + batch_size], what) for start in starts])

    def _on_vectors(self, inputs: np.ndarray, what: str) -> np.ndarray:
        batches = []
        for start in range(0, len(inputs), TILES):
            rows = inputs[start : start + TILES]
            padded = np.zeros((TILES, inputs.shape[1]), inputs.dtype)
            padded[: len(rows)] = rows
            batches.append(self(padded, what)[: len(rows)])
        return np.concatenate(batches)
