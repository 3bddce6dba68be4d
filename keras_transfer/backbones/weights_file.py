"""Read a Keras weights file into a network, whether it was saved with its old head or without."""

from __future__ import annotations

import itertools
import math
import textwrap
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from keras_transfer.errors import FileFormatError

__all__ = ["load_weights_file", "mixes_positions"]

Shape = tuple[int, ...]


def load_weights_file(model: Any, path: str, name: str) -> None:
    """Set the weights of a network without a head to those of a file.

    Parameters
    ----------
    model : keras.Model
        Built, without its old head. On an error its weights are of no use.
    path : str
        What Keras loads weights from: ``.weights.h5``, or the older ``.h5``. The file may hold the
        old head too, for any number of classes; that is left out.
    name : str
        The network's name in messages.

    Raises
    ------
    FileFormatError
        If the file is broken, or of another network.
    """
    try:
        if path.endswith((".h5", ".hdf5")):
            layers, is_ordered = _read_shapes(path)
            _check_rest(model, layers)
            if is_ordered:
                # Keras gives an older file's layers to the model's layers one by one.
                own = sum(bool(layer.weights) for layer in model.layers)
                model = _with_places(model, layers[own:])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        # Keras goes on with the values, and with every layer that it could not load.
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise FileFormatError(
            f"weights: expected a Keras weights file of {name}, saved with its old head or "
            f"without. Received: {path!r}: {reason} Save one with "
            f"model.save_weights('file.weights.h5')."
        ) from error
    # Of a file that does not fit, the error says all; Keras warns of each of its parts besides.
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def mixes_positions(shape: Sequence[int]) -> bool:
    """Say whether a kernel of this shape reads more than one position of a feature map.

    A head has only vectors, matrices and convolutions of one pixel.
    """
    return len(shape) > 2 and math.prod(shape[:-2]) != 1


def _check_rest(model: Any, layers: list[list[Shape]]) -> None:
    """Refuse a file that holds more than the network and a head on it.

    Keras itself loads the beginning of a larger network without a word.
    """
    held = Counter(shape for layer in layers for shape in layer)
    rest = held - Counter(tuple(weight.shape) for weight in model.weights)
    wide = [shape for shape in rest if mixes_positions(shape)]
    if wide:
        raise ValueError(
            f"It holds kernels that are neither the network's nor a head's, one of shape {wide[0]}."
        )


def _read_shapes(path: str) -> tuple[list[list[Shape]], bool]:
    """List the shapes of each layer's weights, and whether the layers are in the model's order."""
    import h5py

    shapes: list[list[Shape]] = []

    def add(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            shapes[-1].append(item.shape)

    with h5py.File(path) as file:
        if path.endswith(".weights.h5"):
            for layer in file.get("layers", {}).values():
                shapes.append([])
                layer.visititems(add)
            return shapes, False
        # A whole model's file has the weights in a group of their own.
        group = file.get("model_weights", file)
        for name in _names(group, "layer_names"):
            weights = [group[name][weight].shape for weight in _names(group[name], "weight_names")]
            if weights:
                shapes.append(weights)
    return shapes, True


def _names(group: Any, key: str) -> list[str]:
    """Read a list of names, which Keras writes in several parts where it is long."""
    if key in group.attrs:
        names = list(group.attrs[key])
    else:
        parts = (f"{key}{number}" for number in itertools.count())
        present = itertools.takewhile(group.attrs.__contains__, parts)
        names = [name for part in present for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def _with_places(model: Any, layers: list[list[Shape]]) -> Any:
    """Make a model that lists a network's layers and, behind them, layers for further weights.

    It is not put on the network, which would keep the old head's weights in memory.
    """
    import keras

    class Place(keras.Layer):
        def __init__(self, shapes: list[Shape]):
            super().__init__()
            for shape in shapes:
                self.add_weight(shape=shape, initializer="zeros")

    places = [Place(shapes) for shapes in layers]

    class WithPlaces(keras.Model):
        @property
        def layers(self) -> list[Any]:
            return [*model.layers, *places]

    return WithPlaces()
