"""TransferEncoder: raw X to what a pretrained backbone makes of it."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from keras_transfer.backbones.registry import as_backbone
from keras_transfer.estimators.base import BaseTransfer, count_rows
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.readout import as_readout
from keras_transfer.inputs.sources import is_source, open_unlabelled
from keras_transfer.training.activation_store import as_memory, open_store
from keras_transfer.training.fitted import FittedNetwork
from keras_transfer.training.lazy_network import LazyNetwork

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
    readout : "last", str or Readout, default="last"
        Which block outputs are the features, and how they are pooled.
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

    _private_state = (*BaseTransfer._private_state, "_readout")

    def __init__(
        self,
        backbone: Any = "EfficientNetLite0",
        *,
        readout: Any = "last",
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
        y : object, optional
            Not looked at; a pipeline passes it.

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
        reader = self._read_input(X, backbone)
        columns = self._columns(X, reader)
        seed = int(check_random_state(self.random_state).randint(2**31))
        readout, memory = as_readout(self.readout), as_memory(self.memory)
        network = LazyNetwork(
            Blueprint(backbone, None, reader.shape, readout, seed),
            None if memory is None else open_store(memory),
        )
        names = [block.name for block in network.outline.blocks]
        boundary = network.boundary()
        part = None if boundary else network.build_part(boundary)
        network.release()
        self._set_fitted(
            {
                "backbone_": backbone,
                "_reader": reader,
                "_readout": readout.resolve(names, backbone.name),
                **columns,
            },
            FittedNetwork(network, part, boundary.cut, count_rows(X)),
        )
        return self

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
        return np.array(self._readout.feature_names(self.model_), dtype=object)
