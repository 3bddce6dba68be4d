"""Pictures of any kind: brought to RGB of 0..255 and one size, the same in training and serving."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.errors import DataError, InvalidParameterError
from keras_transfer.inputs.arrays import as_array, check_finite
from keras_transfer.inputs.decoding import over_white, resize_pictures
from keras_transfer.inputs.picture_files import (
    digest,
    is_encoded,
    is_pillow,
    load_encoded,
    load_pillow,
)
from keras_transfer.inputs.pixel_range import check_pixel_range, find_pixel_range
from keras_transfer.inputs.reader import Loaded

__all__ = ["PictureInput", "check_pictures", "find_own_size", "read_entries", "resolve_image_size"]

# Largest float32 block resized at once, in bytes of the original pictures.
CHUNK_BYTES = 64 << 20
# Of files and Pillow pictures, which say themselves what their values mean.
BYTES = (0.0, 255.0)


def resolve_image_size(image_size: Any) -> tuple[int, int] | None:
    """Turn an ``image_size`` parameter into (height, width) in pixels.

    Parameters
    ----------
    image_size : int, (int, int) or None

    Raises
    ------
    InvalidParameterError
    """
    if image_size is None:
        return None
    sides = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    if len(sides) != 2 or any(
        isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in sides
    ):
        raise InvalidParameterError(
            f"image_size: expected a positive int, (height, width) or None. Received: "
            f"{image_size!r}."
        )
    return int(sides[0]), int(sides[1])


def find_own_size(X: Any) -> tuple[int, int]:
    """Return the height and width in pixels that all pictures have.

    Raises
    ------
    InvalidParameterError
        If they may differ.
    """
    if read_entries(X) is not None:
        raise InvalidParameterError(
            "image_size: expected the size that pictures are to be brought to, since the backbone "
            "has none of its own. Received: None, with files or pictures of several sizes. Pass "
            "image_size=96, or another."
        )
    height, width = check_pictures(X).shape[1:3]
    return height, width


@dataclass(frozen=True)
class PictureInput:
    """What a fit decided about pictures, and the way from raw pictures to the model's input.

    Attributes
    ----------
    size : (int, int)
        Height and width of the model's input in pixels.
    pixel_range : (float, float)
        The values that stand for black and white in arrays.
    """

    size: tuple[int, int]
    pixel_range: tuple[float, float]
    modality: ClassVar[str] = "picture"
    has_columns: ClassVar[bool] = False
    input_tags: ClassVar[tuple[str, ...]] = ("three_d_array", "string")  # arrays, paths
    plural: ClassVar[str] = "pictures"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input."""
        return (*self.size, 3)

    @property
    def fitted(self) -> dict[str, Any]:
        """The value range."""
        return {"pixel_range_": self.pixel_range}

    @classmethod
    def for_backbone(cls, X: Any, backbone: Backbone, image_size: Any) -> PictureInput:
        """Decide size and value range, by the backbone, ``image_size`` and the training pictures.

        Raises
        ------
        InvalidParameterError
            If the backbone reads no pictures of three channels, or none of this size.
        DataError
        """
        size = resolve_image_size(image_size)
        if size is None and backbone.input_shape is None and backbone.default_shape is None:
            size = find_own_size(X)  # a callable takes the pictures as they are
        own = backbone.input_shape
        if own is not None and (len(own) != 3 or own[2] != 3):
            raise InvalidParameterError(
                f"backbone: expected a network for pictures of three channels, (height, width, 3). "
                f"Received: {backbone.name}, which reads {own}. Put a layer before it that brings "
                f"three channels to its own, such as a 1x1 convolution."
            )
        shape = backbone.resolve_shape(None if size is None else (*size, 3))
        return cls.from_data(X, (shape[0], shape[1]))

    @classmethod
    def from_data(cls, X: Any, size: tuple[int, int]) -> PictureInput:
        """Decide the value range from the training pictures.

        Parameters
        ----------
        X : array or list of pictures
            As for `load`.
        size : (int, int)
            Height and width of the model's input in pixels.
        """
        entries = read_entries(X)
        if entries is None:
            return cls(size, find_pixel_range(check_pictures(X)))
        if is_encoded(entries[0]) or is_pillow(entries[0]):
            return cls(size, BYTES)
        return cls(size, find_pixel_range(_flat(_check_ragged(entries))))

    def load(
        self, X: Any, *, on_error: str = "raise", advance: Callable[[], None] = lambda: None
    ) -> Loaded:
        """Bring pictures to the model's input.

        Parameters
        ----------
        X : array of shape (n, h, w), (n, h, w, 1), (n, h, w, 3) or (n, h, w, 4), or sequence
            Arrays of one size, or a list, array, Series or one-column DataFrame of paths, of the
            contents of files (bytes), of Pillow pictures, or of arrays of different sizes. Grey
            pictures are repeated over the channels, transparent ones put over white.
        on_error : {"raise", "skip"}, default="raise"
            What is done about files that cannot be read.
        advance : callable
            Called after each file that was read.

        Returns
        -------
        Loaded
            Inputs are float32 of shape (n, height, width, 3), RGB of 0..255.

        Raises
        ------
        DataError
            If the shape is not that of pictures, a value is not finite, the values lie in another
            range than the training pictures' did, or files cannot be read.
        """
        entries = read_entries(X)
        if entries is None:
            X = check_pictures(X)
            check_pixel_range(X, self.pixel_range)
            return Loaded(self._resize(X), np.arange(len(X)), digests=_digests(X))
        if is_encoded(entries[0]):
            return load_encoded(entries, self.size, on_error=on_error, advance=advance)
        if is_pillow(entries[0]):
            return load_pillow(entries, self.size, on_error=on_error)
        pictures = _check_ragged(entries)
        check_pixel_range(_flat(pictures), self.pixel_range)
        resized = np.concatenate([self._resize(picture[np.newaxis]) for picture in pictures])
        return Loaded(resized, np.arange(len(pictures)), digests=_digests(pictures))

    def _resize(self, X: np.ndarray) -> np.ndarray:
        resized = np.empty((len(X), *self.size, 3), np.float32)
        step = max(1, CHUNK_BYTES // max(1, X[:1].nbytes))
        for start in range(0, len(X), step):
            rgb = self._to_rgb(X[start : start + step])
            resized[start : start + step] = resize_pictures(rgb, self.size)
        return resized

    def _to_rgb(self, X: np.ndarray) -> np.ndarray:
        low, high = self.pixel_range
        pixels = (X.astype(np.float32) - low) * np.float32(255 / (high - low))
        np.clip(pixels, 0, 255, out=pixels)  # what resizing overshot
        if X.ndim == 3:
            pixels = pixels[..., np.newaxis]
        if pixels.shape[-1] == 4:
            pixels = over_white(pixels).numpy()
        elif pixels.shape[-1] == 1:
            pixels = np.repeat(pixels, 3, axis=-1)
        return np.ascontiguousarray(pixels)


# === What X is ===


def read_entries(X: Any) -> list[Any] | None:
    """Return the entries of X where it is a list of pictures; None where it is one array.

    Raises
    ------
    DataError
        If it is a single file, or holds entries of several kinds.
    """
    if isinstance(X, (str, bytes, os.PathLike)) or is_pillow(X):
        raise DataError(
            f"X: expected a list or array of pictures. Received: a single one, {_show(X)}. Pass "
            f"[picture]."
        )
    if not isinstance(X, (list, tuple)):
        X = as_array(X)
        if X.dtype.kind not in "OUS":
            return None
        if X.ndim == 2 and X.shape[1] == 1:  # a one-column table
            X = X[:, 0]
        if X.ndim != 1:
            return None
        # NumPy's own text types hold paths; its bytes would have lost zeros at their end.
        X = X.tolist()
    kinds = [_kind(entry) for entry in X]
    if set(kinds) <= {"array", ""}:
        shapes = {entry.shape for entry in X if hasattr(entry, "shape")}
        return list(X) if len(shapes) > 1 else None
    for row, (entry, kind) in enumerate(zip(X, kinds, strict=True)):
        if kind != kinds[0] or kind in ("", "ragged"):
            expected = {"file": "a path or bytes", "picture": "a Pillow picture"}
            raise DataError(
                f"X: expected {expected.get(kinds[0], 'a picture')} in every row, as in the first. "
                f"Received in row {row}: {_show(entry)}."
            )
    return list(X)


def _kind(entry: Any) -> str:
    if is_encoded(entry):
        return "file"
    if is_pillow(entry):
        return "picture"
    try:
        return "array" if np.ndim(entry) else ""
    except ValueError:  # lists of several lengths
        return "ragged"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_pictures(X: Any) -> np.ndarray:
    """Return X as an array of pictures of one size, or say why it is none.

    Raises
    ------
    DataError
    """
    X = as_array(X)
    if X.dtype.kind not in "uifb":
        raise DataError(
            f"X: expected numbers, or a list of files or Pillow pictures. Received: an array of "
            f"{X.dtype}."
        )
    channels = X.ndim > 0 and X.shape[-1] in (1, 3, 4)
    # (height, width, 3) would pass for grey pictures that are three pixels wide.
    if X.ndim not in (3, 4) or (X.ndim == 3) == channels:
        hint = {
            2: " Reshape flattened pictures to (n, height, width).",
            3: " For a single picture pass X[np.newaxis].",
        }.get(X.ndim, "")
        raise DataError(
            f"X: expected pictures of shape (n, height, width) or (n, height, width, channels) "
            f"with 1, 3 or 4 channels. Received: {X.shape}.{hint}"
        )
    if len(X) == 0 or 0 in X.shape:
        raise DataError(f"X: expected at least one picture. Received: shape {X.shape}.")
    check_finite(X, "picture")
    return X


def _check_ragged(entries: Sequence[Any]) -> list[np.ndarray]:
    """Return pictures of different sizes as arrays, or name the row of what is none."""
    pictures = []
    for row, entry in enumerate(entries):
        picture = as_array(entry)
        if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] not in (1, 3, 4)):
            raise DataError(
                f"X: expected a picture of shape (height, width) or (height, width, channels) with "
                f"1, 3 or 4 channels in every row. Received in row {row}: {picture.shape}."
            )
        try:
            # A grey picture that is three pixels wide would pass for one of three channels.
            with_channels = picture[..., np.newaxis] if picture.ndim == 2 else picture
            pictures.append(check_pictures(with_channels[np.newaxis])[0])
        except DataError as error:
            raise DataError(f"row {row} of {error}") from error
    return pictures


def _flat(pictures: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([picture.ravel() for picture in pictures])


def _digests(pictures: Any) -> tuple[bytes, ...]:
    return tuple(
        digest(picture.tobytes() + repr((picture.dtype.str, picture.shape)).encode())
        for picture in pictures
    )
