"""Save and load: the same estimator in a new process, from a file that is data and nothing else."""

import importlib.metadata
import io
import json
import os
import random
import subprocess
import sys
import textwrap
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import keras_transfer
from keras_transfer import (
    Memory,
    ParameterTransfer,
    Readout,
    StructureTransfer,
    TransferClassifier,
    TransferEncoder,
    get_backbone,
    load,
)
from keras_transfer.backbones.partition import read_blocks
from keras_transfer.errors import (
    FileFormatError,
    InvalidTypeError,
    KerasTransferError,
    OutputExistsError,
    WeightsNotFoundError,
)
from keras_transfer.inputs.targets import ClassTargets
from keras_transfer.persistence.plain import MissingFunction

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
PICTURES, NAMES = tiny.pictures(6)
VECTORS, ANSWERS = tiny.vectors(10)
DATA = {"callable": PICTURES, "model": PICTURES / 255, "features": VECTORS}
LABELS = {
    "callable": NAMES,
    "model": [(name[0], len(name)) for name in NAMES.tolist()],
    "features": ANSWERS == "yes",
}


def make(kind):
    """An estimator, its parameters far from the defaults."""
    if kind == "callable":
        # Two learning rates at once: the model is compiled with two optimizers.
        recipe = ParameterTransfer(
            epochs=1, learning_rate=1e-4, head_learning_rate=1e-2, augmentation=["flip"]
        )
        return TransferClassifier(tiny.cnn, recipe, image_size=(12, 20), random_state=0)
    if kind == "model":
        backbone = get_backbone(
            tiny.settled(tiny.residual, SHAPE).load(), preprocessing="caffe", name="mine"
        )
        return TransferClassifier(
            backbone,
            StructureTransfer(train_blocks=1, epochs=1, dropout=0.1),
            readout=Readout(["stem", "last"], [(2, 2), "average"]),
            batch_size=7,
            validation=None,
            random_state=0,
            verbose=False,
        )
    return TransferClassifier(
        tiny.dense,
        StructureTransfer(train_blocks="all", epochs=2, learning_rate=np.float32(1e-2)),
        modality="features",
        validation=0.3,
        scoring="accuracy",
        random_state=np.random.RandomState(1),
    )


@pytest.fixture(scope="module")
def fitted():
    return {kind: make(kind).fit(X, LABELS[kind]) for kind, X in DATA.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fitted):
    """Each estimator saved, and its bare model beside it."""
    folder = tmp_path_factory.mktemp("saved")
    for kind, estimator in fitted.items():
        estimator.save(folder / f"{kind}.keras_transfer")
        estimator.model_.save(folder / f"{kind}.keras")
        np.savez(
            folder / f"{kind}.npz", raw=DATA[kind], inputs=estimator._reader.load(DATA[kind]).inputs
        )
    return folder


KINDS = pytest.mark.parametrize("kind", DATA)

# === A new process ===

PROCESS = """
    import importlib.util, json, sys
    import numpy as np

    folder, root = sys.argv[1:]
    report = {"can import": [n for n in ("keras_transfer", "tiny") if importlib.util.find_spec(n)]}
    outputs = {}

    # First as someone who has Keras alone.
    import keras
    for kind in ("callable", "model", "features"):
        model = keras.saving.load_model(f"{folder}/{kind}.keras")
        outputs[f"{kind}/bare"] = model(np.load(f"{folder}/{kind}.npz")["inputs"]).numpy()
        report[f"{kind}/layers"] = [layer.name for layer in model.layers]
        report[f"{kind}/flat"] = not any(isinstance(la, keras.Model) for la in model.layers)
        report[f"{kind}/compiled"] = model.compiled
        x = np.load(f"{folder}/{kind}.npz")["inputs"][:4]
        model.fit(x, np.array([0, 1, 0, 1]), verbose=0)
    report["imported"] = [n for n in sys.modules if n.startswith("keras_transfer")]

    # Then with the package, though without the module that the backbones came from.
    sys.path.insert(0, root)
    import keras_transfer
    for kind in ("callable", "model", "features"):
        clf = keras_transfer.load(f"{folder}/{kind}.keras_transfer")
        raw = np.load(f"{folder}/{kind}.npz")["raw"]
        outputs[f"{kind}/probabilities"] = clf.predict_proba(raw)
        outputs[f"{kind}/decisions"] = clf.decision_function(raw)
        outputs[f"{kind}/novelty"] = clf.novelty(raw[::-1] * 0.9)
        report[f"{kind}/labels"] = clf.predict(raw).tolist()
        report[f"{kind}/classes"] = repr(clf.classes_)
        if kind == "model":
            from sklearn.base import clone
            again = clone(clf).fit(raw, clf.classes_[np.arange(len(raw)) % 3])
            outputs["model/refitted"] = again.predict_proba(raw)
    report["tiny"] = [n for n in sys.modules if n == "tiny"]
    np.savez(f"{folder}/outputs.npz", **{k.replace("/", "__"): v for k, v in outputs.items()})
    print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def elsewhere(folder):
    """What a new process made of the files."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(PROCESS),
            str(folder),
            str(Path(keras_transfer.__file__).parents[1]),
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    with np.load(folder / "outputs.npz") as outputs:
        report.update({name.replace("__", "/"): outputs[name] for name in outputs.files})
    return report


def test_the_new_process_had_nothing_of_ours(elsewhere):
    # Installed, as it stands or by a link, or only the folder that pytest was started in.
    installed = list(importlib.metadata.packages_distributions().get("keras_transfer", []))
    assert elsewhere["can import"] == (["keras_transfer"] if installed else [])
    assert elsewhere["imported"] == elsewhere["tiny"] == []


@KINDS
def test_predictions_are_the_same_to_the_bit(kind, fitted, elsewhere):
    estimator, X = fitted[kind], DATA[kind]
    np.testing.assert_array_equal(elsewhere[f"{kind}/probabilities"], estimator.predict_proba(X))
    np.testing.assert_array_equal(elsewhere[f"{kind}/decisions"], estimator.decision_function(X))
    np.testing.assert_array_equal(elsewhere[f"{kind}/novelty"], estimator.novelty(X[::-1] * 0.9))
    labels = [tuple(la) if isinstance(la, list) else la for la in elsewhere[f"{kind}/labels"]]
    assert labels == estimator.predict(X).tolist()
    assert elsewhere[f"{kind}/classes"] == repr(estimator.classes_)


def test_what_was_seen_is_stored_as_numbers_not_as_text(tmp_path):
    X, y = tiny.pictures(20)
    backbone = get_backbone(tiny.settled(tiny.residual, SHAPE).load(), name="mine")
    clf = TransferClassifier(backbone, StructureTransfer(), readout=Readout("last", (4, 4)))
    clf.fit(X, y).save(tmp_path / "saved")
    seen = clf._seen.directions
    assert seen.size > 1024
    with zipfile.ZipFile(tmp_path / "saved") as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert sizes["estimator.json"] < 100_000
        stored = [n for n in sizes if n.endswith(".npy")]
        assert len(stored) == 1
        assert sizes[stored[0]] < seen.nbytes + 200
    assert load(tmp_path / "saved")._seen.directions.dtype == np.float16


def test_a_file_from_before_there_was_novelty(fitted, tmp_path):
    old = load_copy(fitted["features"], tmp_path)
    del old._seen
    old.save(tmp_path / "old")
    loaded = load(tmp_path / "old")
    np.testing.assert_array_equal(loaded.predict(VECTORS), fitted["features"].predict(VECTORS))
    with pytest.raises(NotFittedError, match="an earlier version"):
        loaded.novelty(VECTORS)


def test_a_refit_elsewhere_starts_from_the_same_source_weights(fitted, elsewhere):
    """The weights came with the file, and the same seed and data give the same result."""
    X = DATA["model"]
    here = clone(fitted["model"]).fit(X, fitted["model"].classes_[np.arange(len(X)) % 3])
    np.testing.assert_array_equal(elsewhere["model/refitted"], here.predict_proba(X))


@KINDS
def test_the_bare_model_needs_keras_alone(kind, fitted, elsewhere):
    model = fitted[kind].model_
    inputs = fitted[kind]._reader.load(DATA[kind]).inputs
    np.testing.assert_array_equal(elsewhere[f"{kind}/bare"], model(inputs).numpy())
    assert elsewhere[f"{kind}/flat"]
    assert elsewhere[f"{kind}/compiled"]
    assert elsewhere[f"{kind}/layers"] == [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("callable", ["conv0", "conv1", "conv2", "head"]),
        ("features", ["low", "high", "head"]),
    ],
)
def test_the_blocks_can_be_read_from_the_layers(kind, expected, fitted, folder, elsewhere):
    reloaded = keras.saving.load_model(folder / f"{kind}.keras")
    blocks = read_blocks(reloaded)
    assert blocks == read_blocks(fitted[kind].model_)
    assert [block.name for block in blocks] == expected
    for block in blocks:
        assert set(block.layers) <= set(elsewhere[f"{kind}/layers"])
        assert all(name.startswith(f"{block.name}.") for name in block.layers)


# === The same estimator ===


@KINDS
def test_parameters_are_preserved(kind, fitted, folder):
    functions = {"cnn": tiny.cnn, "dense": tiny.dense}
    loaded = load(folder / f"{kind}.keras_transfer", custom_objects=functions)
    assert type(loaded) is TransferClassifier
    expected, found = fitted[kind].get_params(deep=False), loaded.get_params(deep=False)
    for name, value in expected.items():
        if name == "recipe":
            assert type(found[name]) is type(value)
            assert found[name].get_params() == value.get_params()
        elif isinstance(value, np.random.RandomState):
            assert found[name].randint(2**31) == clone(fitted[kind]).random_state.randint(2**31)
        else:
            assert found[name] == value, name
            assert type(found[name]) is type(value), name


@KINDS
def test_all_that_was_fitted_is_preserved(kind, fitted, folder):
    loaded = load(str(folder / f"{kind}.keras_transfer"), custom_objects={"cnn": tiny.cnn})
    public = {n for n in vars(fitted[kind]) if n.endswith("_") and n != "backbone_"}
    assert {n for n in vars(loaded) if n.endswith("_")} == {*public, "backbone_"}
    assert len(public) >= 5
    for name in public:
        value, found = getattr(fitted[kind], name), getattr(loaded, name)
        assert type(found) is type(value)
        np.testing.assert_equal(found, value)
    assert loaded.backbone_.name == fitted[kind].backbone_.name
    np.testing.assert_array_equal(loaded.classes_, fitted[kind].classes_)
    assert loaded.classes_.dtype == fitted[kind].classes_.dtype


def test_the_range_of_the_pictures_is_preserved(folder):
    loaded = load(folder / "model.keras_transfer")
    assert loaded.pixel_range_ == (0.0, 1.0)
    with pytest.raises(ValueError, match="as in fit"):
        loaded.predict(PICTURES)


@KINDS
def test_a_loaded_estimator_is_saved_again(kind, folder, tmp_path, fitted):
    first = load(folder / f"{kind}.keras_transfer")
    first.save(tmp_path / "again.keras_transfer")
    again = load(
        tmp_path / "again.keras_transfer", custom_objects={"cnn": tiny.cnn, "dense": tiny.dense}
    )
    X = DATA[kind]
    np.testing.assert_array_equal(again.predict_proba(X), fitted[kind].predict_proba(X))
    assert again.backbone == fitted[kind].backbone
    repr(first), repr(clone(first))


def test_saving_leaves_the_estimator_as_it_was(fitted, tmp_path):
    estimator = fitted["callable"]
    model, optimizer = estimator.model_, estimator.model_.optimizer
    trainable = [weight.path for weight in model.trainable_weights]
    attributes = dict(vars(estimator))
    before = estimator.predict_proba(PICTURES)
    estimator.save(tmp_path / "saved")
    assert vars(estimator) == attributes
    assert estimator.model_ is model
    assert model.optimizer is optimizer
    assert [weight.path for weight in model.trainable_weights] == trainable
    np.testing.assert_array_equal(estimator.predict_proba(PICTURES), before)


def test_the_state_of_the_optimizer_is_not_in_the_file(folder, fitted, tmp_path):
    assert isinstance(fitted["callable"].model_.optimizer, keras.optimizers.MultiOptimizer)
    with zipfile.ZipFile(folder / "callable.keras_transfer") as archive:
        inner = archive.extract("model.keras", tmp_path)
    assert keras.saving.load_model(folder / "callable.keras").compiled
    assert not keras.saving.load_model(inner).compiled
    assert os.path.getsize(inner) < os.path.getsize(folder / "callable.keras")


@KINDS
def test_the_bare_model_goes_on_training_where_it_was(kind, fitted, folder):
    """Keras warns where it drops the optimizer's state, as when other weights train than before."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        reloaded = keras.saving.load_model(folder / f"{kind}.keras")
    expected = [weight.path for weight in fitted[kind].model_.trainable_weights]
    assert [weight.path for weight in reloaded.trainable_weights] == expected


# === Functions of the user's ===


def test_without_its_function_a_loaded_estimator_predicts_but_does_not_fit(folder):
    loaded = load(folder / "features.keras_transfer")
    assert loaded.backbone == MissingFunction("dense", "tiny")
    assert loaded.score(VECTORS, LABELS["features"]) > 0.5
    before = loaded.predict_proba(VECTORS)
    for estimator in (loaded, clone(loaded)):
        with pytest.raises(FileFormatError, match=r"custom_objects=\{'dense': function\}"):
            estimator.fit(VECTORS, ANSWERS)
    np.testing.assert_array_equal(loaded.predict_proba(VECTORS), before)


def test_with_its_function_a_loaded_estimator_fits(folder):
    path = folder / "features.keras_transfer"
    loaded = load(path, custom_objects={"dense": tiny.dense})
    assert loaded.backbone is tiny.dense
    again = clone(loaded).fit(VECTORS, ANSWERS)
    assert again.classes_.tolist() == ["no", "yes"]


class Doubled(keras.layers.Layer):
    """Not registered with Keras."""

    def call(self, inputs):
        return inputs * 2


def doubling(input_shape):
    inputs = keras.Input(input_shape)
    outputs = keras.layers.Dense(3, name="low")(Doubled(name="doubled")(inputs))
    return keras.Model(inputs, outputs)


def test_a_layer_of_ones_own_is_passed_on_loading(tmp_path):
    path = tmp_path / "own.keras_transfer"
    clf = TransferClassifier(doubling, StructureTransfer(epochs=1)).fit(VECTORS, ANSWERS)
    clf.save(path)
    with pytest.raises(FileFormatError, match="A layer of your own goes into custom_objects"):
        load(path)
    loaded = load(path, custom_objects={"Doubled": Doubled})
    np.testing.assert_array_equal(loaded.predict_proba(VECTORS), clf.predict_proba(VECTORS))


MODULE = """
    import keras

    class Tripled(keras.layers.Layer):
        def call(self, inputs):
            return inputs * 3

    @keras.saving.register_keras_serializable("mine")
    def square(x):
        return x * x

    def network(shape):
        layers = [Tripled(), keras.layers.Dense(4, activation=square, name="low")]
        return keras.Sequential([keras.Input(shape), *layers])
"""
TRUSTING = """
    import sys
    import numpy as np
    import keras_transfer

    path, out = sys.argv[1:]
    X = np.load(out + "/X.npy")
    try:
        keras_transfer.load(path)
    except keras_transfer.errors.FileFormatError:
        assert "users_module" not in sys.modules, "a file that is not trusted was obeyed"
    clf = keras_transfer.load(path, trusted=True)
    np.save(out + "/answers.npy", clf.predict_proba(X))
    clf.fit(X, X[:, 0] > 0)
"""


def test_a_trusted_file_brings_its_modules(tmp_path, monkeypatch):
    """Importing is code of whoever wrote the file: only where the user says so."""
    (tmp_path / "users_module.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(tmp_path)
    import users_module

    clf = TransferClassifier(users_module.network, StructureTransfer(epochs=1), random_state=0)
    clf.fit(VECTORS, ANSWERS).save(tmp_path / "own")
    np.save(tmp_path / "X.npy", VECTORS)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(keras_transfer.__file__).parents[1]}",
    }
    arguments = [tmp_path / "own", tmp_path]
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRUSTING), *map(str, arguments)],
        check=True,
        env=environment,
    )
    np.testing.assert_array_equal(np.load(tmp_path / "answers.npy"), clf.predict_proba(VECTORS))


def test_an_estimator_with_callbacks_is_saved(tmp_path):
    clf = TransferClassifier(
        tiny.dense,
        StructureTransfer(epochs=3),
        callbacks=[keras.callbacks.EarlyStopping("loss", patience=2)],
        random_state=0,
    )
    clf.fit(VECTORS, ANSWERS).save(tmp_path / "saved")
    again = load(tmp_path / "saved", custom_objects={"dense": tiny.dense})
    np.testing.assert_array_equal(again.predict_proba(VECTORS), clf.predict_proba(VECTORS))
    with pytest.raises(FileFormatError, match="EarlyStopping"):
        again.fit(VECTORS, ANSWERS)
    again.set_params(callbacks=None).fit(VECTORS, ANSWERS)


def test_a_model_that_holds_a_layer_of_ones_own():
    """It makes a backbone, or the error says what would."""
    backbone = get_backbone(doubling((5,)))
    clf = TransferClassifier(backbone, StructureTransfer(epochs=1))
    try:
        clf.fit(VECTORS, ANSWERS)
    except KerasTransferError as error:
        assert "register_keras_serializable" in str(error)  # noqa: PT017


# === What is refused on saving ===


def test_not_fitted(tmp_path):
    with pytest.raises(NotFittedError):
        TransferClassifier().save(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_overwritten(fitted, tmp_path):
    path = tmp_path / "old"
    path.write_bytes(b"old")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        fitted["features"].save(path)
    assert path.read_bytes() == b"old"
    fitted["features"].save(path, overwrite=True)
    np.testing.assert_array_equal(load(path).classes_, [False, True])
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_labels_that_are_no_data_are_refused(fitted, tmp_path):
    estimator = load_copy(fitted["features"], tmp_path)
    estimator._targets = ClassTargets(np.array([1j, 2j]))
    with pytest.raises(InvalidTypeError, match="pickle the estimator"):
        estimator.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def load_copy(estimator, tmp_path):
    estimator.save(tmp_path / "copy")
    return load(tmp_path / "copy")


# === What is refused on loading ===


def rewritten(source, target, change):
    """Copy a save file; ``change(name, data)`` returns each member's new bytes, or None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def described(source, target, change):
    """Copy a save file, its description changed in place."""

    def edit(name, data):
        if name != "estimator.json":
            return data
        description = json.loads(data)
        description = change(description) or description
        return json.dumps(description).encode()

    return rewritten(source, target, edit)


def test_copying_alone_breaks_nothing(folder, tmp_path, fitted):
    path = described(folder / "model.keras_transfer", tmp_path / "copy", lambda d: None)
    X = DATA["model"]
    np.testing.assert_array_equal(load(path).predict_proba(X), fitted["model"].predict_proba(X))


@pytest.mark.parametrize("share", [0, 1e-9, 0.01, 0.3, 0.7, 0.99, -1])
def test_a_truncated_file(folder, tmp_path, share):
    data = (folder / "model.keras_transfer").read_bytes()
    path = tmp_path / "short.keras_transfer"
    path.write_bytes(data[: int(np.ceil(share * len(data))) if share >= 0 else -1])
    with pytest.raises(FileFormatError, match=r"short\.keras_transfer: expected .*Is it whole\?"):
        load(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_byte_that_changed(folder, tmp_path, share):
    data = bytearray((folder / "model.keras_transfer").read_bytes())
    data[int(share * len(data))] ^= 0xFF
    (tmp_path / "flipped").write_bytes(data)
    with pytest.raises(FileFormatError, match="flipped: expected"):
        load(tmp_path / "flipped")


@pytest.mark.parametrize("content", [b"epochs = 3\n", b"\x80\x04N.", b"PK\x03\x04"])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"other: expected a file written by save\(\)"):
        load(tmp_path / "other")


def test_a_keras_file(folder):
    with pytest.raises(FileFormatError, match=r"model\.keras: expected a file written by save\(\)"):
        load(folder / "model.keras")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


@pytest.mark.parametrize(
    "member", ["estimator.json", "model.keras", "attachment_0.json", "attachment_0.npz"]
)
def test_a_member_is_missing(folder, tmp_path, member):
    seen = []

    def drop(name, data):
        seen.append(name)
        return None if name == member else data

    path = rewritten(folder / "model.keras_transfer", tmp_path / "part", drop)
    assert member in seen
    with pytest.raises(FileFormatError, match=f"part: expected.*{member}"):
        load(path)


@pytest.mark.parametrize("version", [2, 0, None, "1", [1]], ids=repr)
def test_another_version(folder, tmp_path, version):
    path = described(
        folder / "model.keras_transfer",
        tmp_path / "newer",
        lambda d: d.update(format=version, keras_transfer="9.9"),
    )
    with pytest.raises(FileFormatError, match=r"newer: expected format 1 of keras_transfer") as e:
        load(path)
    assert f"format {version!r}, written by keras_transfer 9.9. Load it with" in str(e.value)


DESCRIPTIONS = {
    "a list": lambda d: [1],
    "another estimator": lambda d: d.update(estimator="Popen"),
    "no parameters": lambda d: d.pop("parameters") and None,
    "a parameter of a later version": lambda d: d["parameters"]["$dict"].append(
        ["strategy", "mirrored"]
    ),
    "parameters that are none": lambda d: d.update(parameters=[1]),
    "fitted attributes that are none": lambda d: d.update(fitted=[1]),
    "a tag of a later version": lambda d: d["fitted"]["$dict"].append(["new_", {"$new": 1}]),
    "an attachment that is not there": lambda d: d["attachments"].append("0" * 64),
}


@pytest.mark.parametrize("change", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_that_does_not_fit(folder, tmp_path, change):
    path = described(folder / "model.keras_transfer", tmp_path / "odd", change)
    with pytest.raises(FileFormatError, match=r"^\S*odd: expected"):
        load(path)


# === Files that would run code ===


def with_member(source, target, member, content):
    return rewritten(source, target, lambda n, data: content if n == member else data)


@pytest.fixture
def lambda_layer(tmp_path):
    """A model file whose Lambda layer, when it runs, leaves a mark."""
    mark = str(tmp_path / "mark")
    inputs = keras.Input((5,))
    leave_a_mark = eval(f"lambda x: (open({mark!r}, 'w').close(), x)[1]")
    outputs = keras.layers.Lambda(leave_a_mark, output_shape=(5,))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(outputs))
    model.save(tmp_path / "evil.keras")
    config = json.dumps(keras.saving.serialize_keras_object(model))
    Path(mark).unlink(missing_ok=True)
    # It would: else the tests below could not fail.
    unsafe = keras.saving.load_model(tmp_path / "evil.keras", safe_mode=False)
    unsafe(np.zeros((1, 5)))
    Path(mark).unlink()
    return tmp_path / "evil.keras", config, model.get_weights(), Path(mark)


def test_a_lambda_layer_in_the_model_is_refused(folder, tmp_path, lambda_layer):
    file, _, _, mark = lambda_layer
    source = folder / "features.keras_transfer"
    path = with_member(source, tmp_path / "tampered", "model.keras", file.read_bytes())
    with pytest.raises(FileFormatError, match="tampered: expected"):
        load(path)
    assert not mark.exists()


def test_a_lambda_layer_in_the_backbone_is_refused(folder, tmp_path, lambda_layer):
    _, config, weights, mark = lambda_layer
    buffer = io.BytesIO()
    np.savez(buffer, *weights)
    new = {"attachment_0.json": config.encode(), "attachment_0.npz": buffer.getvalue()}
    path = rewritten(
        folder / "model.keras_transfer", tmp_path / "tampered", lambda n, data: new.get(n, data)
    )

    def load_and_build():
        load(path).backbone_.source.load((5,))

    with pytest.raises(InvalidTypeError, match=r"(?i)replace lambda"):
        load_and_build()
    assert not mark.exists()


class LeaveAMark:
    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


def test_a_pickle_among_the_weights_is_refused(folder, tmp_path):
    mark = tmp_path / "mark"
    buffer = io.BytesIO()
    np.savez(buffer, np.array([LeaveAMark(mark)], object))
    np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True)["arr_0"].tolist()[0].close()
    mark.unlink()
    path = with_member(
        folder / "model.keras_transfer",
        tmp_path / "tampered",
        "attachment_0.npz",
        buffer.getvalue(),
    )
    with pytest.raises(FileFormatError, match="tampered: expected"):
        load(path)
    assert not mark.exists()


@pytest.mark.parametrize("member", ["model.keras", "attachment_0.json"])
def test_no_module_that_a_file_names_is_imported(folder, tmp_path, monkeypatch, member):
    mark = tmp_path / "mark"
    (tmp_path / "evil_module.py").write_text(
        f"import keras\nopen({str(mark)!r}, 'w').close()\nclass Dense(keras.layers.Dense): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def point_elsewhere(config):
        text = config.decode()
        changed = text.replace('"module": "keras.layers"', '"module": "evil_module"')
        assert changed != text
        return changed.encode()

    def change(name, data):
        if name != member:
            return data
        if name.endswith(".json"):
            return point_elsewhere(data)
        (tmp_path / "in.keras").write_bytes(data)
        rewritten(
            tmp_path / "in.keras",
            tmp_path / "out.keras",
            lambda n, inner: point_elsewhere(inner) if n == "config.json" else inner,
        )
        return (tmp_path / "out.keras").read_bytes()

    path = rewritten(folder / "model.keras_transfer", tmp_path / "tampered", change)
    with pytest.raises((ValueError, TypeError)):
        load(path).backbone_.source.load(SHAPE)
    if member == "model.keras":
        with pytest.raises(FileFormatError, match="tampered: expected"):
            load(path)
    assert not mark.exists()
    assert "evil_module" not in sys.modules


def test_loading_leaves_the_random_state_and_the_models_structure(folder, fitted):
    random.seed(3)
    expected = random.random()
    random.seed(3)
    loaded = load(folder / "model.keras_transfer")
    assert random.random() == expected
    assert not isinstance(loaded.model_.input, list)
    assert loaded.model_.input.shape == fitted["model"].model_.input.shape


# === From a source task to a target task ===


@pytest.mark.parametrize("kept_as", ["estimator", "saved estimator", "keras file"])
def test_what_was_learned_is_where_the_next_task_starts(kept_as, tmp_path):
    is_source = NAMES != "circle"
    source = TransferClassifier(tiny.cnn, ParameterTransfer(epochs=2), random_state=0)
    source.fit(PICTURES[is_source], NAMES[is_source])
    if kept_as == "estimator":
        backbone = get_backbone(source)
    elif kept_as == "saved estimator":
        source.save(tmp_path / "source.keras_transfer")
        backbone = get_backbone(str(tmp_path / "source.keras_transfer"))
        assert backbone.name == "cnn"
    else:
        source.model_.save(tmp_path / "source.keras")
        backbone = get_backbone(tmp_path / "source.keras")
    assert [b.name for b in backbone.list_blocks()] == [
        b.name for b in read_blocks(source.model_) if b.name != "head"
    ]
    target = TransferClassifier(
        backbone, StructureTransfer(epochs=2), random_state=1, readout="last"
    )
    target.fit(PICTURES, NAMES)
    assert target.classes_.tolist() == ["circle", "square", "stripes"]
    # Frozen, so still what the source task left: the same features, to the bit.
    one, other = (
        TransferEncoder(get_backbone(e)).fit_transform(PICTURES) for e in (source, target)
    )
    np.testing.assert_array_equal(one, other)
    fresh = TransferEncoder(tiny.cnn).fit_transform(PICTURES)
    assert np.abs(one - fresh).max() > 0.01


def test_no_saved_estimator_there_is_one_clear_error(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"none\.keras_transfer', no file"):
        get_backbone(tmp_path / "none.keras_transfer")
    (tmp_path / "broken.keras_transfer").write_bytes(b"PK not a zip")
    with pytest.raises(FileFormatError, match=r"broken\.keras_transfer"):
        get_backbone(str(tmp_path / "broken.keras_transfer"))


def test_where_activations_are_kept_is_not_saved(tmp_path):
    clf = TransferClassifier(
        get_backbone(tiny.cnn, input_shape=PICTURES.shape[1:]),
        "structure",
        memory=Memory(folder=tmp_path / "activations"),
        random_state=0,
    ).fit(PICTURES, NAMES)
    for memory, expected in ((clf.memory, None), (str(tmp_path / "other"), None), (False, False)):
        clf.set_params(memory=memory).save(tmp_path / "clf.keras_transfer", overwrite=True)
        loaded = load(tmp_path / "clf.keras_transfer", custom_objects={"cnn": tiny.cnn})
        assert loaded.memory is expected
        assert clf.memory is memory
