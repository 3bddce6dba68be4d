"""Recipes on datasets of one's own: what is frozen is computed in the first epoch only."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from keras_transfer import CompositeTransfer, StructureTransfer
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.graph.heads import Head
from keras_transfer.graph.nodes import graph_of_model
from keras_transfer.store.activation_store import Memory, open_store
from keras_transfer.training.lazy_network import LazyNetwork
from keras_transfer.training.stored_datasets import through_store
from keras_transfer.training.stored_outputs import StoredOutputs

pytestmark = pytest.mark.usefixtures("empty_store")

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, LABELS = tiny.pictures()
X = X.astype("float32")
Y = np.unique(LABELS, return_inverse=True)[1]


def model(task="multiclass", outputs=3):
    backbone = tiny.settled(tiny.residual, SHAPE)
    return tiny.assembly(backbone, Head(task, outputs)).build()


def dataset(shuffles=True, y=Y):
    made = tf.data.Dataset.from_tensor_slices((X, y))
    if shuffles:
        made = made.shuffle(len(X), seed=1)
    return made.batch(8)


RECIPES = {
    "exact": StructureTransfer(),
    "head": StructureTransfer(epochs=4),
    "block": StructureTransfer(1, epochs=3),
    "composite": CompositeTransfer(1, epochs=2),
    "from the input": CompositeTransfer(epochs=2),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_equal_to_the_bit_and_computed_once(recipe, computed):
    results, models = [], []
    for memory in (False, Memory(exact=True)):
        models.append(model())
        results.append(
            recipe.fit(
                models[-1],
                dataset(shuffles=False),
                validation_data=dataset(shuffles=False),
                memory=memory,
                verbose=False,
            )
        )
    for one, other in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert results[0].history["loss"] == results[1].history["loss"]
    assert results[0].score == results[1].score
    stored = {record.stored for record in results[1].records if record.stored[:3] != "not"}
    assert sum(computed) == len(stored) * len(X)
    assert {record.stored[:10] for record in results[0].records} == {"not stored"}


def test_a_shuffled_dataset_hits_too(computed):
    StructureTransfer(epochs=4).fit(model(), dataset(), verbose=False)
    assert sum(computed) == len(X)


def test_a_regression():
    models = [model("regression", 1) for _ in range(2)]
    for each, memory in zip(models, (False, Memory(exact=True)), strict=True):
        StructureTransfer().fit(each, dataset(False, Y * 10.0), memory=memory, verbose=False)
    np.testing.assert_array_equal(models[0].predict(X, verbose=0), models[1].predict(X, verbose=0))
    assert np.abs(models[0].predict(X, verbose=0)[:, 0] - Y * 10).mean() < 6


def test_a_foreign_model_with_a_head_of_its_own(computed):
    keras.utils.set_random_seed(0)
    foreign = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(4, 3, strides=2, name="low"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(6, activation="relu", name="hidden"),
            keras.layers.Dense(3, activation="softmax", name="out"),
        ]
    )
    blocks = {"low": ["low"], "head": ["hidden", "out"]}
    before = foreign.get_weights()
    result = StructureTransfer().fit(foreign, dataset(), blocks=blocks, verbose=False)
    (record,) = result.records
    assert record.stage.solver == "gradient"
    assert record.stored.startswith("stored at")
    assert sum(computed) == len(X)
    moved = [
        not np.array_equal(one, other)
        for one, other in zip(before, foreign.get_weights(), strict=True)
    ]
    assert moved == [False, False, True, True, True, True]
    with pytest.raises(ValueError, match="head_solver: expected 'auto' or 'gradient'"):
        StructureTransfer(head_solver="exact").fit(foreign, dataset(), blocks=blocks)


def test_a_subclassed_model_is_not_looked_into():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.low = keras.layers.Dense(4, name="low")
            self.out = keras.layers.Dense(3, activation="softmax", name="out")

        def call(self, inputs):
            return self.out(self.low(keras.ops.reshape(inputs, (-1, 768))))

    made = Subclassed()
    made(X[:1])
    blocks = {"low": ["low"], "head": ["out"]}
    (record,) = (
        StructureTransfer(epochs=1).fit(made, dataset(), blocks=blocks, verbose=False).records
    )
    assert "subclassed" in record.stored


def test_what_never_comes_again_is_not_kept():
    """Changes of one's own in the dataset: after an epoch and some more the store is left alone."""
    changes = dataset().map(lambda x, y: (x + tf.random.uniform(tf.shape(x)), y))
    made = model()
    memory = Memory(folder=None)
    stored = StoredOutputs(LazyNetwork(graph_of_model(made, read_blocks(made))), memory)
    read = through_store(stored, changes, stored.network.boundary().cut, n_examples=len(X))
    for _ in range(12):
        for _ in read:
            pass
    assert open_store(memory).info().rows <= 2 * len(X) + 64 + 8
    read = through_store(stored, dataset(), stored.network.boundary().cut, n_examples=len(X))
    open_store(memory).clear()
    for _ in range(12):
        for _ in read:
            pass
    assert open_store(memory).info().rows == len(X)
