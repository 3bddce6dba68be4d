"""What scikit-learn asks of an estimator: here, in Keras's own wrapper, and in scikeras.

    python benchmarks/sklearn_contract.py [--peer NAME] [--only TEXT] [--quick]

One list of scenarios (contract_scenarios.py), run against all three; each is written once, against
an adapter that builds the peer's estimators as its documentation does, with the same two layers and
the same epochs. A cell is "yes", "no" with what went wrong, or "not run". Two of scikit-learn's
rules are measured as a whole: its own checks (about 120 for a classifier and a regressor), and the
memory that one small model after the other costs, beside bare Keras. `--quick` runs every 30th
check, for keras_transfer alone, no memory, and of the peers nothing that starts processes.

The adapters stand here, not in a module of their own: a model function of the user's script is
pickled as one of `__main__`, and whether that works is part of what is measured. Prints a table in
Markdown, and exits with 1 if a cell of keras_transfer is not "yes". scikeras (`pip install
scikeras`) is measured if it is installed. On two CPU cores: seven minutes, with `--quick` one and a
half.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import re
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import harness
import keras
import numpy as np
from contract_scenarios import RATE, SCENARIOS, Differs, clouds, scenario
from sklearn.base import BaseEstimator
from sklearn.utils import ClassifierTags, RegressorTags

from keras_transfer import (
    ParameterTransfer,
    TransferClassifier,
    TransferEncoder,
    TransferRegressor,
)

OURS = "keras_transfer"
# One batch an epoch, few epochs: enough for the clouds of the scenarios, and quick.
EPOCHS = 5
BATCH = 64
UNITS = (16, 8)
CHECK_EPOCHS = 6
MEMORY_ROUNDS = 20
MEMORY_NOISE = 0.1  # one measurement of the same differs from the next by some percent


class NotRun(Exception):
    """The scenario cannot be measured here."""


# === The peers ===


class Peer:
    """What a scenario knows of a peer: how its estimators are made, and its own words for things.

    Estimators are made with a seed. With so few steps the peers are quicker without a compiled
    function (`run_eagerly`), which changes no answer; for the measure of memory they compile.
    """

    loader = "import pickle; estimator = pickle.load(open(path, 'rb'))"

    def save(self, estimator, path):
        Path(path).write_bytes(pickle.dumps(estimator))

    def callback(self, kind):
        """Return what goes into a list of callbacks."""
        return kind

    def fit_arguments(self):
        """Return what to pass to the fit of a searcher, for the sake of the estimators in it."""
        return {}


class KerasTransfer(Peer):
    """TransferClassifier, TransferRegressor and TransferEncoder, with a function as backbone."""

    name = package = OURS
    loader = "import keras_transfer; estimator = keras_transfer.load(path)"

    def save(self, estimator, path):
        estimator.save(path)

    # run_eagerly: no such choice, as compiled functions are shared between fits.
    def _make(
        self, kind, backbone, epochs=EPOCHS, learning_rate=RATE, run_eagerly=None, **settings
    ):
        recipe = ParameterTransfer(epochs=epochs, learning_rate=learning_rate)
        # The peers hold nothing out, and train all epochs.
        fixed = {"batch_size": BATCH, "validation": None, "random_state": 0, "verbose": False}
        return kind(backbone, recipe, **{**fixed, **settings})

    def classifier(self, **settings):
        return self._make(TransferClassifier, dense_backbone, **settings)

    def regressor(self, **settings):
        return self._make(TransferRegressor, dense_backbone, **settings)

    def picture_classifier(self):
        return self._make(TransferClassifier, conv_backbone)

    def transformer(self):
        return TransferEncoder(dense_backbone, random_state=0)

    def check_estimators(self):
        return [kind(epochs=CHECK_EPOCHS) for kind in (self.classifier, self.regressor)]

    def epochs_trained(self, estimator):
        return estimator.n_iter_

    def epochs_grid(self, values):
        return {"recipe__epochs": values}

    def rate_grid(self, values):
        return {"recipe__learning_rate": values}


def dense_backbone(input_shape):
    layers = [keras.layers.Dense(units, activation="relu") for units in UNITS]
    return keras.Sequential([keras.Input(input_shape), *layers])


def conv_backbone(input_shape):
    conv = keras.layers.Conv2D(8, 3, strides=2, activation="relu")
    return keras.Sequential([keras.Input(input_shape), conv])


class KerasWrapper(Peer):
    """keras.wrappers: SKLearnClassifier, SKLearnRegressor, SKLearnTransformer.

    It has no random_state: the model function seeds its layers, and with a seed `shuffle` is off.
    That leaves the global random states alone, as keras.utils.set_random_seed would not. `clone`
    drops `fit_kwargs`: where scikit-learn passes arguments on to `fit`, they are passed there too.
    """

    name, package = "keras.wrappers", "keras"

    def callback(self, kind):
        return kind()

    def _model_settings(
        self, head, learning_rate=RATE, random_state=0, run_eagerly=True, outputs=None
    ):
        return {
            "head": head,
            "outputs": outputs,
            "seeds_all": False,
            "learning_rate": learning_rate,
            "seed": random_state,
            "run_eagerly": run_eagerly,
        }

    def _fit_settings(self, epochs=EPOCHS, random_state=0, **settings):
        shuffle = random_state is None
        fixed = {"epochs": epochs, "batch_size": BATCH, "shuffle": shuffle, "verbose": 0}
        return {**fixed, **settings}

    def _make(
        self,
        kind,
        head,
        epochs=EPOCHS,
        random_state=0,
        learning_rate=RATE,
        run_eagerly=True,
        outputs=None,
        **settings,
    ):
        return kind(
            keras_model,
            model_kwargs=self._model_settings(
                head, learning_rate, random_state, run_eagerly, outputs
            ),
            fit_kwargs=self._fit_settings(epochs, random_state, **settings),
        )

    def classifier(self, **settings):
        return self._make(keras.wrappers.SKLearnClassifier, "softmax", **settings)

    def regressor(self, **settings):
        return self._make(keras.wrappers.SKLearnRegressor, "linear", **settings)

    def transformer(self):  # an embedding, of which each number is trained towards y
        return self._make(keras.wrappers.SKLearnTransformer, "linear", outputs=UNITS[-1])

    def picture_classifier(self):
        return keras.wrappers.SKLearnClassifier(
            keras_picture_model, fit_kwargs=self._fit_settings()
        )

    def check_estimators(self):
        # Two epochs: its tags say that its scores are poor. The checks clone, so `shuffle` is on
        # again: here its documentation's keras.utils.set_random_seed serves it better.
        estimators = [kind(epochs=2) for kind in (self.classifier, self.regressor)]
        for estimator in estimators:
            estimator.model_kwargs["seeds_all"] = True
        return estimators

    def epochs_trained(self, estimator):
        return len(estimator.history_.epoch)

    def epochs_grid(self, values):
        return {"fit_kwargs": [self._fit_settings(value) for value in values]}

    def rate_grid(self, values):
        return {"model_kwargs": [self._model_settings("softmax", value) for value in values]}

    def fit_arguments(self):
        return self._fit_settings()


def keras_model(X, y, head, outputs, learning_rate, seed, seeds_all, run_eagerly):
    if seeds_all:
        keras.utils.set_random_seed(seed)
    inputs = keras.Input(X.shape[1:])
    x = inputs
    for number, units in enumerate((*UNITS, outputs or y.shape[1])):
        x = keras.layers.Dense(
            units,
            activation=head if number == len(UNITS) else "relu",
            kernel_initializer=keras.initializers.GlorotUniform(
                None if seed is None else seed + number
            ),
        )(x)
    model = keras.Model(inputs, x)
    model.compile(
        keras.optimizers.Adam(learning_rate),
        "categorical_crossentropy" if head == "softmax" else "mse",
        run_eagerly=run_eagerly,
        jit_compile=False,
    )
    return model


def keras_picture_model(X, y):
    inputs = keras.Input(X.shape[1:])
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(y.shape[1], activation="softmax")(x))
    model.compile(keras.optimizers.Adam(RATE), "categorical_crossentropy", jit_compile=False)
    return model


class Scikeras(Peer):
    """scikeras: KerasClassifier and KerasRegressor, model functions as in its MLPClassifier guide.

    Its last release (0.13, 2024) is older than the tags of scikit-learn 1.6: no searcher or scorer
    would know its classifier as one. They are added by hand, with what its own `_tags` and its
    guide to sparse inputs say.
    """

    name = package = "scikeras"

    def __init__(self):
        # Not at the top: importing it replaces how every Keras model is pickled.
        from scikeras.wrappers import KerasClassifier, KerasRegressor

        for kind, name in ((KerasClassifier, "classifier"), (KerasRegressor, "regressor")):
            kind.__sklearn_tags__ = scikeras_tags(name)
        self._classifier, self._regressor = KerasClassifier, KerasRegressor

    def _make(self, kind, model, learning_rate=RATE, **settings):
        if learning_rate is not None:
            settings["optimizer__learning_rate"] = learning_rate
        fixed = {"optimizer": "adam", "epochs": EPOCHS, "batch_size": BATCH, "verbose": 0}
        seeded = {"random_state": 0, "run_eagerly": True}
        return kind(model, **{**fixed, **seeded, **settings})

    def classifier(self, **settings):
        return self._make(self._classifier, scikeras_classifier_model, **settings)

    def regressor(self, **settings):
        return self._make(self._regressor, scikeras_regressor_model, **settings)

    def picture_classifier(self):
        return self._make(self._classifier, scikeras_picture_model)

    def transformer(self):
        raise Differs("no transformer; its guide shows one to write oneself")

    def check_estimators(self):
        # One epoch: its tags say that its scores are poor. No rate: it would be an attribute that
        # its signature does not name, which is one more check failed.
        return [kind(epochs=1, learning_rate=None) for kind in (self.classifier, self.regressor)]

    def epochs_trained(self, estimator):
        return len(estimator.history_["loss"])

    def epochs_grid(self, values):
        return {"epochs": values}

    def rate_grid(self, values):
        return {"optimizer__learning_rate": values}


def scikeras_tags(estimator_type):
    def tags_of(self):
        tags = BaseEstimator.__sklearn_tags__(self)
        tags.estimator_type = estimator_type
        if estimator_type == "classifier":
            tags.classifier_tags = ClassifierTags(poor_score=True, multi_label=True)
        else:
            tags.regressor_tags = RegressorTags(poor_score=True)
        tags.target_tags.required = tags.target_tags.multi_output = True
        tags.input_tags.sparse = True
        return tags

    return tags_of


def scikeras_classifier_model(meta, compile_kwargs):
    if meta["target_type_"] == "binary":
        outputs, head, loss = 1, "sigmoid", "binary_crossentropy"
    elif meta["target_type_"] == "multilabel-indicator":
        outputs, head, loss = meta["n_classes_"], "sigmoid", "binary_crossentropy"
    elif meta["target_type_"] == "multiclass":
        outputs, head, loss = meta["n_classes_"], "softmax", "sparse_categorical_crossentropy"
    else:
        raise NotImplementedError(f"Unsupported task type: {meta['target_type_']}")
    return scikeras_compiled(
        dense_backbone(meta["X_shape_"][1:]), outputs, head, loss, compile_kwargs
    )


def scikeras_picture_model(meta, compile_kwargs):
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 3, activation="relu")]
    layers = [keras.Input(meta["X_shape_"][1:]), *layers, keras.layers.Flatten()]
    model = keras.Sequential(layers)
    return scikeras_compiled(model, 1, "sigmoid", "binary_crossentropy", compile_kwargs)


def scikeras_regressor_model(meta, compile_kwargs):
    model = dense_backbone(meta["X_shape_"][1:])
    return scikeras_compiled(model, meta["n_outputs_"], "linear", "mse", compile_kwargs)


def scikeras_compiled(model, outputs, head, loss, compile_kwargs):
    model.add(keras.layers.Dense(outputs, activation=head))
    model.compile(
        compile_kwargs["optimizer"],
        loss,
        run_eagerly=compile_kwargs["run_eagerly"],
        jit_compile=False,
    )
    return model


PEERS = {peer.name: peer for peer in (KerasTransfer, KerasWrapper, Scikeras)}


# === Memory, each in a process of its own ===


@scenario("Memory, 3rd to 20th fit: grows by no more than bare Keras does")
def memory(peer, X, y):
    if not harness.STATUS.exists():
        raise NotRun("needs Linux")
    bare, own = (harness.run_apart(grow, name, MEMORY_ROUNDS) for name in ("bare", peer.name))
    sizes = f"{own:.1f} MiB; bare Keras {bare:.1f}"
    if own > bare * (1 + MEMORY_NOISE):
        raise Differs(sizes)
    return sizes


def grow(name, rounds):
    """Return by how many MiB the process grows from the 3rd to the last fit and predict."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 10)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    peer = None if name == "bare" else PEERS[name]()
    for number in range(rounds):
        if peer is None:
            model = dense_backbone((10,))
            model.add(keras.layers.Dense(2, activation="softmax"))
            rate = keras.optimizers.Adam(RATE)
            model.compile(rate, "sparse_categorical_crossentropy", jit_compile=False)
            model.fit(X, y, batch_size=BATCH, epochs=1, verbose=0)
            model.predict(X, verbose=0)
        else:
            peer.classifier(epochs=1, run_eagerly=False).fit(X, y).predict(X)
        gc.collect()
        if number == 2:
            before = harness.memory("VmRSS")
    return harness.memory("VmRSS") - before


# === Running ===

# Of the peers, --quick leaves out what starts processes; few checks would pass for all of them.
QUICK_OURS_ONLY = {"grid_search_processes", "new_process", "own_checks"}


def describe(error):
    if isinstance(error, Differs):
        what = str(error)
    else:
        lines = [line for line in str(error).splitlines() if line.strip()]
        what = f"{type(error).__name__}: {lines[0].strip() if lines else ''}"
    what = re.sub(r"<(\w[^<>]*)>", r"\1", what).replace("|", "/").strip(" :.")  # as Markdown
    return what if len(what) <= 90 else what[:87].rstrip() + "..."


@contextlib.contextmanager
def silence():
    """Swallow what TensorFlow prints, and what processes that joblib starts print."""
    sys.stdout.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with open(os.devnull, "w") as nowhere:
        for number in kept:
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def measure(title, peer):
    """Return a cell, and the error that it is about."""
    try:
        with warnings.catch_warnings(), silence():
            warnings.simplefilter("ignore")
            check = SCENARIOS[title]
            if harness.QUICK and peer.name != OURS and check.__name__ in QUICK_OURS_ONLY:
                raise NotRun("--quick")
            what = check(peer, *clouds())
        return ("yes" if what is None else f"yes ({what})"), None
    except NotRun as reason:
        return f"not run ({reason})", None
    except Exception as error:
        return f"no ({describe(error)})", error


def measure_peer(name, only):
    """Return the cell of each row."""
    keras.config.disable_interactive_logging()  # Keras's wrapper would show each prediction
    try:
        peer = PEERS[name]()
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        reason = "not installed" if missing else f"does not import: {describe(error)}"
        return dict.fromkeys(chosen(only), f"not run ({reason})")
    cells = {}
    for title in chosen(only):
        seconds, (cells[title], error) = harness.timed(measure, title, peer)
        harness.note(f"{name}: {title}: {cells[title]}, {seconds:.1f} s")
        for note in getattr(error, "__notes__", []):
            harness.note(f"    {note}")
        if error is not None and name == OURS:
            traceback.print_exception(error)
    return cells


def chosen(only):
    """Return the names of the rows to measure."""
    return [
        title
        for title, check in SCENARIOS.items()
        if only in title + check.__name__ and not (harness.QUICK and check is memory)
    ]


def cells_of(name, only):
    """Measure a peer apart: what one does to TensorFlow would change what the next shows."""
    try:
        return harness.run_apart(measure_peer, name, only)
    except subprocess.CalledProcessError as error:
        reason = f"the process ended with {error.returncode}"
        return dict.fromkeys(chosen(only), f"not run ({reason})")


def main():
    parser = harness.make_parser(__doc__, "few checks, no memory")
    parser.add_argument("--peer", choices=PEERS, help="only this one")
    parser.add_argument("--only", default="", help="only scenarios whose name has this in it")
    options = harness.read_options(parser)
    names = [options.peer] if options.peer else list(PEERS)
    measured = {name: harness.timed(cells_of, name, options.only) for name in names}
    table = {name: cells for name, (_, cells) in measured.items()}

    columns = (harness.with_version(name, PEERS[name].package) for name in table)
    harness.header("scenario", *columns)
    for title in chosen(options.only):
        harness.row(title, *(cells[title] for cells in table.values()))
    if "scikeras" in table:
        print("\nscikeras: with the tags added by hand that scikit-learn asks for since 1.6.")
    print(f"\n{sum(seconds for seconds, _ in measured.values()):.0f} s")
    return int(not all(cell.startswith("yes") for cell in table.get(OURS, {}).values()))


if __name__ == "__main__":
    harness.run(main)
