"""The readers, one for each modality, and which of them X takes."""

from __future__ import annotations

from typing import Any

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.errors import InvalidParameterError
from keras_transfer.inputs.arrays import as_array
from keras_transfer.inputs.features import FeatureInput
from keras_transfer.inputs.pictures import PictureInput, read_entries
from keras_transfer.inputs.reader import Reader

__all__ = ["READERS", "read_input"]

# Adding a modality is adding its reader.
READERS: dict[str, type[Reader]] = {
    reader.modality: reader for reader in (PictureInput, FeatureInput)
}


def read_input(X: Any, backbone: Backbone, modality: str | None, image_size: Any) -> Reader:
    """Decide how X is read, by the backbone's modality or else by its shape.

    Parameters
    ----------
    X : object
        The training data.
    backbone : Backbone
    modality : str or None
        What the user says that X is.
    image_size : int, (int, int) or None

    Raises
    ------
    InvalidParameterError
        If the backbone reads another modality, or ``image_size`` cannot be used.
    DataError
        If X cannot be read.
    """
    found = modality or backbone.modality
    if found is None:
        is_array = read_entries(X) is None
        found = "features" if is_array and as_array(X).ndim in (1, 2) else "picture"
    if backbone.modality is not None and found != backbone.modality:
        raise InvalidParameterError(
            f"modality: expected {backbone.modality!r}, which {backbone.name} reads. Received: "
            f"{found!r}."
        )
    return READERS[found].for_backbone(X, backbone, image_size)
