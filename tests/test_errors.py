"""The tree of errors, as drawn and as it is."""

import builtins
import copy
import inspect
import pickle
import re

import pytest

from keras_transfer import errors
from keras_transfer.errors import (
    KerasTransferError,
    KerasTransferWarning,
    RecipeFileError,
    UnknownNameError,
    nearest_name,
    unknown_name,
)

# One instance of each that takes more than a message.
OWN_ARGUMENTS = {
    UnknownNameError: ("block", "blok3", ["stem", "block3"], "Lite0"),
    RecipeFileError: ("recipe.toml", ["mode: expected one", "epochs: expected another"]),
}
CLASSES = [getattr(errors, name) for name in errors.__all__]


def make(kind):
    return kind(*OWN_ARGUMENTS.get(kind, ("X: expected this. Received: that. Do it.",)))


def read_tree(text):
    """Read the drawn tree: name -> (parent or None, built-in named beside it or None)."""
    tree = {}
    path = []
    for line in text.split("::", 1)[1].splitlines():
        node = re.match(r"^    ((?:[│ ] {3})*(?:[├└]── )?)(\w+)(?: \((\w+)\))?(?:  .*|$)", line)
        if node:
            indent, name, also = node.groups()
            depth = len(indent) // 4
            path[depth:] = [name]
            tree[name] = (path[depth - 1] if depth else None, also)
    return tree


def test_the_drawn_tree_is_the_real_one():
    drawn = read_tree(errors.__doc__)
    real = {}
    for kind in CLASSES:
        parents = [base for base in kind.__bases__ if base in CLASSES]
        others = [base.__name__ for base in kind.__bases__ if base not in CLASSES]
        parent = parents[0].__name__ if parents else None
        also = others[0] if others and others != ["Exception"] else None
        assert len(parents) <= 1
        assert len(others) <= 1
        real[kind.__name__] = (parent, also)
    assert drawn == real
    assert len(drawn) == 14


def test_all_that_the_module_defines_is_listed():
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


DRAWN = {name: also for name, (_, also) in read_tree(errors.__doc__).items() if also}


@pytest.mark.parametrize("name", DRAWN)
def test_each_is_the_built_in_that_is_expected_there(name):
    error = make(getattr(errors, name))
    assert isinstance(error, getattr(builtins, DRAWN[name]))
    assert isinstance(error, KerasTransferError) != isinstance(error, Warning)
    with pytest.raises(getattr(builtins, DRAWN[name])):
        raise error


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_is_documented(kind):
    assert kind.__doc__.strip()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "again",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_each_survives_a_process(kind, again):
    error = make(kind)
    other = again(error)
    assert type(other) is kind
    assert str(other) == str(error) != ""
    assert vars(other) == vars(error)


def test_the_warning_is_no_error():
    assert issubclass(KerasTransferWarning, UserWarning)
    assert not issubclass(KerasTransferWarning, KerasTransferError)


def test_unknown_name_keeps_what_it_was_made_of():
    error = UnknownNameError("block", "blok3", iter(["stem", "block3"]), "Lite0")
    assert (error.kind, error.name, error.where) == ("block", "blok3", "Lite0")
    assert error.valid == ("stem", "block3")
    assert str(error) == (
        "block 'blok3' is not in Lite0. Expected one of: stem, block3. Did you mean 'block3'?"
    )


@pytest.mark.parametrize(
    ("name", "where", "message"),
    [
        ("Stem", "", "is not known. Expected one of: stem, block3. Did you mean 'stem'?"),
        ("qqq", "", "is not known. Expected one of: stem, block3."),
        (3, "a model", "is not in a model. Expected one of: stem, block3."),
        (None, "", "is not known. Expected one of: stem, block3."),
    ],
)
def test_unknown_name(name, where, message):
    assert (
        unknown_name("block", name, iter(["stem", "block3"]), where) == f"block {name!r} {message}"
    )


def test_unknown_name_where_there_is_none():
    assert unknown_name("block", "stem", []).startswith("block 'stem' is not known.")


NAMES = ["EfficientNetLite0", "MobileNetV2", "ResNet50V2", "VGG16"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MobileNetV2", "MobileNetV2"),
        ("mobilenetv2", "MobileNetV2"),
        ("MobilNet", "MobileNetV2"),
        ("vgg-16", "VGG16"),
        ("EfficientNetLite", "EfficientNetLite0"),
        ("resnet50", "ResNet50V2"),
        ("something else", None),
        ("", None),
        (3, None),
        (None, None),
    ],
)
def test_nearest_name(name, nearest):
    assert nearest_name(name, NAMES) == nearest
    assert nearest_name(name, iter(NAMES)) == nearest
    assert nearest_name(name, []) is None


@pytest.mark.parametrize(
    ("problems", "text"),
    [
        (["a"], "r.toml: 1 mistake\n  - a"),
        (["a", "b"], "r.toml: 2 mistakes\n  - a\n  - b"),
    ],
)
def test_recipe_file_error_lists_all(problems, text):
    error = RecipeFileError("r.toml", problems)
    assert str(error) == text
    assert (error.path, error.problems) == ("r.toml", tuple(problems))
