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

import sys
import tempfile
import time
from pathlib import Path

import harness
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

QUICK, WHOLE = harness.QUICK, "--whole" in sys.argv
SIZE = 48 if QUICK else 96
N = 64 if QUICK else 1000
EPOCHS = 2 if QUICK else 20
GRID_EPOCHS = 1 if QUICK else 5
STEP_EPOCHS = 2 if QUICK else 5
FOLDS = 2 if QUICK else 5
DROPOUTS = (0.0, 0.2) if QUICK else (0.0, 0.1, 0.2, 0.4)
RATES = (1e-3,) if QUICK else (3e-4, 1e-3, 3e-3)
PENALTIES = (1.0, 100.0) if QUICK else tuple(np.geomspace(1e-1, 1e4, 12))
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


def grid_by_hand(candidates, fit_and_score):
    """Return the seconds of fitting and scoring each candidate on each fold, or those of a few."""
    X, y = data()
    folds = list(StratifiedKFold(FOLDS).split(X, y))
    work = [(candidate, *fold) for candidate in candidates for fold in folds]
    chosen = work if WHOLE else work[:: max(1, len(work) // 3)][:3]
    began = time.monotonic()
    for candidate, train, test in chosen:
        fit_and_score(candidate, X[train], y[train], X[test], y[test])
    return (time.monotonic() - began) * len(work) / len(chosen)


def settings_by_hand(candidates, epochs):
    def fit_and_score(settings, X, y, X_test, y_test):
        hand_fit(X, y, epochs, **settings).predict(X_test, verbose=0).argmax(axis=1)

    return grid_by_hand(candidates, fit_and_score)


def penalties_by_predict(folder):
    """Predict features once, before the search, and let scikit-learn solve."""
    X, y = data()

    def fit():
        features = features_by_hand().predict(X, verbose=0)
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        grid = {"logisticregression__C": [1 / penalty for penalty in PENALTIES]}
        GridSearchCV(head, grid, cv=FOLDS, refit=False).fit(features, y)

    return harness.timed(fit)[0]


def features_by_hand():
    model = by_hand()
    return keras.Model(model.input, model.layers[-1].input)


# === Ours, and what takes its time on both sides ===


def structure(**settings):
    return StructureTransfer(**settings).classifier(backbone(), validation=None, random_state=0)


def head(folder=None):
    estimator = structure(epochs=EPOCHS, learning_rate=1e-3)
    return estimator.set_params(memory=folder) if folder else estimator


def search(estimator, **grid):
    grid = {f"recipe__{name}": values for name, values in grid.items()}
    return GridSearchCV(estimator, grid, cv=FOLDS, refit=False)


def seconds_of_fit(estimator):
    X, y = data()
    return harness.timed(estimator.fit, X, y)[0]


def seconds_again(estimator):
    """The second fit in a process, on pictures that it has not seen: as predict's second call."""
    X, y = data()
    clone(estimator).fit(X, y)
    return harness.timed(clone(estimator).fit, X[:, ::-1].copy(), y)[0]


def seconds_by_hand(**settings):
    X, y = data()
    return harness.timed(hand_fit, X, y, EPOCHS, **settings)[0]


def lite0():
    return get_backbone("EfficientNetLite0")


def lite0_pictures():
    return data(32 if QUICK else 500, 224)[0]


def best_of_three(work):
    work()  # what is compiled once
    return min(harness.timed(work)[0] for _ in range(3))


def second_predict(model, X):
    return best_of_three(lambda: model.predict(X, batch_size=BATCH, verbose=0))


def frozen_pass(backbone, X):
    graph = Assembly(backbone, None)
    part = FrozenPart(graph, find_boundary(graph.nodes, graph.output, ()).cut)
    X = X.astype(np.float32)
    return best_of_three(lambda: list(part.on_inputs(X)))


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


def step_by_hand(folder):
    X, y = data(8 * BATCH)
    model = by_hand(n_blocks=1)
    model.trainable = True
    for layer in model.layers[2].layers:
        layer.trainable = True
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    clock = Clock()
    model.fit(X, y, epochs=STEP_EPOCHS, batch_size=BATCH, verbose=0, callbacks=[clock])
    return clock.pace()


def step_ours(folder):
    X, y = data(8 * BATCH)
    clocks = []

    def make():
        clocks.append(Clock())
        return clocks[-1]

    # As the guide's code does, once its base model may train (Keras 3.15).
    recipe = ParameterTransfer(epochs=STEP_EPOCHS, batch_norm="train")
    recipe.classifier(backbone(), validation=None, callbacks=[make], random_state=0).fit(X, y)
    return clocks[-1].pace()


def peak_of_paths(n):
    """Fit on small files given as paths; return the peak of memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, y = data(375, 48)
        paths = []
        for number in range(n):
            path = Path(folder) / f"{number}.png"
            picture = pictures[number % 375].copy()
            picture.flat[:2] = number % 256, number // 256  # no two alike
            Image.fromarray(picture).save(path)
            paths.append(str(path))
        estimator = StructureTransfer().classifier(
            "EfficientNetLite0", image_size=224, validation=None, memory=str(Path(folder) / "store")
        )
        estimator.fit(paths, y[np.arange(n) % 375])
    return harness.memory("VmHWM")


def differences():
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

# Name -> seconds of a process of its own; the folder is that of memory=.
WORKS = {
    "head by hand": lambda folder: seconds_by_hand(),
    "head": lambda folder: seconds_of_fit(head()),
    "head from folder": lambda folder: seconds_of_fit(head(folder)),
    "exact": lambda folder: seconds_of_fit(structure()),
    "exact again": lambda folder: seconds_again(structure()),
    "exact from folder": lambda folder: seconds_of_fit(structure().set_params(memory=folder)),
    "blocks by hand": lambda folder: seconds_by_hand(n_blocks=2, rate=1e-4),
    "blocks": lambda folder: seconds_of_fit(
        structure(train_blocks=2, epochs=EPOCHS, learning_rate=1e-4, batch_norm="affine")
    ),
    "grid by hand": lambda folder: settings_by_hand(
        [{"dropout": dropout, "rate": rate} for dropout in DROPOUTS for rate in RATES], GRID_EPOCHS
    ),
    "grid": lambda folder: seconds_of_fit(
        search(structure(epochs=GRID_EPOCHS), dropout=DROPOUTS, learning_rate=RATES)
    ),
    "penalties by hand": lambda folder: settings_by_hand(
        [{"penalty": penalty} for penalty in PENALTIES], EPOCHS
    ),
    "penalties by predict": penalties_by_predict,
    "penalties": lambda folder: seconds_of_fit(search(structure(), head_penalty=PENALTIES)),
    "predict": lambda folder: second_predict(features_by_hand(), data()[0]),
    "pass": lambda folder: frozen_pass(backbone(), data()[0]),
    "predict, Lite0": lambda folder: second_predict(
        Assembly(lite0(), None).build(), lite0_pictures()
    ),
    "pass, Lite0": lambda folder: frozen_pass(lite0(), lite0_pictures()),
    "step by hand": step_by_hand,
    "step": step_ours,
}
ONCE = ("grid by hand", "penalties by hand")  # the slow ones

# Row -> what is the baseline, what is ours, how many times as fast it is to be.
ROWS = {
    "head only, gradient epochs": ("head by hand", "head", 10),
    "head only, exact, against these epochs": ("head by hand", "exact", 12),
    "last 2 blocks and head": ("blocks by hand", "blocks", 3.5),
    "grid of dropout x learning rate": ("grid by hand", "grid", 12),
    "grid of penalties, exact head": ("penalties by hand", "penalties", 40),
    "the same, against features predicted once": ("penalties by predict", "penalties", None),
    "second run with memory=, gradient epochs": ("head by hand", "head from folder", 15),
    "second run with memory=, exact": ("head by hand", "exact from folder", None),
    "frozen pass against predict's second call": ("predict", "pass", 1.3),
    "the same, EfficientNetLite0 at 224 px": ("predict, Lite0", "pass, Lite0", 1.3),
    "predict's second call against a whole exact fit": ("predict", "exact", 1 / 1.3),
    "the same, the second fit, on new pictures": ("predict", "exact again", 1 / 1.3),
    "a step where nothing is frozen": ("step by hand", "step", 1 / 1.03),
}


def measure(work, folder):
    return WORKS[work](folder)


def seconds_table(rows, repeats):
    works = list(dict.fromkeys(work for row in rows for work in ROWS[row][:2]))
    seconds = {work: [] for work in works}
    with tempfile.TemporaryDirectory() as folder:
        if any("folder" in work for work in works):
            harness.run_apart(measure, "exact from folder", folder)  # the first run
        # In turn, so that what else the machine does falls on all alike.
        for repeat in range(repeats):
            for work in works:
                if not repeat or work not in ONCE:
                    seconds[work].append(harness.run_apart(measure, work, folder))
                    harness.note(f"{work}: {seconds[work][-1]:.3g} s")
    harness.header("work", "baseline, s", "ours, s", "baseline / ours", "bar")
    for row in rows:
        hand, ours, bar = ROWS[row]
        low, high = np.median(seconds[hand]), np.median(seconds[ours])
        ratios = sorted(a / b for a in seconds[hand] for b in seconds[ours])
        ratio = f"{low / high:.3g} ({ratios[0]:.3g} to {ratios[-1]:.3g})"
        harness.row(row, f"{low:.3g}", f"{high:.3g}", ratio, "" if bar is None else f"{bar:.3g}")


def main():
    parser = harness.make_parser(__doc__, "few small pictures, each measured once")
    parser.add_argument("--whole", action="store_true", help="every fit of the grids by hand")
    parser.add_argument("--only", nargs="*", help="parts of the rows' names")
    parser.add_argument(
        "--repeats", type=int, default=1 if QUICK else 3, help="of each measurement"
    )
    options = harness.read_options(parser)
    seconds_table(harness.matching(ROWS, options.only), options.repeats)
    if options.only:
        return

    differ = "largest difference of a probability from memory=False"
    harness.header(differ, "exact=True", "folded")
    for name, (exact, folded) in harness.run_apart(differences).items():
        harness.row(name, f"{exact:.2g}", f"{folded:.2g}")
        assert exact == 0, name
    harness.header("files given as paths", "peak of memory, MB")
    for n in (100, 200) if QUICK else (1000, 3000, 10_000):
        harness.row(f"{n:,}", f"{harness.run_apart(peak_of_paths, n):.0f}")


if __name__ == "__main__":
    harness.run(main)
