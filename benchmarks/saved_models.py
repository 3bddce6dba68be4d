"""SavedModels in Keras 3: what hub.KerasLayer, TFSMLayer and keras_transfer do with the same six.

    python benchmarks/saved_models.py [--seeds 3] [--parts peers cost] [--foreign FOLDER] [--quick]

The first table: each cell is tried, in a process of its own for each SavedModel, and says "yes" or
the shortest reason why not. Each peer is used as its documentation says, at its best:
hub.KerasLayer inside a Keras 3 model, TFSMLayer with the endpoint that the SavedModel has and
safe_mode=False.
The second: EfficientNet-Lite0 as a SavedModel against the same network of Keras's own layers, on
OpenMoji at 64 px, ten pictures per class: accuracy after each mode, and seconds per epoch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import keras
import numpy as np
import tensorflow as tf

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferEncoder,
    export_backbone,
    get_backbone,
)

TASKS = ("loads", "computes the same", "trains", "freezes per block", "BatchNorm as told")
FILES = ("saves, reloads without the folder", "exports")
SIZE = 64
N_ROWS = 24


# === The six SavedModels ===


def reusable(folder):
    """EfficientNet-Lite0 with ImageNet weights, as TF Hub publishes networks."""
    export_backbone(get_backbone("EfficientNetLite0", input_shape=(SIZE, SIZE, 3)), folder)


def exported(folder):
    """MobileNetV2 as Keras exports it: signatures, and nothing that can be called."""
    shape = (SIZE, SIZE, 3)
    network = keras.applications.MobileNetV2(
        shape, 0.35, include_top=False, weights=None, pooling="avg"
    )
    network.export(folder, verbose=False)


class Blocks(tf.Module):
    """Two convolutions with BatchNorm by hand, in scopes of their own."""

    def __init__(self):
        super().__init__()
        self.layers = []
        for number, channels in enumerate((3, 8), start=1):
            with tf.name_scope(f"block_{number}"):
                draw = np.random.default_rng(number).normal(size=(3, 3, channels, 8)) / 5
                self.layers.append(
                    [
                        tf.Variable(draw, dtype="float32", name="kernel"),
                        tf.Variable(tf.ones(8), name="gamma"),
                        tf.Variable(tf.zeros(8), name="beta"),
                        tf.Variable(tf.zeros(8), trainable=False, name="moving_mean"),
                        tf.Variable(tf.ones(8), trainable=False, name="moving_variance"),
                    ]
                )

    @tf.function
    def __call__(self, inputs, training=False):
        for kernel, gamma, beta, mean, variance in self.layers:
            inputs = tf.nn.conv2d(inputs, kernel, 2, "SAME")
            now = tf.nn.moments(inputs, axes=[0, 1, 2]) if training else (mean, variance)
            if training:
                mean.assign_sub(0.1 * (mean - now[0]))
                variance.assign_sub(0.1 * (variance - now[1]))
            inputs = tf.nn.relu(tf.nn.batch_normalization(inputs, *now, beta, gamma, 1e-3))
        return inputs


def by_hand(folder):
    """A tf.Module that somebody wrote."""
    module = Blocks()
    spec = tf.TensorSpec((None, SIZE, SIZE, 3))
    for training in (False, True):
        module.__call__.get_concrete_function(spec, training=training)
    tf.saved_model.save(module, folder)


def two_outputs(folder):
    """A signature alone, with two outputs."""
    module = Blocks()

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3))])
    def serve(inputs):
        maps = module(inputs)
        return {"maps": maps, "mean": tf.reduce_mean(maps, axis=(1, 2))}

    holder = tf.train.Checkpoint(layers=module.layers)  # which cannot be called
    tf.saved_model.save(holder, folder, signatures={"serving_default": serve})


def fixed_batch(folder):
    """A reusable one that takes four pictures at once."""
    module = Blocks()
    module.__call__.get_concrete_function(tf.TensorSpec((4, SIZE, SIZE, 3)), training=False)
    tf.saved_model.save(module, folder)


def vectors(folder):
    """A reusable one of vectors, of Keras's layers."""
    layers = [keras.layers.Dense(16, "relu", name=f"dense_{number}") for number in (1, 2)]
    network = keras.Sequential([keras.Input((7,)), *layers])
    export_backbone(get_backbone(network), folder)


PICTURE = (SIZE, SIZE, 3)
# How each is made, which output is read, what goes in, whether there is a BatchNorm in it.
SIX = {
    "EfficientNet-Lite0, reusable": (reusable, None, PICTURE, True),
    "MobileNetV2, model.export()": (exported, None, PICTURE, True),
    "tf.Module with BatchNorm": (by_hand, None, PICTURE, True),
    "signature with two outputs": (two_outputs, "mean", PICTURE, True),
    "batches of four": (fixed_batch, None, PICTURE, True),
    "vectors": (vectors, None, (7,), False),
}


# === What is asked of each ===


class Missing(Exception):
    """What a peer does not do, in few words."""


def data(shape):
    """Three classes; pictures of 0..1, as TF Hub has them."""
    labels = np.arange(N_ROWS) % 3
    X = np.random.default_rng(0).random((N_ROWS, *shape)) * 0.5
    return (X + labels.reshape(-1, *[1] * len(shape)) * 0.2).astype("float32"), labels


def plain(folder, X, output_key):
    """What TensorFlow itself computes with the SavedModel."""
    loaded = tf.saved_model.load(folder)
    if getattr(getattr(loaded, "__call__", None), "concrete_functions", ()):  # noqa: B004
        batches = [loaded(X[at : at + 4], training=False) for at in range(0, len(X), 4)]
    else:
        outputs = loaded.signatures["serving_default"](tf.constant(X))
        batches = [outputs[output_key or next(iter(outputs))]]
    return np.concatenate(batches)


class HubLayer:
    """hub.KerasLayer in a Keras 3 model."""

    def __init__(self, folder, shape, output_key):
        import tensorflow_hub

        options = {}
        loaded = tf.saved_model.load(folder)
        if not getattr(getattr(loaded, "__call__", None), "concrete_functions", ()):  # noqa: B004
            keys = loaded.signatures["serving_default"].structured_outputs
            options = {"signature": "serving_default", "output_key": output_key or next(iter(keys))}
        self.layer = tensorflow_hub.KerasLayer(folder, trainable=True, **options)
        self.shape = shape

    def features(self, X):
        return self.network().predict(X, batch_size=4, verbose=0)

    def network(self, head=()):
        inputs = keras.Input(self.shape)
        outputs = self.layer(inputs)
        for layer in head:
            outputs = layer(outputs)
        return keras.Model(inputs, outputs)

    def fit(self, X, y, trained="all", batch_norm="frozen"):
        self.freeze(trained)
        if batch_norm == "train" and not self.can_move():
            raise Missing("statistics never move")
        pooling = [keras.layers.GlobalAveragePooling2D()] if self.rank() == 4 else []
        self.model = self.network([*pooling, keras.layers.Dense(3, "softmax")])
        # Adam fails on the names that TFSMLayer gives its variables ("kernel:0").
        optimizer = keras.optimizers.SGD(0.05)
        self.model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        before = self.weights()
        self.model.fit(X, y, batch_size=4, epochs=2, verbose=0)
        after = self.weights()
        return [name for name in before if not np.array_equal(before[name], after[name])]

    def rank(self):
        return len(self.network().output.shape)

    def weights(self):
        return {
            f"{number} {weight.name}": weight.numpy()
            for number, weight in enumerate(self.layer.weights)
        }

    def can_move(self):
        return True

    def freeze(self, trained):
        if trained == "last":
            raise Missing("the layer trains as one")

    def predict(self, X):
        return self.model.predict(X, batch_size=4, verbose=0)

    def save(self, path):
        self.model.save(f"{path}.keras")

    def export(self, path):
        self.model.export(path, verbose=False)


class TFSM(HubLayer):
    """keras.layers.TFSMLayer, with the endpoint that there is."""

    def __init__(self, folder, shape, output_key):
        loaded = tf.saved_model.load(folder)
        endpoint = "serving_default" if loaded.signatures else "__call__"
        self.layer = keras.layers.TFSMLayer(folder, call_endpoint=endpoint)
        self.shape, self.output_key = shape, output_key

    def network(self, head=()):
        inputs = keras.Input(self.shape)
        outputs = self.layer(inputs)
        if isinstance(outputs, dict):
            outputs = outputs[self.output_key or next(iter(outputs))]
        for layer in head:
            outputs = layer(outputs)
        return keras.Model(inputs, outputs)

    def can_move(self):
        return False  # it passes training on to no function, unless there are two endpoints

    def freeze(self, trained):
        if trained == "last":  # what its documentation leaves: flags of variables
            for weight in self.layer.trainable_weights[:-2]:
                weight.trainable = False


class Ours:
    """keras_transfer."""

    def __init__(self, folder, shape, output_key):
        self.backbone = get_backbone(f"hub:{folder}", output_key=output_key, pixel_range=None)
        # Pictures are given as they are in Keras: 0..255.
        self.scale = 255 if len(shape) == 3 else 1

    def features(self, X):
        return self.backbone.load().predict(X, verbose=0)

    def fit(self, X, y, trained="all", batch_norm="frozen"):
        blocks = self.backbone.list_blocks()
        if trained == "last" and len(blocks) == 1:
            raise Missing(f"one block, since {blocks[0].whole_since[:40]}")
        first = {weight.path: weight.numpy() for weight in self.backbone.load().weights}
        recipe = ParameterTransfer(
            "all" if trained == "all" else 1, epochs=2, learning_rate=1e-3, batch_norm=batch_norm
        )
        self.clf = TransferClassifier(
            self.backbone, recipe, readout="last", guard=None, random_state=0, batch_size=4
        ).fit(X * self.scale, y)
        weights = [weight for weight in self.clf.model_.weights if weight.path in first]
        return [w.path for w in weights if not np.array_equal(w.numpy(), first[w.path])]

    def can_move(self):
        return True

    def weights(self):
        return {weight.path: weight.numpy() for weight in self.backbone.load().weights}

    def predict(self, X):
        return self.clf.predict_proba(X * self.scale)

    def save(self, path):
        self.clf.save(f"{path}.keras_transfer")

    def export(self, path):
        self.clf.model_.export(path, verbose=False)


PEERS = {"hub.KerasLayer": HubLayer, "TFSMLayer": TFSM, "keras_transfer": Ours}
RELOAD = """
import sys, numpy as np
X = np.load("X.npy")
if sys.argv[1] == "keras_transfer":
    import keras_transfer
    clf = keras_transfer.load("saved.keras_transfer", trusted=True)
    made = clf.predict_proba(X * float(sys.argv[2]))
else:
    import keras
    model = keras.models.load_model("saved.keras", safe_mode=False)
    made = model.predict(X, batch_size=4, verbose=0)
np.save("made.npy", made)
"""


def try_all(peer, name):
    """Return what one peer does with one SavedModel, task by task."""
    with tempfile.TemporaryDirectory() as work:
        return _try_all(peer, name, Path(work))


def _try_all(peer, name, work):
    if name in SIX:
        make, output_key, shape, has_norm = SIX[name]
        make(str(work / "model"))
    else:
        output_key, has_norm = None, False
        shape = get_backbone(f"hub:{name}").resolve_shape()
        shutil.copytree(name, work / "model")
    folder = str(work / "model")
    X, y = data(shape)
    found = {}

    def attempt(task, work_of):
        try:
            reason = work_of()
        except Exception as error:  # whatever a peer raises is its answer
            said = str(error).strip().splitlines()[0] if str(error).strip() else ""
            kind = "" if isinstance(error, Missing) else f"{type(error).__name__}: "
            reason = f"{kind}{said[:60]}"
        found[task] = f"no: {reason}" if reason else "yes"

    made = {}

    def loads():
        made["peer"] = PEERS[peer](folder, shape, output_key)

    def same():
        ours, expected = made["peer"].features(X), plain(folder, X, output_key)
        worst = np.abs(ours - expected).max() / np.abs(expected).max()
        return f"differs by {worst:.1e}" if worst > 1e-5 else ""

    def trains():
        return "" if made["peer"].fit(X, y) else "nothing moves"

    def freezes():
        all_of_it = len(PEERS[peer](folder, shape, output_key).weights())
        moved = PEERS[peer](folder, shape, output_key).fit(X, y, trained="last")
        return "" if 0 < len(moved) < all_of_it else f"{len(moved)} of {all_of_it} weights move"

    def batch_norm():
        def statistics(policy):
            moved = PEERS[peer](folder, shape, output_key).fit(X, y, batch_norm=policy)
            return [each for each in moved if "moving" in each]

        if statistics("frozen"):
            return "statistics move when frozen"
        return "" if statistics("train") else "statistics never move"

    attempt("loads", loads)
    if "peer" not in made:
        return found
    attempt("computes the same", same)
    attempt("trains", trains)
    attempt("freezes per block", freezes)
    if has_norm:
        attempt("BatchNorm as told", batch_norm)
    else:
        found["BatchNorm as told"] = "has none"
    if found["trains"] != "yes":
        return {**found, **dict.fromkeys(FILES, "no: nothing to save")}
    expected = made["peer"].predict(X)

    def exports():
        made["peer"].export(str(work / "served"))
        served = tf.saved_model.load(str(work / "served"))
        scale = getattr(made["peer"], "scale", 1)
        batches = [served.serve(X[at : at + 4] * scale) for at in range(0, len(X), 4)]
        worst = np.abs(np.concatenate(batches) - expected).max()
        return f"differs by {worst:.1e}" if worst > 1e-5 else ""

    def reloads():
        made["peer"].save(work / "saved")
        np.save(work / "X.npy", X)
        shutil.move(folder, work / "elsewhere")
        scale = str(getattr(made["peer"], "scale", 1))
        command = [sys.executable, "-c", RELOAD, peer, scale]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        if done.returncode:
            raise Missing(done.stderr.strip().splitlines()[-1])
        worst = np.abs(np.load(work / "made.npy") - expected).max()
        return f"differs by {worst:.1e}" if worst > 1e-5 else ""

    attempt("exports", exports)
    attempt("saves, reloads without the folder", reloads)
    return found


def table_of_peers(foreign):
    tasks = [*TASKS, *FILES]
    harness.header("SavedModel", "with", *tasks)
    for name in [*(list(SIX)[-1:] if harness.QUICK else SIX), *foreign]:
        for peer in PEERS:
            found = harness.run_apart(try_all, peer, name)
            harness.row(name, peer, *(found.get(task, "-") for task in tasks))


# === What it costs and gives ===


MODES = {
    "structure transfer": StructureTransfer(),
    "structure transfer, 2 blocks": StructureTransfer(2),
    "composite transfer, 2 blocks": CompositeTransfer(2),
    "parameter transfer": ParameterTransfer(),
}


def measure(mode, is_saved, seed):
    """Fit one mode; return accuracy, seconds of the median epoch, the audit, and what moved."""
    from keras_transfer.datasets import load_openmoji, per_class_split

    times = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = harness.time.monotonic()

        def on_epoch_end(self, epoch, logs=None):
            if epoch:  # the first one traces
                times.append(harness.time.monotonic() - self.began)

    data = load_openmoji(image_size=SIZE)
    train, test = per_class_split(data.target, 10, random_state=seed)
    backbone = get_backbone("EfficientNetLite0", input_shape=(SIZE, SIZE, 3))
    with tempfile.TemporaryDirectory() as work:
        if is_saved:
            export_backbone(backbone, f"{work}/model")
            backbone = get_backbone(f"hub:{work}/model")
        recipe = MODES[mode]
        if harness.QUICK and recipe.train_blocks:
            recipe.set_params(epochs=2)
        clf = TransferClassifier(
            backbone, recipe, readout="last", guard=None, random_state=seed, callbacks=[Watch]
        )
        clf.fit(data.images[train], data.target[train])
        score = clf.score(data.images[test], data.target[test])
        first = {weight.numpy().tobytes() for weight in backbone.load().weights}
        weights = [w for w in clf.model_.weights if not w.path.startswith(("head", "target"))]
        n_same = sum(weight.numpy().tobytes() in first for weight in weights)
    seconds = float(np.median(times)) if times else float("nan")
    return [score, seconds, f"{n_same} of {len(weights)}", str(clf.stages_[-1])]


def compare_features():
    """Return the largest difference of the features, as a share of their scale."""
    from keras_transfer.datasets import load_openmoji

    images = load_openmoji(image_size=SIZE).images
    backbone = get_backbone("EfficientNetLite0", input_shape=(SIZE, SIZE, 3))
    one = TransferEncoder(backbone, readout="last").fit_transform(images)
    with tempfile.TemporaryDirectory() as work:
        export_backbone(backbone, f"{work}/model")
        saved = get_backbone(f"hub:{work}/model")
        other = TransferEncoder(saved, readout="last").fit_transform(images)
    return float(np.abs(one - other).max() / np.abs(one).max())


def table_of_cost(seeds):
    harness.header("mode", "as", "accuracy", "seconds per epoch", "weights left as they were")
    ratios = {}
    for mode in list(MODES)[1:2] if harness.QUICK else MODES:
        epochs = []
        for is_saved in (False, True):
            runs = [harness.run_apart(measure, mode, is_saved, seed) for seed in range(seeds)]
            scores, seconds, same, audits = zip(*runs, strict=True)
            name = "SavedModel" if is_saved else "Keras's layers"
            harness.row(mode, name, harness.spread(scores, ".3f"), harness.spread(seconds), same[0])
            epochs.append(np.nanmean(seconds) if not np.all(np.isnan(seconds)) else np.nan)
            if is_saved:
                harness.note(audits[0])
        ratios[mode] = epochs[1] / epochs[0]
    worst = harness.run_apart(compare_features)
    print(
        f"\nFeatures differ by {worst:.1e} of their scale. An epoch of the SavedModel takes, as a"
    )
    print(
        "share of that of Keras's layers:", json.dumps({k: round(v, 2) for k, v in ratios.items()})
    )


def main():
    parser = harness.make_parser(__doc__, "one SavedModel, one mode, one draw", seeds=3)
    parser.add_argument("--foreign", nargs="*", default=[], help="folders of other SavedModels")
    parser.add_argument("--parts", nargs="*", default=["peers", "cost"], help="which tables")
    options = harness.read_options(parser)
    if "peers" in options.parts:
        table_of_peers(options.foreign)
    if "cost" in options.parts:
        table_of_cost(options.seeds)


if __name__ == "__main__":
    harness.run(main)
