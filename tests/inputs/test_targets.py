"""What is read from y, and the way to the model's targets and back."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import DataConversionWarning

from keras_transfer.errors import DataError, KerasTransferWarning
from keras_transfer.inputs.targets import (
    ClassTargets,
    LabelTargets,
    NumberTargets,
    class_or_label_targets,
    find_units,
)

LABELS = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0], [1, 1, 0]])
TABLES = {
    "array": LABELS,
    "bool": LABELS.astype(bool),
    "float": LABELS.astype(float),
    "list of lists": LABELS.tolist(),
    "list of arrays": list(LABELS),
    "DataFrame": pd.DataFrame(LABELS, columns=list("abc")),
    "sparse": sparse.csr_array(LABELS),
}


@pytest.mark.parametrize("form", TABLES)
def test_an_indicator_matrix_is_labels(form):
    targets = class_or_label_targets(TABLES[form])
    assert targets == LabelTargets(3)
    encoded = targets.encode(TABLES[form])
    assert encoded.dtype == np.float32
    np.testing.assert_array_equal(encoded, LABELS)
    np.testing.assert_array_equal(targets.decode(encoded * 0.2 + 0.4), LABELS)


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b"],
        np.array([0, 1]),
        [("a", 1), ("b", 2)],
        [[0], [1]],
        pd.Series([True, False]),
        pd.Series(["a", "b"], dtype="category"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_one_label_after_the_other_is_classes(y):
    targets = class_or_label_targets(y)
    assert isinstance(targets, ClassTargets)
    assert sorted(targets.encode(y).tolist()) == [0, 1]
    assert targets.decode(np.eye(2)).tolist() == targets.classes.tolist()


def test_a_column_warns_as_in_scikit_learn():
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed") as caught:
        class_or_label_targets(np.array([["a"], ["b"]]))
    assert caught[0].filename == __file__


def test_measurements_are_no_classes():
    with pytest.raises(DataError, match=r"Unknown label type: continuous.*TransferRegressor"):
        class_or_label_targets([0.5, 1.25, 3.0])
    assert class_or_label_targets([0.0, 1.0, 2.0]).classes.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("value", "words"), [(1, "Label 1 is present in all"), (0, "Label not 1 is present in all")]
)
def test_a_constant_column_warns_in_scikit_learns_words(value, words):
    y = LABELS.copy()
    y[:, 1] = value
    with pytest.warns(KerasTransferWarning, match=words):
        class_or_label_targets(y)


def test_one_hot_rows_warn():
    with pytest.warns(KerasTransferWarning, match=r"exactly one label.*y\.argmax\(axis=1\)"):
        class_or_label_targets(np.eye(3, dtype=int))
    # Of two labels that is told by nothing: a warning would be an error here.
    assert class_or_label_targets(np.eye(2, dtype=int)) == LabelTargets(2)


MISTAKES = {
    "None": (None, "requires y to be passed, but the target y is None"),
    "two columns of classes": ([[0, 2], [1, 1]], "multiclass-multioutput is not supported"),
    "two columns of text": ([["a", "b"], ["c", "d"]], "indicator matrix of 0 and 1"),
    "NaN": ([[0, np.nan], [1, 1]], "indicator matrix of 0 and 1"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses(case):
    y, message = MISTAKES[case]
    with pytest.raises(DataError, match=message):
        class_or_label_targets(y)


def test_labels_refuse_another_number_of_columns():
    with pytest.raises(DataError, match=r"expected 3 columns, as in fit\. Received: 2"):
        LabelTargets(3).encode(LABELS[:, :2])
    with pytest.raises(DataError, match=r"as in fit\. Received: shape"):
        LabelTargets(3).encode([0, 1])
    with pytest.raises(DataError, match="at least one row"):
        LabelTargets(3).encode(LABELS[:0])


@pytest.mark.parametrize("y", [[1, 2.5, 4], np.array([[1.0, -1], [2, -2], [6, 0]])], ids=str)
def test_numbers_keep_their_shape_and_units(y):
    targets = NumberTargets.from_data(y)
    encoded = targets.encode(y)
    assert encoded.shape == (3, np.ndim(y))
    standardised = targets.standardise(encoded)
    assert standardised.dtype == np.float32
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(standardised.std(axis=0), 1, atol=1e-6)
    back = targets.decode(standardised * targets.scale + targets.mean)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, y, atol=1e-6)


def test_units_of_weighted_and_of_equal_numbers():
    mean, scale = find_units(np.array([[1.0], [2.0], [9.0]]), np.array([2.0, 1.0, 0.0]))
    repeated = np.array([1.0, 1.0, 2.0])
    assert (mean[0], scale[0]) == (pytest.approx(repeated.mean()), pytest.approx(repeated.std()))
    assert find_units(np.full((5, 1), 0.1))[1] == 1.0
    assert find_units(np.full((7, 1), 1e9 + 0.1))[1] == 1.0  # rounding grows with the numbers


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", "b"], "could not convert string to float"),
        ([1, None], "NaN|NoneType"),
        ([1, np.inf], "infinity"),
        ([], "sample"),
        (np.zeros((2, 2, 2)), r"\(n, n_outputs\)"),
        (None, "requires y to be passed"),
    ],
    ids=str,
)
def test_what_is_no_number(y, message):
    with pytest.raises(DataError, match=message):
        NumberTargets.from_data(y)


def test_numbers_refuse_another_number_of_columns():
    with pytest.raises(DataError, match="expected 2 number"):
        NumberTargets.from_data([[1, 2], [3, 4]]).encode([1, 2])


def test_numbers_come_back_from_the_scale_of_the_loss():
    y = np.array([[10.0, 500.0], [20.0, 900.0], [60.0, 100.0]])
    targets = NumberTargets.from_data(y)
    standardised = targets.standardise(targets.encode(y))
    assert standardised.dtype == np.float32
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(standardised.std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(targets.restore(standardised), y, rtol=1e-5)
    assert targets.labels(targets.encode(y)) is None


def test_classes_have_a_scale_and_labels_of_their_own():
    targets = ClassTargets.from_data(["b", "a", "b"])
    encoded = targets.encode(["b", "a"])
    assert targets.standardise(encoded) is encoded
    assert targets.units is None
    assert targets.labels(encoded).tolist() == ["b", "a"]
