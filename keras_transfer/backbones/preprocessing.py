"""How a family wants its pixels: data, put into the model as plain Keras layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_transfer.errors import InvalidTypeError, UnknownNameError

__all__ = ["Preprocessing", "as_preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """Map RGB pixels of 0..255 to what the network was trained on: ``x * scale + offset``.

    Attributes
    ----------
    scale, offset : float or tuple of float
        One number, or one for each channel in the order that the network reads.
    channel_order : {"rgb", "bgr"}
        The order of channels that the network reads.
    """

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    channel_order: str = "rgb"

    def __call__(self, pixels: Any) -> Any:
        """Apply it to a Keras tensor of shape ``(batch, height, width, 3)``."""
        import keras

        if self.channel_order == "bgr":
            pixels = keras.ops.flip(pixels, axis=-1)
            # Keras numbers operations through the whole process, and gives no way to name them.
            pixels._keras_history.operation.name = "preprocess.flip"
        if self.scale != 1.0 or self.offset != 0.0:
            scale, offset = (
                list(v) if isinstance(v, tuple) else v for v in (self.scale, self.offset)
            )
            pixels = keras.layers.Rescaling(scale, offset, name="preprocess.rescaling")(pixels)
        return pixels


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The names are those of keras.applications' own preprocess_input modes.
PREPROCESSING: dict[str, Preprocessing] = {
    "none": Preprocessing(),
    "tf": Preprocessing(1 / 127.5, -1.0),
    "torch": Preprocessing(
        tuple(1 / (255 * d) for d in _DEVIATION),
        tuple(-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)),
    ),
    "caffe": Preprocessing(1.0, (-103.939, -116.779, -123.68), "bgr"),
}


def as_preprocessing(value: object) -> Preprocessing:
    """Turn a name, None or a `Preprocessing` into a `Preprocessing`."""
    if value is None:
        return PREPROCESSING["none"]
    if isinstance(value, Preprocessing):
        return value
    if not isinstance(value, str):
        raise InvalidTypeError(
            f"preprocessing: expected one of {', '.join(PREPROCESSING)} or a Preprocessing. "
            f"Received: {value!r} (type {type(value).__name__})."
        )
    if value not in PREPROCESSING:
        raise UnknownNameError("preprocessing", value, PREPROCESSING)
    return PREPROCESSING[value]
