"""SavedModels and TF Hub handles as backbones, block by block."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import math
import os
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.backbones.backbone import AS_GIVEN, Backbone, file_identity
from keras_transfer.backbones.flat_graph import GraphError
from keras_transfer.backbones.partition import OURS, BlockPatterns
from keras_transfer.backbones.preprocessing import Preprocessing
from keras_transfer.backbones.variable_blocks import WHOLE, VariableNames, group_variables
from keras_transfer.backbones.weights import keep_weights
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    UnknownNameError,
    WeightsNotFoundError,
)
from keras_transfer.parameters import number, sequence_of

__all__ = ["HUB", "PROGRAM", "Plan", "SavedModelSource", "saved_model_backbone"]

# What handles and paths of SavedModels begin with.
HUB = "hub:"
LAYER = "saved_model"
# What is said of a file that holds one.
PROGRAM = (
    "expected a file of data alone. Received: one that holds a SavedModel, which is a program. "
    "Load it with trusted=True if you would let whoever made it run programs here."
)
# Height and width where a SavedModel takes pictures of any size: what TF Hub's are trained on.
_PIXELS = 224
_RANGE = sequence_of(number(-math.inf))
_PROTO, _TF1_HUB = "saved_model.pb", "tfhub_module.pb"
# Arrays of so many numbers and more are left out of the archive: they are weights.
_LONG = 64


@dataclass(frozen=True)
class Plan:
    """How a SavedModel is run, and how its variables are grouped into blocks.

    Attributes
    ----------
    signature, output_key : str or None
        What runs, and which of its outputs is read.
    groups : tuple of (str, str, tuple of (int, str))
        Block and scope, and of each variable its place among the program's and its own name.
    whole_since : str
        Why it has one block; empty if it has more.
    """

    signature: str | None
    output_key: str | None
    groups: tuple[VariableNames, ...]
    whole_since: str = ""

    @property
    def blocks(self) -> list[str]:
        """The blocks, input side first."""
        return list(dict.fromkeys(block for block, _, _ in self.groups))

    @property
    def order(self) -> list[int]:
        """The places of the variables, in the order of the groups."""
        return [place for _, _, members in self.groups for place, _ in members]

    @property
    def block_of(self) -> list[int]:
        """The number of the block of each variable, in the program's order."""
        number = {name: place for place, name in enumerate(self.blocks)}
        found = {place: number[block] for block, _, members in self.groups for place, _ in members}
        return [found[place] for place in range(len(found))]

    def members(self, block: int) -> list[tuple[str, tuple[tuple[int, str], ...]]]:
        """Return the scopes of a block, with their variables."""
        name = self.blocks[block]
        return [(scope, members) for each, scope, members in self.groups if each == name]

    def digest(self, archive: bytes) -> str:
        """Return what tells it, and the SavedModel that it runs."""
        return hashlib.sha256(archive + self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` gave."""
        told = json.loads(text)
        groups = tuple(
            (block, scope, tuple((place, own) for place, own in members))
            for block, scope, members in told.pop("groups")
        )
        return cls(**told, groups=groups)


@dataclass(frozen=True, eq=False)
class SavedModelSource:
    """A SavedModel as it stood when the backbone was made.

    Attributes
    ----------
    archive : bytes
        Its files without its weights, zipped.
    plan : Plan
    weights : tuple of numpy.ndarray
        In the order of the plan; read-only.
    digest : str
        Over all three.
    """

    archive: bytes
    plan: Plan
    weights: tuple[Any, ...]
    digest: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SavedModelSource) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def from_parts(cls, archive: bytes, plan: Plan, weights: Sequence[Any]) -> SavedModelSource:
        """Put it together from its three parts."""
        kept, digest = keep_weights(plan.digest(archive).encode(), weights)
        return cls(archive, plan, kept, digest)

    @classmethod
    def from_config(cls, config: str, weights: Sequence[Any]) -> SavedModelSource:
        """Make it of what `config` gave, and the weights."""
        told = json.loads(config)
        archive = base64.b64decode(told["archive"])
        return cls.from_parts(archive, Plan.from_json(told["plan"]), weights)

    @property
    def config(self) -> str:
        """All but the weights, as JSON."""
        archive = base64.b64encode(self.archive).decode()
        return json.dumps({"archive": archive, "plan": self.plan.to_json()})

    def load(self, input_shape: tuple[int, ...]) -> Any:
        """Build a model that runs it, with one layer for each block."""
        from keras_transfer.backbones.saved_model_layer import build_blocks

        return build_blocks(self.archive, self.plan, self.weights, input_shape, f"{OURS}{LAYER}")

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
        Patterns over the names of variables; by default told by these (`group_variables`).
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
    source, shape, dtype = _read(path, identity, signature, output_key, blocks)
    modality, default, fixed = _what_it_reads(shape, dtype, handle)
    preprocessing = Preprocessing()
    if modality == "picture":
        known = pixel_range or ((0, 255) if dtype.is_integer else (0, 1))
        if not (_RANGE.allows(list(known)) and len(known) == 2 and known[0] < known[1]):
            raise InvalidParameterError(
                f"pixel_range: expected (black, white), such as (0, 1). Received: {pixel_range!r}."
            )
        low, high = map(float, known)
        preprocessing = Preprocessing((high - low) / 255, low)
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

    from keras_transfer.backbones.saved_model_program import Program, load_program_files

    try:
        loaded = load_program_files(path)
    except Exception as error:  # a broken proto or checkpoint fails in many ways
        raise FileFormatError(
            f"{path}: expected a SavedModel that TensorFlow {tf.__version__} loads. Received: one "
            f"that fails with {type(error).__name__}: {error}"
        ) from error
    signature = _choose_signature(loaded, signature)
    output_key = _choose_output(loaded, signature, output_key)
    try:
        program = Program(loaded, signature, output_key)
        plan = _make_plan(program, signature, output_key, blocks)
    except GraphError as error:
        raise InvalidParameterError(
            f"source: expected a SavedModel that computes something of what it reads, and nothing "
            f"else. Received: {path!r}, which is none, since {error}."
        ) from error
    weights = [program.weights[place].numpy() for place in plan.order]
    source = SavedModelSource.from_parts(_without_weights(path), plan, weights)
    shape = None if program.spec.shape.rank is None else tuple(program.spec.shape[1:])
    return source, shape, program.spec.dtype


def _make_plan(
    program: Any, signature: str | None, output_key: str | None, blocks: BlockPatterns | None
) -> Plan:
    """Group the variables into blocks, and make sure that the program is cut there."""
    names = [variable.name.partition(":")[0] for variable in program.weights]
    ranks = [len(variable.shape) for variable in program.weights]
    groups = group_variables(names, blocks, program.stretches, ranks, program.updated)
    plan = Plan(signature, output_key, groups)
    try:
        program.cut(plan.block_of)
        if len(plan.blocks) > 1:
            program.check([size or _PIXELS for size in program.spec.shape[1:]])
    except GraphError as error:
        if len(plan.blocks) < 2:
            raise
        if blocks is not None:
            raise InvalidParameterError(
                f"blocks: expected blocks that data passes one after the other. Received: "
                f"{', '.join(plan.blocks)}, which cannot be told apart, since {error}. Put those "
                f"together, or leave blocks out."
            ) from error
        groups = tuple((WHOLE, scope, members) for _, scope, members in plan.groups)
        plan = replace(plan, groups=groups, whole_since=str(error))
        program.cut(plan.block_of)
    if len(plan.blocks) == 1 and not plan.whole_since and blocks is None:
        shown = ", ".join(names[:3])
        plan = replace(
            plan, whole_since=f"neither its graph nor its variables ({shown} ...) tell more"
        )
    return plan


def _choose_signature(loaded: Any, signature: str | None) -> str | None:
    from keras_transfer.backbones.saved_model_program import functions_of

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


def _choose_output(loaded: Any, signature: str | None, output_key: str | None) -> str | None:
    from keras_transfer.backbones.saved_model_program import functions_of

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
                f"{output_key!r}. A signature may have more: {list(loaded.signatures)}."
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
