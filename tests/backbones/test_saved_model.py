"""SavedModels as backbones: block by block, as Keras's own networks are."""

import functools
import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

import keras_transfer
from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferEncoder,
    get_backbone,
)
from keras_transfer.errors import (
    FileFormatError,
    InvalidParameterError,
    KerasTransferError,
    UnknownNameError,
    UnsafeFileError,
    WeightsNotFoundError,
)
from keras_transfer.persistence.reusable import export_backbone

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, Y = tiny.pictures(n_per_class=8)
BLOCKS = {"conv0": r"^(conv|bn)0", "conv1": r"^(conv|bn)1", "conv2": r"^(conv|bn)2"}


@functools.cache
def source():
    return tiny.settled(tiny.cnn, SHAPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reusable SavedModel of three blocks."""
    path = tmp_path_factory.mktemp("saved") / "model"
    export_backbone(source(), path)
    return path


@pytest.fixture(scope="module")
def backbone(folder):
    return get_backbone(f"hub:{folder}", blocks=BLOCKS)


def fit(backbone, recipe, **parameters):
    options = {"readout": "last", "random_state": 0, "guard": None, **parameters}
    return TransferClassifier(backbone, recipe, **options).fit(X, Y)


def test_describes_itself(folder, backbone):
    assert backbone.name == "model"
    assert backbone.input_shape == SHAPE
    assert backbone.modality == "picture"
    ours = [(block.name, block.parameters, block.batch_norm) for block in backbone.list_blocks()]
    keras_own = source().list_blocks()
    assert ours == [(block.name, block.parameters, block.batch_norm) for block in keras_own]
    assert pickle.loads(pickle.dumps(backbone)) == backbone
    assert get_backbone(f"hub:{folder}", blocks=BLOCKS) == backbone


def test_gives_the_same_features(backbone):
    ours = TransferEncoder(backbone, readout="last").fit_transform(X)
    keras_own = TransferEncoder(source(), readout="last").fit_transform(X)
    np.testing.assert_allclose(ours, keras_own, atol=1e-5 * np.abs(keras_own).max())
    exact = TransferEncoder(backbone, readout="last", memory=False).fit_transform(X)
    np.testing.assert_allclose(ours, exact, atol=1e-5 * np.abs(keras_own).max())


MODES = {
    "head": StructureTransfer(),
    "last block": StructureTransfer(1, epochs=3, learning_rate=1e-2),
    "named": StructureTransfer(["conv0"], epochs=3, learning_rate=1e-2),
    "statistics held": StructureTransfer(2, epochs=3, learning_rate=1e-2, batch_norm="frozen"),
    "composite": CompositeTransfer(epochs=3, learning_rate=1e-3),
    "parameter": ParameterTransfer(epochs=3, learning_rate=1e-3),
    "rates": CompositeTransfer(2, epochs=2, learning_rate=1e-3, layer_decay=0.5),
}


@pytest.mark.parametrize("mode", MODES)
def test_trains_as_keras_own_network_does(backbone, mode):
    ours, keras_own = fit(backbone, MODES[mode]), fit(source(), MODES[mode])
    np.testing.assert_allclose(ours.predict_proba(X), keras_own.predict_proba(X), atol=1e-4)
    for one, other in zip(ours.stages_, keras_own.stages_, strict=True):
        assert one.rows == other.rows  # counted from the SavedModel's own variables
        assert sum(map(np.prod, _shapes(ours, one.weights))) == sum(row.trained for row in one.rows)


def _shapes(clf, paths):
    by_path = {weight.path: weight.shape for weight in clf.model_.weights}
    return [by_path[path] for path in paths]


def test_what_is_frozen_stays_to_the_bit_and_what_trains_moves(backbone):
    clf = fit(backbone, StructureTransfer(["conv1"], epochs=2, learning_rate=1e-2))
    first = {weight.path: weight.numpy() for weight in backbone.load().weights}
    for weight in clf.model_.weights:
        if not weight.path.startswith("head"):
            moved = not np.array_equal(weight.numpy(), first[weight.path])
            trains = weight.path.startswith(("conv1.", "bn1.")) and "moving" not in weight.path
            assert moved == trains, weight.path


def test_statistics_follow_the_policy(backbone):
    recipe = ParameterTransfer(epochs=2, learning_rate=1e-3, batch_norm="train")
    moving = [w for w in fit(backbone, recipe).model_.weights if "moving_mean" in w.path]
    first = {weight.path: weight.numpy() for weight in backbone.load().weights}
    assert len(moving) == 3
    assert not any(np.array_equal(weight.numpy(), first[weight.path]) for weight in moving)
    one = fit(backbone, StructureTransfer(1, epochs=2, learning_rate=1e-3, batch_norm="train"))
    moved = [w.path for w in one.model_.weights if "moving" in w.path and is_other(w, first)]
    assert moved == ["bn2.moving_variance", "bn2.moving_mean"]


def is_other(weight, first):
    return not np.array_equal(weight.numpy(), first[weight.path])


class ByHand(tf.Module):
    """A kernel and a BatchNorm in one scope, and statistics of another name."""

    def __init__(self):
        super().__init__()
        self.layers = []
        for scope in ("block_1", "block_2"):
            with tf.name_scope(scope):
                kernel = np.random.default_rng(0).normal(size=(5, 5))
                gamma = tf.Variable(np.full(5, 1.5), dtype="float32", name="gamma")
                mean = tf.Variable(np.full(5, 0.1), dtype="float32", name="moving_mean")
                variance = tf.Variable(np.full(5, 2), dtype="float32", name="moving_variance")
                average = tf.Variable(np.zeros(5), False, dtype="float32", name="average")
                kernel = tf.Variable(kernel, dtype="float32", name="kernel")
                self.layers.append([kernel, gamma, mean, variance, average])

    @tf.function
    def __call__(self, x, training=False):
        for kernel, gamma, mean, variance, average in self.layers:
            x = x @ kernel
            if training:
                mean.assign_sub(0.1 * (mean - tf.reduce_mean(x, axis=0)))
                variance.assign_add(0.1 * (tf.math.reduce_variance(x, axis=0) - variance))
                average.assign(0.5 * average + 0.5 * tf.reduce_max(x, axis=0))
            x = tf.nn.relu((x - mean) * gamma * tf.math.rsqrt(variance) + average)
        return x


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("frozen", {"kernel"}),
        ("affine", {"kernel", "gamma"}),
        ("train", {"kernel", "gamma", "moving_mean", "moving_variance", "average"}),
    ],
)
def test_a_policy_is_for_statistics_whatever_they_are_called(policy, expected, tmp_path):
    module = ByHand()
    for training in (False, True):
        module.__call__.get_concrete_function(tf.TensorSpec((None, 5)), training=training)
    tf.saved_model.save(module, str(tmp_path / "model"))
    found = get_backbone(f"hub:{tmp_path / 'model'}")
    vectors, labels = tiny.vectors()
    recipe = ParameterTransfer(1, epochs=2, learning_rate=1e-2, batch_norm=policy)
    clf = TransferClassifier(found, recipe, readout="last", random_state=0, guard=None)
    clf.fit(vectors, labels)
    first = {weight.path: weight.numpy() for weight in found.load().weights}
    weights = [weight for weight in clf.model_.weights if weight.path in first]
    moved = {weight.path for weight in weights if is_other(weight, first)}
    assert moved == {f"block_2.{name}" for name in expected}


# === What there is of it ===


def test_its_own_names_tell_the_blocks(tmp_path):
    mobile = get_backbone("MobileNetV2", weights=None, input_shape=(32, 32, 3))
    export_backbone(mobile, tmp_path / "mobile")
    found = get_backbone(f"hub:{tmp_path / 'mobile'}").list_blocks()
    keras_own = mobile.list_blocks()
    assert [(b.name, b.parameters) for b in found] == [(b.name, b.parameters) for b in keras_own]


def test_where_the_names_tell_nothing_the_graph_does(folder, backbone):
    found = get_backbone(f"hub:{folder}")
    assert found.list_blocks() == backbone.list_blocks()


def test_where_nothing_tells_them_there_is_one(several):
    whole = get_backbone(f"hub:{several}", output_key="mean")
    (block,) = whole.list_blocks()
    assert (block.name, block.whole_since) == (
        "saved_model",
        "neither its graph nor its variables (Variable ...) tell more",
    )
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype("uint8")
    labels = np.arange(12) % 2
    one = {"guard": None, "random_state": 0, "readout": "last"}
    with pytest.raises(InvalidParameterError, match=r"at most 1.*There is one, since neither its"):
        TransferClassifier(whole, StructureTransfer(2), **one).fit(pictures, labels)
    with pytest.raises(UnknownNameError, match="has one, since neither its graph"):
        TransferClassifier(whole, StructureTransfer(["conv"]), **one).fit(pictures, labels)
    clf = TransferClassifier(whole, StructureTransfer(1, epochs=1), **one).fit(pictures, labels)
    assert clf.stages_[0].stage.trained == ("saved_model", "head")


class Tied(tf.Module):
    """The weights of the first block are those of the last."""

    def __init__(self):
        super().__init__()
        self.one = tf.Variable(np.eye(5), dtype="float32", name="layer_1/kernel")
        self.two = tf.Variable(np.eye(5), dtype="float32", name="layer_2/kernel")

    @tf.function(input_signature=[tf.TensorSpec((None, 5))])
    def __call__(self, inputs):
        return tf.nn.relu(inputs @ self.one) @ self.two @ self.one


def test_what_cannot_be_cut_is_one_block_unless_blocks_are_asked_for(tmp_path):
    tf.saved_model.save(Tied(), str(tmp_path / "model"))
    (block,) = get_backbone(f"hub:{tmp_path / 'model'}").list_blocks()
    assert block.whole_since == "layer_1/kernel:0 is used by several blocks"
    with pytest.raises(
        InvalidParameterError, match=r"layer_1, layer_2, which cannot be told apart"
    ):
        get_backbone(f"hub:{tmp_path / 'model'}", blocks=((r"(layer_\d)", r"\1"),))


def test_any_block_can_be_read(backbone):
    for readout in ("conv1", "auto"):
        ours = fit(backbone, StructureTransfer(), readout=readout)
        keras_own = fit(source(), StructureTransfer(), readout=readout)
        assert ours.stages_[0].rows == keras_own.stages_[0].rows
        np.testing.assert_allclose(ours.predict_proba(X), keras_own.predict_proba(X), atol=1e-4)


def test_what_is_frozen_below_a_block_that_trains_is_computed_once(backbone, empty_store, computed):
    fit(backbone, StructureTransfer(1, epochs=4, learning_rate=1e-3), validation=None)
    kept = list(computed)
    computed.clear()
    fit(source(), StructureTransfer(1, epochs=4, learning_rate=1e-3), validation=None)
    assert kept == computed
    assert kept


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What model.export() writes: signatures, and an object that cannot be called."""
    path = tmp_path_factory.mktemp("exported") / "model"
    source().load().export(path, verbose=False)
    return path


def test_of_model_export(exported, backbone):
    found = get_backbone(f"hub:{exported}", pixel_range=(0, 255), blocks=BLOCKS)
    ours = TransferEncoder(found, readout="last").fit_transform(X)
    np.testing.assert_allclose(
        ours, TransferEncoder(backbone, readout="last").fit_transform(X), rtol=1e-4, atol=1e-5
    )
    by_name = get_backbone(f"hub:{exported}", signature="serve", pixel_range=(0, 255))
    np.testing.assert_array_equal(TransferEncoder(by_name, readout="last").fit_transform(X), ours)


def test_statistics_that_cannot_move_are_not_said_to(exported):
    found = get_backbone(f"hub:{exported}", pixel_range=(0, 255))
    with pytest.raises(InvalidParameterError, match=r"no function of training.*block 'conv2'"):
        fit(found, ParameterTransfer(1, epochs=1, batch_norm="train"))


def test_an_archive(folder, backbone, tmp_path):
    path = tmp_path / "model.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "inside/model")
    assert get_backbone(f"hub:{path}", blocks=BLOCKS).source == backbone.source


class Several(tf.Module):
    """Two outputs, one of them a map, for batches of three pictures of whole numbers."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(3, 4)), dtype="float32")

    @tf.function(input_signature=[tf.TensorSpec((3, 8, 8, 3), tf.uint8)])
    def __call__(self, pictures):
        maps = tf.cast(pictures, tf.float32) @ self.kernel
        return {"map": maps, "mean": tf.reduce_mean(maps, axis=(1, 2))}


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    path = tmp_path_factory.mktemp("several")
    tf.saved_model.save(Several(), str(path))
    return path


@pytest.mark.parametrize("key", ["map", "mean"])
def test_a_fixed_batch_size_and_whole_numbers(several, key):
    pictures = np.random.default_rng(1).integers(0, 256, (7, 8, 8, 3))  # no multiple of three
    found = get_backbone(f"hub:{several}", output_key=key)
    ours = TransferEncoder(found, readout="last").fit_transform(pictures)
    expected = (pictures.astype("float32") @ Several().kernel.numpy()).mean(axis=(1, 2))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert found.list_blocks()[0].parameters == 12


class Regularised(tf.Module):
    """Vectors in, with dropout in training and a loss on its weights."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.eye(5), dtype="float32", name="layer_1/kernel")
        self.second = tf.Variable(np.eye(5), dtype="float32", name="layer_2/kernel")
        self.regularization_losses = [self.loss]

    @tf.function(input_signature=[])
    def loss(self):
        return tf.reduce_sum(self.kernel**2)

    @tf.function
    def __call__(self, inputs, training=False):
        if training:
            inputs = inputs * 0.0
        return inputs @ self.kernel @ self.second


def test_training_and_losses_are_passed_on_where_all_of_it_trains(tmp_path):
    module = Regularised()
    for training in (False, True):
        module.__call__.get_concrete_function(tf.TensorSpec((None, 5)), training=training)
    tf.saved_model.save(module, str(tmp_path / "vectors"))
    found = get_backbone(f"hub:{tmp_path / 'vectors'}")
    assert [block.name for block in found.list_blocks()] == ["layer_1", "layer_2"]
    vectors, labels = tiny.vectors()

    def losses(train_blocks):
        recipe = ParameterTransfer(train_blocks, epochs=1, learning_rate=1e-9, optimizer="sgd")
        clf = TransferClassifier(found, recipe, random_state=0, guard=None, validation=0.5)
        return clf.fit(vectors, labels).history_

    whole, part = losses("all"), losses(1)
    # In training the inputs are zeros, of which the head makes ln 2; the loss on the weights is 5.
    assert whole["loss"][0] == pytest.approx(np.log(2) + 5, abs=1e-3)
    assert part["loss"][0] != pytest.approx(np.log(2), abs=1e-3)
    assert part["loss"][0] < 4


class Recurrent(tf.Module):
    """Numbers that a table renames, rows of an embedding, a loop over them, and dropout."""

    def __init__(self):
        super().__init__()
        draw = np.random.default_rng(0).normal
        keys = tf.range(8, dtype=tf.int64)
        initial = tf.lookup.KeyValueTensorInitializer(keys, 7 - keys)
        self.table = tf.lookup.StaticHashTable(initial, 0)
        self.rows = tf.Variable(draw(size=(8, 6)), dtype="float32", name="layer_1/rows")
        self.cell = tf.Variable(draw(size=(6, 6)) / 3, dtype="float32", name="layer_2/cell")
        self.kernel = tf.Variable(draw(size=(6, 6)), dtype="float32", name="layer_3/kernel")

    @tf.function(autograph=False)
    def __call__(self, inputs, training=False):
        numbers = self.table.lookup(tf.cast(tf.abs(inputs * 3) % 8, tf.int64))
        steps = tf.gather(self.rows, numbers)

        def step(number, state):
            return number + 1, tf.tanh(steps[:, number] + state @ self.cell)

        state = tf.zeros_like(steps[:, 0])
        _, state = tf.while_loop(lambda number, _: number < 5, step, (0, state))
        if training:
            state = tf.nn.dropout(state, 0.5)
        return tf.nn.relu(state @ self.kernel)


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    path = tmp_path_factory.mktemp("recurrent") / "model"
    module = Recurrent()
    for training in (False, True):
        module.__call__.get_concrete_function(tf.TensorSpec((None, 5)), training=training)
    tf.saved_model.save(module, str(path))
    return get_backbone(f"hub:{path}"), module


def test_tables_loops_and_embeddings_are_cut_as_all_else(recurrent, tmp_path):
    found, module = recurrent
    assert [block.name for block in found.list_blocks()] == ["layer_1", "layer_2", "layer_3"]
    vectors, labels = tiny.vectors()
    ours = TransferEncoder(found, readout="last").fit_transform(vectors)
    np.testing.assert_allclose(ours, module(tf.constant(vectors, "float32")), atol=1e-5)
    first = {weight.path: weight.numpy() for weight in found.load().weights}
    for train_blocks, moved in ((1, {"layer_3"}), (2, {"layer_2", "layer_3"}), ("all", None)):
        recipe = ParameterTransfer(train_blocks, epochs=2, learning_rate=1e-2)
        clf = TransferClassifier(found, recipe, readout="last", random_state=0, guard=None)
        clf.fit(vectors, labels)
        weights = [weight for weight in clf.model_.weights if weight.path in first]
        changed = {w.path.partition(".")[0] for w in weights if is_other(w, first)}
        assert changed == (moved or {"layer_1", "layer_2", "layer_3"})
    clf.save(tmp_path / "clf.keras_transfer")
    again = keras_transfer.load(tmp_path / "clf.keras_transfer", trusted=True)
    np.testing.assert_array_equal(again.predict_proba(vectors), clf.predict_proba(vectors))
    clf.model_.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    served = served.serve(vectors.astype("float32"))
    np.testing.assert_allclose(served, clf.predict_proba(vectors), atol=1e-5)


def test_its_dropout_follows_what_trains_and_the_seed(recurrent):
    vectors, labels = tiny.vectors()

    def losses(train_blocks, seed):
        recipe = ParameterTransfer(train_blocks, epochs=2, learning_rate=1e-9, optimizer="sgd")
        clf = TransferClassifier(
            recurrent[0], recipe, readout="last", random_state=seed, guard=None, validation=0.5
        )
        return clf.fit(vectors, labels).history_["loss"]

    # The second block ends in it.
    assert losses(2, 0) == losses(2, 0)
    assert losses(2, 0)[0] != losses(2, 0)[1]
    assert losses(1, 0)[0] == pytest.approx(losses(1, 0)[1], rel=1e-5)


def test_random_layers_of_keras_train_and_draw_anew(tmp_path):
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, name="dense_1"),
            layers.Dropout(0.5),
            layers.Dense(6, name="dense_2"),
            layers.GaussianNoise(0.5),
        ]
    )
    export_backbone(get_backbone(network), tmp_path / "model")
    model = get_backbone(f"hub:{tmp_path / 'model'}").load()
    vectors = np.ones((6, 5), "float32")
    one, other = (model(vectors, training=True).numpy() for _ in range(2))
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(model(vectors), model(vectors))
    X, y = tiny.vectors()
    found = get_backbone(f"hub:{tmp_path / 'model'}")
    recipe = ParameterTransfer(1, epochs=2, learning_rate=1e-3)
    fits = [
        TransferClassifier(found, recipe, readout="last", random_state=0, guard=None).fit(X, y)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*(clf.predict_proba(X) for clf in fits))


class Reversed(tf.Module):
    """Has a gradient of its own, of a swish."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.eye(5), dtype="float32", name="layer_1/kernel")

    @tf.function(input_signature=[tf.TensorSpec((None, 5))], autograph=False)
    def __call__(self, inputs):
        return tf.nn.silu(inputs @ self.kernel)


@pytest.mark.parametrize("is_saved", [True, False])
def test_gradients_are_those_of_what_it_computes(is_saved, tmp_path):
    module = Reversed()
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=is_saved)
    tf.saved_model.save(module, str(tmp_path / "model"), options=options)
    model = get_backbone(f"hub:{tmp_path / 'model'}").load()
    x = tf.random.stateless_normal((4, 5), (0, 0))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x, training=True) ** 2)
    ours = tape.gradient(loss, model.trainable_weights[0].value)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(module(x) ** 2)
    np.testing.assert_allclose(ours, tape.gradient(loss, module.kernel), rtol=1e-5)


def test_under_a_strategy_as_without(backbone, tmp_path):
    np.savez(tmp_path / "data.npz", X=X.astype("float32"), Y=np.unique(Y, return_inverse=True)[1])
    (tmp_path / "backbone.pickle").write_bytes(pickle.dumps(backbone))
    code = """
import pickle, numpy as np, tensorflow as tf, keras
from keras_transfer import ParameterTransfer

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
backbone = pickle.load(open("backbone.pickle", "rb"))
data = np.load("data.npz")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
found = []
for scope in (strategy.scope(), tf.device("CPU:0")):
    keras.utils.set_random_seed(0)
    with scope:
        model = ParameterTransfer(batch_norm="train").build(backbone, 3)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    first = [weight.numpy() for weight in model.weights]
    model.fit(data["X"], data["Y"], batch_size=len(data["Y"]), epochs=3, shuffle=False, verbose=0)
    moved = [w.path for w, a in zip(model.weights, first) if not np.array_equal(w.numpy(), a)]
    found.append((moved, model.predict(data["X"], verbose=0)))
assert found[0][0] == found[1][0] and any("moving" in path for path in found[0][0]), found[0][0]
print(abs(found[0][1] - found[1][1]).max())
"""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True
    )
    # Each replica normalises its half of the batch, so that they differ, but no more than that.
    assert float(run.stdout) < 0.05


# === After the folder is gone ===


def test_travels_in_the_file_and_asks_to_be_trusted(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    found = get_backbone(f"hub:{tmp_path / 'model'}", blocks=BLOCKS)
    clf = fit(found, StructureTransfer(1, epochs=2, learning_rate=1e-2))
    expected = clf.predict_proba(X)
    clf.save(tmp_path / "clf.keras_transfer")
    np.save(tmp_path / "X.npy", X)
    (tmp_path / "clf.pickle").write_bytes(pickle.dumps(clf))
    clf.model_.export(tmp_path / "served", verbose=False)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(UnsafeFileError, match=r"clf\.keras_transfer: .*trusted=True"):
        keras_transfer.load(tmp_path / "clf.keras_transfer")
    code = """
import pickle, sys
import numpy as np, keras_transfer
X = np.load("X.npy")
for clf in (
    pickle.loads(open("clf.pickle", "rb").read()),
    keras_transfer.load("clf.keras_transfer", trusted=True),
):
    np.save(sys.argv[1], clf.predict_proba(X))
    assert [block.name for block in clf.backbone_.list_blocks()] == ["conv0", "conv1", "conv2"]
    assert (clf.fit(X, np.arange(len(X)) % 3).predict_proba(X) != 0).any()
"""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code, "out.npy"], cwd=tmp_path, env=env, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(X.astype("float32")), expected, atol=1e-5)


def test_a_fitted_estimator_is_a_source_again(backbone):
    clf = fit(backbone, StructureTransfer(1, epochs=2, learning_rate=1e-2))
    again = get_backbone(clf)
    assert [block.name for block in again.list_blocks()] == ["conv0", "conv1", "conv2"]
    tuned = TransferEncoder(again, readout="last").fit_transform(X)
    kernel, bias = clf.model_.get_layer("head.logits").get_weights()
    np.testing.assert_allclose(tuned @ kernel + bias, clf.decision_function(X), atol=1e-3)


def test_a_keras_file_of_it_is_a_program_too(backbone, tmp_path):
    model = StructureTransfer().build(backbone, 3)
    model.save(tmp_path / "model.keras")
    with pytest.raises(UnsafeFileError, match="which is a program"):
        keras.models.load_model(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    pictures = X.astype("float32")
    np.testing.assert_array_equal(again(pictures), model(pictures))


# === What is none ===


class TwoInputs(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 3)), tf.TensorSpec((None, 3))])
    def __call__(self, one, other):
        return one + other


class Writes(tf.Module):
    def __init__(self):
        super().__init__()
        self.mean = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 3))])
    def __call__(self, x):
        self.mean.assign(2.0)
        self.mean.assign(3.0)
        return x * self.mean


class Constant(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 3))])
    def __call__(self, x):
        return tf.zeros((4, 4))


class Strings(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def __call__(self, texts):
        return tf.strings.length(texts)[:, tf.newaxis]


class Sequences(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 5, 2))])
    def __call__(self, steps):
        return steps


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (TwoInputs, "a function of one tensor"),
        (Writes, r"which is none, since it writes Variable:0 twice"),
        (Constant, "since its output does not depend on"),
        (Strings, "which reads strings"),
        (Sequences, r"which reads inputs of shape \(5, 2\)"),
        (tf.Module, "with neither"),
    ],
)
def test_what_it_cannot_read(module, message, tmp_path):
    tf.saved_model.save(module(), str(tmp_path / "model"))
    with pytest.raises(InvalidParameterError, match=message):
        get_backbone(f"hub:{tmp_path / 'model'}")


MISTAKES = {
    "no folder": ({}, "nowhere", WeightsNotFoundError, "the folder of a SavedModel"),
    "nothing": ({}, "", WeightsNotFoundError, "Received: none"),
    "another signature": (
        {"signature": "serving"},
        None,
        UnknownNameError,
        "signature.*Expected one of: serve, serving_default",
    ),
    "another key": ({"output_key": "features"}, None, UnknownNameError, r"output_0 \(None, 2"),
    "a pattern of nothing": (
        {"blocks": {"low": "^dense"}},
        None,
        InvalidParameterError,
        "matches no variable. Their scopes: conv0, bn0",
    ),
    "no range": ({"pixel_range": (1, 0)}, None, InvalidParameterError, "black, white"),
    "one number": ({"pixel_range": (1,)}, None, InvalidParameterError, "black, white"),
    "words": ({"pixel_range": ("a", "b")}, None, InvalidParameterError, "black, white"),
    "the head's name": (
        {"blocks": {"head": "^conv"}},
        None,
        InvalidParameterError,
        "a block name without .* Received 'head'",
    ),
    "another size": ({"input_shape": (32, 32, 3)}, None, InvalidParameterError, "is fixed to"),
    "preprocessing": (
        {"preprocessing": "tf"},
        None,
        InvalidParameterError,
        "Set pixel_range for other",
    ),
    "weights": ({"weights": None}, None, InvalidParameterError, "brings its weights"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses(case, exported):
    options, path, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        get_backbone(f"hub:{exported if path is None else path}", **options)


def test_a_key_must_be_chosen(several):
    with pytest.raises(InvalidParameterError, match=r"map \(3, 8, 8, 4\), mean \(3, 4\)"):
        get_backbone(f"hub:{several}")


def test_options_of_a_saved_model_belong_to_one():
    with pytest.raises(InvalidParameterError, match=r"signature belong\(s\) to SavedModels"):
        get_backbone("MobileNetV2", signature="serve")


def test_refuses_folders_that_hold_none(tmp_path, folder):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(FileFormatError, match=r"a folder with saved_model\.pb.*notes\.txt"):
        get_backbone(f"hub:{tmp_path}")
    (tmp_path / "tfhub_module.pb").write_bytes(b"")
    with pytest.raises(FileFormatError, match="a module of TF1 Hub"):
        get_backbone(f"hub:{tmp_path}")
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"not a proto")
    with pytest.raises(FileFormatError, match=r"that TensorFlow 2\..* loads"):
        get_backbone(f"hub:{tmp_path / 'broken'}")


def test_an_archive_cannot_write_elsewhere(tmp_path):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("../outside.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(FileFormatError, match="whose files all lie within it"):
        get_backbone(f"hub:{path}")
    assert not (tmp_path / "outside.txt").exists()
    (tmp_path / "short.tar.gz").write_bytes(path.read_bytes()[:20])
    with pytest.raises(FileFormatError, match="an archive of a SavedModel"):
        get_backbone(f"hub:{tmp_path / 'short.tar.gz'}")


def test_without_a_network_the_message_names_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(WeightsNotFoundError, match=r"Its cache is .*cache.*download the archive"):
        get_backbone("hub:https://localhost:9/nowhere/1")


def test_a_cached_handle_needs_no_network(folder, backbone, tmp_path, monkeypatch):
    handle = "https://localhost:9/someone/model/1"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    # Where TensorFlow Hub looks first, in the form that it asks for.
    asked = f"{handle}?tf-hub-format=compressed"
    shutil.copytree(folder, tmp_path / hashlib.sha1(handle.encode()).hexdigest())
    shutil.copytree(folder, tmp_path / hashlib.sha1(asked.encode()).hexdigest())
    assert get_backbone(f"hub:{handle}", blocks=BLOCKS).source == backbone.source


def test_refuses_what_has_nothing_to_train(tmp_path):
    frozen = tf.Module()
    frozen.kernel = tf.Variable(np.eye(5), dtype="float32", trainable=False)
    frozen.__call__ = tf.function(
        lambda x: x @ frozen.kernel, input_signature=[tf.TensorSpec((None, 5))]
    )
    tf.saved_model.save(frozen, str(tmp_path / "frozen"))
    found = get_backbone(f"hub:{tmp_path / 'frozen'}")
    vectors, labels = tiny.vectors()
    fit_on = functools.partial(TransferClassifier, found, random_state=0, guard=None)
    assert fit_on(StructureTransfer()).fit(vectors, labels).score(vectors, labels) > 0.8
    with pytest.raises(KerasTransferError, match=r"saved_model, of a SavedModel that has nothing"):
        fit_on(StructureTransfer(1, epochs=1)).fit(vectors, labels)
