"""Preprocessing in the graph: what keras.applications does to its pixels."""

import importlib

import keras
import numpy as np
import pytest

from keras_transfer.backbones.applications import FAMILIES
from keras_transfer.backbones.preprocessing import PREPROCESSING, Preprocessing, as_preprocessing
from keras_transfer.errors import InvalidTypeError, UnknownNameError


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_the_familys_own(name):
    family = FAMILIES[name]
    own = importlib.import_module(f"keras.applications.{family.module}").preprocess_input
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 5, 7, 3)).astype("float32")
    inputs = keras.Input((5, 7, 3))
    model = keras.Model(inputs, PREPROCESSING[family.preprocessing](inputs * 1.0))
    np.testing.assert_allclose(model(pixels), own(pixels.copy()), atol=2e-5)


def test_takes_names_values_and_none():
    mine = Preprocessing(2.0, 1.0)
    assert as_preprocessing(mine) is mine
    assert as_preprocessing("tf") == Preprocessing(1 / 127.5, -1.0)
    assert as_preprocessing(None) == Preprocessing()


def test_refuses_others():
    with pytest.raises(UnknownNameError, match="Did you mean 'torch'"):
        as_preprocessing("torhc")
    with pytest.raises(InvalidTypeError, match="Received: 3"):
        as_preprocessing(3)
