"""Where scikit-learn puts an estimator: searches, ensembles, calibration, routing, processes."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import tiny
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferRegressor,
    get_backbone,
    load,
)
from keras_transfer.errors import InvalidParameterError

VX, VY = tiny.vectors()
PX, PY = tiny.pictures()
TWO = PY != "stripes"
FAST = ParameterTransfer(epochs=8, learning_rate=1e-2)


def vectors(recipe=FAST, **parameters):
    return TransferClassifier(tiny.dense, recipe, **{"random_state": 0, **parameters})


def pictures(recipe=FAST, **parameters):
    return TransferClassifier(tiny.cnn, recipe, **{"random_state": 0, **parameters})


CASES = {"vectors": (vectors, VX, VY), "pictures": (pictures, PX[TWO], PY[TWO])}
on_both = pytest.mark.parametrize(("make", "X", "y"), CASES.values(), ids=CASES)


# === Searches ===


def test_grid_search_over_nested_names_and_backbones():
    grid = [
        {"recipe__train_blocks": [0, 1], "recipe__learning_rate": [1e-2, 1e-5]},
        {"backbone": [tiny.cnn, tiny.residual], "recipe": [FAST, CompositeTransfer(0, epochs=3)]},
    ]
    search = GridSearchCV(pictures(StructureTransfer(epochs=3)), grid, cv=2).fit(PX, PY)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.cv_results_["params"]) == 8
    assert search.predict(PX).shape == PY.shape


def test_a_search_trains_what_it_says():
    """Keras's own wrapper trains the same in every candidate: clone loses the fit's settings."""
    grid = {"recipe__epochs": [1, 40]}
    search = GridSearchCV(vectors(validation=None), grid, cv=2, refit=False).fit(VX, VY)
    one, forty = search.cv_results_["mean_test_score"]
    assert forty > one
    for epochs, score in ((1, one), (40, forty)):
        alone = vectors(clone(FAST).set_params(epochs=epochs), validation=None)
        assert cross_val_score(alone, VX, VY, cv=2).mean() == score


def test_a_search_over_settings_of_a_name_says_what_to_pass():
    search = GridSearchCV(vectors("composite"), {"recipe__epochs": [1]}, cv=2)
    with pytest.raises(InvalidParameterError, match=r"recipe=CompositeTransfer\(\)"):
        search.fit(VX, VY)


@on_both
def test_randomized_and_halving_search(make, X, y):
    choices = {"recipe__learning_rate": [1e-1, 1e-2, 1e-3], "recipe__dropout": [0.0, 0.5]}
    search = RandomizedSearchCV(make(), choices, n_iter=2, cv=2, random_state=0).fit(X, y)
    assert 0 <= search.best_score_ <= 1
    halving = HalvingGridSearchCV(
        make(),
        {"recipe__learning_rate": [1e-2, 1e-4]},
        resource="recipe__epochs",
        min_resources=2,
        max_resources=4,
        factor=2,
        cv=2,
    ).fit(X, y)
    assert halving.best_params_["recipe__epochs"] == 4


@on_both
def test_two_processes_search_as_one_does(make, X, y):
    grid = {"recipe__learning_rate": [1e-2, 1e-3]}
    one, two = (GridSearchCV(make(), grid, cv=2, n_jobs=n).fit(X, y) for n in (None, 2))
    np.testing.assert_array_equal(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


@on_both
@pytest.mark.parametrize("scoring", ["roc_auc", "neg_log_loss", "average_precision"])
def test_cross_validation_scores(make, X, y, scoring):
    target = (y == y[0]).astype(int)
    scores = cross_val_score(make(), X, target, scoring=scoring, cv=2)
    assert np.isfinite(scores).all()
    assert scores.mean() > (-0.69 if scoring == "neg_log_loss" else 0.5)


def test_cross_validation_of_labels_and_numbers():
    labels = (VX[:, :3] > 0).astype(int)
    scores = cross_validate(vectors(), VX, labels, scoring=["roc_auc", "f1_macro"], cv=2)
    assert scores["test_roc_auc"].mean() > 0.6
    two = cross_val_score(vectors(), VX, labels[:, :2], scoring="roc_auc", cv=2)
    assert two.mean() > 0.6
    out_of_fold = cross_val_predict(vectors(), VX, labels, method="predict_proba", cv=2)
    assert out_of_fold.shape == labels.shape
    model = TransferRegressor(tiny.dense, FAST, random_state=0)
    assert cross_val_score(model, VX, VX[:, 0] * 100, scoring="r2", cv=2).mean() > 0


def test_learning_curve():
    sizes, _, held = learning_curve(vectors(), VX, VY, train_sizes=[0.3, 1.0], cv=2, shuffle=True)
    assert held.shape == (len(sizes), 2)


# === Around it, and around others ===


def test_pipeline_and_column_transformer():
    table = pd.DataFrame(VX, columns=list("abcde"))
    columns = ColumnTransformer([("scaled", StandardScaler(), ["a", "b"])], remainder="passthrough")
    pipeline = make_pipeline(columns, vectors()).fit(table, VY)
    assert pipeline.score(table, VY) > 0.8
    assert pipeline[:-1].get_feature_names_out().tolist()[0] == "scaled__a"


@on_both
def test_voting_and_stacking(make, X, y):
    members = [("one", make()), ("two", make(random_state=1))]
    voting = VotingClassifier(members, voting="soft").fit(X, y)
    assert voting.predict_proba(X).shape == (len(X), 2)
    assert set(voting.predict(X)) <= set(y)
    stacking = StackingClassifier(members, LogisticRegression(), cv=2).fit(X, y)
    assert set(stacking.predict(X)) <= set(y)


@on_both
def test_calibration_and_threshold(make, X, y):
    calibrated = CalibratedClassifierCV(make(), cv=2).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1, atol=1e-6)
    positive = (y == y[0]).astype(int)
    tuned = TunedThresholdClassifierCV(make(), cv=2, scoring="f1").fit(X, positive)
    assert set(tuned.predict(X)) <= {0, 1}


@on_both
def test_frozen(make, X, y):
    clf = make().fit(X, y)
    frozen = FrozenEstimator(clf)
    calibrated = CalibratedClassifierCV(frozen).fit(X, y)
    np.testing.assert_array_equal(frozen.fit(X, y).predict(X), clf.predict(X))
    assert calibrated.predict_proba(X).shape == (len(X), 2)


def test_regressors_in_others():
    model = TransferRegressor(tiny.dense, FAST, random_state=0)
    y = np.exp(VX[:, 0])
    logs = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp).fit(VX, y)
    assert (logs.predict(VX) > 0).all()
    stacking = StackingRegressor([("one", model)], cv=2).fit(VX, y)
    assert stacking.predict(VX).shape == y.shape


def test_one_for_each_column():
    labels = (VX[:, :2] > 0).astype(int)
    many = MultiOutputClassifier(vectors()).fit(VX, labels)
    assert many.predict(VX).shape == labels.shape


# === Metadata ===


def test_metadata_is_routed():
    weights, groups = np.ones(len(VX)), np.arange(len(VX)) % 6
    weights[:5] = 0
    with sklearn.config_context(enable_metadata_routing=True):
        clf = vectors().set_fit_request(sample_weight=True, groups=True)
        clf.set_score_request(sample_weight=True)
        search = GridSearchCV(clf, {"recipe__epochs": [2]}, cv=GroupKFold(3))
        search.fit(VX, VY, sample_weight=weights, groups=groups)
        assert search.best_score_ >= 0
        assert cross_val_score(
            clf, VX, VY, cv=2, params={"sample_weight": weights, "groups": groups}
        ).shape == (2,)
    requests = vectors().get_metadata_routing().fit.requests
    assert set(requests) == {"sample_weight", "groups", "validation_data"}


def test_weights_reach_it_through_a_pipeline():
    weights = (VY == "yes") + 0.01
    pipeline = make_pipeline(StandardScaler(), vectors())
    plain, weighted = (
        pipeline.fit(VX, VY, **options).predict(VX).tolist().count("yes")
        for options in ({}, {"transferclassifier__sample_weight": weights})
    )
    assert weighted > plain


# === What it learned is a backbone ===


def test_a_fitted_estimator_teaches_another(tmp_path):
    source = pictures().fit(PX, PY)
    target = TransferClassifier(get_backbone(source), StructureTransfer(), random_state=0)
    target.fit(PX[TWO], PY[TWO])
    assert target.score(PX[TWO], PY[TWO]) > 0.8
    for one, other in zip(
        [w for w in source.model_.weights if not w.path.startswith("head")],
        [w for w in target.model_.weights if not w.path.startswith("head")],
        strict=True,
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    source.save(tmp_path / "source")
    assert get_backbone(load(tmp_path / "source")) == get_backbone(source)
