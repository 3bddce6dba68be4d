"""What is frozen is computed once: how much faster that is than plain Keras code.

    python benchmarks/activation_store.py [--quick] [--whole] [--only WORK ...]

The baseline is the code of the transfer-learning guide of keras.io, at its best settings for a CPU
(pictures in memory, jit_compile=False), on the same pictures for as many epochs. Every measurement
is a process of its own, imports left out; the model is built inside the time on both sides, as
each user builds it. MobileNetV2 at 96 px (random weights, which take as long as others) and 1000
pictures, unless said. Of a grid by hand, whose fits are alike, three of the 60 are run and counted
twenty times; --whole runs all. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_transfer import ParameterTransfer, StructureTransfer, get_backbone
from keras_transfer.datasets import load_openmoji
from keras_transfer.graph.assembly import Assembly
from keras_transfer.store.memory import Memory
from keras_transfer.training.boundary import find_boundary
from keras_transfer.training.frozen import FrozenPart

QUICK = bool(os.environ.get("QUICK"))
SIZE = 48 if QUICK else 96
N = 64 if QUICK else 1000
EPOCHS = 2 if QUICK else 20
GRID_EPOCHS = 1 if QUICK else 5
FOLDS = 2 if QUICK else 5
DROPOUTS = (0.0, 0.2) if QUICK else (0.0, 0.1, 0.2, 0.4)
RATES = (1e-3,) if QUICK else (3e-4, 1e-3, 3e-3)
PENALTIES = (1.0, 100.0) if QUICK else tuple(np.geomspace(1e-1, 1e4, 12))
FITS = len(PENALTIES) * FOLDS
BATCH = 32


def data(n=N, size=SIZE):
    """Return distinct pictures of all classes, and their classes."""
    loaded = load_openmoji(image_size=size)
    rng = np.random.default_rng(0)
    rows = np.resize(rng.permutation(len(loaded.target)), n)
    noise = rng.integers(-8, 9, (n, size, size, 3), dtype=np.int16)
    pictures = np.clip(loaded.images[rows].astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return pictures, loaded.target[rows]


def backbone():
    return get_backbone("MobileNetV2", weights=None, input_shape=(SIZE, SIZE, 3))


# === The guide's code ===


def by_hand(n_blocks=0, dropout=0.0, rate=1e-3, penalty=None):
    """Build and compile a model as the guide does."""
    base = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)
    )
    base.trainable = bool(n_blocks)
    if n_blocks:
        # The last convolution is a block of ours, and what bears the last number.
        own = ("block_16_", "Conv_1", "out_relu")
        for layer in base.layers:
            layer.trainable = layer.name.startswith(own)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(dropout)(x)
    l2 = None if penalty is None else keras.regularizers.L2(penalty / N)
    outputs = keras.layers.Dense(6, activation="softmax", kernel_regularizer=l2)(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def hand_fit(X, y, epochs, **settings):
    model = by_hand(**settings)
    model.fit(X, y, epochs=epochs, batch_size=BATCH, verbose=0)
    return model


def hand_grid(X, y, candidates, epochs, whole):
    """Fit each candidate on each fold, and score it; or a few of them, and count these."""
    folds = list(StratifiedKFold(FOLDS).split(X, y))
    work = [(candidate, fold) for candidate in candidates for fold in folds]
    chosen = work if whole else work[:: max(1, len(work) // 3)][:3]
    began = time.monotonic()
    for settings, (train, test) in chosen:
        model = hand_fit(X[train], y[train], epochs, **settings)
        model.predict(X[test], verbose=0).argmax(axis=1)
    return (time.monotonic() - began) * len(work) / len(chosen)


# === What is measured: each function returns seconds, or what else its row shows ===


def head_by_hand(options):
    X, y = data()
    began = time.monotonic()
    hand_fit(X, y, EPOCHS)
    return time.monotonic() - began


def blocks_by_hand(options):
    X, y = data()
    began = time.monotonic()
    hand_fit(X, y, EPOCHS, n_blocks=2, rate=1e-4)
    return time.monotonic() - began


def grid_by_hand(options):
    candidates = [{"dropout": d, "rate": r} for d in DROPOUTS for r in RATES]
    return hand_grid(*data(), candidates, GRID_EPOCHS, options.whole)


def penalties_by_hand(options):
    candidates = [{"penalty": penalty} for penalty in PENALTIES]
    return hand_grid(*data(), candidates, EPOCHS, options.whole)


def penalties_by_predict(options):
    """Predict features in each fit, and let scikit-learn solve."""
    X, y = data()
    folds = list(StratifiedKFold(FOLDS).split(X, y))
    work = [(penalty, fold) for penalty in PENALTIES for fold in folds]
    chosen = work if options.whole else work[:: max(1, len(work) // 3)][:3]
    began = time.monotonic()
    for penalty, (train, test) in chosen:
        model = by_hand()
        features = keras.Model(model.input, model.layers[-1].input)
        head = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=1000))
        head.fit(features.predict(X[train], verbose=0), y[train])
        head.score(features.predict(X[test], verbose=0), y[test])
    return (time.monotonic() - began) * len(work) / len(chosen)


def structure(**settings):
    return StructureTransfer(**settings).classifier(backbone(), validation=None, random_state=0)


def fit_ours(estimator):
    X, y = data()
    began = time.monotonic()
    estimator.fit(X, y)
    return time.monotonic() - began


def head_ours(options):
    return fit_ours(structure(epochs=EPOCHS, learning_rate=1e-3))


def exact_ours(options):
    return fit_ours(structure())


def blocks_ours(options):
    return fit_ours(
        structure(train_blocks=2, epochs=EPOCHS, learning_rate=1e-4, batch_norm="affine")
    )


def grid_ours(options):
    grid = {"recipe__dropout": DROPOUTS, "recipe__learning_rate": RATES}
    search = GridSearchCV(structure(epochs=GRID_EPOCHS), grid, cv=FOLDS, refit=False)
    return fit_ours(search)


def penalties_ours(options):
    grid = {"recipe__head_penalty": PENALTIES}
    return fit_ours(GridSearchCV(structure(), grid, cv=FOLDS, refit=False))


def exact_ours_again(options):
    """The second fit in a process, on pictures that it has not seen: as predict's second call."""
    X, y = data()
    structure().fit(X, y)
    X = X[:, ::-1].copy()
    began = time.monotonic()
    structure().fit(X, y)
    return time.monotonic() - began


def head_from_folder(options):
    return fit_ours(structure(epochs=EPOCHS, learning_rate=1e-3).set_params(memory=options.folder))


def exact_from_folder(options):
    return fit_ours(structure().set_params(memory=options.folder))


def second_predict(options):
    X, _ = data()
    model = by_hand()
    features = keras.Model(model.input, model.layers[-1].input)
    features.predict(X, batch_size=BATCH, verbose=0)
    return min(timed(lambda: features.predict(X, batch_size=BATCH, verbose=0)) for _ in range(3))


def frozen_pass(options):
    X, _ = data()
    return pass_seconds(backbone(), X)


def second_predict_lite0(options):
    X, model = lite0_pictures(), Assembly(get_backbone("EfficientNetLite0"), None).build()
    model.predict(X, batch_size=BATCH, verbose=0)
    return min(timed(lambda: model.predict(X, batch_size=BATCH, verbose=0)) for _ in range(3))


def frozen_pass_lite0(options):
    return pass_seconds(get_backbone("EfficientNetLite0"), lite0_pictures())


def lite0_pictures():
    return data(32 if QUICK else 500, 224)[0]


def pass_seconds(backbone, X):
    graph = Assembly(backbone, None)
    part = FrozenPart(graph, find_boundary(graph.nodes, graph.output, ()).cut)
    X = X.astype(np.float32)
    list(part.on_inputs(X))
    return min(timed(lambda: list(part.on_inputs(X))) for _ in range(3))


def timed(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def step_by_hand(options):
    X, y = data(8 * BATCH)
    model = by_hand(n_blocks=1)
    model.trainable = True
    for layer in model.layers[2].layers:
        layer.trainable = True
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    clock = Clock()
    model.fit(X, y, epochs=2 if QUICK else 5, batch_size=BATCH, verbose=0, callbacks=[clock])
    return clock.pace()


def step_ours(options):
    X, y = data(8 * BATCH)
    clock = []

    def make():
        clock.append(Clock())
        return clock[-1]

    # As the guide's code does, once its base model may train (Keras 3.15).
    recipe = ParameterTransfer(epochs=2 if QUICK else 5, batch_norm="train")
    recipe.classifier(backbone(), validation=None, callbacks=[make], random_state=0).fit(X, y)
    return clock[-1].pace()


class Clock(keras.callbacks.Callback):
    """Notes when batches end; the first epoch compiles."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.epochs[-1].append(time.monotonic())

    def pace(self):
        """Return the median of the seconds between the ends of batches."""
        return float(np.median(np.concatenate([np.diff(ends) for ends in self.epochs[1:]])))


def peak_of_paths(options):
    """Fit on small files given as paths; return the peak of memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, y = data(375, 48)
        paths = []
        for number in range(options.n):
            path = Path(folder) / f"{number}.png"
            picture = pictures[number % 375].copy()
            picture.flat[:2] = number % 256, number // 256  # no two alike
            Image.fromarray(picture).save(path)
            paths.append(str(path))
        estimator = StructureTransfer().classifier(
            "EfficientNetLite0", image_size=224, validation=None, memory=str(Path(folder) / "store")
        )
        estimator.fit(paths, y[np.arange(options.n) % 375])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def differences(options):
    """Return how far the store's results lie from those without one."""
    X, y = data(64, 48)
    found = {}
    for name, recipe in {
        "exact head": StructureTransfer(),
        "head, gradient": StructureTransfer(epochs=5),
        "last block": StructureTransfer(train_blocks=1, epochs=2),
    }.items():
        base = recipe.classifier(
            "EfficientNetLite0", image_size=48, validation=None, random_state=0
        )
        plain = clone(base).set_params(memory=False).fit(X, y)
        outputs = plain.predict_proba(X)
        exact = clone(base).set_params(memory=Memory(exact=True)).fit(X, y).predict_proba(X)
        folded = clone(base).fit(X, y).predict_proba(X)
        found[name] = [float(np.abs(each - outputs).max()) for each in (exact, folded)]
    return found


# === The tables ===

ROWS = {
    "head only, gradient epochs": ("head_by_hand", "head_ours", 10),
    "head only, exact, against these epochs": ("head_by_hand", "exact_ours", 12),
    "last 2 blocks and head": ("blocks_by_hand", "blocks_ours", 3.5),
    "grid of dropout x learning rate": ("grid_by_hand", "grid_ours", 12),
    "grid of penalties, exact head": ("penalties_by_hand", "penalties_ours", 40),
    "the same, against predict and scikit-learn": ("penalties_by_predict", "penalties_ours", None),
    "second run with memory=, gradient epochs": ("head_by_hand", "head_from_folder", 15),
    "second run with memory=, exact": ("head_by_hand", "exact_from_folder", None),
    "frozen pass against predict's second call": ("second_predict", "frozen_pass", 1.3),
    "the same, EfficientNetLite0 at 224 px": ("second_predict_lite0", "frozen_pass_lite0", 1.3),
    "predict's second call against a whole exact fit": ("second_predict", "exact_ours", 1 / 1.3),
    "the same, the second fit, on new pictures": ("second_predict", "exact_ours_again", 1 / 1.3),
    "a step where nothing is frozen": ("step_by_hand", "step_ours", 1 / 1.03),
}


def measure(work, **options):
    """Run one of the functions above in a process of its own."""
    command = [sys.executable, __file__, "--work", work]
    for name, value in options.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--whole", action="store_true", help="every fit of the grids by hand")
    parser.add_argument("--only", nargs="*", help="parts of the rows' names")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, default=1000, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(globals()[options.work](options)))
        return
    if options.quick:
        os.environ["QUICK"] = "1"
    repeats = 1 if options.quick else options.repeats
    wanted = [row for row in ROWS if not options.only or any(part in row for part in options.only)]
    works = list(dict.fromkeys(work for row in wanted for work in ROWS[row][:2]))
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        given = {"folder": folder} | ({"whole": True} if options.whole else {})
        if any("folder" in work for work in works):
            measure("exact_from_folder", **given)  # the first run
        # In turn, so that what else the machine does falls on all alike.
        slow = ("grid", "penalties")
        for repeat in range(repeats):
            for work in works:
                if not repeat or not work.startswith(slow) or work.endswith("ours"):
                    seconds.setdefault(work, []).append(measure(work, **given))
    print("| work | baseline, s | ours, s | baseline / ours | bar |")
    print("| --- | --- | --- | --- | --- |")
    for row in wanted:
        hand, ours, bar = ROWS[row]
        low, high = np.median(seconds[hand]), np.median(seconds[ours])
        spread = sorted(a / b for a in seconds[hand] for b in seconds[ours])
        bar = "" if bar is None else f"{bar:.3g}"
        print(
            f"| {row} | {low:.3g} | {high:.3g} | {low / high:.3g} ({spread[0]:.3g} to "
            f"{spread[-1]:.3g}) | {bar} |"
        )
    if options.only:
        return

    print("\n| largest difference of a probability from memory=False | exact=True | folded |")
    print("| --- | --- | --- |")
    for name, (exact, folded) in measure("differences").items():
        print(f"| {name} | {exact:.2g} | {folded:.2g} |")
        assert exact == 0, name
    print("\n| files given as paths | peak of memory, MB |")
    print("| --- | --- |")
    for n in (100, 200) if options.quick else (1000, 3000, 10_000):
        print(f"| {n:,} | {measure('peak_of_paths', n=n):.0f} |", flush=True)


if __name__ == "__main__":
    main()
