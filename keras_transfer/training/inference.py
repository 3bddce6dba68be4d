"""The model's answers, computed by a function that is compiled once for all models like it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_transfer.graph.views import PictureViews
from keras_transfer.inputs.picture_files import EncodedPictures
from keras_transfer.training.activations import Activations
from keras_transfer.training.compiled import CompiledNetwork, forward_for

__all__ = ["Inference", "as_batches"]

# A multiple of the tile heights of the usual matrix kernels (4, 6, 8, 12, 16, 24, 32): rows left
# over from whole tiles go through other instructions, whose last bit differs.
_TILES = 96


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
    cut : tuple of str
        The operations whose outputs are given in place of the model's inputs.
    """

    def __init__(
        self, model: Any, compiled: CompiledNetwork | None = None, cut: tuple[str, ...] = ()
    ):
        self._model = model
        self._compiled = compiled
        self._cut = cut

    def __call__(self, inputs: Any, what: str = "outputs") -> np.ndarray:
        """Return the outputs for one batch of prepared inputs, of any numeric type."""
        if self._compiled is None:  # on first use: many a fitted model is never asked
            self._compiled = forward_for(self._model)
        return self._compiled.forward(self._model, inputs, self._cut)[what].numpy()

    def on_inputs(self, inputs: Any, batch_size: int, what: str = "outputs") -> np.ndarray:
        """Return the outputs for prepared inputs.

        Parameters
        ----------
        inputs : numpy.ndarray of shape (n, ...), EncodedPictures or Activations
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
        batches = as_batches(inputs, batch_size)
        return np.concatenate([self(batch, what)[:n_rows] for batch, n_rows in batches])


def as_batches(inputs: Any, batch_size: int) -> Iterator[tuple[Any, int]]:
    """Iterate over prepared inputs, so that what each gives does not depend on the others.

    Parameters
    ----------
    inputs : numpy.ndarray of shape (n, ...), EncodedPictures or Activations
    batch_size : int
        Of pictures; vectors come in batches of their own size.

    Yields
    ------
    batch : numpy.ndarray or tensor, or tuple of them
        Of vectors with rows of zeros at its end, where there are too few.
    n_rows : int
        How many of its rows are inputs.
    """
    if isinstance(inputs, (EncodedPictures, PictureViews)):
        yield from ((batch, len(batch)) for batch in inputs.batches(batch_size))
    elif isinstance(inputs, Activations):
        if inputs.is_vector:
            yield from as_batches(inputs.arrays[0], batch_size)
            return
        for start in range(0, len(inputs), batch_size):
            arrays = inputs.take(np.arange(start, min(start + batch_size, len(inputs))))
            yield tuple(arrays), len(arrays[0])
    elif inputs.ndim == 2:
        for start in range(0, len(inputs), _TILES):
            rows = inputs[start : start + _TILES]
            padded = np.zeros((_TILES, inputs.shape[1]), inputs.dtype)
            padded[: len(rows)] = rows
            yield padded, len(rows)
    else:
        for start in range(0, len(inputs), batch_size):
            batch = inputs[start : start + batch_size]
            yield batch, len(batch)
