"""Vectors of features on their way to the model."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from keras_transfer.errors import DataError, InvalidTypeError
from keras_transfer.inputs.features import FeatureInput

X = np.random.default_rng(0).normal(size=(6, 4))

ACCEPTED = {
    "float64": X,
    "float32": X.astype(np.float32),
    "float16": X.astype(np.float16),
    "int": (X * 10).astype(int),
    "uint8": (X * 10).astype(np.uint8),
    "bool": X > 0,
    "list": X.tolist(),
    "DataFrame": pd.DataFrame(X, columns=list("abcd")),
    "Fortran order": np.asfortranarray(X),
    "every second": np.repeat(X, 2, axis=0)[::2],
    "one row": X[:1],
    "one feature": X[:, :1],
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED)
def test_numbers_come_through_as_float32(data):
    reader = FeatureInput.from_data(data)
    prepared = reader.load(data).inputs
    assert prepared.dtype == np.float32
    assert reader.shape == (reader.n_features,) == prepared.shape[1:]
    np.testing.assert_array_equal(prepared, np.asarray(data).astype(np.float32))


def test_the_input_is_not_touched():
    data = X.astype(np.float32)
    data.flags.writeable = False
    prepared = FeatureInput(4).load(data).inputs
    prepared[:] = 0
    np.testing.assert_array_equal(data, X.astype(np.float32))


NO_FEATURES = {
    "one axis": (np.zeros(4), "Expected 2D array, got 1D array instead"),
    "pictures": (np.zeros((2, 3, 3)), "Found array with dim 3"),
    "a number": (1.0, "Expected 2D array, got scalar array instead"),
    "None": (None, "Expected 2D array, got scalar array instead"),
    "strings": ([["a", "b"]], "could not convert string to float"),
    "objects": (np.array([[1, "a"]], object), "could not convert string to float"),
    "mixed DataFrame": (pd.DataFrame({"a": [1], "b": ["x"]}), "could not convert string to float"),
    "complex": (np.zeros((2, 2), complex), "Complex data not supported"),
    "no rows": (np.zeros((0, 4)), r"0 sample\(s\)"),
    "no features": (np.zeros((3, 0)), r"0 feature\(s\)"),
    "an empty list": ([], "Expected 2D array"),
    "ragged": ([[1.0, 2.0], [3.0]], "inhomogeneous"),
}


@pytest.mark.parametrize(("data", "message"), NO_FEATURES.values(), ids=NO_FEATURES)
def test_what_is_no_table_of_numbers(data, message):
    with pytest.raises(DataError, match=rf"(?s)^X: .*{message}"):
        FeatureInput.from_data(data)
    with pytest.raises(DataError, match=rf"(?s)^X: .*{message}"):
        FeatureInput(4).load(data)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39], ids=str)
def test_values_that_no_float32_holds_name_their_row(bad):
    data = X.copy()
    data[3, 1] = data[5, 0] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of the cast
        with pytest.raises(DataError, match=r"X: expected finite.*row 3"):
            FeatureInput.from_data(data)
        with pytest.raises(DataError, match=r"X: expected finite.*row 3"):
            FeatureInput(4).load(data)


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.coo_matrix])
def test_sparse_data(make):
    with pytest.raises(InvalidTypeError, match=r"^X: .*[Ss]parse data was passed.*toarray"):
        FeatureInput.from_data(make(X))
