"""The backbones that have a name, with what is known of each without building it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from keras_transfer.backbones.applications import FAMILIES, models_folder
from keras_transfer.backbones.backbone import IMAGENET
from keras_transfer.backbones.efficientnet_lite import FEATURES, PARAMETERS, weights_path
from keras_transfer.backbones.registry import describe_named, list_backbones
from keras_transfer.errors import WeightsNotFoundError

__all__ = ["BackboneRow", "describe_backbones"]


@dataclass(frozen=True)
class BackboneRow:
    """What is known of a backbone with its published weights.

    Attributes
    ----------
    name : str
        What `get_backbone` understands.
    input_size : (int, int) or None
        Height and width of the source task, in pixels; None where it is not known, or the backbone
        does not read pictures.
    parameters : int or None
        How many numbers its weights hold without the old head; None for one that was registered.
    features : int or None
        Length of the last block's output, averaged over the picture; None likewise.
    licence : str
        Licence of the weights, by its SPDX name; empty for one that was registered.
    weights_from : str
        Who published the weights.
    at_hand : bool
        Whether the weights are on this machine, so that nothing is downloaded at the source task's
        size. A registered backbone brings its own.
    """

    name: str
    input_size: tuple[int, int] | None
    parameters: int | None
    features: int | None
    licence: str
    weights_from: str
    at_hand: bool


def describe_backbones() -> list[BackboneRow]:
    """Describe every backbone that has a name, in the order of `list_backbones`.

    Nothing is built, and neither Keras nor TensorFlow is imported.

    Returns
    -------
    list of BackboneRow

    Examples
    --------
    >>> rows = {row.name: row for row in describe_backbones()}
    >>> rows["VGG16"].parameters, rows["VGG16"].licence
    (14714688, 'CC-BY-4.0')
    """
    downloaded = _list_downloaded()
    return [_describe(name, downloaded) for name in list_backbones()]


def _describe(name: str, downloaded: set[str]) -> BackboneRow:
    backbone = describe_named(name, IMAGENET)
    shape = backbone.default_shape
    parameters: int | None = None
    features: int | None = None
    at_hand = True
    if name in FAMILIES:
        family = FAMILIES[name]
        parameters, features = family.parameters, family.features
        at_hand = family.weights_file in downloaded
    elif name == "EfficientNetLite0":
        parameters, features, at_hand = PARAMETERS, FEATURES, _is_installed()
    return BackboneRow(
        name=name,
        input_size=(shape[0], shape[1]) if shape is not None and len(shape) == 3 else None,
        parameters=parameters,
        features=features,
        licence=backbone.licence,
        weights_from=backbone.weights_from,
        at_hand=at_hand,
    )


def _list_downloaded() -> set[str]:
    try:
        return set(os.listdir(models_folder()))
    except OSError:  # Keras has downloaded nothing yet
        return set()


def _is_installed() -> bool:
    try:
        return weights_path().is_file()
    except WeightsNotFoundError:
        return False
