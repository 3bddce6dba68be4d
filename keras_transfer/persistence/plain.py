"""Python values as JSON and back, by a closed table: nothing is imported or executed."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_transfer.backbones.backbone import Backbone, CallableSource, ModelSource
from keras_transfer.backbones.preprocessing import Preprocessing
from keras_transfer.backbones.registry import describe_named
from keras_transfer.backbones.saved_model import SavedModelSource
from keras_transfer.choosing.block_choice import BlockChoice
from keras_transfer.choosing.fine_tuning import FineTuningCheck
from keras_transfer.choosing.guard import Rival, SourceCheck
from keras_transfer.choosing.novelty import SeenExamples
from keras_transfer.choosing.readout_choice import ReadoutChoice, ScoredReadout
from keras_transfer.errors import FileFormatError, InvalidTypeError
from keras_transfer.graph.readout import Readout
from keras_transfer.inputs.data_report import DataReport
from keras_transfer.inputs.readers import READERS
from keras_transfer.inputs.targets import ClassTargets, LabelTargets, NumberTargets
from keras_transfer.modes import RECIPES
from keras_transfer.training.audit import AuditRow
from keras_transfer.training.rate_test import RateCurve
from keras_transfer.training.run_result import StageRecord
from keras_transfer.training.stage import Stage

__all__ = ["Attachments", "MissingFunction", "from_plain", "to_plain"]

# Values that are their fields.
_DATACLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        AuditRow,
        BlockChoice,
        ClassTargets,
        DataReport,
        FineTuningCheck,
        LabelTargets,
        NumberTargets,
        *READERS.values(),
        RateCurve,
        Readout,
        ReadoutChoice,
        Rival,
        ScoredReadout,
        SeenExamples,
        SourceCheck,
        Stage,
        StageRecord,
    )
}
_RECIPE_NAMES = {kind: name for name, kind in RECIPES.items()}
# What is stored beside the JSON, by its digest: Keras models, and arrays that are long as text.
Attachments = dict[str, ModelSource | SavedModelSource | np.ndarray]
_LONG = 1024


@dataclasses.dataclass(frozen=True)
class MissingFunction:
    """Stands for a function that a file names, since a file cannot hold code.

    Attributes
    ----------
    name, module : str
        Where it was when the file was written.
    """

    name: str
    module: str = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Say how to bring the function back."""
        raise FileFormatError(
            f"{self.name!r}: expected the function that the saved estimator was made with. A file "
            f"holds no code, so it was not loaded. Pass it: "
            f"load(path, custom_objects={{{self.name!r}: function}}), or trusted=True where "
            f"{self.module or 'its module'!r} can be imported."
        )


def to_plain(value: Any, attachments: Attachments) -> Any:
    """Turn a value into what JSON can hold.

    Parameters
    ----------
    value : object
    attachments : dict
        Takes up models and long arrays that are stored beside the JSON.

    Raises
    ------
    InvalidTypeError
        If there is no way to write the value without pickle.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        _check_dtype(value)
    if isinstance(value, np.generic):
        return {"$scalar": [value.dtype.str, to_plain(value.item(), attachments)]}
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, list):
        return [to_plain(item, attachments) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [to_plain(item, attachments) for item in value]}
    if isinstance(value, frozenset):
        return {"$frozenset": [to_plain(item, attachments) for item in sorted(value, key=repr)]}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and value.size > _LONG:
            kind = f"{value.dtype.str} {value.shape} ".encode()
            digest = hashlib.sha256(kind + value.tobytes()).hexdigest()
            attachments[digest] = value
            return {"$attached": digest}
        items = to_plain(value.ravel().tolist(), attachments)
        return {"$array": [value.dtype.str, list(value.shape), items]}
    if isinstance(value, Mapping):
        pairs = [[to_plain(k, attachments), to_plain(v, attachments)] for k, v in value.items()]
        return {"$dict": pairs}
    if isinstance(value, np.random.RandomState):
        return {"$random_state": to_plain(value.get_state(), attachments)}
    if type(value) in _RECIPE_NAMES:
        settings = to_plain(value.get_params(deep=False), attachments)
        return {"$recipe": [_RECIPE_NAMES[type(value)], settings]}
    if isinstance(value, Backbone):
        return {"$backbone": _backbone_to_plain(value, attachments)}
    if type(value).__name__ in _DATACLASSES:
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"$value": [type(value).__name__, to_plain(fields, attachments)]}
    if isinstance(value, MissingFunction):
        return {"$function": [value.name, value.module]}
    if callable(value) or _is_callback(value):
        # Of a callback its class, which is a function that makes one.
        name = getattr(value, "__name__", type(value).__name__)
        return {"$function": [name, getattr(value, "__module__", None) or ""]}
    raise _cannot_write(value)


def _is_callback(value: Any) -> bool:
    """Say whether a value is a Keras callback, without importing Keras for it."""
    return any(
        base.__name__ == "Callback" and base.__module__.startswith("keras.")
        for base in type(value).__mro__
    )


def _cannot_write(value: Any) -> InvalidTypeError:
    return InvalidTypeError(
        f"save: expected labels and parameters that are text, numbers, tuples or values of "
        f"keras_transfer. Received: {value!r} (type {type(value).__name__}). Use such labels, or "
        f"pickle the estimator."
    )


def _check_dtype(value: np.generic | np.ndarray) -> None:
    """Refuse what JSON's numbers and text cannot give back, such as dates and long doubles."""
    dtype = value.dtype
    if dtype.kind not in "biufSUO" or (dtype.kind == "f" and dtype.itemsize > 8):
        raise _cannot_write(value)


def from_plain(value: Any, attachments: Attachments, functions: Mapping[str, Any]) -> Any:
    """Turn what JSON held back into the value.

    Parameters
    ----------
    value : object
    attachments : dict
        Models and arrays that were stored beside the JSON.
    functions : mapping of str to callable
        Functions that the file may name.

    Raises
    ------
    FileFormatError
        If it holds a tag that is not known.
    """

    def back(item: Any) -> Any:
        return from_plain(item, attachments, functions)

    if isinstance(value, list):
        return [back(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise FileFormatError(f"expected one tag. Received: {list(value)[:5]}.")
    ((tag, content),) = value.items()
    if tag == "$scalar":
        return np.dtype(content[0]).type(back(content[1]))
    if tag == "$float":
        return float(content)
    if tag == "$tuple":
        return tuple(back(content))
    if tag == "$frozenset":
        return frozenset(back(content))
    if tag == "$bytes":
        return bytes.fromhex(content)
    if tag == "$array":
        dtype, shape, items = content
        flat = np.empty(len(items), dtype=dtype)
        flat[:] = back(items)
        return flat.reshape(shape)
    if tag == "$attached":
        return attachments[content]
    if tag == "$dict":
        return {back(k): back(v) for k, v in content}
    if tag == "$random_state":
        state = np.random.RandomState()
        state.set_state(back(content))
        return state
    if tag == "$recipe":
        name, settings = content
        if name in RECIPES:
            return RECIPES[name](**back(settings))
    if tag == "$backbone":
        return _backbone_from_plain(back(content), attachments, functions)
    if tag == "$value" and content[0] in _DATACLASSES:
        return _DATACLASSES[content[0]](**back(content[1]))
    if tag == "$function":
        name, module = content
        return functions.get(name, MissingFunction(name, module))
    raise FileFormatError(
        f"expected what this version of keras_transfer writes. Received: {tag!r} with "
        f"{str(content)[:60]!r}."
    )


def _backbone_to_plain(backbone: Backbone, attachments: Attachments) -> Any:
    described = {
        f.name: getattr(backbone, f.name)
        for f in dataclasses.fields(backbone)
        if f.name not in ("source", "preprocessing")
    }
    described["preprocessing"] = dataclasses.astuple(backbone.preprocessing)
    source = backbone.source
    if isinstance(source, ModelSource):
        attachments[source.digest] = source
        described["model"] = source.digest
    elif isinstance(source, SavedModelSource):
        attachments[source.digest] = source
        described["saved_model"] = source.digest
    elif isinstance(source, CallableSource):
        described["function"] = source.function
    return to_plain(described, attachments)


def _backbone_from_plain(
    described: dict[str, Any], attachments: Attachments, functions: Mapping[str, Any]
) -> Backbone:
    preprocessing = Preprocessing(*described.pop("preprocessing"))
    if "model" in described:
        source: Any = attachments[described.pop("model")]
    elif "saved_model" in described:
        source = attachments[described.pop("saved_model")]
    elif "function" in described:
        source = CallableSource(described.pop("function"))
    else:
        named = describe_named(described["name"], described["weights"])
        return named.with_shape(described["input_shape"])
    return Backbone(source=source, preprocessing=preprocessing, **described)
