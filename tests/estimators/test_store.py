"""The store changes the time, never the result; and what is frozen is computed once, ever."""

import functools
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tiny
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict

import keras_transfer
from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    Readout,
    StructureTransfer,
    TransferClassifier,
    TransferEncoder,
    TransferRegressor,
)
from keras_transfer.graph.assembly import Assembly
from keras_transfer.store.activation_store import Memory, open_store

pytestmark = pytest.mark.usefixtures("empty_store")

X, Y = tiny.pictures()
SHAPE = X.shape[1:]
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2, len(Y))


@functools.cache
def backbone(build=tiny.residual):
    return tiny.settled(build, SHAPE)


def make(recipe="structure", build=tiny.residual, **parameters):
    options = {
        "readout": "last",
        "guard": None,
        "random_state": 0,
        "validation": None,
        **parameters,
    }
    return TransferClassifier(backbone(build), recipe, **options)


def assert_equal(one, other, tolerance=0.0):
    for a, b in zip(one.model_.get_weights(), other.model_.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    for column in set(one.history_) - {"seconds", "stage"}:
        np.testing.assert_allclose(
            one.history_[column], other.history_[column], rtol=0, atol=tolerance
        )


# === The same result ===

RECIPES = {
    "exact head": StructureTransfer(),
    "head": StructureTransfer(epochs=3),
    "dropout": StructureTransfer(epochs=3, dropout=0.3),
    "last block": StructureTransfer(train_blocks=1, epochs=2),
    "affine": StructureTransfer(train_blocks=1, epochs=2, batch_norm="affine"),
    "train": StructureTransfer(train_blocks=2, epochs=2, batch_norm="train"),
    "composite": CompositeTransfer(train_blocks=1, epochs=2),
    "composite, all": CompositeTransfer(epochs=2),
    "gradual": CompositeTransfer(train_blocks="gradual", epochs=1, head_solver="gradient"),
    "parameter": ParameterTransfer(epochs=1),
    "views": StructureTransfer(augmentation="all", n_views=3),
    "views, blocks": CompositeTransfer(1, epochs=1, augmentation=["flip"], n_views=2),
}


@pytest.mark.parametrize("build", [tiny.cnn, tiny.residual, tiny.nested])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_equal_to_the_bit_where_it_is_exact(recipe, build):
    seed = len(repr(recipe))
    fits = [
        make(clone(recipe), build, memory=memory, validation=0.25, random_state=seed).fit(
            X, Y, sample_weight=WEIGHTS
        )
        for memory in (False, Memory(exact=True))
    ]
    answers = [clf.decision_function(X) for clf in fits]
    np.testing.assert_array_equal(*answers)
    assert_equal(*fits)
    np.testing.assert_array_equal(fits[1].decision_function(X), answers[0])  # from the whole
    assert fits[0].validation_score_ == fits[1].validation_score_


@pytest.mark.parametrize("name", ["exact head", "last block", "composite", "views"])
def test_as_good_as_equal_where_it_is_folded(name):
    one, other = (make(clone(RECIPES[name]), memory=memory).fit(X, Y) for memory in (False, None))
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), atol=1e-3)
    np.testing.assert_array_equal(other.predict(X), one.predict(X))


def test_regressions_and_their_feature_units():
    numbers = np.arange(len(X)) % 5 * 100.0 + 3
    for recipe in (StructureTransfer(), StructureTransfer(1, epochs=2)):
        one, other = (
            TransferRegressor(backbone(), clone(recipe), random_state=0, memory=memory).fit(
                X, numbers
            )
            for memory in (False, Memory(exact=True))
        )
        np.testing.assert_array_equal(one.predict(X), other.predict(X))
        assert_equal(one, other)


def test_several_tensors_at_the_boundary():
    """A readout of two blocks, and only the upper one trains."""
    readout = Readout(["unit0_conv", "unit1_conv"], [(2, 2), "average"])
    recipe = StructureTransfer(train_blocks=1, epochs=2)
    one, other = (
        make(clone(recipe), readout=readout, memory=memory).fit(X, Y)
        for memory in (False, Memory(exact=True))
    )
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert_equal(one, other)
    assert other.stages_[0].stored == "stored at unit0_conv and readout"


def test_half_precision_keeps_the_answers():
    one, half = (make(memory=memory).fit(X, Y) for memory in (None, Memory(dtype="float16")))
    assert not np.array_equal(one.predict_proba(X), half.predict_proba(X))
    np.testing.assert_allclose(half.predict_proba(X), one.predict_proba(X), atol=0.02)


@pytest.mark.parametrize("recipe", [StructureTransfer(), StructureTransfer(1, epochs=1)], ids=repr)
def test_answers_stay_the_same_through_pickle_save_and_the_model(recipe, tmp_path):
    clf = make(recipe).fit(X, Y)
    expected = clf.predict_proba(X)
    again = pickle.loads(pickle.dumps(clf))
    clf.save(tmp_path / "clf.keras_transfer")
    loaded = keras_transfer.load(tmp_path / "clf.keras_transfer")
    for other in (again, loaded, clf):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
    np.testing.assert_allclose(clf.model_.predict(X, verbose=0), expected, atol=1e-4)


def test_what_is_done_to_the_model_shows_in_the_answers():
    clf = make().fit(X, Y)
    before = clf.predict_proba(X)
    layer = clf.model_.get_layer("unit1_conv.unit1_conv")
    layer.set_weights([weight * 2 for weight in layer.get_weights()])
    after = clf.predict_proba(X)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(clf.model_.predict(X, verbose=0), after, atol=1e-4)
    head = clf.model_.get_layer("head.logits")
    head.set_weights([weight * 0 for weight in head.get_weights()])
    np.testing.assert_allclose(clf.predict_proba(X), 1 / 3, atol=1e-6)


# === Once, ever ===


def test_folds_candidates_and_estimators_compute_nothing_again(computed):
    grid = {"recipe__head_penalty": [0.1, 1.0, 10.0]}
    search = GridSearchCV(make(StructureTransfer()), grid, cv=3).fit(X, Y)
    assert sum(computed) == len(X)
    search.predict(X)
    cross_val_predict(make(StructureTransfer(epochs=1)), X[::-1], Y[::-1], cv=2)
    TransferEncoder(backbone()).fit_transform(X)
    assert sum(computed) == len(X)
    make(build=tiny.cnn).fit(X, Y)
    assert sum(computed) == 2 * len(X)


def test_a_composite_reuses_what_its_first_stage_stored(computed):
    make(CompositeTransfer(train_blocks=1, epochs=1)).fit(X, Y)
    assert sum(computed) == len(X)  # both cuts in one pass
    make(StructureTransfer()).fit(X, Y)
    make(StructureTransfer(train_blocks=1, epochs=1)).fit(X, Y)
    assert sum(computed) == len(X)


def test_views_are_computed_once(computed):
    for recipe in (StructureTransfer(augmentation="all", n_views=3), StructureTransfer()):
        make(recipe).fit(X, Y)
        make(clone(recipe), random_state=1).fit(X, Y)
    assert sum(computed) == 3 * len(X)


def test_on_a_hit_nothing_is_built(monkeypatch, tmp_path):
    first = make(memory=tmp_path).fit(X, Y)
    monkeypatch.setattr(Assembly, "__init__", None)  # cannot be called
    again = make(memory=tmp_path).fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), first.predict_proba(X))
    assert again.score(X, Y) > 0.8
    monkeypatch.undo()
    assert [layer.name for layer in again.model_.layers][-1] == "head.probabilities"


COUNTS = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
import tiny
from keras_transfer import StructureTransfer, TransferClassifier
from keras_transfer.training.frozen import FrozenPart

rows, run = [], FrozenPart.on_inputs
FrozenPart.on_inputs = lambda self, inputs: rows.append(len(inputs)) or run(self, inputs)
X, y = tiny.pictures()
backbone = tiny.settled(tiny.residual, X.shape[1:])
recipe = StructureTransfer()
options = dict(memory={folder!r}, validation=None, guard=None)
clf = TransferClassifier(backbone, recipe, **options).fit(X, y)
print(sum(rows), repr(clf.predict_proba(X[:2]).tolist()))
"""


def test_another_process_finds_what_is_in_a_folder(tmp_path):
    code = COUNTS.format(paths=sys.path, folder=str(tmp_path))
    outputs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    counts, answers = zip(*(done.stdout.split(maxsplit=1) for done in outputs), strict=True)
    assert counts == ("24", "0")
    assert answers[0] == answers[1]


def test_processes_of_a_search_share_a_folder(tmp_path):
    grid = {"recipe__head_penalty": [1.0, 10.0]}
    search = GridSearchCV(make(StructureTransfer(), memory=str(tmp_path)), grid, cv=2, n_jobs=2)
    alone = GridSearchCV(make(StructureTransfer()), grid, cv=2)
    expected = alone.fit(X, Y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(search.fit(X, Y).cv_results_["mean_test_score"], expected)
    assert open_store(Memory(folder=tmp_path)).info().rows == len(X)


# === What is said, and when it steps aside ===

NOTES = {
    "exact head": (StructureTransfer(), {}, ["stored at readout"]),
    "last block": (StructureTransfer(1, epochs=1), {}, ["stored at unit0_conv"]),
    "parameter": (ParameterTransfer(epochs=1), {}, ["not stored: it trains from the input"]),
    "composite": (
        CompositeTransfer(epochs=1),
        {},
        ["stored at readout", "not stored: it trains from the input"],
    ),
    "no memory": (StructureTransfer(), {"memory": False}, ["not stored: memory=False"]),
    "augmentation": (
        StructureTransfer(epochs=1, augmentation="all"),
        {},
        ["not stored: augmentation changes the pictures; n_views fixes them"],
    ),
    "views": (
        StructureTransfer(epochs=1, augmentation="all", n_views=2),
        {},
        ["stored at readout"],
    ),
    "mixed": (
        CompositeTransfer(1, epochs=1, mix="mixup"),
        {},
        ["stored at readout", "not stored: mixup makes new pictures in every step"],
    ),
    "mixed views": (
        CompositeTransfer(1, epochs=1, augmentation="all", n_views=2, mix="cutmix"),
        {},
        ["stored at readout", "not stored: cutmix makes new pictures in every step"],
    ),
}


@pytest.mark.parametrize(("recipe", "parameters", "notes"), NOTES.values(), ids=NOTES)
def test_a_stage_says_what_is_stored(recipe, parameters, notes, capsys):
    clf = make(recipe, verbose=True, **parameters).fit(X, Y)
    assert [record.stored for record in clf.stages_] == notes
    shown = capsys.readouterr().err
    assert all(f"frozen part: {note}" in shown for note in notes)


@pytest.mark.filterwarnings("ignore:.*labels look wrong")
def test_too_little_room():
    clf = make(StructureTransfer(1, epochs=1), memory=Memory(size_limit=1 << 20))
    many = np.concatenate([X] * 60)
    many[:, 0, 0, 0] = np.arange(len(many)) % 256
    many[:, 0, 0, 1] = np.arange(len(many)) // 256
    clf.fit(many, np.concatenate([Y] * 60))
    assert "more than memory's size_limit has room for" in clf.stages_[0].stored
    assert clf.score(X, Y) >= 0


def test_a_time_budget_shorter_than_a_pass(monkeypatch):
    from keras_transfer.training import stored_outputs

    monkeypatch.setattr(stored_outputs, "_COMPILED", 0)
    clf = make(StructureTransfer(epochs=2), time_budget=1e-3).fit(X, Y)
    assert clf.stages_[0].stored == "not stored: one pass takes longer than the time budget"
    assert clf.stages_[0].reason == "time budget"


def test_many_rows_to_answer_for_are_not_kept():
    few = np.concatenate([np.flatnonzero(label == Y)[:2] for label in np.unique(Y)])
    clf = make().fit(X[few], Y[few])
    clf.predict(255 - X[:12])
    assert open_store(Memory()).info().rows == 6 + 12
    clf.predict(255 - X)  # more than twice as many
    assert open_store(Memory()).info().rows == 6 + 12


def test_activations_too_large_to_hold_are_read_batch_by_batch(monkeypatch):
    from keras_transfer.training import activations

    expected = make(StructureTransfer(1, epochs=2)).fit(X, Y)
    monkeypatch.setattr(activations, "HELD_BYTES", 0)
    assert_equal(make(StructureTransfer(1, epochs=2)).fit(X, Y), expected)


def test_a_file_that_breaks_while_it_is_read_is_named(tmp_path, monkeypatch):
    from keras_transfer.inputs import picture_files

    monkeypatch.setattr(picture_files, "KEPT_BYTES", 0)  # decoded when needed
    paths = tiny.write_folder(tmp_path, X, Y)
    clf = make().fit(paths, Y)
    fresh = tiny.write_folder(tmp_path / "new", 255 - X[:3], Y[:3])
    load = type(clf._reader).load

    def break_after(self, *args, **kwargs):
        loaded = load(self, *args, **kwargs)
        with open(fresh[1], "wb") as file:
            file.write(b"no picture")
        return loaded

    monkeypatch.setattr(type(clf._reader), "load", break_after)
    with pytest.raises(ValueError, match=r"001\.png"):
        clf.predict(fresh)


# === Settings that do not go together ===

BAD = {
    "views without changes": (StructureTransfer(n_views=2), "n_views: expected an augmentation"),
    "exact, changes": (
        StructureTransfer(head_solver="exact", augmentation="all"),
        "head_solver: expected 'gradient' or 'auto'",
    ),
    "penalty of epochs": (
        StructureTransfer(head_solver="gradient", head_penalty=1.0),
        "head_penalty: expected None",
    ),
    "one view": (StructureTransfer(augmentation="all", n_views=1), "n_views"),
    "another solver": (StructureTransfer(head_solver="newton"), "head_solver"),
    "negative": (StructureTransfer(head_penalty=-1), "head_penalty"),
}


@pytest.mark.parametrize(("recipe", "message"), BAD.values(), ids=BAD)
def test_settings_that_contradict(recipe, message):
    with pytest.raises(ValueError, match=message):
        make(recipe).fit(X, Y)


def test_memory_of_a_wrong_type():
    with pytest.raises(ValueError, match="memory: expected None, False, a folder or a Memory"):
        make(memory=3).fit(X, Y)


SOLVERS = {
    "alone": (StructureTransfer(), ["exact"]),
    "epochs": (StructureTransfer(epochs=3), ["gradient"]),
    "rate": (StructureTransfer(learning_rate=0.1), ["gradient"]),
    "dropout": (StructureTransfer(dropout=0.1), ["gradient"]),
    "optimizer": (StructureTransfer(optimizer="sgd"), ["gradient"]),
    "a range test": (StructureTransfer(learning_rate="auto"), ["gradient"]),
    "a schedule": (StructureTransfer(schedule="cosine"), ["gradient"]),
    "a warm-up": (StructureTransfer(warm_up=0.1), ["gradient"]),
    "decay": (StructureTransfer(weight_decay=0.1), ["gradient"]),
    "an average": (StructureTransfer(average="ema"), ["gradient"]),
    "all of them, later": (
        CompositeTransfer(1, None, "auto", schedule="cosine", weight_decay=0.1, average="ema"),
        ["exact", "gradient"],
    ),
    "a penalty": (StructureTransfer(epochs=3, head_penalty=1.0), ["exact"]),
    "asked for": (StructureTransfer(epochs=3, head_solver="exact"), ["exact"]),
    "not asked for": (StructureTransfer(head_solver="gradient"), ["gradient"]),
    "composite": (CompositeTransfer(epochs=3, learning_rate=1e-4), ["exact", "gradient"]),
    "its own rate": (CompositeTransfer(head_learning_rate=0.1), ["gradient", "gradient"]),
    "changes": (CompositeTransfer(augmentation="all"), ["gradient", "gradient"]),
    "views": (CompositeTransfer(augmentation="all", n_views=2), ["exact", "gradient"]),
    "blocks": (StructureTransfer(1, head_solver="exact"), ["gradient"]),
    "mixed": (StructureTransfer(mix="mixup"), ["gradient"]),
    "smoothed": (StructureTransfer(0, label_smoothing=0.1), ["gradient"]),
    "focal": (CompositeTransfer(0, focal_gamma=1.0), ["gradient"]),
    "focal of 0": (StructureTransfer(focal_gamma=0), ["exact"]),
    "mixed afterwards": (CompositeTransfer(mix="mixup"), ["exact", "gradient"]),
}


@pytest.mark.parametrize(("recipe", "solvers"), SOLVERS.values(), ids=SOLVERS)
def test_which_stages_are_solved(recipe, solvers):
    blocks = backbone().list_blocks()
    assert [stage.solver for stage in recipe.stages(blocks, 24)] == solvers
