"""Whether fine-tuning helps over its start is told on examples that it has not seen."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tiny
from sklearn.exceptions import NotFittedError

import keras_transfer
from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferRegressor,
)
from keras_transfer.choosing import fine_tuning
from keras_transfer.choosing.fine_tuning import check_fine_tuning
from keras_transfer.errors import InvalidParameterError, KerasTransferWarning
from keras_transfer.fitting.training_plan import TrainingPlan
from keras_transfer.training.averaging import SHARES
from keras_transfer.training.feeding import Feeder
from keras_transfer.training.progress import Silent

X, Y = tiny.striped(32)
HARMFUL = CompositeTransfer(epochs=3, learning_rate=0.3)
GENTLE = CompositeTransfer(epochs=3, learning_rate=1e-3)


def make(recipe, kind=TransferClassifier, **parameters):
    options = {"readout": "last", "random_state": 0, "batch_size": 16, **parameters}
    return kind(tiny.edges(), recipe, **options)


def fit_and_hear(estimator, *data, **options):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        estimator.fit(*data, **options)
    return [str(w.message) for w in heard if "fine-tuning does not help" in str(w.message)]


def layers_of(clf):
    return {layer.name: layer.get_weights() for layer in clf.model_.layers}


def test_fine_tuning_that_does_harm_is_told_with_the_numbers():
    clf = make(HARMFUL)
    (sentence,) = fit_and_hear(clf, X, Y)
    check = clf.fine_tuning_
    assert check.has_lost
    assert check.losses[0] < check.losses[-1]
    assert f"the exact head alone ({check.right[0]:.0%} right, loss {check.losses[0]:.3g})" in (
        sentence
    )
    assert f"fine-tuned ({check.right[-1]:.0%} right" in sentence
    assert "; on 8 examples" in sentence  # a quarter
    assert "guard='best'" in sentence


def test_fine_tuning_that_does_none_is_left_in_peace():
    clf = make(GENTLE)
    assert fit_and_hear(clf, X, Y) == []
    assert clf.fine_tuning_.shares == (0.0, 1.0)  # what lies between is not asked for
    assert not clf.fine_tuning_.has_lost
    assert str(clf.fine_tuning_).startswith("fine-tuning does no harm: ")


def test_the_better_one_is_taken(tmp_path):
    best, head = make(HARMFUL, guard="best"), make(StructureTransfer(), guard=None)
    assert fit_and_hear(best, X, Y) == []
    head.fit(X, Y)
    ours, theirs = layers_of(best), layers_of(head)
    for name in theirs:
        if not name.startswith("head."):
            for own, other in zip(ours[name], theirs[name], strict=True):
                np.testing.assert_array_equal(own, other)
    # It is the exact head, on all examples, and as sure as that one.
    assert best.fine_tuning_.taken == 0
    assert best.temperature_ == head.temperature_
    np.testing.assert_allclose(
        best.decision_function(X) * best.temperature_,
        head.decision_function(X) * head.temperature_,
        rtol=1e-3,
        atol=1e-3,
    )
    best.save(tmp_path / "clf.keras_transfer")
    loaded = keras_transfer.load(tmp_path / "clf.keras_transfer")
    assert loaded.fine_tuning_ == best.fine_tuning_


@pytest.mark.parametrize("recipe", [GENTLE, CompositeTransfer("gradual", epochs=2, dropout=0.2)])
def test_looking_changes_no_weight(recipe):
    asked, plain = make(recipe, calibration=None), make(recipe, calibration=None, guard=None)
    fit_and_hear(asked, X, Y)
    plain.fit(X, Y)
    assert asked.fine_tuning_ is not None
    assert plain.fine_tuning_ is None
    assert asked.history_["loss"] == plain.history_["loss"]
    for name, weights in layers_of(plain).items():
        for own, other in zip(layers_of(asked)[name], weights, strict=True):
            np.testing.assert_array_equal(own, other)


def test_fine_tuned_probabilities_are_calibrated_on_the_fold():
    clf, plain = make(GENTLE), make(GENTLE, calibration=None)
    noisy = np.where(np.arange(32) % 7 < 2, 1 - Y, Y)  # so that some answers are sure and wrong
    fit_and_hear(clf, X, noisy)
    fit_and_hear(plain, X, noisy)
    assert plain.temperature_ == 1
    assert clf.temperature_ == clf.fine_tuning_.temperature != 1
    np.testing.assert_allclose(
        clf.decision_function(X) * clf.temperature_,
        plain.decision_function(X),
        rtol=1e-3,
        atol=1e-3,
    )


def test_what_is_held_out_tells_without_a_second_training(monkeypatch):
    said = []
    monkeypatch.setattr(Silent, "say", lambda self, sentence: said.append(sentence))
    clf = make(GENTLE, validation=0.25)
    fit_and_hear(clf, X, Y)
    assert clf.fine_tuning_.n_examples == 8
    assert not [sentence for sentence in said if "fine-tuning without 25%" in sentence]
    fit_and_hear(make(GENTLE), X, Y)
    assert [sentence for sentence in said if "fine-tuning without 25%" in sentence]


def test_held_out_examples_take_back_what_does_harm(monkeypatch):
    """With a target score that is never reached they only measure, and the end would be kept."""
    monkeypatch.setattr(fine_tuning, "_LOST", 0.5)  # of six examples one is answered wrong
    best = make(HARMFUL, guard="best", target_score=1.1)
    fit_and_hear(best, X, Y)
    assert best.fine_tuning_.has_lost
    assert best.validation_score_ == pytest.approx(best.fine_tuning_.right[0], abs=1e-6)
    assert best.history_["val_score"][-1] < best.validation_score_


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": StructureTransfer()},
        {"recipe": ParameterTransfer(epochs=2)},
        {"recipe": GENTLE, "guard": None},
        {"recipe": GENTLE, "validation": None},
        {"recipe": GENTLE, "groups": np.zeros(len(X))},
    ],
    ids=["head alone", "no head first", "no guard", "no validation", "one group"],
)
def test_where_nothing_can_be_told(change):
    groups = change.get("groups")
    clf = make(**{key: value for key, value in change.items() if key != "groups"})
    fit_and_hear(clf, X, Y, groups=groups)
    assert clf.fine_tuning_ is None


def test_a_time_budget_goes_to_the_training():
    clf = make(CompositeTransfer(epochs=10**6, learning_rate=1e-3), time_budget=6)
    fit_and_hear(clf, X, Y)
    assert clf.fine_tuning_ is None
    assert clf.stages_[-1].reason == "time budget"


def test_a_class_that_nobody_else_stands_for_is_not_left_out():
    """It would be answered wrong, whatever is learned, and make the model unsure of all."""
    lone = np.where(np.arange(32) < 8, 2 + np.arange(32), Y)
    clf = make(GENTLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(X, lone)
    assert 0 < clf.fine_tuning_.n_examples <= 8
    assert clf.fine_tuning_.right[-1] > 0.7
    assert clf.temperature_ < 2


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_any_size(seed):
    """Where only a tenth or nine tenths can be left out, it is the tenth."""
    groups = np.repeat([0, 1], [28, 4])[np.random.default_rng(seed).permutation(32)]
    clf = make(GENTLE, random_state=seed)
    fit_and_hear(clf, X, Y, groups=groups)
    assert clf.fine_tuning_.n_examples == 4


def test_classes_count_as_they_did_in_training():
    heavy = make(GENTLE, class_weight={0: 1.0, 1: 100.0})
    noisy = np.where(np.arange(32) % 7 < 2, 1 - Y, Y)
    fit_and_hear(heavy, X, noisy)
    plain = make(GENTLE)
    fit_and_hear(plain, X, noisy)
    held = plain.fine_tuning_.right[0] * 8
    assert held == pytest.approx(round(held))
    assert heavy.fine_tuning_.right[0] * 8 != pytest.approx(round(heavy.fine_tuning_.right[0] * 8))


@pytest.mark.parametrize("where", ["the pass", "the training", "the answers"])
def test_a_ctrl_c_while_it_is_looked_at_keeps_the_fit(where, monkeypatch):
    plain = make(GENTLE, guard=None)
    plain.fit(X, Y)

    def press(*args, **kwargs):
        raise KeyboardInterrupt

    looking = []
    whole = TrainingPlan.check_on_fold

    def look(self, *args, **kwargs):
        looking.append(True)
        kind, name = {
            "the pass": (Feeder, "run"),
            "the training": (TrainingPlan, "run"),
            "the answers": (TrainingPlan, "unseen_outputs"),
        }[where]
        monkeypatch.setattr(kind, name, press)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(TrainingPlan, "check_on_fold", look)
    clf = make(GENTLE)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    assert looking
    assert clf.fine_tuning_ is None
    np.testing.assert_array_equal(clf.decision_function(X), plain.decision_function(X))


def test_a_ctrl_c_before_what_was_seen_is_kept_keeps_the_rest(monkeypatch):
    def press(*args):
        raise KeyboardInterrupt

    clf = make(StructureTransfer())
    monkeypatch.setattr(Feeder, "trained_features", press)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, Y)
    assert clf.score(X, Y) > 0.9
    with pytest.raises(NotFittedError, match="whose fit was interrupted"):
        clf.novelty(X)


def test_the_fold_trains_at_the_rates_that_were_found():
    recipe = CompositeTransfer(epochs=2, learning_rate="auto")
    clf = make(recipe)
    fit_and_hear(clf, X, Y)
    rate = clf.stages_[-1].stage.highest_rate
    assert float(clf.model_.optimizer.learning_rate) == pytest.approx(rate)
    assert clf.fine_tuning_ is not None


def test_the_score_is_of_the_model_that_is_handed_over():
    """Where held-out examples only measure, too, and a temperature came of them."""
    noisy = np.where(np.arange(32) % 7 < 2, 1 - Y, Y)
    clf = make(GENTLE, target_score=1.1, scoring="neg_log_loss")
    plain = make(GENTLE, target_score=1.1, scoring="neg_log_loss", calibration=None)
    fit_and_hear(clf, X, noisy)
    fit_and_hear(plain, X, noisy)
    assert clf.temperature_ != 1
    assert clf.validation_score_ > plain.validation_score_


def test_numbers():
    y = 1e3 + 50 * Y + np.arange(len(Y)) % 3
    reg = make(HARMFUL, TransferRegressor, guard="best")
    fit_and_hear(reg, X, y)
    assert reg.fine_tuning_.has_lost
    assert np.isnan(reg.fine_tuning_.right).all()
    # In trained units, in which a guess of the mean has a loss of about 1.
    assert 0 < reg.fine_tuning_.losses[0] < 5
    assert np.abs(reg.predict(X) - y).mean() < 20


def test_the_wise_average_stands_where_the_loss_is_least():
    recipe = CompositeTransfer(epochs=3, learning_rate=0.3, average="wise")
    wise, end = make(recipe, guard=None, calibration=None), make(HARMFUL, calibration=None)
    fit_and_hear(wise, X, Y)
    fit_and_hear(end, X, Y)
    check = wise.fine_tuning_
    assert check.shares == SHARES
    assert check.losses[:: len(SHARES) - 1] == end.fine_tuning_.losses
    assert check.taken == check.wisest < 1
    assert end.fine_tuning_.taken == 1
    assert any(
        not np.array_equal(own, other)
        for name, weights in layers_of(end).items()
        for own, other in zip(layers_of(wise)[name], weights, strict=True)
    )


def test_a_wise_average_wants_something_to_go_by():
    recipe = CompositeTransfer(epochs=1, average="wise")
    with pytest.raises(InvalidParameterError, match=r"average='wise' with validation=None"):
        make(recipe, validation=None).fit(X, Y)
    with pytest.warns(KerasTransferWarning, match="average: .* Nothing could be told"):
        make(recipe).fit(X, Y, groups=np.zeros(len(X)))


def test_the_wise_average_of_existing_keras_code():
    recipe = CompositeTransfer(epochs=3, learning_rate=0.3, average="wise")
    dataset = tf.data.Dataset.from_tensor_slices((X.astype("float32"), Y)).batch(16)
    model = recipe.build(tiny.edges(), outputs=2)
    result = recipe.fit(model, dataset, validation_data=dataset, random_state=0)
    rights = model.predict(X.astype("float32"), verbose=0).argmax(axis=1) == Y
    assert result.score == pytest.approx(rights.mean())
    assert rights.mean() > 0.9  # the end is harmful
    with pytest.raises(InvalidParameterError, match="Pass validation_data"):
        recipe.fit(model, dataset)
    with pytest.raises(InvalidParameterError, match="average"):
        ParameterTransfer(average="wise").check()


def test_wisest_share():
    """Logits that are right at first and ever surer: best where they are not too sure."""
    targets = np.arange(40) % 2
    wrong = np.arange(40) < 8

    def answer(share):
        sign = np.where(wrong & (share > 0.5), -1.0, 1.0) * (2 * targets - 1)
        return np.stack([-sign, sign], axis=1) * (0.5 + share)

    check = check_fine_tuning(answer, targets, "multiclass", np.ones(40))
    assert check.right == pytest.approx((1.0, 1.0, 1.0, 0.8, 0.8))
    assert check.wisest in (0.0, 0.25, 0.5)
    assert check.has_lost
    assert check_fine_tuning(answer, targets, "multiclass", np.zeros(40)) is None


def test_the_warning_is_ours():
    with pytest.warns(KerasTransferWarning, match="fine-tuning does not help"):
        make(HARMFUL).fit(X, Y)
