"""Labels of any hashable kind to class indices, and back."""

import datetime

import numpy as np
import pandas as pd
import pytest

from keras_transfer.errors import DataError
from keras_transfer.estimators.scoring import output_score
from keras_transfer.inputs.labels import encode_labels, find_classes
from keras_transfer.inputs.targets import ClassTargets

# Name -> labels, and the classes in their order.
KINDS = {
    "strings": (["cat", "ant", "cat", "bee"], ["ant", "bee", "cat"]),
    "array of strings": (np.array(["cat", "ant", "cat"]), ["ant", "cat"]),
    "object strings": (np.array(["cat", "ant", "cat"], object), ["ant", "cat"]),
    "Series of strings": (pd.Series(["cat", "ant"], index=[7, 3]), ["ant", "cat"]),
    "categorical": (pd.Categorical(["lo", "hi", "lo"], categories=["lo", "mid", "hi"]), None),
    "categorical Series": (pd.Series(["lo", "hi", "lo"], dtype="category"), ["hi", "lo"]),
    "categorical ints": (pd.Series([10, 2, 10], dtype="category"), [2, 10]),
    "nullable ints": (pd.Series([10, 2, 10], dtype="Int64"), [2, 10]),
    "strings of unequal length": (["a", "a long one", "b"], ["a", "a long one", "b"]),
    "empty string": (["", "a"], ["", "a"]),
    "other scripts": (["été", "日本", "zoo"], ["zoo", "été", "日本"]),
    "bytes": ([b"b", b"a"], [b"a", b"b"]),
    "ints": ([10, 2, -1, 10], [-1, 2, 10]),
    "range": (range(3), [0, 1, 2]),
    "uint8": (np.array([200, 3], np.uint8), [3, 200]),
    "numpy ints in a list": ([np.int64(3), 1, np.int64(2)], [1, 2, 3]),
    "bools": ([True, False, True], [False, True]),
    "array of bools": (np.array([True, False]), [False, True]),
    "floats": ([0.5, -1.5, 0.5], [-1.5, 0.5]),
    "float32": (np.array([0.1, 0.2], np.float32), [np.float32(0.1), np.float32(0.2)]),
    "ints and floats": ([1, 0.5, 1.0], [0.5, 1.0]),
    "tuples": ([("b", 1), ("a", 2), ("b", 1)], [("a", 2), ("b", 1)]),
    "tuples of one": ([("b",), ("a",)], [("a",), ("b",)]),
    "tuples of unequal length": ([("a", 1, 2), ("a",)], [("a",), ("a", 1, 2)]),
    "tuple of tuples": ((("b", 1), ("a", 2)), [("a", 2), ("b", 1)]),
    "Series of tuples": (pd.Series([("b", 1), ("a", 2)]), [("a", 2), ("b", 1)]),
    "frozensets": ([frozenset("b"), frozenset("a")], None),
    "mixed": ([1, "a", (2, 3), "a"], [1, "a", (2, 3)]),
    "numbers and strings": (["b", 2, 1, "a"], [1, 2, "a", "b"]),
    "column of strings": (np.array([["b"], ["a"]]), ["a", "b"]),
    "column of lists": ([[2], [1]], [1, 2]),
    "DataFrame of one column": (pd.DataFrame({"y": ["b", "a"]}), ["a", "b"]),
    "dates": (np.array(["2024-05-01", "2023-01-01"], "datetime64[D]"), None),
    "date objects": ([datetime.date(2024, 5, 1), datetime.date(2023, 1, 1)], None),
}


def plain(labels):
    """Labels as a list of Python objects, a column as one too."""
    labels = getattr(labels, "to_numpy", lambda: labels)()
    if isinstance(labels, (np.ndarray, pd.Categorical)):
        return np.asarray(labels).reshape(len(labels)).tolist()
    return [label[0] if isinstance(label, list) else label for label in labels]


@pytest.mark.parametrize(("y", "expected"), KINDS.values(), ids=KINDS)
def test_labels_come_back(y, expected):
    classes = find_classes(y)
    assert isinstance(classes, np.ndarray)
    assert classes.ndim == 1
    if expected is not None:
        assert classes.tolist() == expected
    targets = encode_labels(y, classes)
    assert targets.dtype == np.int64
    assert targets.shape == (len(y),)
    assert classes[targets].tolist() == plain(y)


SORTED_BY_NUMPY = ("strings", "other scripts", "bytes", "ints", "bools", "floats", "uint8", "dates")


@pytest.mark.parametrize("name", SORTED_BY_NUMPY)
def test_the_order_and_type_are_those_of_scikit_learn(name):
    y, _ = KINDS[name]
    expected = np.unique(np.asarray(y))
    classes = find_classes(y)
    assert classes.dtype == expected.dtype
    np.testing.assert_array_equal(classes, expected)


@pytest.mark.parametrize("name", ["mixed", "numbers and strings", "tuples", "strings"])
def test_the_order_of_the_rows_does_not_matter(name):
    y, _ = KINDS[name]
    assert find_classes(y).tolist() == find_classes(list(y)[::-1]).tolist()


@pytest.mark.parametrize(("y", "expected"), KINDS.values(), ids=KINDS)
def test_validation_scores_labels_of_every_kind(y, expected):
    """scikit-learn's metrics know fewer kinds of labels than a fit takes."""
    classes = find_classes(y)
    targets = np.arange(len(classes))
    score = output_score(None, ClassTargets(classes))
    assert score(targets, np.eye(len(classes), dtype=np.float32), None) == 1.0


def test_numbers_in_a_mixed_list_do_not_become_text():
    classes = find_classes([1, "1", 2])
    assert classes.tolist() == [1, 2, "1"]
    assert encode_labels(["1", 1], classes).tolist() == [2, 0]


def test_encoding_takes_other_containers_than_fit_did():
    classes = find_classes(np.array(["cat", "ant"]))
    for y in (["cat"], ("cat",), pd.Series(["cat"]), np.array(["cat"], object), [np.str_("cat")]):
        assert encode_labels(y, classes).tolist() == [1]


def test_labels_are_not_touched():
    y = np.array([["b"], ["a"]], object)
    encode_labels(y, find_classes(y))
    assert y.tolist() == [["b"], ["a"]]


MISSING = {
    "None in strings": (["a", None, "b", None], 2, 1),
    "None in ints": ([1, 2, None], 1, 2),
    "None first": ([None, "a"], 1, 0),
    "NaN in floats": ([1.0, 2.0, float("nan")], 1, 2),
    "NaN in strings": (["a", "b", float("nan")], 1, 2),
    "numpy NaN": (np.array([np.nan, 1.0, 2.0]), 1, 0),
    "NaN in objects": (np.array(["a", np.nan, "b"], object), 1, 1),
    "None and tuples": ([(1, 2), None, (3, 4)], 1, 1),
    "NA in strings": (pd.Series(["a", "b", None], dtype="string"), 1, 2),
    "NA in ints": (pd.Series([1, None, 2], dtype="Int64"), 1, 1),
    "NA in a categorical": (pd.Categorical(["a", None, "b"]), 1, 1),
    "NaT": (np.array(["2024-05-01", "2023-01-01", "NaT"], "datetime64[D]"), 1, 2),
}


@pytest.mark.parametrize(("y", "count", "first"), MISSING.values(), ids=MISSING)
def test_a_label_is_missing(y, count, first):
    message = rf"^y: expected a label for every.*in {count} row\(s\), the first at row {first}\."
    with pytest.raises(DataError, match=message):
        find_classes(y)


def test_a_label_is_missing_in_what_is_encoded():
    with pytest.raises(DataError, match="y: expected a label for every example"):
        encode_labels(["a", None], np.array(["a", "b"]))


NO_LABELS = {
    "none": ([], "Received: no labels"),
    "none in an array": (np.array([], str), "Received: no labels"),
    "one string": ("cat", r"shape \(n,\)\. Received: shape \(\)"),
    "None": (None, r"shape \(n,\)\. Received: shape \(\)"),
    "one-hot": (np.eye(3), r"Received: shape \(3, 3\)"),
    "row": (np.array([["a", "b"]]), r"Received: shape \(1, 2\)"),
    "DataFrame of two columns": (pd.DataFrame({"a": [1, 2], "b": [3, 4]}), r"shape \(2, 2\)"),
    "unhashable": ([{"a": 1}, {"a": 2}], "hashable|shape"),
    "lists of unequal length": ([["a"], ["a", "b"]], "hashable|shape"),
}


@pytest.mark.parametrize(("y", "message"), NO_LABELS.values(), ids=NO_LABELS)
def test_what_is_no_list_of_labels(y, message):
    with pytest.raises(DataError, match=f"^y: .*({message})"):
        find_classes(y)
    with pytest.raises(DataError, match=r"^y: "):
        encode_labels(y, np.array(["a", "b"]))


@pytest.mark.parametrize(
    ("y", "label"),
    [
        (["cat"] * 3, "'cat'"),
        (np.array(["cat"]), "'cat'"),
        ([1, 1.0, True], "1"),
        (np.array([7, 7]), "7"),
        ([("a", 1)] * 2, "('a', 1)"),
        ([False], "False"),
    ],
    ids=["strings", "array", "equal numbers", "ints", "tuples", "bool"],
)
def test_one_class(y, label):
    with pytest.raises(
        DataError, match=r"^y: expected at least two classes. .*only one class"
    ) as e:
        find_classes(y)
    assert f"one class, {label}" in str(e.value) or f"one class, {label}.0" in str(e.value)


@pytest.mark.parametrize(
    ("classes", "y", "unknown"),
    [
        (np.array(["ant", "cat"]), ["cat", "dog"], "'dog'"),
        (np.array([1, 2]), [1, 3], "3"),
        (np.array([1, 2]), ["1"], "'1'"),
        (np.array(["ant", "cat"]), ["Cat"], "'Cat'"),
        (find_classes([("a", 1), ("b", 2)]), [("a", 2)], "('a', 2)"),
    ],
    ids=["string", "int", "text for a number", "case", "tuple"],
)
def test_an_unknown_label(classes, y, unknown):
    with pytest.raises(DataError, match=r"^y: expected labels of the classes") as e:
        encode_labels(y, classes)
    assert str(classes.tolist()) in str(e.value)
    assert f"Received: {unknown}" in str(e.value)
    assert e.value.__cause__ is None
