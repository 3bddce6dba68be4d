"""Transfer against from scratch, linear probe and plain fine-tuning, on OpenMoji.

    python benchmarks/openmoji.py [--seeds 5] [--per-class 10] [--image-size 128] [--quick]

Ten pictures of each of six classes train, the rest test; each seed draws other pictures. The peers
are written out here in plain Keras and scikit-learn, as a careful user would write them. Their
settings (rates, epochs, BatchNorm) are the best of those tried on other OpenMoji classes, which are
none of the six: nothing was chosen on these pictures. Prints a table in Markdown.
"""

from __future__ import annotations

import harness
import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV

from keras_transfer import CompositeTransfer, StructureTransfer, TransferClassifier, get_backbone
from keras_transfer.choosing.calibration import expected_calibration_error
from keras_transfer.datasets import load_openmoji, per_class_split

BATCH = 32
SHORTEN = 40 if harness.QUICK else 1
FINE_TUNING = {"epochs": 80 // SHORTEN, "learning_rate": 1e-4}
FROM_SCRATCH = {"epochs": 200 // SHORTEN, "learning_rate": 1e-3}


# === The methods: each returns probabilities for X_test, and how many numbers it trained ===


def network(image_size, weights, n_classes, batch_norm_momentum=None):
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


def from_scratch(X, y, X_test, seed):
    keras.utils.set_random_seed(seed)
    # Momentum 0.99 never settles in so few steps, and would score at chance.
    model, _ = network(X.shape[1], None, int(y.max()) + 1, batch_norm_momentum=0.9)
    train(model, X, y, **FROM_SCRATCH)
    return model.predict(X_test, verbose=0), model.count_params()


def linear_probe(X, y, X_test, seed):
    n_classes = int(y.max()) + 1
    model, features = network(X.shape[1], "imagenet", n_classes)
    frozen = keras.Model(model.inputs, features)
    search = logistic_regression().fit(frozen.predict(X, verbose=0), y)
    return search.predict_proba(frozen.predict(X_test, verbose=0)), 1281 * n_classes


def logistic_regression():
    grid = {"C": np.logspace(-3, 2, 11)}
    return GridSearchCV(LogisticRegression(max_iter=5000), grid, scoring="balanced_accuracy")


def plain_fine_tuning(X, y, X_test, seed):
    keras.utils.set_random_seed(seed)
    model, _ = network(X.shape[1], "imagenet", int(y.max()) + 1)
    train(model, X, y, **FINE_TUNING)
    trained = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    return model.predict(X_test, verbose=0), trained


def ours(recipe, **parameters):
    def run(X, y, X_test, seed):
        # epochs speaks of a head that is trained; one that is alone is solved.
        short = {"epochs": 2} if harness.QUICK and recipe is not StructureTransfer else {}
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


def compare(methods, images, target, per_class, seeds, tested=None):
    """Return a method's balanced accuracies, calibration errors, trained numbers and seconds."""
    rows = {name: [] for name in methods}
    for seed in range(seeds):
        chosen, rest = per_class_split(target, per_class, random_state=seed)
        rest = np.random.default_rng(seed).permutation(rest)[:tested]
        for name, method in methods.items():
            seconds, (answers, trained) = harness.timed(
                method, images[chosen], target[chosen], images[rest], seed
            )
            accuracy = balanced_accuracy_score(target[rest], answers.argmax(axis=1))
            error = expected_calibration_error(answers, target[rest])
            rows[name].append((accuracy, error, trained, seconds))
            latest = f"{accuracy:.4f}, ECE {error:.4f}, {seconds:.1f} s"
            harness.note(f"{per_class} labels, seed {seed}: {name}: {latest}")
    return {name: np.transpose(values) for name, values in rows.items()}


def main():
    parser = harness.make_parser(__doc__, "one seed, 64 px, few epochs", seeds=5)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=64 if harness.QUICK else 128)
    options = harness.read_options(parser)
    images, target = load_openmoji(image_size=options.image_size, return_X_y=True)
    rows = compare(METHODS, images, target, options.per_class, options.seeds)

    harness.header("method", "balanced accuracy", "trained parameters", "seconds")
    for name, (accuracy, _, trained, seconds) in rows.items():
        numbers = " to ".join(f"{n:,.0f}" for n in sorted({min(trained), max(trained)}))
        harness.row(name, harness.spread(accuracy, ".3f"), numbers, f"{np.mean(seconds):.0f}")
    scratch, probe, fine_tuning, _, composite = (np.mean(values[0]) for values in rows.values())
    print(f"\ncomposite transfer over from scratch: {composite - scratch:+.3f} (bar: +0.150)")
    over = composite - max(probe, fine_tuning)
    print(f"composite transfer over the better of probe and fine-tuning: {over:+.3f} (bar: -0.010)")


if __name__ == "__main__":
    harness.run(main)
