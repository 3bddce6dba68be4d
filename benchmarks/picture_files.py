"""Reading picture files: how fast, and how long the training waits for it.

    python benchmarks/picture_files.py [--files 400] [--quick]

Two kinds of JPEG: small ones of 512 x 512 pixels and those of a phone, 4000 x 3000. First the
pictures read per second, all cores, to 224 x 224 pixels: ours, Keras's own
image_dataset_from_directory (which resizes without antialiasing), and Pillow in one thread. Then
one epoch of training, decoded when needed: the share of it in which the training waits for its
next batch, where only the head of EfficientNet-Lite0 trains (least work a picture) and where its
last two blocks do; and the seconds of an epoch on pictures that are in memory already. Prints
tables in Markdown.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import harness
import keras
import numpy as np
from PIL import Image

from keras_transfer import StructureTransfer
from keras_transfer.datasets import load_openmoji
from keras_transfer.inputs.picture_files import EncodedPictures, load_encoded
from keras_transfer.training.batches import shuffled_batches

SIZE = (224, 224)
BATCH = 32
# At least so many, or what was read ahead of them would be most of it.
STEPS = 16
KINDS = {"512 x 512": (512, 512), "4000 x 3000": (4000, 3000)}


def write(folder, n_files, shape):
    """Write JPEGs into two class folders; large ones are few pictures, many times."""
    pictures = load_openmoji(image_size=512).images
    paths, contents = [], []
    for row in range(min(n_files, 40 if shape[0] > 1000 else len(pictures))):
        picture = Image.fromarray(pictures[row * 7 % len(pictures)]).resize(shape)
        noise = np.random.default_rng(row).normal(0, 4, (shape[1], shape[0], 1))
        grained = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)  # as a photograph
        buffer = io.BytesIO()
        Image.fromarray(grained).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    for number in range(n_files):
        path = Path(folder) / str(number % 2) / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % len(contents)])
        paths.append(str(path))
    return paths


def ours(paths, folder):
    return load_encoded(paths, SIZE, keep=False)


def ours_in_a_pipeline(paths, folder):
    return list(EncodedPictures(paths, SIZE).batches(BATCH))


def keras_directory(paths, folder):
    dataset = keras.utils.image_dataset_from_directory(
        folder, image_size=SIZE, batch_size=BATCH, shuffle=False, verbose=False
    )
    return list(dataset)


def pillow(paths, folder):
    resized = []
    for path in paths:
        with Image.open(path) as picture:
            resized.append(
                np.asarray(picture.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR))
            )
    return resized


READERS = {
    "keras_transfer, read and checked before a fit": ours,
    "keras_transfer, when needed": ours_in_a_pipeline,
    "keras.utils.image_dataset_from_directory": keras_directory,
    "Pillow, one thread": pillow,
}


def epoch(model, dataset, steps):
    """Return the seconds of an epoch, and those of it that are spent waiting for batches."""
    batches = iter(dataset.repeat())
    model.train_on_batch(*next(batches))  # compiles, and fills what is read ahead
    waited = trained = 0.0
    for _ in range(steps - 1):
        seconds, batch = harness.timed(next, batches)
        waited += seconds
        trained += harness.timed(model.train_on_batch, *batch)[0]
    return waited + trained, waited


def reading_table(paths, folder):
    harness.header("pictures per second", *paths)
    for word, read in READERS.items():
        speeds = []
        for name, of_kind in paths.items():
            read(of_kind[:2], folder / name)  # what is traced once
            seconds, _ = harness.timed(read, of_kind, folder / name)
            speeds.append(f"{len(of_kind) / seconds:.0f}")
        harness.row(word, *speeds)


def training_table(paths):
    harness.header("an epoch of training", "in memory, s", "when needed, s", "waiting, s")
    size = (64, 64) if harness.QUICK else SIZE
    for blocks in (0,) if harness.QUICK else (0, 2):
        model = StructureTransfer(train_blocks=blocks).build(
            "EfficientNetLite0", outputs=2, input_shape=(*size, 3)
        )
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        what = f"last {blocks} blocks and head" if blocks else "head"
        for name, of_kind in paths.items():
            y = np.arange(len(of_kind)) % 2
            steps = max(STEPS, len(of_kind) // BATCH)
            kept = load_encoded(of_kind, size, keep=True).inputs
            later = EncodedPictures(of_kind, size)
            in_memory, _ = epoch(model, shuffled_batches((kept, y), BATCH, 0), steps)
            seconds, waited = epoch(model, shuffled_batches((later, y), BATCH, 0), steps)
            harness.row(
                f"{what}, {steps * BATCH} of {name}",
                f"{in_memory:.1f}",
                f"{seconds:.1f}",
                f"{waited:.1f} ({waited / seconds:.0%})",
            )


def main():
    parser = harness.make_parser(__doc__, "few small files")
    parser.add_argument("--files", type=int, default=2 * BATCH if harness.QUICK else 400)
    n_files = harness.read_options(parser).files
    kinds = dict(list(KINDS.items())[:1]) if harness.QUICK else KINDS
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        paths = {
            name: write(folder / name, n_files if shape[0] < 1000 else n_files // 4, shape)
            for name, shape in kinds.items()
        }
        reading_table(paths, folder)
        training_table(paths)


if __name__ == "__main__":
    harness.run(main)
