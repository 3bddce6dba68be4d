"""Backbones by name, and anything else turned into a Backbone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_transfer.backbones.applications import FAMILIES, applications_backbone
from keras_transfer.backbones.backbone import (
    AS_GIVEN,
    IMAGENET,
    MODALITIES,
    Backbone,
    CallableSource,
    ModelSource,
)
from keras_transfer.backbones.efficientnet_lite import efficientnet_lite0_backbone
from keras_transfer.backbones.kerashub import KERASHUB, kerashub_backbone
from keras_transfer.backbones.old_head import without_old_head
from keras_transfer.backbones.partition import BlockPatterns
from keras_transfer.backbones.preprocessing import Preprocessing, as_preprocessing
from keras_transfer.backbones.saved_model import HUB, saved_model_backbone
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    InvalidTypeError,
    UnknownNameError,
    WeightsNotFoundError,
)

__all__ = [
    "SAVED_SUFFIX",
    "as_backbone",
    "describe_named",
    "get_backbone",
    "list_backbones",
    "register_backbone",
]

# Name -> function of the weights asked for.
_BUILT_IN: dict[str, Callable[[str | None], Backbone]] = {
    "EfficientNetLite0": efficientnet_lite0_backbone,
    **{name: lambda w, name=name: applications_backbone(name, w) for name in FAMILIES},  # type: ignore[misc]
}
_REGISTERED: dict[str, Backbone] = {}

# What the files of saved estimators end in.
SAVED_SUFFIX = ".keras_transfer"

_UNSET: Any = object()


def list_backbones() -> list[str]:
    """List the names that `get_backbone` understands.

    Returns
    -------
    list of str
        The built-in names first, then those registered in this process.

    Examples
    --------
    >>> from keras_transfer import list_backbones
    >>> "EfficientNetLite0" in list_backbones()
    True
    """
    return [*_BUILT_IN, *_REGISTERED]


def register_backbone(
    name: str,
    build: Callable[[tuple[int, ...]], Any],
    *,
    blocks: Mapping[str, str | Sequence[str]] | BlockPatterns | None = None,
    preprocessing: str | Preprocessing | None = None,
    input_shape: Sequence[int] | None = None,
    modality: str | None = None,
    overwrite: bool = False,
) -> Backbone:
    """Give a network of one's own a name.

    Parameters
    ----------
    name : str
        The name for `get_backbone`, estimators and recipe files.
    build : callable
        ``build(input_shape) -> keras.Model``: the network without a head, with its weights.
    blocks : mapping of str to str, optional
        Block name to a regular expression over layer names, or several, input side first. By
        default the blocks are read from the graph.
    preprocessing : {"tf", "torch", "caffe", "none"} or Preprocessing, optional
        From RGB pixels of 0..255 to what the network was trained on; None: the network reads
        0..255.
    input_shape : sequence of int, optional
        The default input shape.
    modality : {"picture", "features"}, optional
        By default the data's shape tells.
    overwrite : bool, default=False
        Whether a name that is taken is given anew.

    Returns
    -------
    Backbone

    Examples
    --------
    >>> import keras
    >>> from keras_transfer import register_backbone
    >>> def two_layers(input_shape):
    ...     return keras.Sequential(
    ...         [keras.Input(input_shape), keras.layers.Dense(8, name="low"),
    ...          keras.layers.Dense(4, name="high")])
    >>> backbone = register_backbone(
    ...     "TwoLayers", two_layers, blocks={"first": "low", "second": "high"}, overwrite=True)
    >>> [block.name for block in backbone.list_blocks((3,))]
    ['first', 'second']
    """
    if not isinstance(name, str) or not name:
        raise InvalidTypeError(f"name: expected a non-empty string. Received: {name!r}.")
    if not callable(build) or _is_keras_model(build):  # a model is callable, on data
        raise InvalidTypeError(
            f"build: expected a callable (input_shape) -> keras.Model. Received: {build!r}. Of a "
            f"model that is built, get_backbone makes a Backbone."
        )
    if name in _BUILT_IN or (name in _REGISTERED and not overwrite):
        raise InvalidParameterError(
            f"name: expected one that is free. Received: {name!r}, which stands for another "
            f"backbone. Choose another name"
            f"{'' if name in _BUILT_IN else ', or pass overwrite=True'}."
        )
    backbone = Backbone(
        name=name,
        source=CallableSource(build),
        weights=AS_GIVEN,
        modality=_modality(modality),
        default_shape=None if input_shape is None else tuple(input_shape),
        preprocessing=as_preprocessing(preprocessing),
        blocks=_block_patterns(blocks),
        weights_from="registered",
    )
    _REGISTERED[name] = backbone
    return backbone


def get_backbone(
    source: Any,
    *,
    weights: str | os.PathLike[str] | None = _UNSET,
    input_shape: Sequence[int] | None = None,
    blocks: Mapping[str, str | Sequence[str]] | BlockPatterns | None = None,
    preprocessing: str | Preprocessing | None = None,
    modality: str | None = None,
    name: str | None = None,
    signature: str | None = None,
    output_key: str | None = None,
    pixel_range: Sequence[float] | None = None,
) -> Backbone:
    """Turn a name, a SavedModel, a Keras model, a fitted estimator or a callable into a `Backbone`.

    Parameters
    ----------
    source : str, Backbone, keras.Model, fitted estimator or callable
        A registered name (see `list_backbones`); a model or fitted estimator of ours, whose weights
        are copied as they stand, or the path of its file, ``.keras`` or ``.keras_transfer``;
        ``"hub:"`` and a TF Hub handle, the folder of a SavedModel or a ``.tar.gz`` of one;
        ``"kerashub:"`` and the name or folder of a KerasHub preset; or ``(input_shape) ->
        keras.Model``, which is taken whole. See the Notes for the old head of a model, and for
        presets.
    weights : str, path or None, optional
        For a registered name: the published weights (``"imagenet"``, the default), the path of a
        Keras weights file, saved with the network's old head or without, or None for random ones.
        For a preset None alone.
    input_shape : sequence of int, optional
        Fix the input shape, without the batch.
    blocks : mapping of str to str, optional
        For models, presets and callables: block name to a regular expression over layer names, or
        several;
        for SavedModels over the scopes of variables, as ``block_1_expand`` is of
        ``block_1_expand/kernel``.
    preprocessing : {"tf", "torch", "caffe", "none"} or Preprocessing, optional
        For models and callables: from RGB pixels of 0..255 to what the network was trained on;
        None: it reads 0..255. For presets: in place of the preset's own.
    modality : {"picture", "features"}, optional
        For models and callables: what the network reads; by default the data's shape tells.
    name : str, optional
        For models, SavedModels, presets and callables: the name in messages.
    signature : str, optional
        For SavedModels: which signature runs; by default the object itself where it can be called.
    output_key : str, optional
        For SavedModels: which of several outputs is read.
    pixel_range : (float, float), optional
        For SavedModels: what black and white are to it; by default 0 and 1, as TF Hub has them.

    Returns
    -------
    Backbone

    Raises
    ------
    UnknownNameError
        If no backbone has that name.
    InvalidTypeError
        If ``source`` is none of the above.
    InvalidParameterError
        If an option does not belong to ``source``, or a model is nothing but a head.

    Notes
    -----
    A model that ends in a classifier loses its old head; ``left_out`` of the backbone names the
    layers. Of a model for pictures the old head is the global pooling or flattening behind the last
    feature map, with all that follows it; of any other the last Dense layer, with its activation. A
    classifier ends in softmax or sigmoid, or in a Dense layer of logits behind a pooling. All other
    models stay whole, such as one that ends in pooled features or in a Dense layer with relu, and
    so do subclassed models, which do not show their inside. To read all of a model, pass a function
    that returns it.

    A KerasHub preset needs ``pip install 'keras-transfer[kerashub]'``. The scale and offset of its
    ``ImageConverter`` become part of the model, and its ``image_size`` the size that pictures are
    brought to: here by antialiased bilinear interpolation of the whole picture, where KerasHub
    crops to the aspect ratio and does not antialias. Of a preset that has no converter pixels pass
    as they are. The last block of a vision transformer with a class token (ViT, DeiT, DINOv2) gives
    that token, as KerasHub's own classifiers read it; tokens of any other block are averaged.

    Examples
    --------
    >>> from keras_transfer import get_backbone
    >>> get_backbone("EfficientNetLite0")
    Backbone(name='EfficientNetLite0', modality='picture', weights='imagenet', input_shape=None)

    >>> import keras
    >>> layers = keras.layers
    >>> classifier = keras.Sequential(
    ...     [keras.Input((32, 32, 3)), layers.Conv2D(8, 3, name="low"),
    ...      layers.GlobalAveragePooling2D(name="pool"), layers.Dense(5, "softmax", name="top")])
    >>> backbone = get_backbone(classifier)
    >>> backbone.left_out
    ('pool', 'top')
    >>> [block.name for block in backbone.list_blocks()]
    ['low']
    """
    given = {"blocks": blocks, "preprocessing": preprocessing, "modality": modality, "name": name}
    own = {key: value for key, value in given.items() if value is not None}
    of_saved: dict[str, Any] = {
        "signature": signature,
        "output_key": output_key,
        "pixel_range": pixel_range,
    }
    if isinstance(source, str) and source.startswith(HUB):
        _check_saved(source, weights, own)
        backbone = saved_model_backbone(
            source.removeprefix(HUB), blocks=_block_patterns(blocks), name=name, **of_saved
        )
        if input_shape is not None:
            backbone.resolve_shape(input_shape)  # what is traced for one size takes no other
        return backbone.with_shape(input_shape)
    if odd := [key for key, value in of_saved.items() if value is not None]:
        raise InvalidParameterError(
            f"get_backbone: {', '.join(odd)} belong(s) to SavedModels. Received with {source!r}. "
            f"Write {HUB}path for one."
        )
    if isinstance(source, str) and source.startswith(KERASHUB):
        _check_preset(source, weights, modality)
        backbone = kerashub_backbone(
            source.removeprefix(KERASHUB),
            is_random=weights is None,
            blocks=_block_patterns(blocks),
            preprocessing=None if preprocessing is None else as_preprocessing(preprocessing),
            name=name,
        )
        if input_shape is not None:
            backbone.resolve_shape(input_shape)  # what has positions for one size takes no other
        return backbone.with_shape(input_shape)
    if isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(SAVED_SUFFIX):
        source = _read_estimator(os.fspath(source))
    elif isinstance(source, os.PathLike) or (isinstance(source, str) and source.endswith(".keras")):
        source = _read_model(os.fspath(source))
    if hasattr(source, "get_params"):
        name = name or getattr(getattr(source, "backbone_", None), "name", None)
        source = _fitted_model(source)
    if isinstance(source, (str, Backbone)):
        if own:
            raise InvalidParameterError(
                f"get_backbone: {', '.join(own)} belong(s) to models and callables. Received with "
                f"{source!r}, which has its own. Leave out, or register_backbone under a new name."
            )
        if isinstance(source, str):
            backbone = _named(source, IMAGENET if weights is _UNSET else weights)
        elif weights is not _UNSET:
            raise InvalidParameterError(
                f"weights: belong to a name. Received with {source!r}, which has its own."
            )
        else:
            backbone = source
        return backbone.with_shape(input_shape)
    if weights is not _UNSET:
        raise InvalidParameterError(
            f"weights: belong to a name. Received with a {type(source).__name__}, which brings its "
            f"own weights."
        )
    described: dict[str, Any] = {
        "modality": _modality(modality),
        "preprocessing": as_preprocessing(preprocessing),
        "blocks": _block_patterns(blocks),
    }
    if _is_keras_model(source):
        inputs = getattr(source, "inputs", None) or []  # a subclassed model does not know them
        if not source.built or len(inputs) > 1:
            raise InvalidParameterError(
                f"source: expected a built keras.Model with one input. Received: {source.name!r}, "
                f"built={source.built}. Call it once on data, or build it, first."
            )
        network, left_out = without_old_head(source)
        shape = tuple(inputs[0].shape[1:]) if inputs else (None,)
        fixed = shape if None not in shape else None
        if fixed is not None and modality is None:
            described["modality"] = "picture" if len(fixed) == 3 else "features"
        backbone = Backbone(
            name=name or source.name,
            source=ModelSource.from_model(network),
            weights=AS_GIVEN,
            input_shape=fixed,
            weights_from="keras.Model",
            left_out=left_out,
            **described,
        )
        return backbone.with_shape(input_shape)
    if callable(source):
        backbone = Backbone(
            name=name or str(getattr(source, "__name__", type(source).__name__)),
            source=CallableSource(source),
            weights=AS_GIVEN,
            weights_from="callable",
            **described,
        )
        return backbone.with_shape(input_shape)
    raise InvalidTypeError(
        f"source: expected a name ({', '.join(list_backbones())}), a keras.Model, a fitted "
        f"estimator, a callable (input_shape) -> keras.Model, or a Backbone. Received: {source!r} "
        f"(type {type(source).__name__})."
    )


def _check_saved(source: str, weights: Any, own: Mapping[str, Any]) -> None:
    odd = [key for key in ("preprocessing", "modality") if key in own]
    odd += [] if weights is _UNSET else ["weights"]
    if odd:
        raise InvalidParameterError(
            f"get_backbone: {', '.join(odd)} do(es) not belong to a SavedModel, which tells what "
            f"it reads and brings its weights. Received with {source!r}. Set pixel_range for other "
            f"values than 0..1."
        )


def _check_preset(source: str, weights: Any, modality: str | None) -> None:
    if weights is not _UNSET and weights is not None:
        raise InvalidParameterError(
            f"weights: expected None, for random ones, or nothing for those of the preset. "
            f"Received: {weights!r} with {source!r}."
        )
    if modality not in (None, "picture"):
        raise InvalidParameterError(
            f"modality: expected 'picture', or nothing, of a KerasHub preset. Received: "
            f"{modality!r} with {source!r}."
        )


def as_backbone(parameter: Any) -> Backbone:
    """Resolve an estimator's ``backbone`` parameter: a name, a Backbone or a callable.

    Raises
    ------
    InvalidTypeError
        For a bare model or estimator, which scikit-learn's ``clone`` would copy or unfit.
    """
    if _is_keras_model(parameter) or hasattr(parameter, "get_params"):
        raise InvalidTypeError(
            f"backbone: expected a name, a Backbone or a callable (input_shape) -> keras.Model. "
            f"Received: a bare {type(parameter).__name__}, which clone would copy or unfit. "
            f"Write backbone=get_backbone(model)."
        )
    return get_backbone(parameter)


def _fitted_model(estimator: Any) -> Any:
    model = getattr(estimator, "model_", None)
    if not _is_keras_model(model):
        raise InvalidTypeError(
            f"source: expected a fitted estimator of keras_transfer. Received: {estimator!r}, "
            f"which has no model_. Fit it first."
        )
    return model


def _named(name: str, weights: str | os.PathLike[str] | None) -> Backbone:
    weights = None if weights is None else os.fspath(weights)
    if weights not in (None, IMAGENET) and name in _BUILT_IN and not os.path.isfile(weights):
        raise WeightsNotFoundError(
            f"weights: expected 'imagenet', None or the path of a Keras weights file. Received: "
            f"{weights!r}, which is no file."
        )
    return describe_named(name, weights)


def describe_named(name: str, weights: str | None) -> Backbone:
    """Describe a registered backbone, whether or not its weights are at hand.

    Raises
    ------
    UnknownNameError
    InvalidParameterError
        If weights are asked for that the name does not take.
    """
    if name in _REGISTERED:
        if weights not in (None, IMAGENET, AS_GIVEN):
            raise InvalidParameterError(
                f"weights: {name!r} was registered with its own. Received: {weights!r}."
            )
        return _REGISTERED[name]
    if name not in _BUILT_IN:
        raise UnknownNameError("backbone", name, list_backbones())
    return _BUILT_IN[name](weights)


def _modality(modality: str | None) -> str | None:
    if modality is not None and modality not in MODALITIES:
        raise UnknownNameError("modality", modality, MODALITIES)
    return modality


def _block_patterns(
    blocks: Mapping[str, str | Sequence[str]] | BlockPatterns | None,
) -> BlockPatterns | None:
    if blocks is None:
        return None
    pairs: list[tuple[str, str]] = []
    if isinstance(blocks, Mapping):
        for block, patterns in blocks.items():
            many = [patterns] if isinstance(patterns, str) else patterns
            pairs += [(pattern, block) for pattern in many]
    else:
        pairs = [(pattern, block) for pattern, block in blocks]
    for pattern, block in pairs:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise InvalidParameterError(
                f"blocks: expected a regular expression for {block!r}. Received: {pattern!r} "
                f"({error})."
            ) from error
    return tuple(pairs)


def _is_keras_model(value: Any) -> bool:
    # Without importing Keras for a value that cannot be a model of it.
    if not any(base.__module__.startswith("keras.") for base in type(value).__mro__):
        return False
    import keras

    return isinstance(value, keras.Model)


def _read_estimator(path: str) -> Any:
    from keras_transfer.persistence.native import load  # a convenience: that room is above this one

    if not os.path.isfile(path):
        raise WeightsNotFoundError(
            f"source: expected a saved estimator. Received: {path!r}, no file."
        )
    return load(path)


def _read_model(path: str) -> Any:
    import keras

    # Keras finds the layer by its name from now on, in the file of a model that holds one.
    from keras_transfer.backbones import kerashub_layer  # noqa: F401

    if not os.path.isfile(path):
        raise WeightsNotFoundError(f"source: expected a .keras file. Received: {path!r}, no file.")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except ImportError:  # of KerasHub, says what to install
        raise
    except Exception as error:
        raise FileFormatError(
            f"source: expected a .keras file that loads in Keras's safe mode. Received: {path!r}: "
            f"{error}"
        ) from error
