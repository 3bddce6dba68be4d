"""What the header of a picture file tells, read by Pillow before anything is decoded."""

from __future__ import annotations

import io
import os
from typing import Any

__all__ = ["display_name", "find_header_problem", "is_turned", "read_contents"]

# What TensorFlow decodes. An MPO is a JPEG that carries further pictures behind the first.
_DECODED = {"JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP"}
_UPRIGHT, _ORIENTATION = 1, 0x0112  # of EXIF


def read_contents(item: str | bytes) -> tuple[bytes, str | None]:
    """Read a picture file.

    Parameters
    ----------
    item : str or bytes
        A path, or the contents themselves.

    Returns
    -------
    contents : bytes
    problem : str or None
        Why it cannot be read, if so.
    """
    if isinstance(item, bytes):
        return item, None
    try:
        with open(item, "rb") as file:
            return file.read(), None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        return b"", reason[:1].lower() + reason[1:]


def find_header_problem(contents: bytes) -> tuple[str | None, bool]:
    """Say what keeps a picture from being decoded, as far as its header tells.

    Pictures of more pixels than Pillow calls safe (``PIL.Image.MAX_IMAGE_PIXELS``, 89 million
    unless it is changed) are refused: a file of 5 MB can stand for gigabytes.

    Parameters
    ----------
    contents : bytes

    Returns
    -------
    problem : str or None
    is_turned : bool
        Whether EXIF data name an orientation other than upright.

    Notes
    -----
    Pillow warns of large pictures and of some palettes. Whoever reads in threads silences it for
    all of them at once: `warnings.catch_warnings` in a thread undoes what another one has set.
    """
    from PIL import Image, UnidentifiedImageError

    if not contents:
        return "an empty file", False
    try:
        with Image.open(io.BytesIO(contents)) as picture:
            n_pixels = picture.width * picture.height
            if Image.MAX_IMAGE_PIXELS is not None and n_pixels > Image.MAX_IMAGE_PIXELS:
                return _too_large(f"{n_pixels:,} pixels, {Image.MAX_IMAGE_PIXELS:,} allowed"), False
            return _unsupported(picture), is_turned(picture)
    except Image.DecompressionBombError as error:  # of more than twice as many
        return _too_large(str(error).partition(",")[0]), False
    except UnidentifiedImageError:
        return "no picture: its contents are those of another kind of file", False
    except Exception as error:  # a broken header fails in as many ways as there are formats
        return f"a damaged header ({error})", False


def _too_large(found: str) -> str:
    return f"too large to be safe ({found}); make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"


def _unsupported(picture: Any) -> str | None:
    kind = picture.format
    if kind not in _DECODED:
        return f"a {kind} file; save it as PNG or JPEG"
    if kind == "WEBP" and getattr(picture, "is_animated", False):
        return "an animated WebP; save one frame of it"
    # TensorFlow takes the numbers of colours for grey values.
    if kind in ("BMP", "DIB") and picture.mode not in ("RGB", "RGBA", "L"):
        return f"a BMP with a palette (mode {picture.mode}); save it as PNG"
    return None


def is_turned(picture: Any) -> bool:
    """Say whether EXIF data name an orientation other than upright."""
    # Of other formats Pillow would decode the picture to find out.
    if picture.format not in ("JPEG", "MPO", "WEBP"):
        return False
    return picture.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT


def display_name(item: Any, row: int) -> str:
    """Return what a picture is called in messages: its path, or its row."""
    return os.fspath(item) if isinstance(item, (str, os.PathLike)) else f"row {row}"
