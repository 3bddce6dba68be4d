"""Whether the source task helps is told on the training data, and said plainly."""

import re
import warnings

import numpy as np
import pytest
import tiny

import keras_transfer
from keras_transfer import StructureTransfer, TransferClassifier, TransferRegressor, get_backbone
from keras_transfer.choosing.guard import check_source
from keras_transfer.choosing.out_of_fold import out_of_fold
from keras_transfer.errors import InvalidParameterError, KerasTransferWarning
from keras_transfer.graph.blueprint import Blueprint
from keras_transfer.graph.readout import Readout

SHAPE = (32, 32, 3)


def spots(n=48, seed=0):
    """Pictures of noise, brighter in one of the four corners: the class, plain to a pixel."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    X = rng.integers(0, 120, (n, *SHAPE))
    for picture, corner in zip(X, y, strict=True):
        row, column = 16 * (corner // 2), 16 * (corner % 2)
        picture[row : row + 16, column : column + 16] += 60
    return X.astype(np.uint8), y


def make(kind=TransferClassifier, **parameters):
    options = {"readout": "last", "random_state": 0, "validation": None, **parameters}
    return kind(tiny.edges(), StructureTransfer(), **options)


def fit_and_hear(estimator, *data, **options):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        estimator.fit(*data, **options)
    return [str(w.message) for w in heard if "the source does not help" in str(w.message)]


def test_a_source_that_does_not_help_is_told_with_the_numbers():
    clf = make()
    (sentence,) = fit_and_hear(clf, *spots())
    pixels = clf.guard_.best
    assert pixels.name == "raw pixels"
    assert pixels.right > clf.guard_.right + 0.3
    assert f"raw pixels ({pixels.right:.0%} right, loss {pixels.loss:.3g})" in sentence
    assert f"{clf.guard_.name} ({clf.guard_.right:.0%} right" in sentence
    assert clf.guard_.name.endswith(" read at last")
    assert "48 examples" in sentence
    assert "guard='best'" in sentence


def test_a_source_that_helps_is_left_in_peace():
    clf = make()
    assert fit_and_hear(clf, *tiny.striped()) == []
    assert clf.guard_.best is None
    assert clf.guard_.right > clf.guard_.rivals[0].right + 0.2
    assert str(clf.guard_).startswith("the source helps: ")


def test_the_better_one_is_taken(tmp_path):
    X, y = spots()
    new_X, new_y = spots(seed=1)
    plain, guarded = make(), make(guard="best", validation="auto")
    fit_and_hear(plain, X, y)
    assert fit_and_hear(guarded, X, y) == []
    assert guarded.score(new_X, new_y) > 0.95
    assert guarded.score(new_X, new_y) > plain.score(new_X, new_y) + 0.3
    assert guarded.backbone_.name == "raw_inputs"
    assert guarded.guard_.best.name == "raw pixels"
    # Its own exact head answers out of fold, not what stands in the model before it is solved.
    assert guarded.validation_score_ > 0.95
    assert guarded.temperature_ < 2
    assert guarded.get_params()["backbone"] == tiny.edges()
    guarded.save(tmp_path / "clf.keras_transfer")
    loaded = keras_transfer.load(tmp_path / "clf.keras_transfer")
    assert loaded.guard_.best.evidence == guarded.guard_.best.evidence
    np.testing.assert_allclose(loaded.predict_proba(new_X), guarded.predict_proba(new_X), atol=1e-6)
    np.testing.assert_array_equal(guarded.novelty(X), np.zeros(len(X)))  # as raw pixels
    np.testing.assert_array_equal(loaded.novelty(new_X), guarded.novelty(new_X))
    expected = guarded.model_.predict(new_X.astype("float32"), verbose=0)
    np.testing.assert_allclose(guarded.predict_proba(new_X), expected, atol=1e-5)


def test_the_better_one_sees_weights_and_groups():
    X, y = spots()
    wrong = np.concatenate([y, (y + 1) % 4])
    weights = np.repeat([1.0, 0.0], 48)
    guarded = make(guard="best")
    fit_and_hear(
        guarded, np.concatenate([X, X]), wrong, sample_weight=weights, groups=np.arange(96) % 12
    )
    assert guarded.score(*spots(seed=1)) > 0.95


def test_what_helps_is_kept():
    guarded = make(guard="best")
    fit_and_hear(guarded, *tiny.striped())
    assert guarded.backbone_ == tiny.edges()
    plain = make(guard=None)
    assert fit_and_hear(plain, *tiny.striped()) == []
    np.testing.assert_array_equal(
        guarded.predict_proba(tiny.striped(seed=1)[0]), plain.predict_proba(tiny.striped(seed=1)[0])
    )


def test_other_tasks():
    X, y = spots()
    regressor = make(TransferRegressor)
    (sentence,) = fit_and_hear(regressor, X, 10.0 * (y % 2) + 3)
    assert "right" not in sentence
    assert np.isnan(regressor.guard_.right)
    labels = make()
    assert fit_and_hear(labels, X, np.stack([y % 2, y // 2], axis=1))


@pytest.mark.parametrize(
    "source", [tiny.cnn, "EfficientNetLite0 random"], ids=["function", "by name"]
)
def test_random_weights_are_no_source(source):
    if source == "EfficientNetLite0 random":
        source = get_backbone("EfficientNetLite0", weights=None)
    clf = TransferClassifier(source, StructureTransfer(), image_size=32, random_state=0)
    assert fit_and_hear(clf, *spots()) == []
    assert clf.guard_ is None


def test_a_network_by_name_is_compared_with_its_own_random_weights():
    clf = TransferClassifier(
        "EfficientNetLite0", StructureTransfer(), readout="block2a", image_size=32, random_state=0
    )
    fit_and_hear(clf, *spots())
    assert [rival.name for rival in clf.guard_.rivals] == ["raw pixels", "random weights"]
    assert clf.guard_.rivals[1].backbone.weights is None
    assert clf.guard_.rivals[1].readout == Readout("block2a")


def test_without_a_guard_nothing_is_compared():
    clf = make(guard=None)
    assert fit_and_hear(clf, *spots()) == []
    assert clf.guard_ is None
    with pytest.raises(InvalidParameterError, match=re.escape("guard: expected")):
        make(guard="strict").fit(*spots())


def test_it_is_a_warning_of_ours():
    with pytest.warns(KerasTransferWarning, match="the source does not help"):
        make().fit(*spots())


@pytest.mark.usefixtures("empty_store")
def test_the_network_passes_once_for_all(computed):
    recipe = StructureTransfer(train_blocks=1, epochs=1)
    clf = TransferClassifier(tiny.edges(), recipe, readout="last", random_state=0)
    fit_and_hear(clf, *spots())
    assert computed == [48, 48]  # the network up to the block that trains, and raw pixels


# === The evidence ===


def check(own, theirs, y):
    answers = [out_of_fold(f, y, "multiclass", n_outputs=2) for f in (own, theirs)]
    blueprint = Blueprint(tiny.edges(), None, SHAPE, Readout(), 0)
    return check_source(blueprint, answers[0], lambda rival: answers[1]).rivals[0]


def test_chance_is_no_evidence():
    y = np.arange(40) % 2
    for seed in range(5):
        rng = np.random.default_rng(seed)
        noise = [0.6 * y[:, np.newaxis] + rng.normal(size=(40, 4)) for _ in range(2)]
        rival = check(noise[0], noise[0] + rng.normal(size=(40, 4)) * 0.05, y)
        assert abs(rival.evidence) < 2.5
        assert check(noise[0], noise[0], y).evidence == 0
    better = check(rng.normal(size=(40, 4)), y[:, np.newaxis] * 3 + rng.normal(size=(40, 4)), y)
    assert better.is_better
    assert better.evidence > 2
    worse = check(y[:, np.newaxis] * 3 + rng.normal(size=(40, 4)), rng.normal(size=(40, 4)), y)
    assert not worse.is_better
    assert worse.evidence < -2


def test_no_time_no_rival():
    y = np.arange(40) % 2
    own = out_of_fold(np.eye(40), y, "multiclass", n_outputs=2)
    blueprint = Blueprint(tiny.edges(), None, SHAPE, Readout(), 0)
    assert check_source(blueprint, own, lambda rival: None).best is None


def test_the_examples_that_count_are_told():
    y, weights = np.arange(40) % 2, np.repeat([1.0, 0.0], [30, 10])
    own = out_of_fold(np.eye(40), y, "multiclass", n_outputs=2, weights=weights)
    blueprint = Blueprint(tiny.edges(), None, SHAPE, Readout(), 0)
    assert check_source(blueprint, own, lambda rival: None).n_examples == 30
