"""Values as JSON and back, by a closed table."""

import dataclasses
import datetime
import enum
import functools
import json
import math
import pathlib
import types

import keras
import numpy as np
import pytest
import tiny
from sklearn.base import clone

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    Readout,
    Stage,
    StructureTransfer,
    get_backbone,
)
from keras_transfer.errors import FileFormatError, InvalidTypeError
from keras_transfer.inputs.features import FeatureInput
from keras_transfer.inputs.pictures import PictureInput
from keras_transfer.persistence.plain import MissingFunction, from_plain, to_plain
from keras_transfer.training.audit import AuditRow
from keras_transfer.training.rate_test import RateCurve
from keras_transfer.training.run_result import StageRecord


def through_json(value, **functions):
    """Write a value as text and read it again."""
    attachments = {}
    text = json.dumps(to_plain(value, attachments), allow_nan=False)
    return from_plain(json.loads(text), attachments, functions)


def same(a, b):
    """Say whether two values are equal, of the same types, NaN to the same NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and same(a.tolist(), b.tolist())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, (float, np.floating)) and a == 0:
        return b == 0 and np.signbit(a) == np.signbit(b)
    return a == b or (a != a and b != b)


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


STAGE = Stage("head", {"head": 1e-2, "block": 1e-4}, epochs=3, batch_norm="train", patience=2)
ROW = AuditRow("head", 12, 12, None, "-")

VALUES = {
    "None": None,
    "true": True,
    "false": False,
    "text": "été\n\"'\\ \x00 日本 🙂",
    "empty text": "",
    "text like a tag": "$tuple",
    "int": -7,
    "large int": 10**40,
    "float": 0.1,
    "float like an int": 3.0,
    "negative zero": -0.0,
    "smallest float": 5e-324,
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "bytes": b"\x00\xff a",
    "no bytes": b"",
    "list": [1, "a", None, [2.5]],
    "empty list": [],
    "tuple": (1, "a", (2,), [3]),
    "empty tuple": (),
    "tuple of a nan": (math.nan, 1),
    "frozenset": frozenset({1, "a", (2, 3)}),
    "dict": {"a": 1, "b": [1, (2,)], "$tuple": 3},
    "dict with one key like a tag": {"$tuple": [1, 2]},
    "dict with other keys": {1: "a", (2, 3): None, None: 1.5, b"x": 2},
    "empty dict": {},
    "float32": np.float32(0.1),
    "float32 nan": np.float32("nan"),
    "float64": np.float64(0.1),
    "float16": np.float16(0.1),
    "int64": np.int64(-3),
    "uint64": np.uint64(2**63 + 1),
    "int8": np.int8(3),
    "bool_": np.True_,
    "bytes_": np.bytes_(b"ab"),
    "strings": np.array(["ant", "été", ""]),
    "wide strings": np.array(["a"], "<U40"),
    "array of bytes": np.array([b"a", b"bc"]),
    "ints": np.array([[1, 2], [3, 4]]),
    "uint8": np.arange(256, dtype=np.uint8),
    "big-endian": np.array([1, 2], ">i4"),
    "bools": np.array([True, False]),
    "float32s": np.array([0.1, np.nan, np.inf, -0.0, 1e-45], np.float32),
    "float64s": np.array([0.1, 1 / 3, 5e-324, 1.7e308]),
    "no numbers": np.array([], np.float32),
    "array of no axis": np.array(2.5),
    "object array": objects("a", 1, None, 2.5, (1, "b"), b"c"),
    "object array of equal tuples": objects(("a", 1), ("b", 2)),
    "object array of lists": objects([1, 2], [3, 4]),
    "object array of one tuple": objects(("a", 1)),
    "object array of numpy scalars": objects(np.int64(1), np.float32(0.5)),
    "empty object array": objects(),
    "Readout": Readout(["stem", "last"], ["average", (2, 3)]),
    "Stage": STAGE,
    "AuditRow": ROW,
    "StageRecord": StageRecord(STAGE, (ROW, ROW), ("a/b",), "early stopping", 3, 1.25, 0.5),
    "RateCurve": RateCurve((1e-6, 1e-5), (0.7, math.inf), 1e-7),
    "PictureInput": PictureInput((4, 6), (-1.0, 1.0)),
    "FeatureInput": FeatureInput(7),
    "all in one": {"classes_": objects(("a", 1)), "stages_": [(STAGE, np.float32(1))]},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_is_written_is_read(value):
    assert same(through_json(value), value)


def test_numpy_text_is_text():
    assert through_json(np.str_("cat")) == "cat"
    assert through_json([np.str_("cat")]) == ["cat"]


def test_a_read_only_mapping_becomes_a_dict():
    assert same(through_json(types.MappingProxyType({"a": 1})), {"a": 1})


def test_members_of_enumerations_equal_what_is_read():
    class Colour(enum.IntEnum):
        RED = 1

    assert through_json([Colour.RED]) == [Colour.RED]


RECIPES = {
    "structure": StructureTransfer(train_blocks=2, epochs=3, learning_rate=np.float64(1e-3)),
    "composite": CompositeTransfer("gradual", augmentation=["flip", "crop"], dropout=0.2),
    "parameter": ParameterTransfer(train_blocks=["a", "b"], batch_norm="affine", optimizer="sgd"),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipes(recipe):
    again = through_json(recipe)
    assert type(again) is type(recipe)
    assert same(again.get_params(), recipe.get_params())
    assert clone(again) is not again


@pytest.mark.parametrize("gaussians", [0, 1])  # NumPy draws two and keeps one
def test_random_states_go_on_where_they_were(gaussians):
    state = np.random.RandomState(3)
    state.normal(size=gaussians)
    state.randint(5, size=7)
    again = through_json(state)
    assert again is not state
    np.testing.assert_array_equal(again.normal(size=9), state.normal(size=9))
    np.testing.assert_array_equal(again.randint(99, size=700), state.randint(99, size=700))


# === Never wrong in silence ===

ODD = {
    "longdouble": np.longdouble(1) / 3,
    "longdoubles": np.array([1, 2], np.longdouble),
    "complex": 1j,
    "numpy complex": np.complex64(1j),
    "complex array": np.array([1j]),
    "day": np.datetime64("2024-05-01"),
    "nanosecond": np.datetime64("2024-05-01T00:00:00", "ns"),
    "days": np.array(["2024-05-01"], "datetime64[D]"),
    "nanoseconds": np.array(["2024-05-01"], "datetime64[ns]"),
    "timedelta": np.timedelta64(3, "ns"),
    "date": datetime.date(2024, 5, 1),
    "set": {1, 2},
    "path": pathlib.Path("a"),
    "record array": np.array([(1, 2.0)], [("a", int), ("b", float)]),
    "variable strings": np.array(["a", "bc"], np.dtypes.StringDType()),
    "no rows": np.zeros((0, 3)),
    "no columns": np.zeros((3, 0)),
    "object table": np.array([[1, "a"], [None, 2.5]], object),
    "ellipsis": ...,
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_an_odd_value_is_read_back_or_refused(value):
    try:
        plain = to_plain(value, {})
    except InvalidTypeError:
        return
    assert same(from_plain(json.loads(json.dumps(plain)), {}, {}), value)


class Own:
    """Of no type that the table knows."""

    def __repr__(self):
        return "Own()"


class OwnRecipe(StructureTransfer):
    """A subclass would lose what it adds."""


@pytest.mark.parametrize("nest", [lambda v: v, lambda v: [v], lambda v: {"a": (v,)}, objects])
@pytest.mark.parametrize(
    "value", [Own(), OwnRecipe(), 1j, {1}, np.random.default_rng(0)], ids=lambda v: type(v).__name__
)
def test_a_value_that_no_tag_fits(value, nest):
    with pytest.raises(InvalidTypeError, match=r"^save: expected labels and parameters that") as e:
        to_plain(nest(value), {})
    assert f"{value!r} (type {type(value).__name__})" in str(e.value)
    assert "Use such labels, or pickle the estimator." in str(e.value)


# === Files that were tampered with ===

TAMPERED = {
    "unknown tag": {"$eval": "1 + 1"},
    "no tag": {"a": 1},
    "two tags": {"$tuple": [1], "$float": "1"},
    "no tags": {},
    "nested": [1, {"$dict": [["a", {"$pickle": "gASVAAAA"}]]}],
    "unknown dataclass": {"$value": ["Popen", {"$dict": [["args", "ls"]]}]},
    "unknown recipe": {"$recipe": ["eval", {"$dict": []}]},
}


@pytest.mark.parametrize("plain", TAMPERED.values(), ids=TAMPERED)
def test_an_unknown_tag(plain):
    with pytest.raises(FileFormatError, match=r"expected .*Received"):
        from_plain(plain, {}, {})


# === Functions ===


def two_layers(input_shape):
    return tiny.dense(input_shape)


def test_a_function_is_its_name():
    assert through_json(two_layers) == MissingFunction("two_layers", __name__)
    assert through_json([two_layers], two_layers=two_layers) == [two_layers]
    assert through_json(two_layers, other=len) == MissingFunction("two_layers", __name__)


def test_calling_a_function_that_is_missing_says_how_to_bring_it_back():
    missing = through_json(two_layers)
    with pytest.raises(FileFormatError, match=r"custom_objects=\{'two_layers': function\}"):
        missing((3,))
    with pytest.raises(FileFormatError, match="'two_layers'"):
        missing(anything=1)


def test_a_missing_function_is_written_as_the_function_was():
    missing = through_json(two_layers)
    assert through_json(missing) == missing
    assert through_json(missing, two_layers=two_layers) is two_layers


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda shape: None, "<lambda>"),
        (functools.partial(two_layers), "partial"),
        (tiny.cnn, "cnn"),
        (dict, "dict"),
    ],
    ids=["lambda", "partial", "function", "class"],
)
def test_names_of_functions(function, name):
    missing = through_json(function)
    assert (missing.name, missing.module) == (name, function.__module__)
    assert through_json(function, **{name: function}) is function


def test_a_callback_is_the_name_of_its_class():
    given = [keras.callbacks.EarlyStopping("loss", patience=2)]
    missing = through_json(given)
    assert missing[0].name == "EarlyStopping"
    back = through_json(given, EarlyStopping=keras.callbacks.EarlyStopping)
    assert back == [keras.callbacks.EarlyStopping]  # a factory, with the class's own settings


def test_a_function_inside_a_recipe_and_a_stage():
    recipe = through_json(StructureTransfer(optimizer=two_layers), two_layers=two_layers)
    assert recipe.optimizer is two_layers
    stage = through_json(dataclasses.replace(STAGE, optimizer=two_layers))
    assert stage.optimizer == MissingFunction("two_layers", __name__)


# === Backbones ===

BACKBONES = {
    "named": lambda: get_backbone("EfficientNetLite0"),
    "random weights": lambda: get_backbone("MobileNetV2", weights=None),
    "fixed shape": lambda: get_backbone("MobileNetV2", weights=None, input_shape=(64, 96, 3)),
    "callable": lambda: get_backbone(
        two_layers, blocks={"first": "low", "second": "high"}, modality="features"
    ),
    "callable with preprocessing": lambda: get_backbone(
        two_layers, preprocessing="caffe", name="mine", input_shape=(8, 8, 3)
    ),
    "model": lambda: get_backbone(
        tiny.residual((16, 16, 3)), preprocessing="torch", blocks=[("^stem", "low"), (".", "high")]
    ),
}


@pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES)
def test_backbones(make):
    backbone = make()
    assert through_json(backbone, two_layers=two_layers) == backbone


def test_a_model_is_attached_once_and_builds_the_same():
    backbone = get_backbone(tiny.residual((16, 16, 3)))
    attachments = {}
    plain = to_plain({"backbone": backbone, "backbone_": backbone}, attachments)
    assert list(attachments) == [backbone.source.digest]
    again = from_plain(json.loads(json.dumps(plain)), attachments, {})["backbone_"]
    weights = again.load().get_weights()
    assert len(weights) == len(backbone.source.weights) > 0
    for one, other in zip(weights, backbone.source.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_backbone_whose_function_is_missing():
    again = through_json(get_backbone(two_layers))
    assert again.name == "two_layers"
    with pytest.raises(FileFormatError, match="custom_objects"):
        again.load((3,))


def test_the_file_of_the_source_weights_need_not_be_there(tmp_path):
    """What was fitted is in the save file; only a new fit reads the source weights."""
    path = tmp_path / "mine.weights.h5"
    path.touch()
    backbone = get_backbone("MobileNetV2", weights=path)
    attachments = {}
    plain = to_plain(backbone, attachments)
    path.unlink()
    again = from_plain(plain, attachments, {})
    assert (again.name, again.weights) == (backbone.name, backbone.weights)
