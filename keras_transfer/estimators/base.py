"""What all estimators share: reading X, tags, the model's answers, saving."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from keras_transfer.backbones.backbone import MODALITIES
from keras_transfer.backbones.registry import as_backbone
from keras_transfer.errors import DataError, KerasTransferError
from keras_transfer.graph.readout import as_readout
from keras_transfer.inputs.examples import row_keys
from keras_transfer.inputs.picture_files import naming_broken_files
from keras_transfer.inputs.pictures import resolve_image_size
from keras_transfer.inputs.reader import Loaded, Reader
from keras_transfer.inputs.readers import READERS
from keras_transfer.inputs.sources import is_source, open_unlabelled
from keras_transfer.parameters import (
    NONE,
    Constraint,
    check_parameters,
    integer,
    one_of,
    satisfying,
)
from keras_transfer.store.activation_store import as_memory
from keras_transfer.training.fitted import FittedNetwork

__all__ = ["BaseTransfer", "check_lengths", "count_rows"]


class BaseTransfer(BaseEstimator):
    """Base of the estimators; its parameters are documented with each."""

    _constraints: Mapping[str, Constraint] = {
        # "auto" is a name like any other until the blocks are known.
        "readout": satisfying(as_readout, "'auto', 'last', a block's name or a Readout"),
        "modality": NONE | one_of(*MODALITIES),
        "image_size": satisfying(resolve_image_size, "a positive int, (height, width) or None"),
        "batch_size": integer(1),
        "memory": satisfying(as_memory, "None, False, a folder or a Memory"),
    }
    # Fitted state whose names do not end in "_", saved with the rest.
    _private_state: tuple[str, ...] = ("_reader",)

    def _check_parameters(self) -> None:
        check_parameters(type(self).__name__, self.get_params(deep=False), self._constraints)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        modality = getattr(self, "modality", None)
        if modality is None:
            with contextlib.suppress(KerasTransferError, AttributeError):  # fit says what is wrong
                modality = as_backbone(self.backbone).modality
        # Where nothing tells, any modality may be meant.
        readers = [READERS[modality]] if modality in READERS else list(READERS.values())
        tags.input_tags.two_d_array = False
        for tag in [tag for reader in readers for tag in reader.input_tags]:
            setattr(tags.input_tags, tag, True)
        return tags

    # === Reading X ===

    def _columns(self, X: Any, reader: Reader) -> dict[str, Any]:
        """Return what the estimator shows of X; of a table what scikit-learn keeps of columns."""
        if not reader.has_columns:
            return reader.fitted
        scratch = copy.copy(self)  # a fit that fails later leaves no trace
        validate_data(scratch, X, reset=True, skip_check_array=True)
        names = ("n_features_in_", "feature_names_in_")
        columns = {name: getattr(scratch, name) for name in names if hasattr(scratch, name)}
        return {**reader.fitted, **columns}

    def _check_columns(
        self,
        X: Any,
        reader: Reader,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Make sure that X has the columns of the training data, in scikit-learn's words.

        While fitting, these are ``columns``; afterwards the estimator knows them.

        Raises
        ------
        DataError
        """
        if not reader.has_columns:
            return
        known = self
        if columns is not None:
            known = copy.copy(self)
            for name in ("n_features_in_", "feature_names_in_"):
                known.__dict__.pop(name, None)
            known.__dict__.update(columns)
        try:
            validate_data(known, X, reset=False, skip_check_array=True)
        except ValueError as error:
            raise DataError(str(error)) from error

    def _prepare(self, X: Any) -> Loaded:
        """Bring X to the model's input, checked against what fit saw."""
        if is_source(X):
            X = open_unlabelled(X)
        loaded: Loaded = self._reader.load(X)
        self._check_columns(X, self._reader)
        return loaded

    # === The fitted model ===

    def _set_fitted(self, fitted: Mapping[str, Any], network: FittedNetwork) -> None:
        """Take over a fit that went well, in place of an earlier one."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        self.__dict__.update(fitted, _network=network)

    @property
    def model_(self) -> Any:
        """The whole model; built when it is asked for first, where a fit had no need of it."""
        check_is_fitted(self, "backbone_")
        return self._network.model

    def _run(self, X: Any, what: str = "outputs") -> np.ndarray:
        """Return the model's answers for raw X."""
        check_is_fitted(self, "backbone_")
        loaded, memory = self._prepare(X), as_memory(self.memory)
        keys = [] if memory is None else row_keys(loaded.inputs, loaded.digests)
        with naming_broken_files(loaded.inputs):
            return self._network.answer(
                loaded.inputs, keys, self.batch_size, what, memory, repr(self._reader)
            )

    def save(self, path: Any, *, overwrite: bool = False) -> None:
        """Save the fitted estimator to one file, without pickle; not the folder of ``memory``.

        Parameters
        ----------
        path : str or path
            Conventionally ending in ``.keras_transfer``.
        overwrite : bool, default=False
            Whether a file that exists is replaced.

        Raises
        ------
        OutputExistsError
            If the file exists and ``overwrite`` is not set.
        """
        from keras_transfer.persistence.native import save

        save(self, path, overwrite=overwrite)


def check_lengths(X: Any, y: Any, what: str = "y") -> None:
    """Make sure that there is an entry for every example.

    Raises
    ------
    DataError
    """
    counts = []
    for name, value in (("X", X), (what, y)):
        counts.append(count_rows(value))
        if counts[-1] < 0:
            hint = " A fit requires y to be passed, but the target y is None."
            raise DataError(
                f"{name}: expected a list or array, one entry for each example. Received: "
                f"{value!r}.{hint if name == 'y' and value is None else ''}"
            )
    if counts[0] != counts[1]:
        raise DataError(  # scikit-learn's words, and which of the two it is
            f"{what}: expected {counts[0]} entries, one for each example. Received: {counts[1]}. "
            f"Found input variables with inconsistent numbers of samples: {counts}."
        )


def count_rows(values: Any) -> int:
    """Return how many entries a list, array or table has; -1 for what is none of them."""
    if values is None or isinstance(values, (str, bytes)):
        return -1
    if hasattr(values, "shape"):  # a sparse matrix has no length
        return int(values.shape[0]) if len(values.shape) else -1
    if hasattr(values, "__len__"):
        return len(values)
    return count_rows(np.asarray(values)) if hasattr(values, "__array__") else -1
