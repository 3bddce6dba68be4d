"""The keras.applications families, as rows of data: adding a family is adding a row."""

from __future__ import annotations

import importlib
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
        Its module below ``keras.applications``.
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


FAMILIES: dict[str, Family] = {
    "MobileNetV2": Family(
        "mobilenet_v2",
        "tf",
        (
            (r"^(bn_)?Conv1(_relu)?$|^expanded_conv_", "stem"),
            (r"^block_(\d+)_", r"block_\1"),
            (r"^Conv_1(_bn)?$|^out_relu$", "top"),
        ),
        features=1280,
    ),
    "ResNet50V2": Family(
        "resnet_v2",
        "tf",
        (
            (r"^(conv1|pool1)_", "stem"),
            (r"^conv(\d)_block(\d+)_", r"conv\1_block\2"),
            (r"^post_", "top"),
        ),
        features=2048,
    ),
    "EfficientNetB0": Family(
        "efficientnet",
        "none",
        (
            (r"^(rescaling|normalization|stem_)", "stem"),
            (r"^block(\d[a-z])_", r"block\1"),
            (r"^top_", "top"),
        ),
        features=1280,
    ),
    # One block a resolution, each closed by its transition: single dense layers are too small to
    # be worth a name.
    "DenseNet121": Family(
        "densenet",
        "torch",
        (
            (r"^(conv1_|pool1$)", "stem"),
            (r"^(?:conv|pool)(\d)_", r"conv\1"),
            (r"^(bn|relu)$", "conv5"),
        ),
        features=1024,
    ),
    "VGG16": Family("vgg16", "caffe", ((r"^block(\d)_", r"block\1"),), features=512),
    "ConvNeXtTiny": Family(
        "convnext",
        "none",
        (
            (r"_(prestem|stem)", "stem"),
            (r"_stage_(\d)_block_(\d+)_", r"stage_\1_block_\2"),
            # A downsampling step comes before the first block of the next stage.
            (r"_downsampling_block_0", "stage_1_block_0"),
            (r"_downsampling_block_1", "stage_2_block_0"),
            (r"_downsampling_block_2", "stage_3_block_0"),
            (r"^layer_normalization", "stage_3_block_2"),
        ),
        features=768,
    ),
}


@dataclass(frozen=True)
class ApplicationsSource:
    """A network that keras.applications builds."""

    function: str
    module: str
    weights: str | None

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Build it; published weights are read from Keras's own cache folder or downloaded."""
        module = importlib.import_module(f"keras.applications.{self.module}")
        build = getattr(module, self.function)
        if self.weights is None:
            return build(weights=None, include_top=False, input_shape=input_shape)
        try:
            return build(weights=self.weights, include_top=False, input_shape=input_shape)
        except Exception as error:
            # keras.utils.get_file raises a bare Exception when a download fails.
            if self.weights == IMAGENET and "URL fetch failure" in str(error):
                raise WeightsNotFoundError(
                    f"weights: expected the ImageNet weights of {self.function}, which are not on "
                    f"this machine and could not be downloaded. Received: {error}. Put the file "
                    f"into ~/.keras/models, pass weights='file.weights.h5', weights=None, or use "
                    f"EfficientNetLite0, whose weights are installed with keras_transfer."
                ) from error
            raise


def applications_backbone(name: str, weights: str | None) -> Backbone:
    """Describe a family with the weights asked for."""
    family = FAMILIES[name]
    return Backbone(
        name=name,
        source=ApplicationsSource(name, family.module, weights),
        weights=weights,
        default_shape=(family.size, family.size, 3),
        min_size=family.min_size,
        preprocessing=PREPROCESSING[family.preprocessing],
        blocks=family.blocks,
        licence="Apache-2.0",
        weights_from="keras.applications, ImageNet" if weights == IMAGENET else weights or "random",
    )
