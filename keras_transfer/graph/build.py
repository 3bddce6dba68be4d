"""Build one flat functional model: input, preprocessing, blocks, readout, head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import Head
from keras_transfer.graph.readout import Readout

__all__ = ["build_model"]


def build_model(
    backbone: Backbone,
    head: Head | None,
    *,
    input_shape: Sequence[int] | None = None,
    readout: Readout | None = None,
) -> Any:
    """Build a model on a backbone.

    Parameters
    ----------
    backbone : Backbone
    head : Head or None
        None: the model ends in the features that a head would read.
    input_shape : sequence of int, optional
        Shape of one input; by default the backbone's own.
    readout : Readout, optional
        What the head reads; by default the last block, averaged.

    Returns
    -------
    keras.Model
        Flat and functional, layers named ``block.layer``. Takes float32: pictures
        ``(batch, height, width, 3)`` in RGB of 0..255, or features ``(batch, n_features)``. Gives
        what the head says (`Head.attach`), or features ``(batch, n_features)``.
    """
    return Assembly(backbone, head, input_shape=input_shape, readout=readout).build()
