"""What a fit of a classifier or regressor does with weights, groups, seeds and callbacks."""

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tiny
from sklearn.base import clone

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferRegressor,
)
from keras_transfer.errors import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    KerasTransferWarning,
)

X, Y = tiny.vectors()
NUMBERS = 1e4 + 500 * X[:, 0]
LABELS = (X[:, :3] > 0).astype(int)
RECIPE = ParameterTransfer(epochs=20, learning_rate=1e-2)
TASKS = {
    "classes": (TransferClassifier, Y),
    "labels": (TransferClassifier, LABELS),
    "numbers": (TransferRegressor, NUMBERS),
}


def make(kind=TransferClassifier, recipe=RECIPE, **parameters):
    return kind(tiny.dense, recipe, **{"random_state": 0, **parameters})


def answers(estimator, X=X):
    method = getattr(estimator, "predict_proba", estimator.predict)
    return method(X)


# === Weights ===


@pytest.mark.parametrize("task", TASKS)
def test_rows_of_weight_0_are_not_there(task):
    kind, y = TASKS[task]
    rng = np.random.default_rng(1)
    noise, wrong = rng.normal(50, 9, (30, 5)), y[rng.integers(0, len(y), 30)]
    mixed, targets = np.concatenate([X, noise]), np.concatenate([y, wrong])
    weights = np.repeat([1.0, 0.0], [len(X), 30])
    order = np.sort(rng.permutation(len(mixed)))
    plain = make(kind).fit(X, y)
    weighted = make(kind).fit(mixed[order], targets[order], sample_weight=weights[order])
    np.testing.assert_array_equal(answers(weighted), answers(plain))
    assert weighted.history_["loss"] == plain.history_["loss"]


def test_a_row_of_weight_0_may_hold_anything():
    bad = np.concatenate([X, np.full((1, 5), np.nan)])
    weights = np.append(np.ones(len(X)), 0)
    clf = make().fit(pd.DataFrame(bad), [*Y, "a class of its own"], sample_weight=weights)
    assert clf.classes_.tolist() == ["no", "yes"]


@pytest.mark.parametrize("task", TASKS)
def test_equal_weights_are_no_weights(task):
    kind, y = TASKS[task]
    plain = make(kind).fit(X, y)
    for weights in (np.ones(len(X)), np.full(len(X), 7.0), [3] * len(X)):
        weighted = make(kind).fit(X, y, sample_weight=weights)
        np.testing.assert_array_equal(answers(weighted), answers(plain))


def test_weights_decide_between_contradictions():
    twice, labels = np.concatenate([X, X]), np.concatenate([Y, np.where(Y == "no", "yes", "no")])
    weights = np.repeat([1.0, 0.05], len(X))
    clf = make(validation=None).fit(twice, labels, sample_weight=weights)
    assert clf.score(X, Y) > 0.9
    assert clf.score(twice, labels, sample_weight=weights) > 0.85
    assert clf.score(twice, labels) == pytest.approx(0.5)


def test_weights_count_in_validation():
    held, labels = np.concatenate([X, X]), np.concatenate([Y, np.where(Y == "no", "yes", "no")])
    scores = []
    for weights in ([1.0, 0.0], [0.0, 1.0], None):
        data = (held, labels)
        if weights:
            data = (held, labels, np.repeat(weights, len(X)) + 1e-9)
        clf = make(recipe=StructureTransfer(epochs=1)).fit(X, Y, validation_data=data)
        scores.append(clf.validation_score_)
    assert scores[0] == pytest.approx(1 - scores[1], abs=1e-6)
    assert scores[2] == pytest.approx(0.5)


@pytest.mark.parametrize("class_weight", ["balanced", {"no": 10.0}])
def test_class_weights_move_the_border(class_weight):
    rare = np.concatenate([np.flatnonzero(Y == "no")[:4], np.flatnonzero(Y == "yes")])
    X_rare, y_rare = X[rare] * 0.3, Y[rare]
    recipe = StructureTransfer(epochs=30)
    plain = make(recipe=recipe).fit(X_rare, y_rare)
    weighted = make(recipe=recipe, class_weight=class_weight).fit(X_rare, y_rare)
    assert np.mean(weighted.predict(X) == "no") > np.mean(plain.predict(X) == "no")


def test_a_class_weight_is_an_example_weight():
    recipe = StructureTransfer(epochs=5)
    by_class = make(recipe=recipe, class_weight={"no": 3, "yes": 1}, calibration=None).fit(X, Y)
    by_row = make(recipe=recipe, calibration=None).fit(
        X, Y, sample_weight=np.where(Y == "no", 3, 1)
    )
    np.testing.assert_array_equal(answers(by_class), answers(by_row))


def test_weights_come_with_a_dataset_or_by_hand():
    pictures, labels = tiny.pictures()
    weights = np.where(labels == "circle", 0.0, 1.0)
    bare = tf.data.Dataset.from_tensor_slices((pictures, labels))
    weighed = tf.data.Dataset.from_tensor_slices((pictures, labels, weights))

    def fit(X, **options):
        clf = TransferClassifier(tiny.cnn, StructureTransfer(epochs=1), random_state=0)
        return clf.fit(X, **options)

    for clf in (fit(bare, sample_weight=weights), fit(weighed)):
        assert clf.classes_.tolist() == ["square", "stripes"]
    with pytest.raises(InvalidTypeError, match=r"^sample_weight: .*that brings weights\. Rec"):
        fit(weighed, sample_weight=weights)
    clf = fit(bare)
    assert clf.score(weighed) == clf.score(pictures, labels, sample_weight=weights)
    with pytest.raises(InvalidTypeError, match="Leave one out"):
        clf.score(weighed, sample_weight=weights)


def test_a_regressor_takes_weights():
    twice, y = np.concatenate([X, X]), np.concatenate([NUMBERS, NUMBERS + 5000])
    model = make(TransferRegressor).fit(twice, y, sample_weight=np.repeat([1, 1e-6], len(X)))
    assert np.abs(np.mean(model.predict(X) - NUMBERS)) < 300


# === Groups ===


def test_few_groups_are_few_examples():
    X, y = tiny.vectors(n_per_class=60)
    assert np.isnan(make().fit(X, y, groups=np.arange(len(X)) % 4).validation_score_)
    assert not np.isnan(make().fit(X, y, groups=np.arange(len(X)) % 8).validation_score_)


# === Few labels ===


def low(shape):
    """A network for vectors whose weights are the same in each call."""
    model = tiny.dense(shape)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.4, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("task", TASKS)
def test_few_labels_are_scored_out_of_fold(task):
    kind, _ = TASKS[task]
    few, new = tiny.vectors(n_per_class=15, seed=1), tiny.vectors(n_per_class=400, seed=2)
    y = {"classes": lambda X, y: y, "labels": lambda X, y: (X[:, :3] > 0).astype(int)}
    read = y.get(task, lambda X, y: 1e4 + 500 * X[:, 0])
    options = {"scoring": None if task == "numbers" else "accuracy", "readout": "low"}
    estimator = kind(low, StructureTransfer(), random_state=0, **options)
    estimator.fit(few[0], read(*few))
    expected = estimator.score(new[0], read(*new))
    error = estimator.validation_standard_error_
    assert 0 < error < 0.2
    assert abs(estimator.validation_score_ - expected) < 4 * error + 0.02
    without = clone(estimator).set_params(validation=None).fit(few[0], read(*few))
    assert np.isnan(without.validation_score_)
    assert np.isnan(without.validation_standard_error_)
    # A frozen network tells, pretrained or not; of weights that train along nothing is known yet.
    frozen = kind(tiny.dense, StructureTransfer(), random_state=0).fit(few[0], read(*few))
    assert not np.isnan(frozen.validation_score_)
    trained = kind(tiny.dense, ParameterTransfer(epochs=1), random_state=0).fit(few[0], read(*few))
    assert np.isnan(trained.validation_score_)


def test_a_solved_head_learns_from_all():
    """Nobody can steer it: what would be held out only measures, which folds do as well."""
    many = tiny.vectors(n_per_class=60, seed=1)
    solved, same = (
        TransferClassifier(
            low, StructureTransfer(), validation=validation, calibration=None, random_state=0
        )
        for validation in ("auto", None)
    )
    np.testing.assert_array_equal(answers(solved.fit(*many)), answers(same.fit(*many)))
    assert 0.5 < solved.validation_score_ < 1
    assert solved.data_report_.n_validation == 0
    trained = TransferClassifier(low, StructureTransfer(epochs=2), random_state=0).fit(*many)
    assert trained.data_report_.n_validation == 24


def test_groups_are_not_known_again_out_of_fold():
    rng = np.random.default_rng(0)
    voices = np.arange(36) // 3
    heard = rng.normal(0, 3, (12, 5))[voices] + rng.normal(0, 0.1, (36, 5))
    y = rng.permutation(np.arange(12) % 2)[voices]
    clf = TransferClassifier(low, StructureTransfer(), readout="low", random_state=0)
    known = clf.fit(heard, y).validation_score_
    assert known > 0.9
    assert clf.fit(heard, y, groups=voices).validation_score_ < known - 0.2


def test_held_out_scores_have_a_standard_error():
    many, y = tiny.vectors(n_per_class=100)
    clf = make(recipe=StructureTransfer(epochs=3)).fit(many, y)
    share = clf.validation_score_
    expected = np.sqrt(share * (1 - share) / 40)
    assert clf.validation_standard_error_ == pytest.approx(expected, rel=0.6)


# === Seeds ===


def weights_of(estimator):
    return [weight.tolist() for weight in estimator.model_.get_weights()]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_twice_in_one_process(task):
    kind, y = TASKS[task]
    recipe = CompositeTransfer(epochs=2, dropout=0.4)
    one, two, other = (make(kind, recipe, random_state=s).fit(X, y) for s in (3, 3, 4))
    assert weights_of(one) == weights_of(two) != weights_of(other)


def test_no_seed_differs_from_run_to_run():
    one, two = (make(random_state=None).fit(X, Y) for _ in range(2))
    assert weights_of(one) != weights_of(two)


def test_the_same_seed_in_two_processes():
    code = """
        import sys, hashlib
        sys.path.insert(0, sys.argv[1])
        import tiny
        from keras_transfer import CompositeTransfer, TransferClassifier
        X, y = tiny.pictures()
        # Work before it must not matter: half of the runs do some.
        if sys.argv[2] == "busy":
            TransferClassifier(tiny.cnn, random_state=9).fit(X[::2], y[::2])
        recipe = CompositeTransfer(1, epochs=2, dropout=0.2, augmentation="all")
        clf = TransferClassifier(tiny.cnn, recipe, random_state=5).fit(X, y)
        print(hashlib.sha256(b"".join(w.tobytes() for w in clf.model_.get_weights())).hexdigest())
    """
    folder = str(Path(__file__).parents[1])
    digests = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), folder, how],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for how in ("alone", "busy")
    }
    assert len(digests) == 1
    assert len(digests.pop()) == 64


@pytest.mark.parametrize("task", TASKS)
def test_random_states_are_left_as_they_were(task):
    kind, y = TASKS[task]

    def draws():
        return [
            random.random(),
            np.random.rand(),  # noqa: NPY002
            float(tf.random.uniform(())),
            float(keras.random.uniform(())),
        ]

    keras.utils.set_random_seed(7)
    expected = draws()
    keras.utils.set_random_seed(7)
    answers(make(kind, CompositeTransfer(epochs=1, dropout=0.2)).fit(X, y))
    assert draws() == expected


def test_two_in_turn_do_not_influence_each_other():
    """They share a compiled network, and neither its weights nor its optimizer."""
    one = make(random_state=1).fit(X, Y)
    before = answers(one).copy()
    two = make(random_state=2).fit(X[::-1] * 3, Y)
    other = answers(two).copy()
    np.testing.assert_array_equal(answers(one), before)
    np.testing.assert_array_equal(answers(two), other)
    np.testing.assert_array_equal(answers(make(random_state=1).fit(X, Y)), before)
    one.model_.get_layer("head.logits").bias.assign([100.0, 0.0])
    assert set(one.predict(X)) == {"no"}  # it is the user's model that answers
    np.testing.assert_array_equal(answers(two), other)


# === Callbacks ===


class Notes(keras.callbacks.Callback):
    log: list = []  # noqa: RUF012 - of the class, since each fit works on a copy

    def on_epoch_end(self, epoch, logs=None):
        Notes.log.append((epoch, sorted(logs)))


def test_callbacks_survive_clone_and_refit():
    clf = make(recipe=CompositeTransfer(epochs=2), validation=0.2, callbacks=[Notes(), Notes])
    for estimator in (clf, clone(clf), clone(clone(clf))):
        for _ in range(2):
            Notes.log.clear()
            estimator.fit(X, Y)
            # Epochs are counted over the stages; what validation says is in the logs.
            assert [epoch for epoch, _ in Notes.log] == [0, 0, 1, 1, 2, 2]
            assert Notes.log[0][1] == ["accuracy", "loss", "val_loss", "val_score"]
    assert clf.callbacks[0].model is None


def test_a_callback_may_end_a_stage():
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
    clf = make(recipe=CompositeTransfer(epochs=9), callbacks=[stop]).fit(X, Y)
    assert [(r.reason, r.epochs) for r in clf.stages_] == [("solved", 1), ("callback", 2)]


# === Parameters ===


def test_settings_of_a_recipe_that_is_a_name():
    clf = TransferClassifier(tiny.dense, "composite")
    with pytest.raises(InvalidParameterError, match=r"recipe=CompositeTransfer\(\)"):
        clf.set_params(recipe__epochs=3)
    clf.set_params(recipe=StructureTransfer(), recipe__epochs=3)
    assert clf.recipe.epochs == 3
    with pytest.raises(InvalidParameterError, match=r"recipe=StructureTransfer\(\)"):
        clf.set_params(recipe="structure", recipe__epochs=3)


def test_repr_shows_what_is_not_the_default():
    clf = TransferClassifier("MobileNetV2", CompositeTransfer(2), class_weight="balanced")
    assert repr(clf) == (
        "TransferClassifier(backbone='MobileNetV2', class_weight='balanced',\n"
        "                   recipe=CompositeTransfer(train_blocks=2))"
    )
    html = clf._repr_html_()
    assert "TransferClassifier" in html
    assert "CompositeTransfer" in html


MISTAKES = {
    "too few weights": (
        {},
        {"sample_weight": [1, 2]},
        DataError,
        r"sample_weight\.shape == \(2,\)",
    ),
    "a negative weight": ({}, {"sample_weight": [-1, *[1] * 39]}, DataError, "Negative values"),
    "too few groups": ({}, {"groups": [1, 2]}, DataError, "groups: expected 40 entries"),
    "one group to hold out": (
        {"validation": 0.2},
        {"groups": [1] * 40},
        DataError,
        "at least two groups",
    ),
    "an unknown class": ({"class_weight": {"maybe": 1}}, {}, InvalidParameterError, "'maybe'"),
    "another word": ({"class_weight": "balance"}, {}, InvalidParameterError, "'balanced'"),
    "class weights of 0": (
        {"class_weight": {"no": 0, "yes": 0}},
        {},
        InvalidParameterError,
        "whose weight is above 0",
    ),
    "a callback alone": ({"callbacks": Notes}, {}, InvalidParameterError, "a list of callbacks"),
    "no callback": ({"callbacks": [3]}, {}, InvalidTypeError, "callbacks: expected Keras"),
    "four parts": ({}, {"validation_data": (X, Y, None, 1)}, InvalidTypeError, "expected a pair"),
    "other columns": (
        {},
        {"validation_data": (X[:, :3], Y)},
        DataError,
        "validation_data: X has 3 ",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_refuses(case):
    parameters, data, error, message = MISTAKES[case]
    with pytest.raises(error, match=message):
        make(**parameters).fit(X, Y, **data)


@pytest.mark.parametrize("kind", [TransferClassifier, TransferRegressor])
def test_refuses_sparse_and_mixed_data(kind):
    from scipy import sparse

    with pytest.raises(TypeError, match="Sparse data was passed"):
        make(kind).fit(sparse.csr_array(X), NUMBERS if kind is TransferRegressor else Y)
    mixed = X.astype(object)
    mixed[0, 0] = "text"
    with pytest.raises(ValueError, match="could not convert string to float"):
        make(kind).fit(mixed, NUMBERS if kind is TransferRegressor else Y)


def test_refuses_targets_of_the_other_kind():
    with pytest.raises(DataError, match=r"Unknown label type: continuous.*TransferRegressor"):
        make().fit(X, NUMBERS + 0.5)
    with pytest.raises(DataError, match="could not convert string to float"):
        make(TransferRegressor).fit(X, Y)


def test_a_constant_label_warns_and_is_answered():
    y = LABELS.copy()
    y[:, 1] = 1
    with pytest.warns(KerasTransferWarning, match="Label 1 is present in all training examples"):
        clf = make(validation=None).fit(X, y)
    assert (clf.predict(X)[:, 1] == 1).all()


def test_columns_by_name():
    table = pd.DataFrame(X, columns=list("abcde"))
    clf = make().fit(table, pd.Series(Y))
    assert clf.feature_names_in_.tolist() == list("abcde")
    np.testing.assert_array_equal(clf.predict(table), clf.predict(table))
    with pytest.raises(DataError, match="feature names should match"):
        clf.predict(table[list("edcba")])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        clf.predict(X)
    with pytest.raises(DataError, match=r"validation_data: The feature names should match"):
        clf.fit(table, Y, validation_data=(table[list("edcba")], Y))
    clf.fit(X, Y)
    assert not hasattr(clf, "feature_names_in_")
