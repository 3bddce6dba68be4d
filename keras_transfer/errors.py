"""What can go wrong, and what each mistake is also an instance of.

::

    KerasTransferError
    ├── InvalidParameterError (ValueError)      a parameter has a value that cannot be used
    │   └── UnknownNameError                    a name that nothing answers to
    ├── InvalidTypeError (TypeError)            a parameter has a type that cannot be used
    ├── DataError (ValueError)                  X or y cannot be used
    ├── WeightsNotFoundError (FileNotFoundError)  pretrained weights are not at hand
    ├── FileFormatError (ValueError)            a file is broken, or not what its name says
    │   └── UnsafeFileError                     a file asks for more than data
    ├── DivergedError (ArithmeticError)         the loss is no longer a number
    ├── OutputError (OSError)                   an output cannot be written
    │   └── OutputExistsError (FileExistsError)  an output stands where one is to be written
    ├── FreezeError (RuntimeError)              a frozen weight moved, or a named one did not train
    └── RecipeFileError (ValueError)            a recipe file, with all its mistakes at once

    KerasTransferWarning (UserWarning)          works, but look at it

An estimator that is used before ``fit`` raises scikit-learn's own ``NotFittedError``.

Every message says what was expected, what was received, and what to do.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Iterable, Sequence

__all__ = [
    "DataError",
    "DivergedError",
    "FileFormatError",
    "FreezeError",
    "InvalidParameterError",
    "InvalidTypeError",
    "KerasTransferError",
    "KerasTransferWarning",
    "OutputError",
    "OutputExistsError",
    "RecipeFileError",
    "UnknownNameError",
    "UnsafeFileError",
    "WeightsNotFoundError",
]


class KerasTransferError(Exception):
    """Base of every error that keras_transfer raises on purpose."""


class InvalidParameterError(KerasTransferError, ValueError):
    """A parameter has a value that cannot be used."""


class UnknownNameError(InvalidParameterError):
    """A name that nothing answers to: a backbone, block, mode, key, ...

    Parameters
    ----------
    kind : str
        What was being named, such as ``"block"``.
    name : object
        The name that was received.
    valid : iterable of str
        The names that would have been understood, in the order to list them.
    where : str, default=""
        Where the names belong, such as ``"EfficientNetLite0"``.
    """

    def __init__(self, kind: str, name: object, valid: Iterable[str], where: str = ""):
        self.kind, self.name, self.where = kind, name, where
        self.valid = tuple(valid)
        super().__init__(unknown_name(kind, name, self.valid, where))

    def __reduce__(self):
        return type(self), (self.kind, self.name, self.valid, self.where)


class InvalidTypeError(KerasTransferError, TypeError):
    """A parameter has a type that cannot be used."""


class DataError(KerasTransferError, ValueError):
    """``X`` or ``y`` cannot be used."""


class WeightsNotFoundError(KerasTransferError, FileNotFoundError):
    """Pretrained weights are not at hand."""


class FileFormatError(KerasTransferError, ValueError):
    """A file is broken, or is not what its name says."""


class UnsafeFileError(FileFormatError):
    """A file asks for more than data: unknown code, or content that is not the published one."""


class DivergedError(KerasTransferError, ArithmeticError):
    """Training left the range of numbers: the loss is NaN or infinite."""


class OutputError(KerasTransferError, OSError):
    """An output cannot be written."""


class OutputExistsError(OutputError, FileExistsError):
    """An output stands where one is to be written."""


class FreezeError(KerasTransferError, RuntimeError):
    """A frozen weight moved, or the weights that trained are not those that were named."""


class RecipeFileError(KerasTransferError, ValueError):
    """A recipe file cannot be run; all its mistakes are reported at once.

    Parameters
    ----------
    path : str
        The recipe file.
    problems : sequence of str
        One sentence each.
    """

    def __init__(self, path: str, problems: Sequence[str]):
        self.path, self.problems = path, tuple(problems)
        count = f"{len(self.problems)} mistake{'s' if len(self.problems) != 1 else ''}"
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{path}: {count}\n{lines}")

    def __reduce__(self):
        return type(self), (self.path, self.problems)


class KerasTransferWarning(UserWarning):
    """It works, but the user should look at it."""


def warn(message: str, category: type[Warning] = KerasTransferWarning) -> None:
    """Warn the user, at the line of the user's that called into the package."""
    inside = os.path.dirname(__file__) + os.sep
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def listed(names: Sequence[object], most: int, separator: str = ", ") -> str:
    """Return the first names, and how many more there are, as text."""
    more = f"{separator if separator != ', ' else ' '}and {len(names) - most} more"
    return separator.join(map(str, names[:most])) + (more if len(names) > most else "")


def nearest_name(name: object, valid: Iterable[str]) -> str | None:
    """Return the valid name that is most like ``name``, or None if none is."""
    lowered = {candidate.lower(): candidate for candidate in valid}
    matches = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    return lowered[matches[0]] if matches else None


def unknown_name(kind: str, name: object, valid: Iterable[str], where: str = "") -> str:
    """Word the message for a name that nothing answers to.

    Examples
    --------
    >>> unknown_name("block", "blok3", ["stem", "block3"], "Lite0")
    "block 'blok3' is not in Lite0. Expected one of: stem, block3. Did you mean 'block3'?"
    """
    valid = tuple(valid)
    is_not = f"is not in {where}" if where else "is not known"
    nearest = nearest_name(name, valid)
    hint = f" Did you mean {nearest!r}?" if nearest is not None else ""
    return f"{kind} {name!r} {is_not}. Expected one of: {', '.join(valid)}.{hint}"
