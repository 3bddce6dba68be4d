"""What names labelled pictures: a folder of class folders, or a CSV. No picture is opened here."""

from __future__ import annotations

import csv
import errno
import io
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from keras_transfer.errors import DataError, InvalidTypeError, listed, warn

__all__ = ["SUFFIXES", "LabelledFiles", "list_pictures", "read_csv", "read_folder", "read_labelled"]

SUFFIXES = frozenset({".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"})
_SUFFIX_LIST = ", ".join(sorted(SUFFIXES))
PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
_TABLES = (".csv", ".tsv")
# What a symbolic link fails with that leads nowhere (FileNotFoundError: DirEntry says "no folder").
_LEADS_NOWHERE = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)
_PATH, _LABEL = "path", "label"
_HEADER_WORDS = {_PATH, _LABEL, "file", "filename", "image", "class", "target"}
_END = "\0"  # a line that no table has: NUL is refused before


@dataclass(frozen=True)
class LabelledFiles:
    """Pictures by name, each with its label.

    Attributes
    ----------
    files : tuple of str
        Absolute paths, symbolic links not resolved. A byte of a name that is not UTF-8 is kept as
        Python does (``surrogateescape``).
    labels : tuple of str
        One for each file.
    n_ignored : int
        How many files and folders were left out: hidden, without a picture's suffix, or links to a
        folder that holds the link. 0 of a CSV.
    source : str
        The folder or CSV, as an absolute path.
    """

    files: tuple[str, ...]
    labels: tuple[str, ...]
    n_ignored: int
    source: str


def read_labelled(path: PathLike) -> LabelledFiles:
    """List labelled pictures, of a folder (`read_folder`) or a CSV (`read_csv`).

    Parameters
    ----------
    path : str or path
        A folder, or a file that ends in ``.csv`` or ``.tsv``, in upper or lower case.

    Returns
    -------
    LabelledFiles

    Raises
    ------
    DataError
        If it is neither, does not exist, or cannot be used.
    InvalidTypeError
        If ``path`` is none.
    """
    expected = "a folder of class folders, or a .csv or .tsv file"
    absolute = _absolute(path, expected)
    if _is_folder(absolute, expected):
        return read_folder(absolute)
    if os.path.splitext(absolute)[1].lower() in _TABLES:
        return read_csv(absolute)
    raise _refused(absolute, expected, f"{shown(os.fsdecode(path))!r}, which is neither")


def read_folder(folder: PathLike) -> LabelledFiles:
    """List the pictures in a folder of class folders.

    A picture's label is the name of the class folder that it lies in, at any depth. Symbolic links
    are followed, but for those that lead back. Hidden names (with a leading dot) and files without
    a picture's suffix are left out.

    Parameters
    ----------
    folder : str or path

    Returns
    -------
    LabelledFiles
        Sorted by the names on the way to each picture.

    Raises
    ------
    DataError
        If it is no folder, a folder in it cannot be read, a picture lies beside the class folders,
        or there is none in them.

    Warns
    -----
    KerasTransferWarning
        If class folders without any picture are left out.
    """
    expected = "a folder of class folders, each with pictures"
    root = _absolute(folder, expected)
    if not _is_folder(root, expected):
        raise _refused(root, expected, "a file")
    entries, n_ignored, identity = _list_entries(root)
    beside = [name for name, is_folder in entries if not is_folder]
    classes = [name for name, is_folder in entries if is_folder]
    if beside:
        received = f"{len(beside)} picture(s) that belong to none, such as {shown(beside[0])}"
        hint = "Put each into a folder named after its class"
        raise _refused(root, "class folders, and no picture beside them", f"{received}. {hint}")

    files, labels, empty = list[str](), list[str](), list[str]()
    for name in classes:
        pictures, n_others = _walk(os.path.join(root, name), frozenset((identity,)))
        files += pictures
        labels += [name] * len(pictures)
        n_ignored += n_others
        if not pictures:
            empty.append(shown(name))
    if not files:
        where = f" in {listed(empty, 10)}" if empty else ""
        received = f"one with none{where}, and {n_ignored} other files or folders"
        raise _refused(root, f"{expected} ({_SUFFIX_LIST})", received)
    if empty:
        warn(f"{shown(root)}: no picture in {listed(empty, 10)}. Left out as a class.")
    return LabelledFiles(tuple(files), tuple(labels), n_ignored, root)


def list_pictures(paths: Iterable[PathLike]) -> list[str]:
    """List pictures to predict: files as given, and the pictures in folders.

    Parameters
    ----------
    paths : iterable of str or path
        A file is kept whatever its name, and if it does not exist. In a folder, pictures are found
        at any depth, as by `read_folder`.

    Returns
    -------
    list of str
        In the order of ``paths``, the pictures of a folder sorted. Relative where the path is.

    Raises
    ------
    DataError
        If a folder holds no picture, or cannot be read.
    InvalidTypeError
        If ``paths`` is a single path, or holds what is none.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise InvalidTypeError(f"paths: expected a list. Received: {paths!r}. Pass [path].")
    pictures: list[str] = []
    for path in map(_decoded, paths):
        if not os.path.isdir(path):
            pictures.append(path)
            continue
        found, _ = _walk(path)
        if not found:
            expected = f"pictures, and folders with pictures ({_SUFFIX_LIST})"
            raise _refused("paths", expected, f"{shown(path)}, a folder without any")
        pictures += found
    return pictures


def read_csv(path: PathLike) -> LabelledFiles:
    """List the pictures that a CSV names.

    The columns are those that the header calls ``path`` and ``label``, or the only two, path
    first, of a CSV without a header. Cells are separated by commas, or by semicolons or tabs where
    the first line has no comma, or is a header with them; in a ``.tsv`` file, by tabs if it can be.

    Parameters
    ----------
    path : str or path
        Text in UTF-8. Relative paths in it start at its folder. Whether they exist is not checked.

    Returns
    -------
    LabelledFiles
        In the order of the rows.

    Raises
    ------
    DataError
        If it cannot be read, has no rows, or a row cannot be used; with the line numbers.

    Warns
    -----
    KerasTransferWarning
        If rows that repeat an earlier one are left out.
    """
    source = _absolute(path, "a CSV of paths and labels")
    rows = _parse(source, _read_text(source))
    if not rows:
        raise _refused(source, "lines of path and label", "none")
    path_column, label_column, has_header = _find_columns(source, rows[0])
    width = len(rows[0].cells)
    rows = rows[has_header:]
    if not rows:
        raise _refused(source, "lines of path and label", "a header alone")
    for column, word in ((path_column, _PATH), (label_column, _LABEL)):
        without = [row.line for row in rows if not any(row.cells[column : column + 1])]
        _refuse_lines(source, without, f"a {word} in every line", "none", "Add it")
    uneven = [row.line for row in rows if len(row.cells) != width]
    hint = "Put a cell that holds the separator into double quotes"
    _refuse_lines(source, uneven, f"{width} cells in every line", "another number", hint)

    folder = os.path.dirname(source)
    first: dict[str, tuple[int, str]] = {}
    repeated: list[str] = []
    for line, cells in rows:
        named, label = cells[path_column], cells[label_column]
        file = os.path.abspath(os.path.join(folder, named))
        first_line, first_label = first.setdefault(file, (line, label))
        if first_label != label:
            both = f"{first_label!r} in line {first_line}, {label!r} in line {line}"
            raise _refused(source, f"one label of {named}", f"{both}. Remove the wrong one")
        if first_line != line:
            repeated.append(f"{named} in lines {first_line} and {line}")
    if repeated:
        warn(f"{shown(source)}: {len(repeated)} lines are repeated, the first {repeated[0]}.")
    return LabelledFiles(tuple(first), tuple(label for _, label in first.values()), 0, source)


def shown(path: str) -> str:
    """Return a path as text that can be printed and written, whatever bytes its name holds."""
    return path.encode("utf-8", "backslashreplace").decode()


# === Folders ===


def _walk(folder: str, above: frozenset[tuple[int, int]] = frozenset()) -> tuple[list[str], int]:
    """List the pictures below a folder, which lies in the folders ``above``; count the rest."""
    pictures, n_ignored = [], 0
    # A stack of its own: folders can be nested deeper than Python's calls.
    left = [(folder, True, above)]
    while left:
        path, is_folder, above = left.pop()
        if not is_folder:
            pictures.append(path)
            continue
        entries, n_others, identity = _list_entries(path)
        if identity in above:  # a link back: what it leads to is listed without it
            n_ignored += 1
            continue
        n_ignored += n_others
        branch = above | {identity}
        left += [(os.path.join(path, name), inner, branch) for name, inner in reversed(entries)]
    return pictures, n_ignored


def _list_entries(folder: str) -> tuple[list[tuple[str, bool]], int, tuple[int, int]]:
    """List pictures and folders, and which is which; count the rest; tell the folder apart."""
    try:
        status = os.stat(folder)  # not DirEntry's: its numbers are 0 on Windows
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    kinds = ((entry.name, _kind(entry)) for entry in entries)
    kept = [(name, is_folder) for name, is_folder in kinds if is_folder is not None]
    return kept, len(entries) - len(kept), (status.st_dev, status.st_ino)


def _kind(entry: os.DirEntry[str]) -> bool | None:
    """Return True for a folder, False for a picture, None for what is left out."""
    if entry.name.startswith("."):
        return None
    is_named = os.path.splitext(entry.name)[1].lower() in SUFFIXES
    try:
        if entry.is_dir():
            return True
        # Opening a pipe or a device would wait for ever. A link that leads nowhere only fails.
        is_special = is_named and not entry.is_file() and os.path.exists(entry.path)
    except OSError as error:
        if not is_named and error.errno not in _LEADS_NOWHERE:
            raise _unreadable(entry.path, error) from error  # it could be a folder
        is_special = False
    return False if is_named and not is_special else None


def _is_folder(path: str, expected: str) -> bool:
    """Say whether a path is a folder or a file, or raise that it is neither."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        raise _refused(path, expected, _reason(error)) from error


def _unreadable(path: str, error: OSError) -> DataError:
    return _refused(path, "a folder that can be read", f"{_reason(error)}. Allow it, or remove it")


# === Tables ===


class _Row(NamedTuple):
    line: int
    cells: list[str]


def _read_text(path: str) -> str:
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        raise _refused(path, "a file that can be read", _reason(error)) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]  # of `content` without the byte order mark
    else:
        if "\0" not in text:
            return text
        before = content[: content.index(b"\0")]  # UTF-16 of plain letters is UTF-8 with NULs
    line = len((before + b".").splitlines())
    raise _refused(path, "text in UTF-8", f"something else in line {line}. Save it as UTF-8")


def _parse(path: str, text: str) -> list[_Row]:
    """Split a table into rows of stripped cells, each with its first line; skip blank ones."""
    lines = list(io.StringIO(text, newline=""))  # str.splitlines would split at U+2028, too
    top = next((line for line in lines if line.strip()), "")
    separators = "\t,;" if path.lower().endswith(".tsv") else ",;\t"
    read = partial(csv.reader, skipinitialspace=True)  # so that a quote may follow the space
    rows: list[_Row] = []
    start = 1

    def fit(separator: str) -> tuple[bool, bool]:
        cells = [cell.strip().lower() for cell in next(read([top], delimiter=separator))]
        return {_PATH, _LABEL} <= set(cells), len(cells) > 1

    try:
        reader = read([*lines, _END], delimiter=max(separators, key=fit))  # the first of the best
        for cells in reader:
            rows.append(_Row(start, [cell.strip() for cell in cells]))
            start = reader.line_num + 1
    except csv.Error as error:
        raise _refused(path, "cells of text", f"in line {start}: {error}") from error
    line, last = rows.pop()
    if last != [_END]:  # the rest of the file would be one cell, and nobody would know
        raise _refused(path, "a second double quote", f"only the one in line {line}")
    return [row for row in rows if any(row.cells)]


def _find_columns(path: str, row: _Row) -> tuple[int, int, bool]:
    """Return which columns hold the path and the label, and whether the row is a header."""
    names = [cell.lower() for cell in row.cells]
    if names.count(_PATH) == names.count(_LABEL) == 1:
        return names.index(_PATH), names.index(_LABEL), True
    if len(names) == 2 and not _HEADER_WORDS.intersection(names):
        return 0, 1, False
    expected = "a header with path and label, or two columns without a header, path first"
    found = f"{listed(row.cells, 10)} in line {row.line}"
    raise _refused(path, expected, f"{found}. Add or mend the header")


def _refuse_lines(path: str, lines: list[int], expected: str, received: str, hint: str) -> None:
    if lines:
        raise _refused(path, expected, f"{received} in line {listed(lines, 5)}. {hint}")


def _refused(path: str, expected: str, received: str) -> DataError:
    return DataError(f"{shown(path)}: expected {expected}. Received: {received}.")


def _decoded(path: Any) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        raise InvalidTypeError(f"path: expected a str or path. Received: {path!r}.") from None


def _absolute(path: Any, expected: str) -> str:
    text = _decoded(path)
    if not text:  # os.path.abspath would make it the current folder
        raise DataError(f"path: expected {expected}. Received: an empty text.")
    return os.path.abspath(text)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    return getattr(error, "strerror", None) or str(error)
