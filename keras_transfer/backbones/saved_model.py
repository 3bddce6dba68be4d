"""SavedModels and TF Hub handles as backbones, block by block."""

from __future__ import annotations

import base64
import functools
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.backbones.applications import FAMILIES
from keras_transfer.backbones.backbone import AS_GIVEN, Backbone, file_identity
from keras_transfer.backbones.partition import BlockPatterns
from keras_transfer.backbones.preprocessing import Preprocessing
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    OutputExistsError,
    UnknownNameError,
    WeightsNotFoundError,
)

__all__ = ["HUB", "PROGRAM", "SavedModelSource", "export_backbone", "saved_model_backbone"]

# What handles and paths of SavedModels begin with.
HUB = "hub:"
# The whole where the names of its variables tell no blocks.
WHOLE = "saved_model"
LAYER = "saved_model"
# What is said of a file that holds one.
PROGRAM = (
    "expected a file of data alone. Received: one that holds a SavedModel, which is a program. "
    "Load it with trusted=True if you would let whoever made it run programs here."
)
# Height and width where a SavedModel takes pictures of any size: what TF Hub's are trained on.
_PIXELS = 224
_PROTO, _TF1_HUB = "saved_model.pb", "tfhub_module.pb"
# Arrays of so many numbers and more are left out of the archive: they are weights.
_LONG = 64

# Which blocks the scopes of variables make; the first set by which at least two are found, and
# nothing in between is left unnamed, is taken. What comes before the first block is its stem, what
# comes after the last its top.
_GENERIC: tuple[BlockPatterns, ...] = (
    ((r"(?:^|/)(block_?\d+[a-z]?)(?:[_/]|$)", r"\1"),),
    ((r"(?:^|/)(?:encoder|transformer)[^/]*/(?:layer|block)s?[_/]?(\d+)", r"layer_\1"),),
    ((r"(?:^|/)(stage_?\d+|group_?\d+|conv_?\d+|mixed_?\w+?)(?:[_/]|$)", r"\1"),),
    ((r"(?:^|/)((?:layer|dense|cell)_?\d+)(?:[_/]|$)", r"\1"),),
)


@dataclass(frozen=True)
class _Plan:
    """How a SavedModel is run, and how its variables are grouped."""

    signature: str | None
    output_key: str | None
    takes_training: bool
    batch_size: int | None
    # (block, name of the group, ((place in `find_variables`, name), ...))
    groups: tuple[tuple[str, str, tuple[tuple[int, str], ...]], ...]

    @property
    def order(self) -> list[int]:
        """The places of the variables, in the order of the groups."""
        return [place for _, _, members in self.groups for place, _ in members]


@dataclass(frozen=True, eq=False)
class SavedModelSource:
    """A SavedModel as it stood when the backbone was made.

    Attributes
    ----------
    archive : bytes
        Its files without its weights, zipped.
    plan : _Plan
    weights : tuple of numpy.ndarray
        In the order of the plan; read-only.
    digest : str
        Over all three.
    """

    archive: bytes
    plan: _Plan
    weights: tuple[Any, ...]
    digest: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SavedModelSource) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def from_parts(cls, archive: bytes, plan: _Plan, weights: Sequence[Any]) -> SavedModelSource:
        """Put it together from its three parts."""
        digest = hashlib.sha256(archive + repr(plan).encode())
        frozen = []
        for weight in weights:
            weight = np.array(weight)
            weight.flags.writeable = False
            digest.update(weight.tobytes())
            frozen.append(weight)
        return cls(archive, plan, tuple(frozen), digest.hexdigest())

    @classmethod
    def from_config(cls, config: str, weights: Sequence[Any]) -> SavedModelSource:
        """Make it of what `config` gave, and the weights."""
        told = json.loads(config)
        groups = tuple(
            (block, name, tuple((place, own) for place, own in members))
            for block, name, members in told.pop("groups")
        )
        archive = base64.b64decode(told.pop("archive"))
        return cls.from_parts(archive, _Plan(**told, groups=groups), weights)

    @property
    def config(self) -> str:
        """All but the weights, as JSON."""
        archive = base64.b64encode(self.archive).decode()
        return json.dumps({"archive": archive, **asdict(self.plan)})

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Build a model of one layer that runs it."""
        import keras

        from keras_transfer.backbones.saved_model_layer import SavedModelLayer

        plan = self.plan
        layer = SavedModelLayer(
            base64.b64encode(self.archive).decode(),
            plan.signature,
            plan.output_key,
            plan.takes_training,
            plan.batch_size,
            [[block, name, list(map(list, members))] for block, name, members in plan.groups],
            name=LAYER,
        )
        layer.set_values(self.weights)
        inputs = keras.Input(input_shape, dtype="float32")
        return keras.Model(inputs, layer(inputs), name=LAYER)

    def identity(self) -> str:
        """Return the digest."""
        return self.digest


def saved_model_backbone(
    handle: str,
    *,
    signature: str | None = None,
    output_key: str | None = None,
    blocks: BlockPatterns | None = None,
    pixel_range: Sequence[float] | None = None,
    name: str | None = None,
) -> Backbone:
    """Describe a SavedModel, a TF Hub handle or an archive of one.

    Parameters
    ----------
    handle : str
        What stands behind ``"hub:"``: a URL that TensorFlow Hub knows, a folder, or a ``.tar.gz``.
    signature : str, optional
        By default the object itself where it can be called, else ``"serving_default"``.
    output_key : str, optional
        Which of several outputs is read.
    blocks : tuple of (str, str), optional
        Patterns over the names of variables; by default told by these (`_GENERIC`).
    pixel_range : (float, float), optional
        What black and white are to it; by default 0 and 1, as TF Hub has them, and 0 and 255 where
        it reads whole numbers.
    name : str, optional

    Raises
    ------
    WeightsNotFoundError
        If there is none, or TensorFlow Hub cannot get it.
    FileFormatError
        If it is no SavedModel of TensorFlow 2.
    UnknownNameError
        If it has no such signature or output.
    InvalidParameterError
    """
    path = _resolve(handle)
    identity = tuple(file_identity(os.path.join(path, each)) for each in _files(path))
    found = _read(path, identity, signature, output_key, blocks)
    source, shape, dtype = found
    modality, default, fixed = _what_it_reads(shape, dtype, handle)
    preprocessing = Preprocessing()
    if modality == "picture":
        low, high = pixel_range or ((0, 255) if dtype.is_integer else (0, 1))
        if not high > low:
            raise InvalidParameterError(
                f"pixel_range: expected (black, white), such as (0, 1). Received: {pixel_range!r}."
            )
        preprocessing = Preprocessing((high - low) / 255, float(low))
    elif pixel_range is not None:
        raise InvalidParameterError(
            f"pixel_range: expected None for what reads no pictures. Received: {pixel_range!r}."
        )
    return Backbone(
        name=name or Path(handle.rstrip("/")).name.partition(".")[0] or LAYER,
        source=source,
        modality=modality,
        weights=AS_GIVEN,
        input_shape=fixed,
        default_shape=default,
        preprocessing=preprocessing,
        weights_from=handle,
    )


# === Where it is ===


def _resolve(handle: str) -> str:
    """Return the folder of a SavedModel."""
    if not handle:
        raise WeightsNotFoundError(
            f"source: expected {HUB!r} and a TF Hub handle, a folder or a .tar.gz. Received: none."
        )
    if re.match(r"^[a-z]+://", handle):
        return _from_hub(handle)
    path = os.path.expanduser(handle)
    if os.path.isfile(path) and path.endswith((".tar.gz", ".tgz", ".tar")):
        return _unpacked(path, str(file_identity(path)))
    if not os.path.isdir(path):
        raise WeightsNotFoundError(
            f"source: expected the folder of a SavedModel, or a .tar.gz of one. Received: "
            f"{path!r}, which is none."
        )
    if os.path.exists(os.path.join(path, _TF1_HUB)):
        raise FileFormatError(
            f"{path}: expected a SavedModel of TensorFlow 2. Received: a module of TF1 Hub "
            f"({_TF1_HUB}), which Keras 3 cannot run. Look for a newer version of it."
        )
    if not os.path.exists(os.path.join(path, _PROTO)):
        inside = ", ".join(sorted(os.listdir(path))[:5]) or "nothing"
        raise FileFormatError(
            f"{path}: expected a SavedModel, a folder with {_PROTO}. Received: one with {inside}."
        )
    return path


def _from_hub(handle: str) -> str:
    import tensorflow_hub

    try:
        return str(tensorflow_hub.resolve(handle))
    except Exception as error:  # of the network, the file system or the archive
        from tensorflow_hub import resolver

        folder = resolver.tfhub_cache_dir(use_temp=True)
        raise WeightsNotFoundError(
            f"source: expected a handle that TensorFlow Hub can get. Received: {handle!r} "
            f"({type(error).__name__}: {error}). Its cache is {folder} (TFHUB_CACHE_DIR). Without "
            f"a network, download the archive elsewhere and pass '{HUB}' and its path."
        ) from error


@functools.lru_cache(maxsize=4)
def _unpack_once(path: str, identity: str) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="keras_transfer_")
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder.name, filter="data")  # nothing outside of the folder
    except (tarfile.TarError, OSError, EOFError) as error:
        folder.cleanup()
        raise FileFormatError(
            f"{path}: expected an archive of a SavedModel whose files all lie within it. Received: "
            f"one that is not unpacked: {error}"
        ) from error
    return folder


def _unpacked(path: str, identity: str) -> str:
    top = Path(_unpack_once(path, identity).name)
    found = sorted(top.rglob(_PROTO))
    if len(found) != 1 and not (top / _PROTO).exists():
        raise FileFormatError(
            f"{path}: expected an archive with one {_PROTO}. Received: one with {len(found)}."
        )
    return str(top if (top / _PROTO).exists() else found[0].parent)


def _files(path: str) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in Path(path).rglob("*") if each.is_file())


# === What it is ===


@functools.lru_cache(maxsize=8)
def _read(
    path: str,
    identity: tuple[str | None, ...],
    signature: str | None,
    output_key: str | None,
    blocks: BlockPatterns | None,
) -> tuple[SavedModelSource, Any, Any]:
    """Read a SavedModel; once for all fits."""
    import tensorflow as tf

    from keras_transfer.backbones.saved_model_layer import find_variables, input_spec

    try:
        loaded = tf.saved_model.load(path)
    except Exception as error:  # a broken proto or checkpoint fails in many ways
        raise FileFormatError(
            f"{path}: expected a SavedModel that TensorFlow {tf.__version__} loads. Received: one "
            f"that fails with {type(error).__name__}: {error}"
        ) from error
    signature = _choose_signature(loaded, signature)
    spec = input_spec(loaded, signature)
    variables = find_variables(loaded, signature)
    takes_training = (
        signature is None and "training" in inspect.signature(loaded.__call__).parameters
    )
    batch_size = spec.shape[0] if spec.shape.rank else None
    plan = _Plan(
        signature,
        _choose_output(loaded, signature, output_key, takes_training),
        takes_training,
        batch_size,
        _group([variable.name.partition(":")[0] for variable in variables], blocks),
    )
    weights = [variables[place].numpy() for place in plan.order]
    source = SavedModelSource.from_parts(_without_weights(path), plan, weights)
    shape = None if spec.shape.rank is None else tuple(spec.shape[1:])
    return source, shape, spec.dtype


def _choose_signature(loaded: Any, signature: str | None) -> str | None:
    from keras_transfer.backbones.saved_model_layer import functions_of

    known = list(loaded.signatures)
    if signature is not None:
        if signature not in known:
            raise UnknownNameError("signature", signature, known, "the SavedModel")
        return signature
    if functions_of(loaded, None):
        return None
    if "serving_default" in known:
        return "serving_default"
    if len(known) == 1:
        return str(known[0])
    raise InvalidParameterError(
        f"signature: expected one of {known}, since the SavedModel cannot be called itself. "
        f"Received: None."
        if known
        else "source: expected a SavedModel that can be called, or has a signature. Received: one "
        "with neither."
    )


def _choose_output(
    loaded: Any, signature: str | None, output_key: str | None, takes_training: bool
) -> str | None:
    from keras_transfer.backbones.saved_model_layer import functions_of

    outputs = functions_of(loaded, signature)[0].structured_outputs
    if not isinstance(outputs, Mapping):
        if isinstance(outputs, (list, tuple)):
            raise InvalidParameterError(
                f"source: expected a SavedModel with one output or named ones. Received: "
                f"{len(outputs)} without names. Choose a signature: {list(loaded.signatures)}."
            )
        if output_key is not None:
            raise InvalidParameterError(
                f"output_key: expected None for a SavedModel with one output. Received: "
                f"{output_key!r}."
            )
        return None
    if output_key is None and len(outputs) == 1:
        return str(next(iter(outputs)))
    shown = ", ".join(f"{key} {tuple(each.shape)}" for key, each in sorted(outputs.items()))
    if output_key is None:
        raise InvalidParameterError(
            f"output_key: expected one of several outputs: {shown}. Received: None."
        )
    if output_key not in outputs:
        raise UnknownNameError(
            "output_key", output_key, sorted(outputs), f"the SavedModel, which gives {shown}"
        )
    return output_key


def _what_it_reads(
    shape: tuple[int | None, ...] | None, dtype: Any, handle: str
) -> tuple[str, tuple[int, ...] | None, tuple[int, ...] | None]:
    """Return the modality, the default shape and the fixed one."""
    if dtype.name == "string":
        raise InvalidParameterError(
            f"source: expected a SavedModel of pictures or of vectors. Received: {handle!r}, which "
            f"reads strings."
        )
    if shape is None or len(shape) not in (1, 3):
        raise InvalidParameterError(
            f"source: expected a SavedModel of pictures (height, width, channels) or of vectors. "
            f"Received: {handle!r}, which reads inputs of shape {shape}."
        )
    fixed = None if None in shape else tuple(int(size or 0) for size in shape)
    if len(shape) == 1:
        return "features", None, fixed
    height, width = (_PIXELS if size is None else size for size in shape[:2])
    default = height, width, shape[2] or 3
    return "picture", default, fixed


# === Its blocks ===


def _group(
    names: Sequence[str], patterns: BlockPatterns | None
) -> tuple[tuple[str, str, tuple[tuple[int, str], ...]], ...]:
    """Group variables by the layer that their scope names, and these into blocks."""
    scopes = [name.rpartition("/")[0] or name for name in names]
    block_of = _blocks_by_patterns(scopes, patterns) if patterns else _blocks_by_name(scopes)
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    taken: set[tuple[str, str, str]] = set()
    for place, (name, scope) in enumerate(zip(names, scopes, strict=True)):
        own = name.rpartition("/")[2]
        key = block_of[scope], scope.replace("/", ".")
        numbered = own
        while (*key, numbered) in taken:  # scopes of several layers may be called alike
            numbered += "_"
        taken.add((*key, numbered))
        groups.setdefault(key, []).append((place, numbered))
    order = list(dict.fromkeys(block for block, _ in groups))
    return tuple(
        (block, scope, tuple(members))
        for wanted in order
        for (block, scope), members in groups.items()
        if block == wanted
    )


def _blocks_by_patterns(scopes: Sequence[str], patterns: BlockPatterns) -> dict[str, str]:
    """Name the block of each scope by a user's patterns; what none names joins the one before."""
    found: dict[str, str] = {}
    for pattern, template in patterns:
        matches = {scope: re.search(pattern, scope) for scope in scopes}
        if not any(matches.values()):
            raise InvalidParameterError(
                f"blocks: pattern {pattern!r} matches no variable. Their scopes: "
                f"{', '.join(dict.fromkeys(scopes))}."
            )
        for scope, match in matches.items():
            if match is not None:
                found.setdefault(scope, match.expand(template))
    first = next(found[scope] for scope in scopes if scope in found)
    for scope in scopes:
        first = found.setdefault(scope, first)
    return found


def _blocks_by_name(scopes: Sequence[str]) -> dict[str, str]:
    """Name the blocks where the scopes tell them; else there is one."""
    layers = [scope.rpartition("/")[2] for scope in scopes]
    for patterns in dict.fromkeys(family.blocks for family in FAMILIES.values()):
        named = {s: _match(layer, patterns) for s, layer in zip(scopes, layers, strict=True)}
        if all(named.values()) and len(set(named.values())) > 1:
            return {scope: name or "" for scope, name in named.items()}
    for patterns in _GENERIC:
        matched = [_match(scope, patterns) for scope in scopes]
        places = [place for place, name in enumerate(matched) if name]
        if len({name for name in matched if name}) < 2:
            continue
        inside = matched[places[0] : places[-1] + 1]
        if not all(inside):
            continue
        return {
            scope: name or ("stem" if place < places[0] else "top")
            for place, (scope, name) in enumerate(zip(scopes, matched, strict=True))
        }
    return dict.fromkeys(scopes, WHOLE)


def _match(name: str, patterns: BlockPatterns) -> str | None:
    for pattern, template in patterns:
        if (found := re.search(pattern, name)) is not None:
            return found.expand(template)
    return None


# === Its files ===


def _without_weights(path: str) -> bytes:
    """Return a SavedModel's files, zipped, with zeros in place of its weights."""
    import tensorflow as tf

    prefix = os.path.join("variables", "variables")
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(packed, "w") as archive:
        names = [name for name in _files(path) if not name.startswith("variables" + os.sep)]
        for name in names:
            _write(archive, name, Path(path, name).read_bytes())
        if os.path.exists(os.path.join(path, prefix + ".index")):
            reader = tf.train.load_checkpoint(os.path.join(path, prefix))
            keys, tensors = sorted(reader.get_variable_to_shape_map()), []
            for key in keys:
                value = reader.get_tensor(key)
                is_array = isinstance(value, np.ndarray) and value.dtype.kind == "f"
                if is_array and value.size >= _LONG:
                    value = np.zeros_like(value)
                tensors.append(tf.constant(value))
            tf.raw_ops.SaveV2(
                prefix=os.path.join(folder, "variables"),
                tensor_names=keys,
                shape_and_slices=[""] * len(keys),
                tensors=tensors,
            )
            for each in sorted(Path(folder).iterdir()):
                _write(archive, os.path.join("variables", each.name), each.read_bytes())
    return packed.getvalue()


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # The same files make the same bytes: a ZipInfo has a fixed time.
    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


# === Writing one ===


def export_backbone(
    backbone: Backbone,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a backbone as a reusable SavedModel, as TF Hub publishes them.

    It can be called, ``loaded(pictures, training=False)``, with RGB pictures of 0..1 (or vectors as
    they are), and has ``variables``, ``trainable_variables`` and ``regularization_losses``
    [1]_. ``get_backbone("hub:" + path)`` reads it again.

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
    >>> from keras_transfer import get_backbone
    >>> from keras_transfer.backbones.saved_model import export_backbone
    >>> backbone = get_backbone("MobileNetV2", weights=None, input_shape=(32, 32, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_backbone(backbone, folder + "/mobile")
    ...     again = get_backbone("hub:" + folder + "/mobile")
    >>> [block.name for block in again.list_blocks()][:3]
    ['stem', 'block_1', 'block_2']
    """
    import keras
    import tensorflow as tf

    path = os.fspath(path)
    if os.path.exists(path) and not overwrite:
        raise OutputExistsError(path)
    shape = backbone.resolve_shape(input_shape)
    network = backbone.load(shape)
    inputs = keras.Input(shape, dtype="float32")
    entry = inputs
    if backbone.modality == "picture":
        entry = backbone.preprocessing(keras.ops.multiply(inputs, 255.0))
    model = keras.Model(inputs, network(entry))

    class Reusable(tf.Module):
        """What TF Hub expects of a SavedModel that others train on."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.state = [variable.value for variable in model.variables]  # random ones, too

        @property
        def variables(self) -> Any:
            """All weights, for whoever loads it."""
            return tuple(variable.value for variable in model.weights)

        @property
        def trainable_variables(self) -> Any:
            """Those that train."""
            return tuple(variable.value for variable in model.trainable_weights)

        @tf.function
        def __call__(self, inputs: Any, training: bool = False) -> Any:
            return model(inputs, training=training)

    reusable = Reusable()
    spec = tf.TensorSpec((None, *shape), "float32")
    for training in (False, True):
        reusable.__call__.get_concrete_function(spec, training=training)
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "model")
        tf.saved_model.save(reusable, target)
        if os.path.exists(path):
            shutil.rmtree(path)
        shutil.move(target, path)
