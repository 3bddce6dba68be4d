"""scikit-learn's contract on pictures, where its own checks do not run (they make 2-D data)."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import tiny
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from keras_transfer import (
    CompositeTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferEncoder,
    TransferRegressor,
)

X, LABELS = tiny.pictures()
NUMBERS = X.mean(axis=(1, 2, 3))
BACKBONE = tiny.settled(tiny.cnn, (tiny.SIZE, tiny.SIZE, 3))
RECIPE = StructureTransfer(epochs=2, dropout=0.2)
KINDS = {
    "classifier": (TransferClassifier, LABELS),
    "regressor": (TransferRegressor, NUMBERS),
    "labels": (TransferClassifier, np.stack([NUMBERS > 100, LABELS == "circle"], axis=1)),
    "encoder": (TransferEncoder, None),
}


def make(kind, **parameters):
    estimator, _ = KINDS[kind]
    if estimator is not TransferEncoder:
        parameters = {"recipe": clone(RECIPE), **parameters}  # a test sets its settings
    return estimator(BACKBONE, **{"random_state": 0, **parameters})


def fit(kind, X=X, **parameters):
    return make(kind, **parameters).fit(X, KINDS[kind][1])


def methods(estimator):
    names = ("predict", "predict_proba", "decision_function", "transform")
    return [getattr(estimator, name) for name in names if hasattr(estimator, name)]


def answer(estimator, X=X):
    return [method(X) for method in methods(estimator)]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def fitted():
    return {kind: fit(kind) for kind in KINDS}


every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_clone_is_unfitted_and_equal(kind, fitted):
    copy = clone(fitted[kind])
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert repr(copy) == repr(fitted[kind])
    with pytest.raises(NotFittedError):
        check_is_fitted(copy)


@every_kind
def test_fit_returns_itself(kind):
    estimator = make(kind)
    assert estimator.fit(X, KINDS[kind][1]) is estimator


@every_kind
def test_fit_is_idempotent(kind, fitted):
    estimator = fit(kind)
    expected = answer(estimator)
    assert_same(answer(estimator.fit(X, KINDS[kind][1])), expected)
    assert_same(answer(fitted[kind]), expected)


@every_kind
def test_init_only_stores(kind):
    estimator = make(kind)
    parameters = estimator.get_params(deep=False)
    assert vars(estimator).keys() == parameters.keys()
    assert all(value is parameters[name] for name, value in vars(estimator).items())


@every_kind
def test_fit_leaves_parameters_as_given(kind):
    estimator = make(kind)
    before = dict(estimator.get_params(deep=False))
    estimator.fit(X, KINDS[kind][1])
    after = estimator.get_params(deep=False)
    assert all(after[name] is before[name] for name in before)


@every_kind
def test_parameters_are_set_and_got(kind):
    estimator = make(kind).set_params(batch_size=7)
    assert estimator.get_params()["batch_size"] == 7
    if kind != "encoder":
        assert estimator.set_params(recipe__dropout=0.5).recipe.dropout == 0.5
    with pytest.raises(ValueError, match="Invalid parameter"):
        estimator.set_params(bacth_size=3)


@every_kind
def test_what_fit_adds_ends_in_an_underscore_or_begins_with_one(kind, fitted):
    added = set(vars(fitted[kind])) - set(vars(make(kind)))
    assert all(name.endswith("_") or name.startswith("_") for name in added)


@every_kind
def test_asking_changes_nothing(kind):
    estimator = fit(kind)
    before = dict(vars(estimator))
    answer(estimator)
    assert vars(estimator) == before


@every_kind
def test_data_is_not_changed(kind):
    data, y = X.copy(), None if kind == "encoder" else KINDS[kind][1].copy()
    answer(make(kind).fit(data, y), data)
    np.testing.assert_array_equal(data, X)
    np.testing.assert_array_equal(y, KINDS[kind][1])


@every_kind
def test_read_only_memory_maps(kind, fitted, tmp_path):
    joblib.dump([X, KINDS[kind][1]], tmp_path / "data")
    data, y = joblib.load(tmp_path / "data", mmap_mode="r")
    assert not data.flags.writeable
    assert_same(answer(make(kind).fit(data, y), data), answer(fitted[kind]))


@every_kind
def test_memory_layout_does_not_matter(kind, fitted):
    expected = answer(fitted[kind])
    for form in (np.asfortranarray(X), X[:, ::-1][:, ::-1], np.repeat(X, 2, axis=0)[::2], list(X)):
        assert_same(answer(fit(kind, form), form), expected)


@every_kind
def test_dtypes_of_pictures(kind, fitted):
    for dtype in (np.float32, np.float64, np.uint16, np.int64):
        answers = answer(fit(kind, X.astype(dtype)), X.astype(dtype))
        for one, other in zip(answers, answer(fitted[kind]), strict=True):
            np.testing.assert_array_equal(one, other)


@every_kind
def test_dtypes_of_answers(kind, fitted):
    expected = {
        "classifier": ["U", "f4", "f4"],
        "regressor": ["f8"],
        "labels": ["i8", "f4", "f4"],
        "encoder": ["f4"],
    }
    kinds = [a.dtype.kind if a.dtype.kind == "U" else a.dtype.str[1:] for a in answer(fitted[kind])]
    assert kinds == expected[kind]


@every_kind
def test_one_answer_for_each_example(kind, fitted):
    for n in (1, 2, len(X)):
        assert all(len(a) == n for a in answer(fitted[kind], X[:n]))


@every_kind
def test_subsets_are_answered_alike(kind, fitted):
    for method in methods(fitted[kind]):
        whole = method(X)
        parts = np.concatenate([method(X[start : start + 5]) for start in range(0, len(X), 5)])
        singles = np.concatenate([method(X[i : i + 1]) for i in range(len(X))])
        for other in (parts, singles):
            if whole.dtype.kind == "f":
                np.testing.assert_allclose(other, whole, rtol=1e-4, atol=1e-5 * abs(whole).max())
            else:
                np.testing.assert_array_equal(other, whole)


@every_kind
def test_the_order_of_examples_does_not_matter(kind, fitted):
    order = np.random.default_rng(0).permutation(len(X))
    for method in methods(fitted[kind]):
        one, other = method(X)[order], method(X[order])
        if one.dtype.kind == "f":
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * abs(one).max())
        else:
            np.testing.assert_array_equal(other, one)


@every_kind
def test_batch_size_does_not_matter_to_answers(kind):
    estimator = fit(kind)
    expected = answer(estimator)
    for one, other in zip(answer(estimator.set_params(batch_size=3)), expected, strict=True):
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * abs(other).max())
        else:
            np.testing.assert_array_equal(one, other)


@every_kind
@pytest.mark.parametrize("when", ["before fit", "after fit"])
def test_pickle_and_joblib(kind, when, fitted, tmp_path):
    estimator = fitted[kind] if when == "after fit" else make(kind)
    joblib.dump(estimator, tmp_path / "estimator")
    for again in (pickle.loads(pickle.dumps(estimator)), joblib.load(tmp_path / "estimator")):
        if when == "before fit":
            again.fit(X, KINDS[kind][1])
        assert_same(answer(again), answer(fitted[kind]))
        # And once more, after it has answered.
        assert_same(answer(pickle.loads(pickle.dumps(again))), answer(fitted[kind]))


@every_kind
def test_before_fit(kind):
    for method in methods(make(kind)):
        with pytest.raises(NotFittedError, match=rf"{KINDS[kind][0].__name__} instance is not"):
            method(X)
    for name in ("classes_", "model_", "n_features_in_"):
        assert not hasattr(make(kind), name)


@every_kind
def test_a_failed_fit_keeps_the_earlier_one(kind):
    estimator = fit(kind)
    expected = answer(estimator)
    with pytest.raises(ValueError, match="finite"):
        estimator.fit(np.full(X.shape, np.nan), KINDS[kind][1])
    assert_same(answer(estimator), expected)


@every_kind
def test_another_shape_of_picture(kind, fitted):
    """Another size is resized, another form is an error: nothing is guessed."""
    answer(fitted[kind], X.repeat(2, axis=1))
    for bad in (X[..., :2], X.reshape(len(X), -1), X[0], X[..., np.newaxis]):
        for method in methods(fitted[kind]):
            with pytest.raises(ValueError, match="X: expected pictures of shape"):
                method(bad)


@every_kind
def test_bad_pixels_name_their_row(kind, fitted):
    bad = X.astype(float)
    bad[5, 0, 0, 0] = np.inf
    for method in methods(fitted[kind]):
        with pytest.raises(ValueError, match=r"contains infinity.*row 5"):
            method(bad)


@every_kind
def test_no_pictures(kind, fitted):
    for method in methods(fitted[kind]):
        with pytest.raises(ValueError, match="at least one picture"):
            method(X[:0])
    with pytest.raises(ValueError, match=r"no labels|at least one|minimum of 1"):
        make(kind).fit(X[:0], None if kind == "encoder" else KINDS[kind][1][:0])


@every_kind
def test_tags(kind):
    tags = get_tags(make(kind))
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.no_validation
    assert tags.requires_fit
    assert is_classifier(make(kind)) == (kind in ("classifier", "labels"))
    assert is_regressor(make(kind)) == (kind == "regressor")


@every_kind
def test_works_silently(kind, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*__array_wrap__.*|.*np.array.*copy.*")
        answer(fit(kind))
    assert capfd.readouterr().out == ""


def test_predict_agrees_with_probabilities(fitted):
    clf = fitted["classifier"]
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[clf.predict_proba(X).argmax(axis=1)])
    np.testing.assert_array_equal(
        clf.predict(X), clf.classes_[clf.decision_function(X).argmax(axis=1)]
    )
    both = fitted["labels"]
    np.testing.assert_array_equal(both.predict(X), both.predict_proba(X) > 0.5)
    np.testing.assert_array_equal(both.predict(X), both.decision_function(X) > 0)
    assert both.classes_.tolist() == [[0, 1], [0, 1]]


def test_labels_come_back_in_their_kind():
    for y in (LABELS, LABELS.astype(object), np.unique(LABELS, return_inverse=True)[1]):
        clf = make("classifier").fit(X, y)
        assert clf.predict(X).dtype == clf.classes_.dtype
        np.testing.assert_array_equal(clf.classes_, np.unique(y))


def test_scores_are_scikit_learns(fitted):
    from sklearn.metrics import accuracy_score, r2_score

    weights = np.arange(len(X))
    for kind, metric in (
        ("classifier", accuracy_score),
        ("labels", accuracy_score),
        ("regressor", r2_score),
    ):
        y, predicted = KINDS[kind][1], fitted[kind].predict(X)
        expected = metric(y, predicted, sample_weight=weights)
        assert fitted[kind].score(X, y, sample_weight=weights) == pytest.approx(expected)


def test_composite_stages_too():
    recipe = CompositeTransfer(1, epochs=2)
    one, two = (fit("classifier", recipe=recipe) for _ in range(2))
    assert_same(answer(one), answer(two))
