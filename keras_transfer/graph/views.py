"""Fixed views of pictures: random changes that are drawn once, by what a picture shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_transfer.graph.augmentation import build_augmentation
from keras_transfer.inputs.picture_files import EncodedPictures, digest

__all__ = ["PictureViews"]


class PictureViews:
    """Each picture in several fixed views: as it is, and randomly changed.

    What a view shows depends on the picture's content and the number of the view alone, so that it
    is the same in every fit, whatever the order and the seed.

    Parameters
    ----------
    inputs : numpy.ndarray of shape (n, height, width, 3) or EncodedPictures
        Float32, RGB of 0..255.
    keys : sequence of bytes, length n
        Equal for pictures of equal content.
    n_views : int
        Of each picture, itself among them.
    steps : sequence of str or callable
        As `as_augmentation` returns them. Of a function of the user's, what it draws with
        TensorFlow's random functions is fixed; the pictures are then to be read with the process's
        random states set aside.
    """

    ndim = 4

    def __init__(self, inputs: Any, keys: Sequence[bytes], n_views: int, steps: Sequence[Any]):
        self._inputs, self._keys, self._steps = inputs, list(keys), tuple(steps)
        # All pictures as they are, then all in their second view, and so on.
        self._rows = np.tile(np.arange(len(keys)), n_views)
        self._views = np.repeat(np.arange(n_views), len(keys))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> PictureViews:
        chosen = PictureViews(self._inputs, self._keys, 1, self._steps)
        chosen._rows, chosen._views = self._rows[rows], self._views[rows]
        return chosen

    def keys(self) -> list[bytes]:
        """Return 16 bytes for each view, equal for equal content: of one as it is, its own key."""
        keys = [self._keys[row] for row in self._rows]
        changed = np.flatnonzero(self._views)
        start = 0
        for batch in self[changed].batches(_BATCH):
            for picture in batch:
                keys[changed[start]] = digest(picture.tobytes())
                start += 1
        return keys

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of one view, in a list."""
        return [
            (*self._inputs[:1].shape[1:],)
            if isinstance(self._inputs, np.ndarray)
            else (*self._inputs.size, 3)
        ]

    def take(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return some views, in a list."""
        return list(self[rows].batches(len(rows)))

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Iterate over the views in order, in arrays of shape (batch, height, width, 3)."""
        change = _changing(self._steps)
        for start in range(0, len(self), batch_size):
            rows = self._rows[start : start + batch_size]
            views = self._views[start : start + batch_size]
            pictures = self._inputs[rows]
            if isinstance(pictures, EncodedPictures):
                (decoded,) = pictures.batches(len(rows))
                pictures = decoded.numpy()
            pictures = np.array(pictures)
            for place, (row, view) in enumerate(zip(rows, views, strict=True)):
                if view:
                    told = digest(self._keys[row] + int(view).to_bytes(4, "little"))
                    seed = int.from_bytes(told[:4], "little") >> 1
                    pictures[place] = change(pictures[place], seed)
            yield pictures


_BATCH = 32


def _changing(steps: Sequence[Any]) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return a function of a picture and a seed that changes it, the same way every time."""
    import keras
    import tensorflow as tf

    augment = build_augmentation(steps, 0)
    states = augment.random_states

    def start_from(seed: Any) -> list[Any]:
        return [tf.stack([tf.cast(seed, "uint32"), number]) for number in range(len(states))]

    def traced(picture: Any, seed: Any) -> Any:
        with keras.StatelessScope(list(zip(states, start_from(seed), strict=True))):
            return augment(picture[tf.newaxis])[0]

    if not any(map(callable, steps)):
        run = tf.function(traced, autograph=False)
        return lambda picture, seed: run(tf.constant(picture), tf.constant(seed)).numpy()

    def eager(picture: np.ndarray, seed: int) -> np.ndarray:
        # What a function of the user's draws follows TensorFlow's seed, outside a graph.
        tf.random.set_seed(seed)
        return traced(tf.constant(picture), seed).numpy()

    return eager
