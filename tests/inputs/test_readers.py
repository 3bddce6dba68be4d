"""Which reader X takes, and what all readers have in common."""

import keras
import numpy as np
import pytest

from keras_transfer import get_backbone
from keras_transfer.backbones.backbone import MODALITIES
from keras_transfer.errors import InvalidParameterError
from keras_transfer.inputs.readers import READERS, read_input


def anything(input_shape):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(2)])


ANY = get_backbone(anything)
LITE = get_backbone("EfficientNetLite0")
PICTURES = np.arange(2 * 8 * 6 * 3, dtype=np.uint8).reshape(2, 8, 6, 3)
VECTORS = np.arange(12.0).reshape(2, 6)


def test_each_modality_has_one():
    assert tuple(READERS) == MODALITIES
    for modality, reader in READERS.items():
        assert reader.modality == modality


@pytest.mark.parametrize(
    ("X", "modality"),
    [
        (VECTORS, "features"),
        (VECTORS.tolist(), "features"),
        (PICTURES, "picture"),
        (PICTURES[..., 0], "picture"),
    ],
)
def test_where_nothing_tells_the_shape_does(X, modality):
    assert read_input(X, ANY, None, None).modality == modality


def test_what_was_decided():
    reader = read_input(PICTURES, LITE, None, (32, 40))
    assert reader.shape == (32, 40, 3)
    assert reader.fitted == {"pixel_range_": (0.0, 255.0)}
    assert not reader.has_columns
    assert read_input(PICTURES, LITE, None, None).shape == (*LITE.default_shape,)
    assert read_input(PICTURES, ANY, None, None).shape == (8, 6, 3)  # as the pictures are
    features = read_input(VECTORS, ANY, None, None)
    assert (features.shape, features.fitted, features.has_columns) == ((6,), {}, True)


@pytest.mark.parametrize("reader", READERS.values())
def test_all_load_alike(reader):
    X = PICTURES if reader.modality == "picture" else VECTORS
    found = reader.for_backbone(X, ANY, None)
    loaded = found.load(X, on_error="skip", advance=lambda: None)
    assert loaded.inputs.shape == (2, *found.shape)
    assert loaded.inputs.dtype == np.float32
    assert loaded.kept.tolist() == [0, 1]
    assert loaded.skipped == ()


def test_another_modality_than_the_backbones():
    with pytest.raises(InvalidParameterError, match=r"modality: expected 'picture', which Eff"):
        read_input(VECTORS, LITE, "features", None)


def test_vectors_have_no_size():
    with pytest.raises(InvalidParameterError, match="image_size: expected None for vectors"):
        read_input(VECTORS, ANY, None, 32)
