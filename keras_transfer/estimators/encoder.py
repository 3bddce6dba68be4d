"""TransferEncoder: raw X to what a pretrained backbone makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from keras_transfer.backbones.registry import as_backbone
from keras_transfer.choosing.readout_choice import (
    AUTO,
    ReadoutChoice,
    choose_readout,
    given_readout,
)
from keras_transfer.choosing.trial import Trial
from keras_transfer.estimators.base import BaseTransfer, check_lengths, count_rows
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.readout import LAST, Readout, as_readout
from keras_transfer.inputs.examples import row_keys
from keras_transfer.inputs.picture_files import naming_broken_files
from keras_transfer.inputs.readers import read_input
from keras_transfer.inputs.sources import is_source, open_unlabelled
from keras_transfer.inputs.targets import NumberTargets, class_or_label_targets
from keras_transfer.store.activation_store import as_memory, open_store
from keras_transfer.training.fitted import FittedNetwork
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.random_state import isolated_seed

__all__ = ["TransferEncoder"]


class TransferEncoder(TransformerMixin, BaseTransfer):
    """Turn pictures or vectors into the features of a pretrained backbone.

    Nothing trains: to encode with tuned weights, take the backbone of a fitted estimator,
    ``TransferEncoder(get_backbone(fitted_classifier))``.

    Parameters
    ----------
    backbone : str, Backbone or callable, default="EfficientNetLite0"
        The pretrained model: a name (`list_backbones`), what `get_backbone` returns, or a function
        ``(input_shape) -> keras.Model``.
    readout : "auto", "last", str or Readout, default="auto"
        Which block outputs are the features, and how they are pooled. ``"auto"``: those from which
        a linear model answers best, where `fit` is given y, as in a pipeline; else the last.
    modality : {"picture", "features"}, optional
        By default the backbone's, or told by the shape of X.
    image_size : int or (int, int), optional
        Height and width in pixels that pictures are resized to; by default the backbone's own.
    batch_size : int, default=32
    memory : None, False, str, path or Memory, default=None
        Where features are kept, so that each picture passes the backbone once: by default in this
        process, up to 8 GiB; in a folder, for later ones too; with ``False`` nowhere.
    random_state : int, RandomState or None, default=None
        Seed of weights that are random, as those of a function may be.

    Attributes
    ----------
    model_ : keras.Model
        Plain, flat, functional; ends in the features.
    backbone_ : Backbone
    pixel_range_ : (float, float)
        For pictures: the values that stand for black and white.
    readout_ : ReadoutChoice
        Where the features are read, and why.
    n_features_in_, feature_names_in_ : int, numpy.ndarray of str
        For features; the names where X was a table that has some.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> from keras_transfer import TransferEncoder
    >>> pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    >>> encoder = TransferEncoder("EfficientNetLite0", readout="block2b", image_size=32)
    >>> pipeline = make_pipeline(encoder, SVC()).fit(pictures, ["a", "b"] * 3)
    >>> encoder.fit_transform(pictures).shape
    (6, 24)
    """

    def __init__(
        self,
        backbone: Any = "EfficientNetLite0",
        *,
        readout: Any = AUTO,
        modality: str | None = None,
        image_size: Any = None,
        batch_size: int = 32,
        memory: Any = None,
        random_state: Any = None,
    ):
        self.backbone = backbone
        self.readout = readout
        self.modality = modality
        self.image_size = image_size
        self.batch_size = batch_size
        self.memory = memory
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Build the model for X; nothing trains.

        Parameters
        ----------
        X : array of shape (n, h, w), (n, h, w, c) or (n, n_features), or sequence of pictures
            Pictures as for `TransferClassifier.fit`, or features.
        y : array-like of shape (n,) or (n, n_outputs), optional
            Labels, rows of 0 and 1, or numbers: what ``readout="auto"`` chooses by.

        Returns
        -------
        TransferEncoder
            Itself.

        Raises
        ------
        DataError
            If X cannot be used.
        InvalidParameterError
            If a parameter cannot.
        """
        self._check_parameters()
        backbone = as_backbone(self.backbone)
        if is_source(X):
            X = open_unlabelled(X)
        reader = read_input(X, backbone, self.modality, self.image_size)
        columns = self._columns(X, reader)
        seed = int(check_random_state(self.random_state).randint(2**31))
        memory = as_memory(self.memory)
        blueprint = Blueprint(backbone, None, reader.shape, Readout(), seed)
        choice, reason = None, "given"
        readout = as_readout(LAST if self.readout == AUTO else self.readout)
        if self.readout == AUTO and y is None:
            reason = "the last block: no y to choose by"
        elif self.readout == AUTO and backbone.weights is None:  # for which X need not be read
            reason = "the last block: its weights are random"
        elif self.readout == AUTO:
            choice = self._choose(X, y, reader, blueprint)
            readout = choice.readout
        network = LazyNetwork(
            replace(blueprint, readout=readout), None if memory is None else open_store(memory)
        )
        boundary = network.boundary()
        part = None if boundary else network.build_part(boundary)
        network.release()
        self._set_fitted(
            {
                "backbone_": backbone,
                "readout_": choice or given_readout(readout, network, reason),
                "_reader": reader,
                **columns,
            },
            FittedNetwork(network, part, boundary.cut, count_rows(X)),
        )
        return self

    def _choose(self, X: Any, y: Any, reader: Any, blueprint: Blueprint) -> ReadoutChoice:
        """Choose where to read by what the features are to tell."""
        check_lengths(X, y)
        is_numbers = type_of_target(y).startswith("continuous")
        targets = NumberTargets.from_data(y) if is_numbers else class_or_label_targets(y)
        encoded = targets.standardise(targets.encode(y))
        loaded = reader.load(X)
        with isolated_seed(blueprint.seed), naming_broken_files(loaded.inputs):
            trial = Trial(
                loaded.inputs,
                row_keys(loaded.inputs, loaded.digests),
                encoded,
                targets.task,
                targets.n_outputs,
                np.ones(len(encoded)),
                memory=as_memory(self.memory),
                reader=repr(reader),
                seed=blueprint.seed,
            )
            return choose_readout(blueprint, trial)

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of X.

        Parameters
        ----------
        X : array
            As in `fit`.

        Returns
        -------
        numpy.ndarray of shape (n, n_features_out)
            Float32; a table after ``set_output(transform="pandas")``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If X cannot be used, or its values lie in another range than in `fit`.
        """
        return self._run(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features: block, grid and number.

        Parameters
        ----------
        input_features : object, optional
            Not looked at.

        Returns
        -------
        numpy.ndarray of shape (n_features_out,)
            Such as ``"block5c_2x2_17"``.
        """
        check_is_fitted(self, "backbone_")
        return np.array(self.readout_.readout.feature_names(self.model_), dtype=object)
