"""Tiny backbones and data, in one place: for tests where the backbone is not the point."""

from __future__ import annotations

import functools
import io
import os
import signal
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_transfer import get_backbone
from keras_transfer.graph.assembly import Assembly
from keras_transfer.graph.heads import Head
from keras_transfer.training import run
from keras_transfer.training.feed import Feed
from keras_transfer.training.random_state import isolated_seed

SIZE = 16


def cnn(input_shape):
    """Three convolutions with BatchNorm; no weights of a source task."""
    inputs = keras.Input(input_shape)
    x = inputs
    for number in range(3):
        x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    return keras.Model(inputs, x, name="cnn")


def residual(input_shape):
    """A stem and two residual units; with dropout inside the first."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(inputs)
    for number in range(2):
        y = keras.layers.Conv2D(4, 3, padding="same", name=f"unit{number}_conv")(x)
        y = keras.layers.BatchNormalization(name=f"unit{number}_bn")(y)
        if number == 0:
            y = keras.layers.Dropout(0.5, name="unit0_drop")(y)
        x = keras.layers.Add(name=f"unit{number}_add")([x, y])
    return keras.Model(inputs, x, name="residual")


def nested(input_shape):
    """A model that holds a sequential and a functional model."""
    inputs = keras.Input(input_shape)
    stem = keras.Sequential(
        [keras.layers.Conv2D(4, 3, padding="same"), keras.layers.BatchNormalization()], name="low"
    )
    x = stem(inputs)
    inner = keras.Input(x.shape[1:])
    y = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inner)
    x = keras.Model(inner, keras.layers.ReLU()(y), name="high")(x)
    return keras.Model(inputs, x, name="nested")


def dense(input_shape):
    """For vectors of features."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Dense(16, activation="relu", name="low"),
            keras.layers.Dense(8, activation="relu", name="high"),
        ],
        name="dense",
    )


def settled(build, input_shape, seed=0):
    """A backbone with BatchNorm statistics as a source task leaves them."""
    keras.utils.set_random_seed(seed)
    model = build(input_shape)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    return get_backbone(model)


def classifier(backbone, outputs, *, dropout=0.0, **options):
    """A model with a head for so many classes."""
    return Assembly(backbone, Head("multiclass", outputs, dropout), **options).build()


def assembly(backbone, head, seed=0, **options):
    """The graph of a model whose head has the same weights whatever is built of it."""
    with isolated_seed(seed):
        return Assembly(backbone, head, seed=seed, **options)


def pictures(n_per_class=8, classes=("circle", "square", "stripes"), size=SIZE, seed=0):
    """Pictures of three shapes, uint8 of shape (n, size, size, 3), and their labels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / (size - 1) - 0.5
    masks = {
        "circle": rows**2 + columns**2 < 0.1,
        "square": np.maximum(abs(rows), abs(columns)) < 0.3,
        "stripes": (np.arange(size) % 4 < 2)[:, None] & np.ones((1, size), bool),
    }
    X, y = [], []
    for name in classes:
        for _ in range(n_per_class):
            picture = rng.integers(0, 60, (size, size, 3))
            picture[masks[name]] += rng.integers(120, 190, 3)
            X.append(picture)
            y.append(name)
    order = rng.permutation(len(X))
    return np.array(X, np.uint8)[order], np.array(y)[order]


def encode(pixels, kind="PNG", **options):
    """A picture file's contents; of an array or a Pillow picture."""
    picture = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(folder, X, y):
    """Write pictures as PNGs into a folder for each class; returns the paths in the order of X."""
    paths = []
    for row, (pixels, label) in enumerate(zip(X, y, strict=True)):
        path = Path(folder) / str(label) / f"{row:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels))
        paths.append(str(path))
    return paths


def vectors(n_per_class=20, seed=0):
    """Two clouds of vectors, float64 of shape (n, 5), and their labels."""
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.normal(-1, 1, (n_per_class, 5)), rng.normal(1, 1, (n_per_class, 5))])
    y = np.array(["no"] * n_per_class + ["yes"] * n_per_class)
    order = rng.permutation(len(X))
    return X[order], y[order]


def striped(n=48, seed=0, size=32):
    """Pictures of stripes that lie or stand, with any shift: no pixel tells which."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    wave = (np.arange(size) // 2) % 2 * 200
    X = [np.roll(wave, rng.integers(4))[:, np.newaxis] * np.ones((1, size)) for _ in y]
    X = [picture.T if label else picture for picture, label in zip(X, y, strict=True)]
    X = np.array(X)[..., np.newaxis] + rng.integers(0, 50, (n, size, size, 3))
    return X.astype(np.uint8), y


@functools.cache
def edges():
    """A backbone that sees edges, and forgets where."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(2, (3, 3), name="edges", activation="relu"),
            keras.layers.Conv2D(2, 1, name="same", activation="relu"),
        ]
    )
    kernel = np.zeros((3, 3, 3, 2), np.float32)
    kernel[..., 0], kernel[..., 1] = (np.array([-1, 2, -1]) * np.ones((3, 1)))[..., np.newaxis], 0
    kernel[..., 1] = kernel[..., 0].transpose(1, 0, 2)
    model.layers[0].set_weights([kernel, np.zeros(2)])
    model.layers[1].set_weights([np.eye(2)[np.newaxis, np.newaxis], np.zeros(2)])
    return get_backbone(model)


def pressing(number):
    """A map of a dataset's batches that presses Ctrl-C at the one of this number."""
    read = []

    def press(x, y):
        read.append(1)
        if len(read) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return x, y

    def wired(x, y):
        inputs, targets = tf.py_function(press, (x, y), (x.dtype, y.dtype))
        return tf.ensure_shape(inputs, x.shape), tf.ensure_shape(targets, y.shape)

    return wired


def run_stages(model, blocks, stages, dataset, *, validation=None, sample=None, **options):
    """Train through stages that all read the same."""
    feeds = [Feed(dataset, validation, sample)] * len(stages)
    return run.run_stages(model, blocks, stages, feeds, **options)
