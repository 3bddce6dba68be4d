"""Backbones as reusable SavedModels: what TF Hub expects of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import get_backbone
from keras_transfer.errors import OutputExistsError
from keras_transfer.persistence.reusable import export_backbone

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
PICTURES = np.random.default_rng(0).uniform(0, 1, (2, *SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def backbone():
    return tiny.settled(tiny.residual, SHAPE)  # with a layer that draws in training


def test_it_is_what_others_train_on(backbone, tmp_path):
    export_backbone(backbone, tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    model = backbone.load()
    np.testing.assert_allclose(loaded(PICTURES), model(255 * PICTURES), rtol=1e-4, atol=1e-3)
    assert len(loaded.variables) == len(model.weights)
    assert len(loaded.trainable_variables) == len(model.trainable_weights)
    assert len(loaded.regularization_losses) == 0
    before = [variable.numpy() for variable in loaded.variables]
    assert not np.allclose(loaded(PICTURES, training=True), loaded(PICTURES, training=False))
    moved = [
        variable.name
        for variable, value in zip(loaded.variables, before, strict=True)
        if not np.array_equal(variable.numpy(), value)
    ]
    assert moved
    assert all("moving" in name for name in moved)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(PICTURES) ** 2)
    assert all(grad is not None for grad in tape.gradient(loss, loaded.trainable_variables))


def test_losses_on_weights_come_along(tmp_path):
    layer = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5), name="dense")
    model = keras.Sequential([keras.Input((3,)), layer])
    export_backbone(get_backbone(model), tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    (loss,) = loaded.regularization_losses
    assert float(loss()) == pytest.approx(0.5 * np.square(layer.kernel.numpy()).sum(), rel=1e-5)


def test_vectors_come_as_they_are(tmp_path):
    backbone = tiny.settled(tiny.dense, (5,))
    export_backbone(backbone, tmp_path / "deep" / "model")
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    loaded = tf.saved_model.load(str(tmp_path / "deep" / "model"))
    np.testing.assert_allclose(loaded(vectors), backbone.load()(vectors), rtol=1e-5)


def test_what_is_there_is_replaced_only_if_asked_and_by_a_whole_one(
    backbone, tmp_path, monkeypatch
):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="pass overwrite=True"):
        export_backbone(backbone, tmp_path / "model")

    def fail(*args, **kwargs):
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(OSError, match="full"):
            export_backbone(backbone, tmp_path / "model", overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "notes.txt"]
    export_backbone(backbone, tmp_path / "model", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "notes.txt").exists()
