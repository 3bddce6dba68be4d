"""The keras.applications families, as rows of data: adding a family is adding a row."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from keras_transfer.backbones.backbone import IMAGENET, Backbone
from keras_transfer.backbones.partition import BlockPatterns
from keras_transfer.backbones.preprocessing import PREPROCESSING
from keras_transfer.errors import WeightsNotFoundError

__all__ = ["FAMILIES", "Family", "applications_backbone"]


@dataclass(frozen=True)
class Family:
    """One network of keras.applications.

    Attributes
    ----------
    module : str
        Its module below ``keras.applications``, where its ``preprocess_input`` is.
    preprocessing : str
        What the family's ``preprocess_input`` does; "none" where the model itself does it.
    blocks : tuple of (str, str)
        Patterns over layer names and the blocks that they make. Layers without weights that no
        pattern names are placed by the graph.
    size : int
        Height and width of the source task, in pixels.
    min_size : int
        The smallest height and width that the network takes, in pixels.
    features : int
        Length of the last block's output, averaged over the picture.
    """

    module: str
    preprocessing: str
    blocks: BlockPatterns
    size: int = 224
    min_size: int = 32
    features: int = 0


# === Blocks ===
# A layer that no pattern names is placed by the graph: with the block that it closes (the addition
# of a residual unit) or prepares (padding, a convolution that Keras only numbers).

_EFFICIENTNET: BlockPatterns = (
    (r"^(rescaling|normalization|stem_)", "stem"),
    (r"^block(\d[a-z])_", r"block\1"),
    (r"^top_", "top"),
)
_RESNET: BlockPatterns = (
    (r"^(conv1|pool1)_", "stem"),
    (r"^conv(\d)_block(\d+)_", r"conv\1_block\2"),
)
_RESNET_V2: BlockPatterns = (*_RESNET, (r"^post_", "top"))
# One block a resolution, each closed by its transition: single dense layers are too small to be
# worth a name.
_DENSENET: BlockPatterns = (
    (r"^(conv1_|pool1$)", "stem"),
    (r"^(?:conv|pool)(\d)_", r"conv\1"),
    (r"^(bn|relu)$", "conv5"),
)
_VGG: BlockPatterns = ((r"^block(\d)_", r"block\1"),)
_CONVNEXT: BlockPatterns = (
    (r"_(prestem|stem)", "stem"),
    (r"_stage_(\d)_block_(\d+)_", r"stage_\1_block_\2"),
    # A downsampling step comes before the first block of the next stage.
    (r"_downsampling_block_0", "stage_1_block_0"),
    (r"_downsampling_block_1", "stage_2_block_0"),
    (r"_downsampling_block_2", "stage_3_block_0"),
    (r"^layer_normalization", "stage_3_block_2"),
)
_MOBILENET: BlockPatterns = (
    (r"^conv1(_bn|_relu)?$", "stem"),
    (r"^conv_(?:pad|dw|pw)_(\d+)", r"block_\1"),
)
_MOBILENET_V2: BlockPatterns = (
    (r"^(bn_)?Conv1(_relu)?$|^expanded_conv_", "stem"),
    (r"^block_(\d+)_", r"block_\1"),
    (r"^Conv_1(_bn)?$|^out_relu$", "top"),
)
_MOBILENET_V3: BlockPatterns = (
    (r"^rescaling|^conv(_bn)?$", "stem"),
    (r"^expanded_conv_(\d+)_", r"block_\1"),
    (r"^expanded_conv_", "block_0"),
    (r"^conv_1(_bn)?$", "top"),
)
# Convolutions have running numbers only; the places where branches meet are named. What comes
# before the first of these belongs to it.
_INCEPTION_V3: BlockPatterns = ((r"^mixed(\d+)$", r"mixed\1"),)
_INCEPTION_RESNET_V2: BlockPatterns = (
    (r"^mixed_(\d[a-z])$", r"mixed_\1"),
    (r"^block(\d+)_(\d+)_", r"block\1_\2"),
    (r"^conv_7b", "top"),
)
_XCEPTION: BlockPatterns = ((r"^block(\d+)_", r"block\1"),)
# A cell reads the two before it, so there is no point between cells that all data must pass.
_NASNET: BlockPatterns = (
    (r"^stem_(conv|bn)1$", "stem"),
    (r"^(?:adjust|normal|reduction|separable)_.*stem_(\d)$", r"stem_\1"),
    (r"^(?:adjust|normal|reduction|separable)_.*reduce_(\d+)$", r"reduce_\1"),
    (r"^(?:adjust|normal|separable)_.*_(\d+)$", r"cell_\1"),
)

# === Families ===

FAMILIES: dict[str, Family] = {
    "ConvNeXtTiny": Family("convnext", "none", _CONVNEXT, features=768),
    "ConvNeXtSmall": Family("convnext", "none", _CONVNEXT, features=768),
    "ConvNeXtBase": Family("convnext", "none", _CONVNEXT, features=1024),
    "ConvNeXtLarge": Family("convnext", "none", _CONVNEXT, features=1536),
    "ConvNeXtXLarge": Family("convnext", "none", _CONVNEXT, features=2048),
    "DenseNet121": Family("densenet", "torch", _DENSENET, features=1024),
    "DenseNet169": Family("densenet", "torch", _DENSENET, features=1664),
    "DenseNet201": Family("densenet", "torch", _DENSENET, features=1920),
    "EfficientNetB0": Family("efficientnet", "none", _EFFICIENTNET, 224, features=1280),
    "EfficientNetB1": Family("efficientnet", "none", _EFFICIENTNET, 240, features=1280),
    "EfficientNetB2": Family("efficientnet", "none", _EFFICIENTNET, 260, features=1408),
    "EfficientNetB3": Family("efficientnet", "none", _EFFICIENTNET, 300, features=1536),
    "EfficientNetB4": Family("efficientnet", "none", _EFFICIENTNET, 380, features=1792),
    "EfficientNetB5": Family("efficientnet", "none", _EFFICIENTNET, 456, features=2048),
    "EfficientNetB6": Family("efficientnet", "none", _EFFICIENTNET, 528, features=2304),
    "EfficientNetB7": Family("efficientnet", "none", _EFFICIENTNET, 600, features=2560),
    "EfficientNetV2B0": Family("efficientnet_v2", "none", _EFFICIENTNET, 224, features=1280),
    "EfficientNetV2B1": Family("efficientnet_v2", "none", _EFFICIENTNET, 240, features=1280),
    "EfficientNetV2B2": Family("efficientnet_v2", "none", _EFFICIENTNET, 260, features=1408),
    "EfficientNetV2B3": Family("efficientnet_v2", "none", _EFFICIENTNET, 300, features=1536),
    "EfficientNetV2S": Family("efficientnet_v2", "none", _EFFICIENTNET, 384, features=1280),
    "EfficientNetV2M": Family("efficientnet_v2", "none", _EFFICIENTNET, 480, features=1280),
    "EfficientNetV2L": Family("efficientnet_v2", "none", _EFFICIENTNET, 480, features=1280),
    "InceptionResNetV2": Family(
        "inception_resnet_v2", "tf", _INCEPTION_RESNET_V2, 299, 75, features=1536
    ),
    "InceptionV3": Family("inception_v3", "tf", _INCEPTION_V3, 299, 75, features=2048),
    "MobileNet": Family("mobilenet", "tf", _MOBILENET, features=1024),
    "MobileNetV2": Family("mobilenet_v2", "tf", _MOBILENET_V2, features=1280),
    "MobileNetV3Large": Family("mobilenet_v3", "none", _MOBILENET_V3, features=960),
    "MobileNetV3Small": Family("mobilenet_v3", "none", _MOBILENET_V3, features=576),
    "NASNetLarge": Family("nasnet", "tf", _NASNET, 331, features=4032),
    "NASNetMobile": Family("nasnet", "tf", _NASNET, 224, features=1056),
    "ResNet50": Family("resnet", "caffe", _RESNET, features=2048),
    "ResNet101": Family("resnet", "caffe", _RESNET, features=2048),
    "ResNet152": Family("resnet", "caffe", _RESNET, features=2048),
    "ResNet50V2": Family("resnet_v2", "tf", _RESNET_V2, features=2048),
    "ResNet101V2": Family("resnet_v2", "tf", _RESNET_V2, features=2048),
    "ResNet152V2": Family("resnet_v2", "tf", _RESNET_V2, features=2048),
    "VGG16": Family("vgg16", "caffe", _VGG, features=512),
    "VGG19": Family("vgg19", "caffe", _VGG, features=512),
    "Xception": Family("xception", "tf", _XCEPTION, 299, 71, features=2048),
}


@dataclass(frozen=True)
class ApplicationsSource:
    """A network that keras.applications builds."""

    function: str
    weights: str | None

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Build it; published weights are read from Keras's own cache folder or downloaded."""
        import keras

        build = getattr(keras.applications, self.function)
        if self.weights is None:
            return build(weights=None, include_top=False, input_shape=input_shape)
        try:
            return build(weights=self.weights, include_top=False, input_shape=input_shape)
        except Exception as error:
            # keras.utils.get_file raises a bare Exception when a download fails.
            failed = re.match(r"URL fetch failure on (\S+?): ", str(error))
            if self.weights != IMAGENET or failed is None:
                raise
            folder = os.path.join(os.environ.get("KERAS_HOME", "~/.keras"), "models")
            raise WeightsNotFoundError(
                f"weights: expected the ImageNet weights of {self.function}, which are not on this "
                f"machine and could not be downloaded. Received: {error}. Fetch {failed[1]} "
                f"elsewhere and put it into {folder} under its own name, pass "
                f"weights='file.weights.h5', weights=None, or use EfficientNetLite0, whose weights "
                f"are installed with keras_transfer."
            ) from error


def applications_backbone(name: str, weights: str | None) -> Backbone:
    """Describe a family with the weights asked for."""
    family = FAMILIES[name]
    return Backbone(
        name=name,
        source=ApplicationsSource(name, weights),
        weights=weights,
        default_shape=(family.size, family.size, 3),
        min_size=family.min_size,
        preprocessing=PREPROCESSING[family.preprocessing],
        blocks=family.blocks,
        licence="Apache-2.0",
        weights_from="keras.applications, ImageNet" if weights == IMAGENET else weights or "random",
    )
