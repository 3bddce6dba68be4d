"""Weights of examples and of classes."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from keras_transfer.errors import DataError, InvalidParameterError
from keras_transfer.inputs.targets import ClassTargets, LabelTargets
from keras_transfer.inputs.weights import check_sample_weight, class_weights

Y = np.array([0, 0, 0, 1, 1, 2])
TARGETS = ClassTargets(np.array(["a", "b", "c"]))


def test_no_weights():
    assert check_sample_weight(None, 3) is None
    assert class_weights(None, TARGETS, Y, None) is None


def test_weights_are_copied():
    given = np.array([1.0, 2.0])
    checked = check_sample_weight(given, 2)
    checked[:] = 0
    assert given.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"sample_weight\.shape == \(2,\), expected \(3,\)"),
        ([[1], [2], [3]], "1D array"),
        ([1, -1, 2], "Negative values in data passed to `sample_weight`"),
        ([1, np.nan, 2], "NaN"),
        ([0, 0, 0], "zero"),
        (["a", "b", "c"], "could not convert"),
    ],
    ids=str,
)
def test_refuses_weights(weights, message):
    with pytest.raises(DataError, match=rf"(?s)^sample_weight: expected 3.*{message}"):
        check_sample_weight(weights, 3)


@pytest.mark.parametrize("given", ["balanced", {"a": 2, "c": 0.5}, {}], ids=str)
def test_equal_scikit_learns(given):
    expected = compute_sample_weight(given or None, TARGETS.classes[Y])
    np.testing.assert_allclose(class_weights(given, TARGETS, Y, None), expected)


def test_balanced_counts_weights():
    weights = np.array([1, 1, 0, 2, 2, 4.0])
    repeated = np.repeat(Y, weights.astype(int))
    expected = dict(zip(repeated, compute_sample_weight("balanced", repeated), strict=True))
    np.testing.assert_allclose(
        class_weights("balanced", TARGETS, Y, weights), [expected[y] for y in Y]
    )


def test_classes_of_any_kind():
    targets = ClassTargets(np.array([("a", 1), "b"], dtype=object))
    factors = class_weights({("a", 1): 3}, targets, np.array([0, 1, 0]), None)
    assert factors.tolist() == [3, 1, 3]


def test_labels():
    Y = np.array([[1, 0], [1, 1], [1, 0], [0, 1]], np.float32)
    np.testing.assert_allclose(
        class_weights("balanced", LabelTargets(2), Y, None),
        compute_sample_weight("balanced", Y.astype(int)),
    )
    given = [{0: 1, 1: 2}, {0: 5, 1: 1}]
    assert class_weights(given, LabelTargets(2), Y, None).tolist() == [10, 2, 10, 1]
    with pytest.raises(InvalidParameterError, match="class_weight"):
        class_weights({0: 1}, LabelTargets(2), Y, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": 1}, r"expected classes of y, \['a', 'b', 'c'\]\. Received: 'z'"),
        ([{"a": 1}], "belongs to an indicator matrix"),
        ({"a": -1, "b": 5}, r"class_weight\['a'\]: expected a number of at least 0. Received: -1"),
        ({"b": "heavy"}, r"class_weight\['b'\]: .* Received: 'heavy'"),
        ({"b": float("nan")}, "Received: nan"),
    ],
)
def test_refuses_class_weights(given, message):
    with pytest.raises(InvalidParameterError, match=message):
        class_weights(given, TARGETS, Y, None)
