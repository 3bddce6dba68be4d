"""KerasHub presets as backbones (optional: ``pip install 'keras-transfer[kerashub]'``)."""

from __future__ import annotations

import functools
import importlib
import os
import random
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_transfer.backbones.backbone import AS_GIVEN, Backbone, ModelSource, file_identity
from keras_transfer.backbones.kerashub_network import compare, take_apart
from keras_transfer.backbones.partition import BlockPatterns
from keras_transfer.backbones.preprocessing import Preprocessing
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    UnsafeFileError,
    WeightsNotFoundError,
)

__all__ = ["KERASHUB", "find_class", "import_keras_hub", "kerashub_backbone"]

# What the names and folders of presets begin with.
KERASHUB = "kerashub:"
# Where the layers of networks are defined, and what they are made of: of Keras only what they take
# as an argument, since other layers of Keras run programs.
_OF_LAYERS = ("keras_hub.src.models.", "keras_hub.src.layers.modeling.", "keras.src.layers.normal")


@dataclass(frozen=True)
class Family:
    """What is known of a class of KerasHub's backbones.

    Attributes
    ----------
    blocks : tuple of (str, str)
        Patterns over layer names and the blocks that they make; one that a network has no layer
        for is passed over. Layers that no pattern names are placed by the graph.
    has_class_token : bool
        Whether the first of its tokens stands for the whole picture.
    """

    blocks: BlockPatterns
    has_class_token: bool = False


_TOKENS: BlockPatterns = (
    (r"embedding", "stem"),
    (r"^transformer_block_(\d+)$", r"block_\1"),
    (r"(?:^|_)layers_(\d+)$", r"block_\1"),
)
_STAGES: BlockPatterns = ((r"embed", "stem"), (r"_stage_(\d+)$|^stage_(\d+)$", r"stage_\1\2"))

# By the name of the class. Others are grouped by the graph.
FAMILIES: dict[str, Family] = {
    "DINOV2Backbone": Family(_TOKENS, has_class_token=True),
    "DeiTBackbone": Family(_TOKENS, has_class_token=True),
    # One block a resolution, each closed by its transition: single dense layers are too small.
    "DenseNetBackbone": Family(
        ((r"^(conv1_|pool1$)", "stem"), (r"^(?:stack|transition)(\d+)_", r"stack\1"))
    ),
    "EfficientNetBackbone": Family(
        ((r"^stem_", "stem"), (r"^block(\d+[a-z]+)_", r"block\1"), (r"^top_", "top"))
    ),
    "HGNetV2Backbone": Family(_STAGES),
    "MiTBackbone": Family(
        ((r"^(?:patch_and_embed|hierarchical_encoder|output_level)_(\d+)", r"stage_\1"),)
    ),
    "MobileNetBackbone": Family(((r"^input_", "stem"), (r"^block_(\d+_\d+)", r"block_\1"))),
    "ResNetBackbone": Family(
        ((r"^(conv|pool)\d+_", "stem"), (r"^stack(\d+)_block(\d+)_", r"stack\1_block\2"))
    ),
    "SwinTransformerBackbone": Family(_STAGES),
    "VGGBackbone": Family(((r"^block(\d+)_", r"block\1"),)),
    "ViTBackbone": Family(_TOKENS, has_class_token=True),
    "XceptionBackbone": Family(((r"^block(\d+)_", r"block\1"),)),
}


def import_keras_hub() -> Any:
    """Import KerasHub.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"{KERASHUB} backbones and what was fitted on them need the package keras-hub. "
            f"Expected: keras-hub installed. Received: {error}. Run: pip install "
            f"'keras-transfer[kerashub]'"
        ) from error
    return keras_hub


def find_class(path: str) -> Any:
    """Return the class of a layer of KerasHub, or of a normalisation.

    Parameters
    ----------
    path : str
        ``"module:name"``.

    Raises
    ------
    ImportError
        If KerasHub is not installed.
    FileFormatError
        If this version of KerasHub has no such module.
    UnsafeFileError
        If it is anything else: a file of data may name no other code.
    """
    import keras

    hub = import_keras_hub()
    module, _, name = path.partition(":")
    found: Any = None
    if module.startswith(_OF_LAYERS):
        try:
            found = vars(importlib.import_module(module)).get(name)
        except ModuleNotFoundError as error:
            raise FileFormatError(
                f"Expected a layer of keras-hub {hub.__version__}. Received: {path!r}, which it "
                f"does not have. Install the version that the file was written with."
            ) from error
    is_layer = isinstance(found, type) and issubclass(found, keras.Layer)
    # What prepares inputs reads files that its arguments name.
    others = (keras.Model, hub.layers.ImageConverter.__base__)
    if not is_layer or found.__module__ != module or issubclass(found, others):
        raise UnsafeFileError(
            f"Expected a layer of KerasHub that computes with tensors. Received: {path!r}."
        )
    return found


def kerashub_backbone(
    handle: str,
    *,
    is_random: bool = False,
    blocks: BlockPatterns | None = None,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
) -> Backbone:
    """Describe a KerasHub preset.

    Parameters
    ----------
    handle : str
        What stands behind ``"kerashub:"``: a name that KerasHub knows, or a folder.
    is_random : bool, default=False
        Whether its weights are random ones.
    blocks : tuple of (str, str), optional
        Patterns over layer names; by default those of its family.
    preprocessing : Preprocessing, optional
        By default the preset's own.
    name : str, optional

    Raises
    ------
    ImportError
        If KerasHub is not installed.
    WeightsNotFoundError
        If there is no such preset, or KerasHub cannot get it.
    FileFormatError
        If a folder holds none.
    InvalidParameterError
        If it is of no backbone for pictures.

    Examples
    --------
    >>> import tempfile
    >>> import keras_hub
    >>> from keras_transfer import get_backbone
    >>> network = keras_hub.models.VGGBackbone([1, 1], [4, 8])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     network.save_to_preset(folder)
    ...     backbone = get_backbone(f"kerashub:{folder}")
    >>> [block.name for block in backbone.list_blocks((32, 32, 3))]
    ['block1', 'block2']
    """
    import_keras_hub()
    if not handle:
        raise WeightsNotFoundError(
            f"source: expected {KERASHUB!r} and the name or folder of a preset. Received: none."
        )
    folder = os.path.expanduser(handle)
    path = folder if os.path.isdir(folder) else handle
    inside = Path(path).rglob("*") if os.path.isdir(path) else ()
    files = sorted(each for each in inside if each.is_file())
    drawn = random.getstate()  # Keras draws the seeds of layers from it
    try:
        described = _read(path, tuple(file_identity(str(each)) for each in files), is_random)
    finally:
        random.setstate(drawn)
    own = {"blocks": blocks, "preprocessing": preprocessing}
    return Backbone(
        **{**described, **{key: value for key, value in own.items() if value is not None}},
        name=name or Path(handle.rstrip("/")).name,
        weights=None if is_random else AS_GIVEN,
        weights_from=f"KerasHub, {handle}",
    )


@functools.lru_cache(maxsize=4)
def _read(path: str, identity: tuple[str | None, ...], is_random: bool) -> dict[str, Any]:
    """Read a preset, and say what a Backbone is to know of it; once for all fits."""
    hub = import_keras_hub()
    converter = None
    try:
        converter = hub.layers.ImageConverter.from_preset(path)
    except FileNotFoundError:  # saved without one
        pass
    except Exception as error:
        # The classes of text have no converter of pictures, which KerasHub says before it loads.
        if "find a subclass" in str(error):
            raise _no_picture(path, "a backbone of another kind") from error
        raise _not_read(path, error) from error
    try:
        network = hub.models.Backbone.from_preset(path, load_weights=not is_random)
    except Exception as error:
        raise _not_read(path, error) from error
    reads = {each.name: tuple(each.shape[1:]) for each in network.inputs}
    if len(reads) != 1 or len(next(iter(reads.values()))) != 3:
        kind = f"{type(network).__name__}, which reads {', '.join(reads)}"
        raise _no_picture(path, kind)
    return _picture(network, converter, is_random)


def _picture(network: Any, converter: Any, is_random: bool) -> dict[str, Any]:
    """Say what a Backbone is to know of a network that reads pictures."""
    family = FAMILIES.get(type(network).__name__)
    tokens = family is not None and family.has_class_token
    # With use_class_token=False all tokens are of the picture.
    first_token = tokens and getattr(network, "use_class_token", True)
    try:
        flat = take_apart(network, first_token=first_token)
        compare(network, flat)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidParameterError(
            f"source: expected a backbone of KerasHub with one output, of layers that can be built "
            f"anew. Received: {type(network).__name__}: {_shortened(error)} Use another preset."
        ) from error
    names = [operation.name for operation in flat.operations]
    shape = tuple(network.inputs[0].shape[1:])
    fixed = shape if None not in shape else None
    size = None if converter is None else converter.image_size
    source = ModelSource.from_model(flat)
    return {
        "source": ModelSource.from_parts(source.config, ()) if is_random else source,
        "modality": "picture",
        "input_shape": fixed,
        "default_shape": (*size, shape[-1]) if size is not None and fixed is None else None,
        "preprocessing": _preprocessing(converter),
        "blocks": None
        if family is None
        else tuple(
            (pattern, block)
            for pattern, block in family.blocks
            if any(re.search(pattern, each) for each in names)
        ),
    }


def _preprocessing(converter: Any) -> Preprocessing:
    if converter is None:
        return Preprocessing()

    def plain(value: Any, neutral: float) -> float | tuple[float, ...]:
        if value is None:
            return neutral
        return tuple(map(float, value)) if isinstance(value, Sequence) else float(value)

    return Preprocessing(plain(converter.scale, 1.0), plain(converter.offset, 0.0))


# === What is said where it is none ===


def _no_picture(path: str, received: str) -> InvalidParameterError:
    return InvalidParameterError(
        f"source: expected a preset of a backbone for pictures, such as ResNet, EfficientNet or "
        f"ViT. Received: {path!r}, {received}. Text and audio presets are not read."
    )


def _not_read(path: str, error: Exception) -> Exception:
    reason = _shortened(error)
    if os.path.isdir(path):
        inside = ", ".join(sorted(os.listdir(path))[:5]) or "nothing"
        return FileFormatError(
            f"{path}: expected a KerasHub preset, a folder that save_to_preset() wrote. Received: "
            f"one with {inside} ({reason})."
        )
    return WeightsNotFoundError(
        f"source: expected the name of a preset that KerasHub can get, or a folder. Received: "
        f"{path!r} ({reason}). Without a network, save it elsewhere by "
        f"keras_hub.models.Backbone.from_preset({path!r}).save_to_preset(folder) and the same of "
        f"keras_hub.layers.ImageConverter, and pass '{KERASHUB}' and the folder."
    )


def _shortened(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
