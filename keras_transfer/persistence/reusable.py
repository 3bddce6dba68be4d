"""Backbones as reusable SavedModels, for others to train on."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.persistence.files import new_folder, refuse_existing

__all__ = ["export_backbone"]


def export_backbone(
    backbone: Backbone,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a backbone as a reusable SavedModel, as TF Hub publishes them.

    It can be called, ``loaded(pictures, training=False)``, with RGB pictures of 0..1 (or vectors as
    they are), and has ``variables``, ``trainable_variables`` and ``regularization_losses`` [1]_.
    ``get_backbone("hub:" + path)`` reads it again.

    Parameters
    ----------
    backbone : Backbone
    path : str or path
        A folder that does not exist.
    input_shape : sequence of int, optional
        By default the backbone's own.
    overwrite : bool, default=False
        Whether a folder that exists is replaced.

    Raises
    ------
    OutputExistsError

    References
    ----------
    .. [1] TensorFlow, "Reusable SavedModels", the interface of TF Hub.

    Examples
    --------
    >>> import tempfile
    >>> from keras_transfer import export_backbone, get_backbone
    >>> backbone = get_backbone("MobileNetV2", weights=None, input_shape=(32, 32, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_backbone(backbone, folder + "/mobile")
    ...     again = get_backbone("hub:" + folder + "/mobile")
    >>> [block.name for block in again.list_blocks()][:3]
    ['stem', 'block_1', 'block_2']
    """
    import keras
    import tensorflow as tf

    refuse_existing(path, overwrite)  # before the work
    shape = backbone.resolve_shape(input_shape)
    network = backbone.load(shape)
    inputs = keras.Input(shape, dtype="float32")
    entry = inputs
    if backbone.modality == "picture":
        entry = backbone.preprocessing(keras.ops.multiply(inputs, 255.0))
    model = keras.Model(inputs, network(entry))

    # What TensorFlow can save, with attributes of these names.
    reusable = tf.train.Checkpoint()
    reusable.variables = [variable.value for variable in model.weights]
    reusable.trainable_variables = [variable.value for variable in model.trainable_weights]
    reusable.regularization_losses = [
        tf.function(functools.partial(weight.regularizer, weight), input_signature=[])
        for weight in model.trainable_weights
        if weight.regularizer is not None
    ]
    reusable.state = [variable.value for variable in model.variables]  # of random layers, too

    @tf.function
    def run(inputs: Any, training: bool = False) -> Any:
        return model(inputs, training=training)

    spec = tf.TensorSpec((None, *shape), "float32")
    for training in (False, True):
        run.get_concrete_function(spec, training=training)
    reusable.__call__ = run
    with new_folder(path, overwrite=overwrite) as aside:
        tf.saved_model.save(reusable, str(aside))
