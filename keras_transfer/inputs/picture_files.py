"""Pictures as files, bytes and Pillow pictures: read in parallel, decoded once or when needed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from keras_transfer.errors import DataError, listed
from keras_transfer.inputs.decoding import decode_picture, over_white, resize_pictures
from keras_transfer.inputs.headers import (
    display_name,
    find_header_problem,
    is_turned,
    read_contents,
)
from keras_transfer.inputs.reader import Loaded

__all__ = [
    "EncodedPictures",
    "digest",
    "is_encoded",
    "is_pillow",
    "list_problems",
    "load_encoded",
    "load_pillow",
    "naming_broken_files",
]

# Up to here decoded pictures are kept, as float32: 1,780 of 224 x 224 pixels. Beyond, each is
# decoded when it is needed, ahead of the training.
KEPT_BYTES = 1 << 30
# How many are named in an error.
_NAMED = 5


class EncodedPictures:
    """Pictures that are decoded when they are needed.

    Parameters
    ----------
    items : sequence of str or bytes
        Absolute paths, or the contents of picture files.
    size : (int, int)
        Height and width in pixels.
    """

    ndim = 4

    def __init__(self, items: Sequence[str | bytes], size: tuple[int, int]):
        self.items = np.empty(len(items), object)
        self.items[:] = items
        self.size = size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: Any) -> EncodedPictures:
        return EncodedPictures(self.items[rows], self.size)

    def reader(self) -> Callable[[Any], Any]:
        """Return a function of a row number to its picture, for a ``tf.data`` pipeline.

        The function returns a float32 tensor of shape ``(*size, 3)``, RGB of 0..255.
        """
        import tensorflow as tf

        is_path = [isinstance(item, str) for item in self.items]
        # Paths that are not valid UTF-8 are given back as the bytes that they were.
        texts = [os.fsencode(item) if isinstance(item, str) else item for item in self.items]
        texts, is_path = tf.constant(texts, tf.string), tf.constant(is_path)

        def read(row: Any) -> Any:
            contents = tf.cond(
                is_path[row], lambda: tf.io.read_file(texts[row]), lambda: texts[row]
            )
            return decode_picture(contents, self.size)

        return read

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Iterate over the pictures in order, in tensors of shape (batch, *size, 3)."""
        import tensorflow as tf

        rows = tf.data.Dataset.range(len(self))
        decoded = rows.map(self.reader(), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return iter(decoded.batch(batch_size).prefetch(tf.data.AUTOTUNE))

    def find_problems(self) -> list[tuple[str, str]]:
        """Say which cannot be read any more, and why."""
        names = [display_name(item, row) for row, item in enumerate(self.items)]
        return list(_problems(names, _read_all(self.items, self.size, None, lambda: None)))


def load_encoded(
    items: Sequence[Any],
    size: tuple[int, int],
    *,
    on_error: str = "raise",
    keep: bool | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Loaded:
    """Read picture files, each once, in parallel.

    Every one is decoded, also where it is not kept: a damaged file is to be known of before the
    training, not in the middle of it.

    Parameters
    ----------
    items : sequence of str, path or bytes
    size : (int, int)
        Height and width in pixels.
    on_error : {"raise", "skip"}
        What is done about files that cannot be read.
    keep : bool, optional
        Whether to keep the decoded pictures; by default if they take less than 1 GiB.
    advance : callable
        Called, in any thread, after each file.

    Returns
    -------
    Loaded

    Raises
    ------
    DataError
        If files cannot be read, all of them named or counted; with ``on_error="skip"`` if none is
        left.
    """
    items = [
        item if isinstance(item, bytes) else os.path.abspath(os.fspath(item)) for item in items
    ]
    names = [display_name(item, row) for row, item in enumerate(items)]
    if keep is None:
        keep = len(items) * size[0] * size[1] * 3 * 4 <= KEPT_BYTES
    pixels = np.empty((len(items), *size, 3), np.float32) if keep else None
    files = _read_all(items, size, pixels, advance)
    skipped = _problems(names, files)
    kept = np.flatnonzero([file.problem is None for file in files])
    if skipped and (on_error == "raise" or not len(kept)):
        raise DataError(_word_problems(skipped, len(items), on_error))
    if pixels is None:
        inputs: Any = EncodedPictures([items[row] for row in kept], size)
    else:
        inputs = pixels[kept] if skipped else pixels
    return Loaded(
        inputs,
        kept,
        tuple(names[row] for row in kept),
        tuple(files[row].digest for row in kept),
        skipped,
        sum(file.is_turned for file in files),
    )


class _File(NamedTuple):
    """What reading a file told."""

    digest: bytes
    problem: str | None
    is_turned: bool


@functools.lru_cache(maxsize=8)
def _decoder(size: tuple[int, int]) -> Any:
    """Return the decoding function, traced once for each size."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def decode(contents: Any) -> Any:
        return decode_picture(contents, size)

    return decode


def _read_all(
    items: Any,
    size: tuple[int, int],
    pixels: np.ndarray | None,
    advance: Callable[[], None],
) -> list[_File]:
    """Read and decode each file; the pictures go into ``pixels``, if that is given."""
    import tensorflow as tf

    decode = _decoder(size)

    def read(row: int) -> _File:
        contents, problem = read_contents(items[row])
        turned = False
        if problem is None:
            problem, turned = find_header_problem(contents)
        if problem is None:
            try:
                decoded = decode(tf.constant(contents)).numpy()
            except (tf.errors.OpError, ValueError) as error:
                problem = f"a damaged or truncated picture ({_reason(error)})"
            else:
                if pixels is not None:
                    pixels[row] = decoded
        advance()
        return _File(digest(contents), problem, turned)

    executor = ThreadPoolExecutor(os.cpu_count())
    # Here, since it is not safe in threads: Pillow's warnings, such as of palettes, are no news.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            return list(executor.map(read, range(len(items))))
        finally:
            executor.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the last file


def _problems(names: Sequence[str], files: Sequence[_File]) -> tuple[tuple[str, str], ...]:
    pairs = zip(names, files, strict=True)
    return tuple((name, file.problem) for name, file in pairs if file.problem is not None)


def _reason(error: Exception) -> str:
    """Return the sentence in TensorFlow's error that says what is wrong."""
    text = str(getattr(error, "message", "") or error)
    # It puts the name of its operation before it, or where that was made, and after it.
    text = text.rpartition("}} ")[2] if text.startswith("{{") else text
    lines = [line.strip() for line in text.partition("[[{{")[0].splitlines() if line.strip()]
    return lines[-1].partition(" [Op:")[0].rstrip(".") if lines else type(error).__name__


def list_problems(problems: Sequence[tuple[str, str]]) -> str:
    """Return the first files that cannot be read, and why, as text."""
    return listed([f"{name}: {problem}" for name, problem in problems], _NAMED, "; ")


def _word_problems(skipped: Sequence[tuple[str, str]], total: int, on_error: str) -> str:
    count = "" if total == 1 else f"{len(skipped)} of {total} that cannot: "
    hint = " Mend or remove them, or pass on_error='skip'." if on_error == "raise" else ""
    return (
        f"X: expected pictures that can be read. Received: {count}{list_problems(skipped)}.{hint}"
    )


@contextlib.contextmanager
def naming_broken_files(*inputs: Any) -> Iterator[None]:
    """Name the files that broke while they were being read, instead of TensorFlow's operation.

    Raises
    ------
    DataError
    """
    encoded = [pictures for pictures in inputs if isinstance(pictures, EncodedPictures)]
    try:
        yield
    except Exception as error:
        problems = [problem for pictures in encoded for problem in pictures.find_problems()]
        if not problems:
            raise
        total = sum(map(len, encoded))
        raise DataError(_word_problems(problems, total, "raise")) from error


# === What stands in a list ===


def is_encoded(item: Any) -> bool:
    """Say whether an entry of X is the path or the contents of a file."""
    return isinstance(item, (str, bytes, os.PathLike))


def is_pillow(item: Any) -> bool:
    """Say whether an entry of X is a Pillow picture, without importing Pillow for it."""
    return any(base.__module__ == "PIL.Image" for base in type(item).__mro__)


def load_pillow(
    pictures: Sequence[Any], size: tuple[int, int], *, on_error: str = "raise"
) -> Loaded:
    """Bring Pillow pictures to RGB of 0..255 and one size, as their files would be decoded.

    Parameters
    ----------
    pictures : sequence of PIL.Image.Image
    size : (int, int)
        Height and width in pixels.
    on_error : {"raise", "skip"}
        What is done about pictures whose files turn out to be damaged.

    Returns
    -------
    Loaded

    Raises
    ------
    DataError
        If pictures cannot be read; with ``on_error="skip"`` if none is left.
    """
    inputs = np.empty((len(pictures), *size, 3), np.float32)
    names, digests, skipped = [], [], []
    kept: list[int] = []
    n_oriented = 0
    for row, picture in enumerate(pictures):
        name = getattr(picture, "filename", "") or f"row {row}"
        try:
            decoded = _pillow_to_array(picture)
        except (OSError, SyntaxError, ValueError) as error:
            skipped.append((name, f"a damaged or truncated picture ({error})"))
            continue
        pixels = over_white(decoded) if decoded.shape[-1] == 4 else decoded
        inputs[len(kept)] = resize_pictures(pixels[np.newaxis], size)[0]
        names.append(name)
        digests.append(digest(decoded.tobytes() + repr(decoded.shape).encode()))
        kept.append(row)
        n_oriented += is_turned(picture)
    if skipped and (on_error == "raise" or not kept):
        raise DataError(_word_problems(skipped, len(pictures), on_error))
    return Loaded(
        inputs[: len(kept)],
        np.array(kept),
        tuple(names),
        tuple(digests),
        tuple(skipped),
        n_oriented,
    )


def _pillow_to_array(picture: Any) -> np.ndarray:
    """Return uint8 of shape (height, width, 3 or 4)."""
    if picture.mode.startswith("I"):
        # Pillow itself would make white of all that is brighter than 255.
        deep = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(deep[..., np.newaxis], 3, axis=-1)
    return np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))


def digest(contents: bytes) -> bytes:
    """Return 16 bytes that are equal for equal contents."""
    return hashlib.blake2b(contents, digest_size=16).digest()
