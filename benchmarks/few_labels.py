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

import argparse
import functools
import os
import sys
import time
from collections import defaultdict

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import openmoji
import tensorflow as tf
from sklearn.metrics import balanced_accuracy_score

from keras_transfer import CompositeTransfer, StructureTransfer
from keras_transfer.choosing.calibration import expected_calibration_error
from keras_transfer.datasets import (
    load_digit_pictures,
    load_mnist_pictures,
    load_openmoji,
    per_class_split,
)

TESTED = 1000


def digits(image_size):
    images, target = load_digit_pictures(image_size=image_size, return_X_y=True)
    return images[1::2], target[1::2]  # the others are for development


SETS = {
    "OpenMoji": (128, functools.partial(load_openmoji, return_X_y=True)),
    "digits": (64, digits),
    "MNIST": (64, functools.partial(load_mnist_pictures, return_X_y=True)),
}


def raw_pixels(X, y, X_test, seed, shorten):
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", help="parts of their names")
    parser.add_argument("--methods", nargs="*", help="parts of their names")
    parser.add_argument("--per-class", nargs="*", type=int, default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="the settings of composite transfer")
    parser.add_argument("--quick", action="store_true", help="one set, one seed, 32 px, few epochs")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.per_class = 1, [5]
        options.sets = options.sets or ["digits"]
    shorten = 40 if options.quick else 1
    known = PART_METHODS if options.parts else METHODS
    methods, sets = (
        [name for name in names if not parts or any(part in name for part in parts)]
        for names, parts in ((known, options.methods), (SETS, options.sets))
    )
    for name in sets:
        size, load = SETS[name]
        images, target = load(image_size=32 if options.quick else size)
        for per_class in options.per_class:
            rows = defaultdict(list)
            for seed in range(options.seeds):
                chosen, rest = per_class_split(target, per_class, random_state=seed)
                rest = np.random.default_rng(seed).permutation(rest)[:TESTED]
                for method in methods:
                    began = time.monotonic()
                    answers, trained = known[method](
                        images[chosen], target[chosen], images[rest], seed, shorten
                    )
                    seconds = time.monotonic() - began
                    accuracy = balanced_accuracy_score(target[rest], answers.argmax(axis=1))
                    error = expected_calibration_error(answers, target[rest])
                    rows[method].append((accuracy, error, trained, seconds))
                    done = f"{name}, {per_class} labels, seed {seed}: {method}"
                    print(f"{done}: {accuracy:.4f} {error:.4f} {seconds:.1f}", file=sys.stderr)
            print(f"\n{name}, {per_class} labels of each class")
            print("\n| method | balanced accuracy | ECE | trained parameters | seconds |")
            print("| --- | --- | --- | --- | --- |")
            for method, values in rows.items():
                mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
                print(
                    f"| {method} | {mean[0]:.3f} ± {spread[0]:.3f} | {mean[1]:.3f} | "
                    f"{mean[2]:,.0f} | {mean[3]:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
