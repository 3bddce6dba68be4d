"""Transfer against from scratch, linear probe and plain fine-tuning, on OpenMoji.

    python benchmarks/openmoji.py [--seeds 5] [--per-class 10] [--image-size 128] [--quick]

Ten pictures of each of six classes train, the rest test; each seed draws other pictures. The peers
are written out here in plain Keras and scikit-learn, as a careful user would write them. Their
settings (rates, epochs, BatchNorm) are the best of those tried on other OpenMoji classes, which are
none of the six: nothing was chosen on these pictures. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV

from keras_transfer import CompositeTransfer, StructureTransfer, TransferClassifier, get_backbone
from keras_transfer.datasets import load_openmoji, per_class_split

BATCH = 32
FINE_TUNING = {"epochs": 80, "learning_rate": 1e-4}
FROM_SCRATCH = {"epochs": 200, "learning_rate": 1e-3}


def network(image_size, weights, n_classes=6, batch_norm_momentum=None):
    """EfficientNet-Lite0, averaged, with a new softmax layer, in plain Keras."""
    backbone = get_backbone("EfficientNetLite0", weights=weights)
    base = backbone.load((image_size, image_size, 3))
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            if batch_norm_momentum is None:
                layer.trainable = False  # the source's statistics, as every guide advises
                layer.gamma.trainable = layer.beta.trainable = True
            else:
                layer.momentum = batch_norm_momentum
    inputs = keras.Input((image_size, image_size, 3))
    scaled = keras.layers.Rescaling(1 / 128, -127 / 128)(inputs)
    features = keras.layers.GlobalAveragePooling2D()(base(scaled))
    outputs = keras.layers.Dense(n_classes, activation="softmax")(features)
    return keras.Model(inputs, outputs), features


def train(model, X, y, epochs, learning_rate):
    model.compile(
        keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", jit_compile=False
    )
    model.fit(X, y, batch_size=BATCH, epochs=epochs, verbose=0)


def from_scratch(X, y, X_test, seed, shorten):
    keras.utils.set_random_seed(seed)
    # Momentum 0.99 never settles in so few steps, and would score at chance.
    model, _ = network(X.shape[1], None, int(y.max()) + 1, batch_norm_momentum=0.9)
    train(model, X, y, FROM_SCRATCH["epochs"] // shorten, FROM_SCRATCH["learning_rate"])
    return model.predict(X_test, verbose=0), model.count_params()


def linear_probe(X, y, X_test, seed, shorten):
    model, features = network(X.shape[1], "imagenet")
    frozen = keras.Model(model.inputs, features)
    search = logistic_regression().fit(frozen.predict(X, verbose=0), y)
    return search.predict_proba(frozen.predict(X_test, verbose=0)), 1281 * (int(y.max()) + 1)


def logistic_regression():
    grid = {"C": np.logspace(-3, 2, 11)}
    return GridSearchCV(LogisticRegression(max_iter=5000), grid, scoring="balanced_accuracy")


def plain_fine_tuning(X, y, X_test, seed, shorten, learning_rate=FINE_TUNING["learning_rate"]):
    keras.utils.set_random_seed(seed)
    model, _ = network(X.shape[1], "imagenet", int(y.max()) + 1)
    train(model, X, y, FINE_TUNING["epochs"] // shorten, learning_rate)
    trained = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    return model.predict(X_test, verbose=0), trained


def ours(recipe, **parameters):
    def run(X, y, X_test, seed, shorten):
        # epochs speaks of a head that is trained; one that is alone is solved.
        short = {"epochs": 2} if shorten > 1 and recipe is not StructureTransfer else {}
        options = {"image_size": X.shape[1], "random_state": seed, "verbose": False, **parameters}
        clf = TransferClassifier(recipe=recipe(**short), **options).fit(X, y)
        trained = max(sum(row.trained for row in record.rows) for record in clf.stages_)
        return clf.predict_proba(X_test), trained

    return run


METHODS = {
    "from scratch (plain Keras)": from_scratch,
    "linear probe (scikit-learn)": linear_probe,
    "plain fine-tuning (plain Keras)": plain_fine_tuning,
    "structure transfer": ours(StructureTransfer),
    "composite transfer": ours(CompositeTransfer),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--quick", action="store_true", help="one seed, 64 px, few epochs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.image_size = 1, 64
    shorten = 40 if arguments.quick else 1

    images, target = load_openmoji(image_size=arguments.image_size, return_X_y=True)
    scores = {name: [] for name in METHODS}
    seconds = {name: [] for name in METHODS}
    trained = {name: [] for name in METHODS}
    for seed in range(arguments.seeds):
        chosen, rest = per_class_split(target, arguments.per_class, random_state=seed)
        for name, method in METHODS.items():
            started = time.monotonic()
            answers, numbers = method(images[chosen], target[chosen], images[rest], seed, shorten)
            trained[name].append(numbers)
            seconds[name].append(time.monotonic() - started)
            scores[name].append(balanced_accuracy_score(target[rest], answers.argmax(axis=1)))
            latest = f"{scores[name][-1]:.3f}, {seconds[name][-1]:.0f} s"
            print(f"seed {seed}: {name}: {latest}", flush=True)

    print("\n| method | balanced accuracy | trained parameters | seconds |")
    print("| --- | --- | --- | --- |")
    for name in METHODS:
        score = f"{np.mean(scores[name]):.3f} ± {np.std(scores[name]):.3f}"
        numbers = " to ".join(f"{n:,}" for n in sorted({min(trained[name]), max(trained[name])}))
        print(f"| {name} | {score} | {numbers} | {np.mean(seconds[name]):.0f} |")
    mean = {name: np.mean(values) for name, values in scores.items()}
    best_peer = max(mean["linear probe (scikit-learn)"], mean["plain fine-tuning (plain Keras)"])
    print(
        f"\ncomposite transfer over from scratch: "
        f"{mean['composite transfer'] - mean['from scratch (plain Keras)']:+.3f} (bar: +0.150)\n"
        f"composite transfer over the better of probe and fine-tuning: "
        f"{mean['composite transfer'] - best_peer:+.3f} (bar: -0.010)"
    )


if __name__ == "__main__":
    main()
