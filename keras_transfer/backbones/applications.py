"""The keras.applications families, as rows of data: adding a network is adding a row."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any

from keras_transfer.backbones.backbone import IMAGENET, Backbone, file_identity
from keras_transfer.backbones.partition import BlockPatterns
from keras_transfer.backbones.preprocessing import PREPROCESSING
from keras_transfer.backbones.weights_file import load_weights_file
from keras_transfer.errors import WeightsNotFoundError

__all__ = ["FAMILIES", "Family", "applications_backbone", "models_folder"]


@dataclass(frozen=True)
class Family:
    """One network of keras.applications.

    Attributes
    ----------
    size : int
        Height and width of the source task, in pixels.
    parameters : int
        How many numbers its weights hold without the old head, BatchNorm statistics included.
    features : int
        Length of the last block's output, averaged over the picture.
    weights_file : str
        Name, in Keras's cache folder, of the file of its ImageNet weights without the old head.
        MobileNet (for 128, 160 and 192 px) and MobileNetV2 (for 96, 128, 160 and 192 px) read
        files of their own for sizes other than the source task's.
    module : str
        Its module below ``keras.applications``, where its ``preprocess_input`` is.
    preprocessing : str
        What the family's ``preprocess_input`` does; "none" where the model itself does it.
    blocks : tuple of (str, str)
        Patterns over layer names and the blocks that they make. Layers without weights that no
        pattern names are placed by the graph.
    source : str
        Who published the weights.
    licence : str
        Licence of the published weights, by its SPDX name.
    min_size : int
        The smallest height and width that the network takes, in pixels.
    """

    size: int
    parameters: int
    features: int
    weights_file: str
    module: str
    preprocessing: str
    blocks: BlockPatterns
    source: str
    licence: str
    min_size: int = 32


# === Blocks ===
# A layer that no pattern names is placed by the graph: with the block that it closes (the addition
# of a residual unit) or prepares (padding, a convolution that Keras only numbers).

_EFFICIENTNET_BLOCKS: BlockPatterns = (
    (r"^(rescaling|normalization|stem_)", "stem"),
    (r"^block(\d[a-z])_", r"block\1"),
    (r"^top_", "top"),
)
_RESNET_BLOCKS: BlockPatterns = (
    (r"^(conv1|pool1)_", "stem"),
    (r"^conv(\d)_block(\d+)_", r"conv\1_block\2"),
)
_RESNET_V2_BLOCKS: BlockPatterns = (*_RESNET_BLOCKS, (r"^post_", "top"))
# One block a resolution, each closed by its transition: single dense layers are too small to be
# worth a name.
_DENSENET_BLOCKS: BlockPatterns = (
    (r"^(conv1_|pool1$)", "stem"),
    (r"^(?:conv|pool)(\d)_", r"conv\1"),
    (r"^(bn|relu)$", "conv5"),
)
_VGG_BLOCKS: BlockPatterns = ((r"^block(\d)_", r"block\1"),)
_CONVNEXT_BLOCKS: BlockPatterns = (
    (r"_(prestem|stem)", "stem"),
    (r"_stage_(\d)_block_(\d+)_", r"stage_\1_block_\2"),
    # A downsampling step comes before the first block of the next stage.
    (r"_downsampling_block_0", "stage_1_block_0"),
    (r"_downsampling_block_1", "stage_2_block_0"),
    (r"_downsampling_block_2", "stage_3_block_0"),
    (r"^layer_normalization", "stage_3_block_2"),
)
_MOBILENET_BLOCKS: BlockPatterns = (
    (r"^conv1(_bn|_relu)?$", "stem"),
    (r"^conv_(?:pad|dw|pw)_(\d+)", r"block_\1"),
)
_MOBILENET_V2_BLOCKS: BlockPatterns = (
    (r"^(bn_)?Conv1(_relu)?$|^expanded_conv_", "stem"),
    (r"^block_(\d+)_", r"block_\1"),
    (r"^Conv_1(_bn)?$|^out_relu$", "top"),
)
_MOBILENET_V3_BLOCKS: BlockPatterns = (
    (r"^rescaling|^conv(_bn)?$", "stem"),
    (r"^expanded_conv_(\d+)_", r"block_\1"),
    (r"^expanded_conv_", "block_0"),
    (r"^conv_1(_bn)?$", "top"),
)
# Convolutions have running numbers only; the places where branches meet are named. What comes
# before the first of these belongs to it.
_INCEPTION_V3_BLOCKS: BlockPatterns = ((r"^mixed(\d+)$", r"mixed\1"),)
_INCEPTION_RESNET_V2_BLOCKS: BlockPatterns = (
    (r"^mixed_(\d[a-z])$", r"mixed_\1"),
    (r"^block(\d+)_(\d+)_", r"block\1_\2"),
    (r"^conv_7b", "top"),
)
_XCEPTION_BLOCKS: BlockPatterns = ((r"^block(\d+)_", r"block\1"),)
# A cell reads the two before it, so there is no point between cells that all data must pass.
_NASNET_BLOCKS: BlockPatterns = (
    (r"^stem_(conv|bn)1$", "stem"),
    (r"^(?:adjust|normal|reduction|separable)_.*stem_(\d)$", r"stem_\1"),
    (r"^(?:adjust|normal|reduction|separable)_.*reduce_(\d+)$", r"reduce_\1"),
    (r"^(?:adjust|normal|separable)_.*_(\d+)$", r"cell_\1"),
)

# === Families ===
# Licences: what Keras states of the weights stood in docs/templates/applications.md of
# keras-team/keras until October 2020, and is quoted here. Of the families that it does not name
# (EfficientNet, EfficientNetV2, MobileNetV3, ConvNeXt) Keras converted weights that the named
# repository publishes; the licence is that repository's.

# "These weights are trained by ourselves and are released under the MIT license."
_XCEPTION = partial(
    Family,
    module="xception",
    preprocessing="tf",
    blocks=_XCEPTION_BLOCKS,
    source="Keras",
    licence="MIT",
    min_size=71,
)
# "Ported from the ones released by VGG at Oxford under the Creative Commons Attribution License",
# linked to its version 4.0.
_VGG = partial(
    Family,
    preprocessing="caffe",
    blocks=_VGG_BLOCKS,
    source="VGG, University of Oxford",
    licence="CC-BY-4.0",
)
# "Ported from the original repository of Kaiming He under the MIT license."
_RESNET = partial(
    Family,
    module="resnet",
    preprocessing="caffe",
    blocks=_RESNET_BLOCKS,
    source="Kaiming He",
    licence="MIT",
)
# "Ported from Facebook under the BSD license", that of fb.resnet.torch, which has three clauses.
# The author of the port has the same networks with the same scores in taehoonlee/tensornets, where
# they come from TF-slim (Apache-2.0); the licence given here is the one that Keras states.
_RESNET_V2 = partial(
    Family,
    module="resnet_v2",
    preprocessing="tf",
    blocks=_RESNET_V2_BLOCKS,
    source="Facebook",
    licence="BSD-3-Clause",
)
# "Released under the BSD 3-clause License", linked to liuzhuang13/DenseNet.
_DENSENET = partial(
    Family,
    module="densenet",
    preprocessing="torch",
    blocks=_DENSENET_BLOCKS,
    source="Zhuang Liu",
    licence="BSD-3-Clause",
)
# Inception, MobileNet, MobileNetV2 and NASNet: "Released under the Apache License", linked to
# tensorflow/models. MobileNetV3: the same repository, research/slim/nets/mobilenet.
_SLIM = partial(Family, source="TensorFlow models", licence="Apache-2.0")
_NASNET = partial(_SLIM, module="nasnet", preprocessing="tf", blocks=_NASNET_BLOCKS)
_MOBILENET_V3 = partial(
    _SLIM, module="mobilenet_v3", preprocessing="none", blocks=_MOBILENET_V3_BLOCKS
)
# tensorflow/tpu, models/official/efficientnet.
_EFFICIENTNET = partial(
    Family,
    module="efficientnet",
    preprocessing="none",
    blocks=_EFFICIENTNET_BLOCKS,
    source="TensorFlow TPU models",
    licence="Apache-2.0",
)
# google/automl, efficientnetv2.
_EFFICIENTNET_V2 = partial(
    Family,
    module="efficientnet_v2",
    preprocessing="none",
    blocks=_EFFICIENTNET_BLOCKS,
    source="Google AutoML",
    licence="Apache-2.0",
)
# facebookresearch/ConvNeXt: "This project is released under the MIT license."
_CONVNEXT = partial(
    Family,
    module="convnext",
    preprocessing="none",
    blocks=_CONVNEXT_BLOCKS,
    source="Meta",
    licence="MIT",
)

_TF_KERNELS = "_weights_tf_dim_ordering_tf_kernels"

FAMILIES: dict[str, Family] = {
    "ConvNeXtTiny": _CONVNEXT(224, 27_820_128, 768, "convnext_tiny_notop.h5"),
    "ConvNeXtSmall": _CONVNEXT(224, 49_454_688, 768, "convnext_small_notop.h5"),
    "ConvNeXtBase": _CONVNEXT(224, 87_566_464, 1024, "convnext_base_notop.h5"),
    "ConvNeXtLarge": _CONVNEXT(224, 196_230_336, 1536, "convnext_large_notop.h5"),
    "ConvNeXtXLarge": _CONVNEXT(224, 348_147_968, 2048, "convnext_xlarge_notop.h5"),
    "DenseNet121": _DENSENET(224, 7_037_504, 1024, f"densenet121{_TF_KERNELS}_notop.h5"),
    "DenseNet169": _DENSENET(224, 12_642_880, 1664, f"densenet169{_TF_KERNELS}_notop.h5"),
    "DenseNet201": _DENSENET(224, 18_321_984, 1920, f"densenet201{_TF_KERNELS}_notop.h5"),
    "EfficientNetB0": _EFFICIENTNET(224, 4_049_571, 1280, "efficientnetb0_notop.h5"),
    "EfficientNetB1": _EFFICIENTNET(240, 6_575_239, 1280, "efficientnetb1_notop.h5"),
    "EfficientNetB2": _EFFICIENTNET(260, 7_768_569, 1408, "efficientnetb2_notop.h5"),
    "EfficientNetB3": _EFFICIENTNET(300, 10_783_535, 1536, "efficientnetb3_notop.h5"),
    "EfficientNetB4": _EFFICIENTNET(380, 17_673_823, 1792, "efficientnetb4_notop.h5"),
    "EfficientNetB5": _EFFICIENTNET(456, 28_513_527, 2048, "efficientnetb5_notop.h5"),
    "EfficientNetB6": _EFFICIENTNET(528, 40_960_143, 2304, "efficientnetb6_notop.h5"),
    "EfficientNetB7": _EFFICIENTNET(600, 64_097_687, 2560, "efficientnetb7_notop.h5"),
    "EfficientNetV2B0": _EFFICIENTNET_V2(224, 5_919_312, 1280, "efficientnetv2-b0_notop.h5"),
    "EfficientNetV2B1": _EFFICIENTNET_V2(240, 6_931_124, 1280, "efficientnetv2-b1_notop.h5"),
    "EfficientNetV2B2": _EFFICIENTNET_V2(260, 8_769_374, 1408, "efficientnetv2-b2_notop.h5"),
    "EfficientNetV2B3": _EFFICIENTNET_V2(300, 12_930_622, 1536, "efficientnetv2-b3_notop.h5"),
    "EfficientNetV2S": _EFFICIENTNET_V2(384, 20_331_360, 1280, "efficientnetv2-s_notop.h5"),
    "EfficientNetV2M": _EFFICIENTNET_V2(480, 53_150_388, 1280, "efficientnetv2-m_notop.h5"),
    "EfficientNetV2L": _EFFICIENTNET_V2(480, 117_746_848, 1280, "efficientnetv2-l_notop.h5"),
    "InceptionResNetV2": _SLIM(
        299,
        54_336_736,
        1536,
        f"inception_resnet_v2{_TF_KERNELS}_notop.h5",
        module="inception_resnet_v2",
        preprocessing="tf",
        blocks=_INCEPTION_RESNET_V2_BLOCKS,
        min_size=75,
    ),
    "InceptionV3": _SLIM(
        299,
        21_802_784,
        2048,
        f"inception_v3{_TF_KERNELS}_notop.h5",
        module="inception_v3",
        preprocessing="tf",
        blocks=_INCEPTION_V3_BLOCKS,
        min_size=75,
    ),
    "MobileNet": _SLIM(
        224,
        3_228_864,
        1024,
        "mobilenet_1_0_224_tf_no_top.h5",
        module="mobilenet",
        preprocessing="tf",
        blocks=_MOBILENET_BLOCKS,
    ),
    "MobileNetV2": _SLIM(
        224,
        2_257_984,
        1280,
        f"mobilenet_v2{_TF_KERNELS}_1.0_224_no_top.h5",
        module="mobilenet_v2",
        preprocessing="tf",
        blocks=_MOBILENET_V2_BLOCKS,
    ),
    "MobileNetV3Large": _MOBILENET_V3(
        224, 2_996_352, 960, "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"
    ),
    "MobileNetV3Small": _MOBILENET_V3(
        224, 939_120, 576, "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    ),
    "NASNetLarge": _NASNET(331, 84_916_818, 4032, "nasnet_large_no_top.h5"),
    "NASNetMobile": _NASNET(224, 4_269_716, 1056, "nasnet_mobile_no_top.h5"),
    "ResNet50": _RESNET(224, 23_587_712, 2048, f"resnet50{_TF_KERNELS}_notop.h5"),
    "ResNet101": _RESNET(224, 42_658_176, 2048, f"resnet101{_TF_KERNELS}_notop.h5"),
    "ResNet152": _RESNET(224, 58_370_944, 2048, f"resnet152{_TF_KERNELS}_notop.h5"),
    "ResNet50V2": _RESNET_V2(224, 23_564_800, 2048, f"resnet50v2{_TF_KERNELS}_notop.h5"),
    "ResNet101V2": _RESNET_V2(224, 42_626_560, 2048, f"resnet101v2{_TF_KERNELS}_notop.h5"),
    "ResNet152V2": _RESNET_V2(224, 58_331_648, 2048, f"resnet152v2{_TF_KERNELS}_notop.h5"),
    "VGG16": _VGG(224, 14_714_688, 512, f"vgg16{_TF_KERNELS}_notop.h5", module="vgg16"),
    "VGG19": _VGG(224, 20_024_384, 512, f"vgg19{_TF_KERNELS}_notop.h5", module="vgg19"),
    "Xception": _XCEPTION(299, 20_861_480, 2048, f"xception{_TF_KERNELS}_notop.h5"),
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
        if self.weights != IMAGENET:
            model = build(weights=None, include_top=False, input_shape=input_shape)
            if self.weights is not None:
                load_weights_file(model, self.weights, self.function)
            return model
        try:
            return build(weights=IMAGENET, include_top=False, input_shape=input_shape)
        except Exception as error:
            # keras.utils.get_file raises a bare Exception when a download fails.
            failed = re.match(r"URL fetch failure on (\S+?): ", str(error))
            if failed is None:
                raise
            raise WeightsNotFoundError(
                f"weights: expected the ImageNet weights of {self.function}, which are not on this "
                f"machine and could not be downloaded. Received: {error}. Fetch {failed[1]} "
                f"elsewhere and put it into {models_folder()} under its own name, pass "
                f"weights='file.weights.h5', weights=None, or use EfficientNetLite0, whose weights "
                f"are installed with keras_transfer."
            ) from error

    def identity(self) -> str | None:
        """Tell the network by its name, and its weights by their file.

        Some families read another file for another input size, which differs in numbers: all that
        there are.
        """
        if self.weights is None:
            return f"keras.applications.{self.function}:random"
        paths = [self.weights]
        if self.weights == IMAGENET:
            folder = models_folder()
            names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            own = _without_numbers(FAMILIES[self.function].weights_file)
            paths = [os.path.join(folder, name) for name in names if _without_numbers(name) == own]
        told = [file_identity(path) for path in paths]
        if not told or None in told:
            return None
        return f"keras.applications.{self.function}:{told}"


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def models_folder() -> str:
    """Return the folder in which Keras keeps the weights that it has downloaded."""
    folder = os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras"))
    if not os.access(folder, os.W_OK):
        # As keras.utils.get_file does, which would not look for them in a folder that is read-only.
        folder = os.path.join("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir(), ".keras")
    return os.path.join(folder, "models")


def applications_backbone(name: str, weights: str | None) -> Backbone:
    """Describe a family with the weights asked for."""
    family = FAMILIES[name]
    published = weights == IMAGENET
    return Backbone(
        name=name,
        source=ApplicationsSource(name, weights),
        weights=weights,
        default_shape=(family.size, family.size, 3),
        min_size=family.min_size,
        preprocessing=PREPROCESSING[family.preprocessing],
        blocks=family.blocks,
        licence=family.licence if published else "",
        weights_from=f"{family.source} through keras.applications, ImageNet"
        if published
        else weights or "random",
    )
