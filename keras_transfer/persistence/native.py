"""Save and load fitted estimators: one zip of Keras's own archive and JSON."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from keras_transfer._version import __version__
from keras_transfer.backbones.backbone import ModelSource
from keras_transfer.backbones.saved_model import PROGRAM, SavedModelSource
from keras_transfer.errors import FileFormatError, InvalidTypeError, UnsafeFileError
from keras_transfer.estimators.classifier import TransferClassifier
from keras_transfer.estimators.encoder import TransferEncoder
from keras_transfer.estimators.regressor import TransferRegressor
from keras_transfer.persistence.files import new_file
from keras_transfer.persistence.plain import Attachments, from_plain, to_plain
from keras_transfer.training.fitted import FittedNetwork
from keras_transfer.training.random_state import isolated_seed

__all__ = ["FORMAT", "load", "save"]

# Raised when a file of an earlier version can no longer be read.
FORMAT = 1
_DESCRIPTION, _MODEL = "estimator.json", "model.keras"
_ESTIMATORS = {
    kind.__name__: kind for kind in (TransferClassifier, TransferEncoder, TransferRegressor)
}


def save(estimator: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Save a fitted estimator to one file, without pickle.

    The folder that ``memory`` names is left out: it belongs to the machine.

    Parameters
    ----------
    estimator : TransferClassifier, TransferRegressor or TransferEncoder
        Fitted.
    path : str or path
    overwrite : bool, default=False
        Whether a file that exists is replaced.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    OutputExistsError
        If the file exists and ``overwrite`` is not set.
    InvalidTypeError
        If a label or parameter cannot be written as data.
    """
    import keras

    check_is_fitted(estimator, "backbone_")
    if type(estimator).__name__ not in _ESTIMATORS:
        raise InvalidTypeError(
            f"estimator: expected one of {', '.join(_ESTIMATORS)}. Received: "
            f"{type(estimator).__name__}."
        )
    attachments: Attachments = {}
    fitted = {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") or name in estimator._private_state
    }
    description = {
        "format": FORMAT,
        "keras_transfer": __version__,
        "keras": keras.__version__,
        "estimator": type(estimator).__name__,
        "parameters": to_plain(_parameters(estimator), attachments),
        "fitted": to_plain(fitted, attachments),
        "cut": list(estimator._network.cut),
        "n_fitted": estimator._network.n_fitted,
        "attachments": list(attachments),
    }
    model = estimator.model_
    # The optimizer's state is of no use to whoever loads it, and twice as large as the weights.
    bare = keras.Model(model.input, model.output, name=model.name)
    with (
        new_file(path, overwrite=overwrite) as aside,
        zipfile.ZipFile(aside, "w") as archive,  # Keras's archive compresses by itself
        tempfile.TemporaryDirectory() as folder,
    ):
        archive.writestr(_DESCRIPTION, json.dumps(description))
        bare.save(Path(folder) / _MODEL)
        archive.write(Path(folder) / _MODEL, _MODEL)
        for number, attached in enumerate(attachments.values()):
            buffer = io.BytesIO()
            if isinstance(attached, np.ndarray):
                np.save(buffer, attached, allow_pickle=False)
                archive.writestr(f"attachment_{number}.npy", buffer.getvalue())
                continue
            archive.writestr(f"attachment_{number}.json", attached.config)
            np.savez(buffer, *attached.weights)
            archive.writestr(f"attachment_{number}.npz", buffer.getvalue())


def _parameters(estimator: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = estimator.get_params(deep=False)
    if parameters["memory"] is not False:
        # Where activations are kept is a matter of the machine, not of what was learned.
        parameters["memory"] = None
    return parameters


def load(
    path: str | os.PathLike[str],
    *,
    custom_objects: Mapping[str, Any] | None = None,
    trusted: bool = False,
) -> Any:
    """Load an estimator that was saved.

    Nothing is executed: the file holds JSON, arrays and a Keras archive, which is read in Keras's
    safe mode.

    Parameters
    ----------
    path : str or path
        Written by ``estimator.save``.
    custom_objects : mapping of str to object, optional
        Keras layers of one's own, and functions that parameters held, by name.
    trusted : bool, default=False
        Whether to import the modules that the file names for layers and functions of the user's,
        and to run code that it holds (SavedModels, Lambda layers). Only for a file from someone
        whom you would let run programs.

    Returns
    -------
    TransferClassifier, TransferRegressor or TransferEncoder
        Fitted; gives the same predictions to the bit.

    Raises
    ------
    FileFormatError
        If the file is truncated, of another kind, or of another version.
    FileNotFoundError
        If it does not exist.
    ImportError
        If it was fitted on a KerasHub preset, and KerasHub is not installed.

    Examples
    --------
    >>> import keras_transfer
    >>> clf = keras_transfer.load("animals.keras_transfer")  # doctest: +SKIP
    """
    import keras

    # Keras finds the layers by their names from now on, in a file that holds one.
    from keras_transfer.backbones import kerashub_layer, saved_model_layer  # noqa: F401

    functions = dict(custom_objects or {})
    try:
        with (
            zipfile.ZipFile(path) as archive,
            tempfile.TemporaryDirectory() as folder,
            isolated_seed(0),  # building layers draws from the caller's random state
        ):
            description = json.loads(archive.read(_DESCRIPTION))
            _check_description(description, path)
            attachments: Attachments = {}
            for number, digest in enumerate(description["attachments"]):
                name = f"attachment_{number}"
                attachments[digest] = _read_attachment(archive, name, trusted)
            target = Path(folder) / _MODEL
            target.write_bytes(archive.read(_MODEL))
            if not trusted and _holds_program(target):
                raise UnsafeFileError(PROGRAM)
            if trusted:
                functions = {**_import_named(description, target), **functions}
            parameters = from_plain(description["parameters"], attachments, functions)
            fitted = from_plain(description["fitted"], attachments, functions)
            model = keras.saving.load_model(
                target, custom_objects=functions, compile=False, safe_mode=not trusted
            )
            estimator = _ESTIMATORS[description["estimator"]](**parameters)
            cut, n_fitted = description["cut"], description["n_fitted"]
            estimator._set_fitted(fitted, FittedNetwork(None, None, cut, n_fitted, model=model))
            return estimator
    except FileFormatError as error:
        if str(error).startswith(os.fspath(path)):
            raise
        raise type(error)(f"{os.fspath(path)}: {error}") from None
    except (FileNotFoundError, PermissionError, IsADirectoryError, ImportError):
        raise
    except Exception as error:
        # A broken archive fails in as many ways as it has readers.
        raise FileFormatError(
            f"{os.fspath(path)}: expected a file written by save(). Received: one that cannot be "
            f"read ({type(error).__name__}: {error}). Is it whole? A layer of your own goes into "
            f"custom_objects."
        ) from error


def _holds_program(model: Path) -> bool:
    """Say whether a Keras file holds a SavedModel, which is code in a graph's form."""
    with zipfile.ZipFile(model) as archive:
        config = json.loads(archive.read("config.json"))
    return any(name == "SavedModelBlock" for name, _ in _named(config))


def _read_attachment(
    archive: zipfile.ZipFile, name: str, trusted: bool
) -> ModelSource | SavedModelSource | np.ndarray:
    if f"{name}.npy" in archive.namelist():
        array: np.ndarray = np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
        return array
    config = archive.read(f"{name}.json").decode()
    with np.load(io.BytesIO(archive.read(f"{name}.npz")), allow_pickle=False) as arrays:
        weights = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
    if "archive" not in json.loads(config):  # that of a Keras model
        return ModelSource.from_parts(config, weights, trusted=trusted)
    if not trusted:
        raise UnsafeFileError(PROGRAM)
    return SavedModelSource.from_config(config, weights)


def _import_named(description: Any, model: Path) -> dict[str, Any]:
    """Import what a trusted file names: functions among the parameters, and layers of the model."""
    with zipfile.ZipFile(model) as archive:
        config = json.loads(archive.read("config.json"))
    found: dict[str, Any] = {}
    for name, module in {*_named(description), *_named(config)}:
        if module.partition(".")[0] in ("", "builtins", "keras", "keras_transfer"):
            continue
        # What is not there is reported where it is missed.
        with contextlib.suppress(ImportError, AttributeError):
            found[name] = getattr(importlib.import_module(module), name)
    return found


def _named(value: Any) -> Iterator[tuple[str, str]]:
    """List the (name, module) pairs of functions and classes in JSON of ours or of Keras's."""
    if isinstance(value, dict):
        if "$function" in value:
            yield tuple(value["$function"])
        if isinstance(value.get("module"), str) and isinstance(value.get("class_name"), str):
            yield value["class_name"], value["module"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _named(item)


def _check_description(description: Any, path: str | os.PathLike[str]) -> None:
    version = description.get("format") if isinstance(description, dict) else None
    if version != FORMAT or description.get("estimator") not in _ESTIMATORS:
        written_by = description.get("keras_transfer") if isinstance(description, dict) else None
        raise FileFormatError(
            f"{os.fspath(path)}: expected format {FORMAT} of keras_transfer {__version__}. "
            f"Received: format {version!r}, written by keras_transfer {written_by}. Load it with "
            f"that version and save it again."
        )
