"""The look at the data before a fit: which copies and wrong labels it finds, and false alarms.

    python benchmarks/data_look.py [--seeds 5] [--quick]

Near copies: a fifth of the pictures validate, and changed copies of a tenth of the training
pictures are put among them; found is a copy that is named with its own training picture. The last
row is the share of genuine validation pictures that are named where nothing was put in. The peer
names every pair whose raw features have a cosine above 0.95.

Wrong labels: a share of the labels is changed to another class at random. The peer is what is
commonly done: logistic regression on standardised features, cross-validated in five folds, names
every picture that it puts into another class. Precision is over the seeds in which anything was
named. "Warned" counts the seeds in which the user is told that labels look wrong.

Seconds: what the look takes on 2,000 pictures, beyond their features (mean over as many runs as
seeds) and with them (extracted once, after what is compiled once); OpenMoji, over and over.

Data are OpenMoji at 128 px and scikit-learn's digits at 64 px; features are those of
EfficientNet-Lite0, pretrained; each seed draws other splits, copies and wrong labels. Prints tables
in Markdown. On two CPU cores: a quarter of an hour, with `--quick` half a minute.
"""

from __future__ import annotations

import functools
import io

import harness
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_transfer import StructureTransfer, get_backbone
from keras_transfer.datasets import load_digit_pictures, load_openmoji, per_class_split
from keras_transfer.inputs.data_look import look_at
from keras_transfer.inputs.splits import hold_out
from keras_transfer.training.inference import Inference

BATCH = 32
HELD_OUT, COPIED = 0.2, 0.1
N_TIMED = 200 if harness.QUICK else 2_000
# Pictures per class (None: all) and share of wrong labels.
CASES = [(None, 0), (None, 0.02), (None, 0.05), (None, 0.1), (20, 0), (20, 0.1), (10, 0), (10, 0.1)]


def extractor(size):
    """Return a function from pictures of a size to their features."""
    backbone = get_backbone("EfficientNetLite0")
    model = StructureTransfer().build(backbone, outputs=2, input_shape=(size, size, 3))
    inference = Inference(model)
    return lambda images: inference.on_inputs(images.astype(np.float32), BATCH, "features")


# === Changes ===


def with_edges(picture, change):
    """Change a picture that goes on beyond its edges."""
    margin = picture.width // 8
    wide = np.pad(np.asarray(picture), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    return ImageOps.crop(change(Image.fromarray(wide)), margin)


def as_jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return Image.open(buffer).convert("RGB")


def halved(picture):
    half = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC)
    return half.resize(picture.size, Image.Resampling.BICUBIC)


def shifted(picture):
    by = -round(0.04 * picture.width)
    return with_edges(
        picture,
        lambda wide: wide.transform(wide.size, Image.Transform.AFFINE, (1, 0, by, 0, 1, by)),
    )


def cropped(picture):
    edge = 0.05 * picture.width
    box = (edge, edge, picture.width - edge, picture.height - edge)
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)


def turned(picture):
    return with_edges(picture, lambda wide: wide.rotate(5, Image.Resampling.BICUBIC))


CHANGES = {
    "JPEG, quality 75": as_jpeg,
    "half as large and back": halved,
    "shifted by 4 %": shifted,
    "centre crop of 90 %": cropped,
    "mirrored": ImageOps.mirror,
    "brightness +20 %": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "turned by 5 degrees": turned,
}


# === Near copies ===


def near_by_look(train, held):
    """Return the training row of each held-out row that is named."""
    names = [str(row) for row in range(len(train) + len(held))]
    features = np.concatenate([train, held])
    report = look_at(features, None, names, digests=names, n_train=len(train))
    return {int(leak.validation) - len(train): int(leak.train) for leak in report.leaks}


def near_by_cosine(train, held):
    train, held = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, held))
    similarity = held @ train.T
    return {row: similarity[row].argmax() for row in np.flatnonzero(similarity.max(1) > 0.95)}


NEAR = {"ours": near_by_look, "cosine > 0.95": near_by_cosine}


def near_copies(images, target, features, extract, changes, seed):
    """Return the share found of each change, and at last the share of false alarms."""
    rng = np.random.default_rng(seed)
    train, held = hold_out(target, HELD_OUT, rng)
    twins = rng.choice(len(train), round(COPIED * len(train)), replace=False)
    shares = []
    for change in changes:
        pictures = [change(Image.fromarray(images[train[twin]])) for twin in twins]
        copies = extract(np.stack([np.asarray(picture) for picture in pictures]))
        part = np.concatenate([features[held], copies])
        for find in NEAR.values():
            found = find(features[train], part)
            right = [found.get(len(held) + n) == twin for n, twin in enumerate(twins)]
            shares.append(np.mean(right))
    for find in NEAR.values():
        shares.append(len(find(features[train], features[held])) / len(held))
    return shares


# === Wrong labels ===


def suspects_of_look(features, labels, seed):
    names = [str(row) for row in range(len(labels))]
    report = look_at(features, labels, names, n_train=len(labels))
    warned = any("wrong" in sentence for sentence in report.warnings())
    return [int(suspect.name) for suspect in report.suspects], warned


def suspects_of_folds(features, labels, seed):
    answers = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        features,
        labels,
        cv=StratifiedKFold(5, shuffle=True, random_state=seed),
    )
    return np.flatnonzero(answers != labels), False


SUSPECTS = {"ours": suspects_of_look, "cross-validation": suspects_of_folds}


def wrong_labels(features, target, per_class, share, find, seed):
    """Return recall, precision, how many were named, and whether there was a warning."""
    rows = np.arange(len(target))
    if per_class is not None:
        rows, _ = per_class_split(target, per_class, random_state=seed)
    rng = np.random.default_rng(seed)
    labels, n_classes = target[rows], target.max() + 1
    wrong = rng.choice(len(rows), round(share * len(rows)), replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    named, warned = find(features[rows], labels, seed)
    right = len(np.intersect1d(named, wrong))
    recall = right / len(wrong) if len(wrong) else np.nan
    precision = right / len(named) if len(wrong) and len(named) else np.nan
    return recall, precision, len(named), warned


# === Tables ===


def near_copies_table(data, features, extractors, seeds):
    changes = dict(list(CHANGES.items())[:2]) if harness.QUICK else CHANGES
    columns = []
    for name, (images, target) in data.items():
        runs = [
            near_copies(images, target, features[name], extractors[name], changes.values(), seed)
            for seed in seeds
        ]
        columns += np.array(runs).T.reshape(-1, len(NEAR), len(runs)).swapaxes(0, 1).tolist()
    harness.header("near copies", *(f"{name}: {find}" for name in data for find in NEAR))
    for what, *values in zip([*changes, "false alarms"], *columns, strict=True):
        form = ".3f" if what == "false alarms" else ".2f"
        harness.row(what, *(harness.spread(of_seeds, form) for of_seeds in values))


def wrong_labels_table(data, features, seeds):
    measures = [f"{find}: {what}" for find in SUSPECTS for what in ("recall", "precision", "named")]
    harness.header("wrong labels", *measures, "warned")
    for name, (_, target) in data.items():
        for per_class, share in CASES[2:4] if harness.QUICK else CASES:
            cells, n_warned = [], 0
            for find in SUSPECTS.values():
                runs = [
                    wrong_labels(features[name], target, per_class, share, find, seed)
                    for seed in seeds
                ]
                recall, precision, named, warned = zip(*runs, strict=True)
                cells += [harness.spread(recall), harness.spread(precision)]
                cells.append(f"{np.mean(named):.1f}")
                n_warned += sum(warned)  # the peer never warns
            size = f"{per_class} per class" if per_class else f"all {len(target):,}"
            told = f"{n_warned} of {len(seeds)}"
            harness.row(f"{name}, {size}, {share:.0%}", *cells, told)


def seconds_table(seeds):
    harness.header("seconds", "beyond the features", "with them")
    names = [str(number) for number in range(N_TIMED)]
    for size in (64,) if harness.QUICK else (64, 128, 224):
        images, target = load_openmoji(image_size=size, return_X_y=True)
        images, labels = np.resize(images, (N_TIMED, size, size, 3)), np.resize(target, N_TIMED)
        extract = extractor(size)
        extract(images[:BATCH]), extract(images[-(N_TIMED % BATCH) :])
        until, features = harness.timed(extract, images)
        look = functools.partial(look_at, digests=names, n_train=N_TIMED * 4 // 5)
        beyond = [harness.timed(look, features, labels, names)[0] for _ in seeds]
        what = f"{N_TIMED:,} pictures of {size} px, {features.shape[1]:,} features"
        harness.row(what, harness.spread(beyond), f"{until + np.mean(beyond):.1f}")


def main():
    parser = harness.make_parser(__doc__, "one seed, OpenMoji at 64 px", seeds=5)
    seeds = range(harness.read_options(parser).seeds)
    data = {"OpenMoji": load_openmoji(image_size=64 if harness.QUICK else 128, return_X_y=True)}
    if not harness.QUICK:
        data["digits"] = load_digit_pictures(image_size=64, return_X_y=True)
    extractors = {name: extractor(images.shape[1]) for name, (images, _) in data.items()}
    features = {name: extractors[name](images) for name, (images, _) in data.items()}
    near_copies_table(data, features, extractors, seeds)
    wrong_labels_table(data, features, seeds)
    seconds_table(seeds)


if __name__ == "__main__":
    harness.run(main)
