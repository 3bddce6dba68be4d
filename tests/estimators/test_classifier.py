"""TransferClassifier: arrays in, labels out; and every bad input one clear error."""

import pickle

import keras
import numpy as np
import pytest
import tiny
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    Readout,
    StructureTransfer,
    TransferClassifier,
    get_backbone,
)
from keras_transfer.errors import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    KerasTransferWarning,
    UnknownNameError,
)

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
TRAINS_WELL = ParameterTransfer(epochs=25, learning_rate=1e-2)


def make(backbone=tiny.cnn, recipe=None, **parameters):
    recipe = StructureTransfer(epochs=1) if recipe is None else recipe
    return TransferClassifier(backbone, recipe, **{"random_state": 0, **parameters})


@pytest.fixture(scope="module")
def data():
    return tiny.pictures(n_per_class=12)


@pytest.fixture(scope="module")
def fitted(data):
    return make(recipe=TRAINS_WELL).fit(*data)


def test_learns(fitted):
    X, y = tiny.pictures(seed=9)
    assert fitted.score(X, y) > 0.9
    np.testing.assert_array_equal(fitted.classes_, ["circle", "square", "stripes"])


def test_answers_agree(fitted, data):
    X, _ = data
    probabilities, logits = fitted.predict_proba(X), fitted.decision_function(X)
    assert probabilities.shape == logits.shape == (len(X), 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[probabilities.argmax(axis=1)])
    np.testing.assert_allclose(fitted.model_.predict(X, verbose=0), probabilities, atol=1e-5)


def test_two_classes():
    X, y = tiny.vectors()
    clf = make(tiny.dense, ParameterTransfer(epochs=20, learning_rate=1e-2)).fit(X, y)
    margin = clf.decision_function(X)
    assert margin.shape == (len(X),)
    np.testing.assert_array_equal(margin > 0, clf.predict(X) == "yes")
    assert clf.predict_proba(X).shape == (len(X), 2)
    assert clf.score(X, y) > 0.9
    assert clf.n_features_in_ == 5
    assert not hasattr(clf, "pixel_range_")


FORMS = {
    "grey": lambda X: X[..., 0],
    "one channel": lambda X: X[..., :1],
    "RGBA": lambda X: np.concatenate([X, np.full_like(X[..., :1], 255)], axis=-1),
    "0..1": lambda X: X / 255,
    "-1..1": lambda X: (X / 127.5 - 1).astype("float32"),
    "16 bit": lambda X: X.astype("uint16") * 257,
    "a list": lambda X: list(X),
    "another size": lambda X: X.repeat(2, axis=1).repeat(3, axis=2),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_pictures(form, data):
    X, y = data
    X = FORMS[form](X)
    clf = make(recipe=TRAINS_WELL, image_size=tiny.SIZE).fit(X, y)
    assert clf.model_.input_shape == (None, *SHAPE)
    assert clf.score(X, y) > 0.8


def test_forms_of_one_picture_mean_the_same(fitted, data):
    X, _ = data
    expected = fitted.predict_proba(X)
    rgba = FORMS["RGBA"](X)
    np.testing.assert_array_equal(fitted.predict_proba(rgba), expected)
    np.testing.assert_allclose(fitted.predict_proba(X.astype("float64")), expected, atol=1e-6)
    assert fitted.pixel_range_ == (0.0, 255.0)


LABELS = {
    "strings": ["b", "a", "c"],
    "ints": [7, -1, 3],
    "bools": [True, False, None],
    "floats": [0.0, 1.0, -2.0],
    "tuples": [("a", 1), ("a", 2), ("b", 1)],
    "mixed": [1, "one", (1,)],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(kind, data):
    X, y = data
    values = dict(zip(["circle", "square", "stripes"], LABELS[kind], strict=True))
    chosen = [i for i in range(len(y)) if values[y[i]] is not None]
    labels = [values[y[i]] for i in chosen]
    clf = make().fit(X[chosen], labels)
    assert set(clf.predict(X).tolist()) <= set(labels)
    assert set(clf.classes_.tolist()) == set(labels)


def test_image_size_and_readout(data):
    X, y = data
    clf = make(image_size=(24, 20), readout=Readout("conv1", pooling=(2, 1))).fit(X, y)
    assert clf.model_.input_shape == (None, 24, 20, 3)
    assert not any(layer.name.startswith("conv2") for layer in clf.model_.layers)
    assert clf.predict(X).shape == (len(X),)


def test_few_examples_train_a_fixed_number_of_epochs(data):
    clf = make(recipe=StructureTransfer(epochs=3)).fit(*data)
    assert (clf.n_iter_, clf.history_["stage"]) == (3, ["head"] * 3)
    assert np.isnan(clf.validation_score_)


def test_enough_examples_are_validated():
    X, y = tiny.pictures(n_per_class=50)
    clf = make(recipe=StructureTransfer(epochs=2)).fit(X, y)
    assert 0 <= clf.validation_score_ <= 1
    assert clf.validation_score_ == max(clf.history_["val_score"])
    without = make(recipe=StructureTransfer(epochs=2), validation=None).fit(X, y)
    assert np.isnan(without.validation_score_)


def test_validation_data(data):
    X, y = data
    X_held, y_held = tiny.pictures(n_per_class=3, seed=5)
    clf = make(recipe=TRAINS_WELL).fit(X, y, validation_data=(X_held, y_held))
    recalls = [np.mean(clf.predict(X_held[y_held == c]) == c) for c in clf.classes_]
    assert clf.validation_score_ == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "roc_auc_ovr", "f1_macro"])
def test_scoring_is_scikit_learns(scoring, data):
    from sklearn.metrics import get_scorer

    held = tiny.pictures(n_per_class=12, seed=1)
    clf = make(scoring=scoring).fit(*data, validation_data=held)
    expected = get_scorer(scoring)(clf, *held)
    assert clf.validation_score_ == pytest.approx(expected, abs=1e-5)


def test_target_score(data):
    clf = make(recipe=CompositeTransfer(epochs=40, learning_rate=1e-2), target_score=0.1)
    clf.fit(*data)
    # What is held out for it, two of each class, does not steer.
    long = make(recipe=StructureTransfer(epochs=30), target_score=1.1).fit(*data)
    assert [(record.reason, record.epochs) for record in long.stages_] == [("epochs", 30)]
    assert [record.reason for record in clf.stages_] == ["target score"]
    assert clf.n_iter_ < 40
    assert clf.validation_score_ >= 0.1


def test_time_budget(data):
    recipe = CompositeTransfer(epochs=100_000)
    clf = make(recipe=recipe, time_budget=3).fit(*data)
    assert [record.reason for record in clf.stages_] == ["solved", "time budget"]
    assert clf.predict(data[0]).shape == (len(data[0]),)


def test_the_same_seed_gives_the_same_weights(data):
    recipe = StructureTransfer(1, epochs=2, augmentation="all", dropout=0.3)
    one, two, three = (make(recipe=recipe, random_state=seed).fit(*data) for seed in (1, 1, 2))
    for a, b in zip(one.model_.get_weights(), two.model_.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.history_["loss"] == two.history_["loss"] != three.history_["loss"]


def test_parameters_stay_as_given(data):
    backbone = get_backbone(tiny.cnn)
    clf = make(backbone, CompositeTransfer(1, epochs=1), readout="conv1", image_size=16)
    before = dict(vars(clf))
    clf.fit(*data)
    assert {name: vars(clf)[name] for name in before} == before
    fresh = clone(clf)
    assert not hasattr(fresh, "model_")
    assert fresh.backbone is backbone


def test_structure_transfer_keeps_the_backbone_to_the_bit(data):
    backbone = tiny.settled(tiny.residual, SHAPE)
    clf = make(backbone, StructureTransfer(epochs=3)).fit(*data)
    source = sorted(w.numpy().tobytes() for w in backbone.load().weights)
    kept = [w for w in clf.model_.weights if not w.path.startswith("head.")]
    assert sorted(w.numpy().tobytes() for w in kept) == source


def test_data_is_not_changed(data):
    X, y = (array.copy() for array in data)
    X.flags.writeable = y.flags.writeable = False
    clf = make().fit(X, y)
    clf.predict_proba(X)
    np.testing.assert_array_equal(X, data[0])


def test_small_ranges_warn_once():
    X, y = tiny.pictures()
    with pytest.warns(KerasTransferWarning, match="16 is taken for white") as caught:
        clf = make().fit(X / X.max() * 16, y)
    assert caught[0].filename == __file__  # points at the call of fit
    assert clf.pixel_range_ == (0.0, 16.0)


def test_embedded_backbone():
    """The default backbone itself, small."""
    X, y = tiny.pictures(n_per_class=6, size=32)
    clf = TransferClassifier(
        recipe=StructureTransfer(epochs=30), image_size=64, random_state=0
    ).fit(X, y)
    assert clf.backbone_.name == "EfficientNetLite0"
    assert clf.score(*tiny.pictures(n_per_class=4, size=32, seed=3)) > 0.8


def test_pickles_and_searches(fitted, data):
    X, y = data
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    search = GridSearchCV(make(), {"recipe__train_blocks": [0, 1]}, cv=2).fit(X, y)
    assert search.best_params_["recipe__train_blocks"] in (0, 1)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# === Bad input ===

X, Y = tiny.pictures()
VX, VY = tiny.vectors()


def with_value(value):
    bad = X.astype("float32")
    bad[3, 0, 0, 0] = value
    return bad


FIT_MISTAKES = {
    # parameters, X, y, error, message
    "no pictures": ({}, X[:0], Y[:0], DataError, "y: expected at least two classes. Received: no"),
    "one class": ({}, X, ["a"] * len(X), DataError, "only one class, 'a'"),
    "too few labels": ({}, X, Y[:-1], DataError, "y: expected 24 entries.*Received: 23"),
    "no labels": ({}, X, None, DataError, "requires y to be passed, but the target y is None"),
    "a label missing": ({}, X, [None, *Y[1:]], DataError, "first at row 0"),
    "NaN": ({}, with_value(np.nan), Y, DataError, "1 picture.*first at row 3"),
    "infinity": ({}, with_value(-np.inf), Y, DataError, "first at row 3"),
    "flattened": ({"backbone": "MobileNetV2"}, X.reshape(24, -1), Y, DataError, "Reshape"),
    "five axes": ({}, X[..., None], Y, DataError, r"Received: \(24, 16, 16, 3, 1\)"),
    "two channels": ({}, X[..., :2], Y, DataError, "1, 3 or 4 channels"),
    "strings": ({}, X.astype(str), Y, DataError, "expected numbers"),
    "an unknown range": ({}, X * 1000.0, Y, DataError, "expected pixels of 0..1"),
    "an unknown backbone": (
        {"backbone": "MobilNetV2"},
        X,
        Y,
        UnknownNameError,
        "Did you mean 'MobileNetV2'",
    ),
    "an unknown mode": ({"recipe": "compsite"}, X, Y, UnknownNameError, "'composite'"),
    "a mode's class": ({"recipe": StructureTransfer}, X, Y, InvalidTypeError, "recipe: exp"),
    "a setting of the mode": (
        {"recipe": StructureTransfer(epochs=0)},
        X,
        Y,
        InvalidParameterError,
        "epochs: expected None or an int of at least 1. Received: 0",
    ),
    "more blocks than there are": (
        {"recipe": StructureTransfer(4)},
        X,
        Y,
        InvalidParameterError,
        "train_blocks: expected at most 3",
    ),
    "an unknown block": (
        {"recipe": StructureTransfer(["cnov2"])},
        X,
        Y,
        UnknownNameError,
        "Did you mean 'conv2'",
    ),
    "an unknown readout": ({"readout": "conv7"}, X, Y, UnknownNameError, "Did you mean"),
    "no readout": ({"readout": 3}, X, Y, InvalidParameterError, "readout: expected 'auto'"),
    "an image size of nothing": ({"image_size": 0}, X, Y, InvalidParameterError, "image_size"),
    "too small a size": (
        {"backbone": get_backbone("VGG16", weights=None), "image_size": 16},
        X,
        Y,
        InvalidParameterError,
        "at least 32 px",
    ),
    "a bare model": (
        {"backbone": tiny.cnn(SHAPE)},
        X,
        Y,
        InvalidTypeError,
        r"Write backbone=get_backbone\(model\)",
    ),
    "a network for grey pictures": (
        {"backbone": get_backbone(tiny.cnn((16, 16, 1)))},
        X[..., 0],
        Y,
        InvalidParameterError,
        "three channels",
    ),
    "a batch of nothing": ({"batch_size": 0}, X, Y, InvalidParameterError, "batch_size: expected"),
    "a share too large": ({"validation": 1.5}, X, Y, InvalidParameterError, "validation: exp"),
    "unknown scoring": ({"scoring": "acuracy"}, X, Y, UnknownNameError, "Did you mean 'accuracy'"),
    "no scoring": ({"scoring": 3}, X, Y, InvalidTypeError, "scoring: expected"),
    "a target without validation": (
        {"target_score": 0.9, "validation": None},
        X,
        Y,
        InvalidParameterError,
        "target_score: expected a validation",
    ),
    "a budget of nothing": ({"time_budget": 0}, X, Y, InvalidParameterError, "time_budget: exp"),
    "an unknown modality": ({"modality": "pictures"}, X, Y, InvalidParameterError, "'picture'"),
    "another modality": (
        {"backbone": "MobileNetV2", "modality": "features"},
        X,
        Y,
        InvalidParameterError,
        "expected 'picture', which MobileNetV2 reads",
    ),
    "a size for vectors": (
        {"backbone": tiny.dense, "image_size": 8},
        VX,
        VY,
        InvalidParameterError,
        "image_size: expected None for vectors",
    ),
    "a random state that is none": (
        {"random_state": "x"},
        X,
        Y,
        ValueError,
        "cannot be used to se",
    ),
}


@pytest.mark.parametrize("case", FIT_MISTAKES)
def test_fit_refuses(case):
    parameters, X, y, error, message = FIT_MISTAKES[case]
    with pytest.raises(error, match=message):
        make(**parameters).fit(X, y)


VALIDATION_MISTAKES = {
    "no pair": (X, InvalidTypeError, r"expected a pair \(X, y\)"),
    "labels missing": ((X, Y[1:]), DataError, "validation_data: expected 24 entries"),
    "an unknown label": ((X[:1], ["oval"]), DataError, "Received: 'oval'"),
    "another range": ((X[:1] * 1e3, Y[:1]), DataError, "as in fit"),
}


@pytest.mark.parametrize("case", VALIDATION_MISTAKES)
def test_fit_refuses_validation_data(case):
    validation_data, error, message = VALIDATION_MISTAKES[case]
    with pytest.raises(error, match=message):
        make().fit(X, Y, validation_data=validation_data)


PREDICT_MISTAKES = {
    "another range": (X.astype("float32") / 255, DataError, "expected pixels of 0 to 255, as in"),
    "a single picture": (X[0], DataError, r"pass X\[np\.newaxis\]"),
    "nothing": (X[:0], DataError, "at least one picture"),
    "vectors": (VX, DataError, "Received: \\(40, 5\\)"),
    "NaN": (with_value(np.nan), DataError, "row 3"),
}


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
@pytest.mark.parametrize("case", PREDICT_MISTAKES)
def test_predict_refuses(case, method, fitted):
    pictures, error, message = PREDICT_MISTAKES[case]
    with pytest.raises(error, match=message):
        getattr(fitted, method)(pictures)


def test_predict_refuses_another_number_of_features():
    clf = make(tiny.dense).fit(VX, VY)
    with pytest.raises(
        DataError, match="X has 4 features, but TransferClassifier is expecting 5 features as input"
    ):
        clf.predict(VX[:, :4])


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_before_fit(method):
    with pytest.raises(NotFittedError):
        getattr(make(), method)(X)
    with pytest.raises(NotFittedError):
        make().score(X, Y)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda clf: clf.fit(X, Y[:-1]),
        lambda clf: clf.set_params(recipe=StructureTransfer(9)).fit(X, Y),
        lambda clf: clf.set_params(
            recipe=StructureTransfer(epochs=9, head_learning_rate=1e38, optimizer="sgd")
        ).fit(X, Y),
    ],
    ids=["labels", "blocks", "diverges"],
)
def test_a_failed_fit_leaves_the_earlier_one_usable(mistake):
    clf = make().fit(X, Y)
    expected, weights = clf.predict_proba(X), clf.model_.get_weights()
    with pytest.raises((ValueError, ArithmeticError)):
        mistake(clf)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    for one, other in zip(clf.model_.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_fit_leaves_nothing_of_the_earlier_one():
    clf = make().fit(X, Y)
    clf.set_params(backbone=tiny.dense).fit(VX, VY)
    assert not hasattr(clf, "pixel_range_")
    assert clf.n_features_in_ == 5
    assert keras.ops.shape(clf.model_(VX))[1] == 2
