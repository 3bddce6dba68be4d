"""Few labels: what is gained over from scratch, a linear probe, plain fine-tuning, raw pixels.

    python benchmarks/few_labels.py [--parts] [--sets ...] [--methods ...] [--per-class ...]

Three sets at growing distance from ImageNet: OpenMoji at 128 px, and at 64 px the digits of
scikit-learn and MNIST. Defaults and the peers' settings were chosen on other emoji and on every
second of scikit-learn's digits; of these the others are used here, and nothing was ever chosen on
MNIST. Each seed draws other pictures to train on, and other 1000 at most to test on. The peers are
in openmoji.py. ``--parts`` compares the settings of composite transfer instead. Prints tables in
Markdown.
"""

from __future__ import annotations

import functools

import harness
import numpy as np
import openmoji
import tensorflow as tf

from keras_transfer import CompositeTransfer, StructureTransfer
from keras_transfer.datasets import load_digit_pictures, load_mnist_pictures, load_openmoji

TESTED = 1000


def digits(image_size):
    images, target = load_digit_pictures(image_size=image_size, return_X_y=True)
    return images[1::2], target[1::2]  # the others are for development


SETS = {
    "OpenMoji": (128, functools.partial(load_openmoji, return_X_y=True)),
    "digits": (64, digits),
    "MNIST": (64, functools.partial(load_mnist_pictures, return_X_y=True)),
}


def raw_pixels(X, y, X_test, seed):
    small = [
        tf.image.resize(tf.cast(pictures, tf.float32), (16, 16), antialias=True)
        .numpy()
        .reshape(len(pictures), -1)
        / 255
        for pictures in (X, X_test)
    ]
    search = openmoji.logistic_regression().fit(small[0], y)
    return search.predict_proba(small[1]), (small[0].shape[1] + 1) * (int(y.max()) + 1)


METHODS = {
    "raw pixels, logistic regression": raw_pixels,
    "from scratch (plain Keras)": openmoji.from_scratch,
    "linear probe, last layer (scikit-learn)": openmoji.linear_probe,
    "plain fine-tuning (plain Keras)": openmoji.plain_fine_tuning,
    "structure transfer, last layer": openmoji.ours(StructureTransfer, readout="last"),
    "structure transfer, not calibrated": openmoji.ours(StructureTransfer, calibration=None),
    "structure transfer": openmoji.ours(StructureTransfer),
    "composite transfer, last layer": openmoji.ours(CompositeTransfer, readout="last"),
    "composite transfer (the default)": openmoji.ours(CompositeTransfer),
}
# What each setting alone adds to composite transfer; without the comparison with its own start.
PARTS = {
    "no setting": {},
    'train_blocks="auto"': {"train_blocks": "auto"},
    "layer_decay=0.7": {"layer_decay": 0.7},
    'schedule="one_cycle"': {"schedule": "one_cycle"},
    'schedule="cosine"': {"schedule": "cosine"},
    "weight_decay=0.05": {"weight_decay": 0.05},
    'learning_rate="auto"': {"learning_rate": "auto"},
    'average="ema"': {"average": "ema"},
    'average="wise"': {"average": "wise"},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
    "focal_gamma=2": {"focal_gamma": 2.0},
    'mix="mixup"': {"mix": "mixup"},
    'mix="cutmix"': {"mix": "cutmix"},
}
PART_METHODS = {
    f"composite transfer, {name}": openmoji.ours(
        functools.partial(CompositeTransfer, **settings), guard=None
    )
    for name, settings in PARTS.items()
}


def main():
    quick = harness.QUICK
    parser = harness.make_parser(__doc__, "one set, one seed, 32 px, few epochs", seeds=5)
    parser.add_argument(
        "--sets", nargs="*", default=["digits"] if quick else None, help="parts of their names"
    )
    parser.add_argument("--methods", nargs="*", help="parts of their names")
    parser.add_argument("--per-class", nargs="*", type=int, default=[5] if quick else [5, 10, 20])
    parser.add_argument("--parts", action="store_true", help="the settings of composite transfer")
    options = harness.read_options(parser)
    known = PART_METHODS if options.parts else METHODS
    methods = {name: known[name] for name in harness.matching(known, options.methods)}
    for name in harness.matching(SETS, options.sets):
        size, load = SETS[name]
        images, target = load(image_size=32 if quick else size)
        for per_class in options.per_class:
            harness.note(f"{name}:")
            rows = openmoji.compare(methods, images, target, per_class, options.seeds, TESTED)
            print(f"\n{name}, {per_class} labels of each class")
            harness.header("method", "balanced accuracy", "ECE", "trained parameters", "seconds")
            for method, (accuracy, *others) in rows.items():
                error, trained, seconds = np.mean(others, axis=1)
                accuracy = harness.spread(accuracy, ".3f")
                harness.row(method, accuracy, f"{error:.3f}", f"{trained:,.0f}", f"{seconds:.0f}")


if __name__ == "__main__":
    harness.run(main)
