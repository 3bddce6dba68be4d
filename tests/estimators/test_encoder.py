"""TransferEncoder: a transformer that never trains."""

import numpy as np
import pandas as pd
import pytest
import tiny
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from keras_transfer import (
    ParameterTransfer,
    Readout,
    TransferClassifier,
    TransferEncoder,
    get_backbone,
    load,
)
from keras_transfer.errors import DataError, InvalidParameterError, UnknownNameError

SHAPE = (tiny.SIZE, tiny.SIZE, 3)
X, Y = tiny.pictures()
BACKBONE = tiny.settled(tiny.cnn, SHAPE)


def test_equals_the_backbone():
    """The last block, averaged, of the network as it stands."""
    features = TransferEncoder(BACKBONE).fit_transform(X)
    maps = BACKBONE.load()(X.astype("float32"), training=False).numpy()
    np.testing.assert_allclose(features, maps.mean(axis=(1, 2)), atol=1e-5)
    assert features.dtype == np.float32


def test_y_and_other_examples_change_nothing():
    one = TransferEncoder(BACKBONE, readout="last").fit(X, Y)
    other = TransferEncoder(BACKBONE).fit(X[:2])
    np.testing.assert_array_equal(one.transform(X), other.transform(X))
    for a, b in zip(one.model_.get_weights(), BACKBONE.load().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


READOUTS = {
    "last": ("last", [f"conv2_{i}" for i in range(6)]),
    "a block": ("conv0", [f"conv0_{i}" for i in range(6)]),
    "a grid": (Readout("conv1", pooling=(2, 1)), [f"conv1_2x1_{i}" for i in range(12)]),
    "several": (
        Readout(["conv0", "last"], [(1, 2), "average"]),
        [*(f"conv0_1x2_{i}" for i in range(12)), *(f"conv2_{i}" for i in range(6))],
    ),
    "one twice": (
        Readout(["conv2", "last"]),
        [*(f"conv2_{i}" for i in range(6)), *(f"1_conv2_{i}" for i in range(6))],
    ),
}


@pytest.mark.parametrize("case", READOUTS)
def test_names(case):
    readout, names = READOUTS[case]
    encoder = TransferEncoder(BACKBONE, readout=readout).set_output(transform="pandas")
    table = encoder.fit_transform(X)
    assert isinstance(table, pd.DataFrame)
    assert table.columns.tolist() == names == encoder.get_feature_names_out().tolist()


@pytest.mark.parametrize(
    ("backbone", "readout", "y", "reason"),
    [
        (BACKBONE, "conv1", Y, "given"),
        (BACKBONE, "auto", Y, "chosen among"),
        (BACKBONE, "auto", None, "no y"),
        (tiny.cnn, "auto", Y, "weights are random"),
        (get_backbone("MobileNetV2", weights=None), "auto", Y, "weights are random"),
    ],
    ids=["given", "chosen", "nothing to choose by", "random", "random by name"],
)
def test_says_why_it_reads_there(backbone, readout, y, reason):
    encoder = TransferEncoder(backbone, readout=readout, random_state=0).fit(X, y)
    assert reason in encoder.readout_.reason


def test_names_of_what_was_fitted():
    encoder = TransferEncoder(BACKBONE).fit(X)
    encoder.set_params(readout="conv0")
    assert encoder.get_feature_names_out()[0] == "conv2_0"


def test_in_a_pipeline():
    pipeline = make_pipeline(TransferEncoder(BACKBONE, readout="conv0"), SVC()).fit(X, Y)
    assert pipeline.score(X, Y) > 0.6
    assert pipeline[:-1].get_feature_names_out()[0] == "conv0_0"
    grid = {"transferencoder__readout": ["conv0", Readout("conv1", pooling=(2, 2))]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    assert search.best_score_ > 0.5


def test_in_a_column_transformer():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(20, 4)), columns=["a", "b", "c", "group"])
    encoder = TransferEncoder(tiny.dense, random_state=0)
    columns = ColumnTransformer([("deep", encoder, ["a", "b", "c"])], remainder="passthrough")
    columns.set_output(transform="pandas")
    out = columns.fit_transform(table)
    assert out.shape == (20, 8 + 1)
    assert out.columns[0] == "deep__high_0"
    pipeline = make_pipeline(columns, LogisticRegression())
    assert pipeline.fit(table, table["a"] > 0).score(table, table["a"] > 0) > 0.7


def test_tuned_features_come_from_a_fitted_classifier():
    recipe = ParameterTransfer(epochs=10, learning_rate=1e-2, batch_norm="affine")
    clf = TransferClassifier(BACKBONE, recipe, readout="last", random_state=0).fit(X, Y)
    tuned = TransferEncoder(get_backbone(clf)).fit_transform(X)
    kernel, bias = clf.model_.get_layer("head.logits").get_weights()
    np.testing.assert_allclose(tuned @ kernel + bias, clf.decision_function(X), atol=1e-4)
    assert not np.allclose(tuned, TransferEncoder(BACKBONE).fit_transform(X))


def test_a_fitted_estimator_as_backbone_keeps_its_blocks():
    recipe = ParameterTransfer(epochs=1)
    clf = TransferClassifier(BACKBONE, recipe, readout="last", random_state=0)
    with pytest.raises(TypeError, match="Fit it first"):
        get_backbone(clf)
    with pytest.raises(TypeError, match="Fit it first"):
        get_backbone(TransferClassifier)
    backbone = get_backbone(clf.fit(X, Y))
    assert [block.name for block in backbone.list_blocks()] == ["conv0", "conv1", "conv2"]
    assert backbone.name == "cnn"
    again = get_backbone(TransferEncoder(backbone, readout="conv1").fit(X))
    assert [block.name for block in again.list_blocks()] == ["conv0", "conv1"]
    with pytest.raises(TypeError, match=r"get_backbone\(model\)"):
        TransferEncoder(clf).fit(X)


def test_random_weights_follow_the_seed():
    one, two, other = (
        TransferEncoder(tiny.cnn, random_state=s).fit_transform(X) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)


def test_saved_and_loaded(tmp_path):
    readout = Readout("conv1", pooling=(2, 1))
    encoder = TransferEncoder(BACKBONE, readout=readout, random_state=0).fit(X)
    encoder.save(tmp_path / "encoder")
    again = load(tmp_path / "encoder")
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
    assert again.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    assert clone(again).get_params()["readout"] == readout


def test_refuses():
    with pytest.raises(UnknownNameError, match="Did you mean 'conv1'"):
        TransferEncoder(BACKBONE, readout="cnov1").fit(X)
    with pytest.raises(InvalidParameterError, match="batch_size"):
        TransferEncoder(BACKBONE, batch_size=0).fit(X)
    with pytest.raises(NotFittedError):
        TransferEncoder(BACKBONE).transform(X)
    with pytest.raises(NotFittedError):
        TransferEncoder(BACKBONE).get_feature_names_out()
    with pytest.raises(DataError, match="as in fit"):
        TransferEncoder(BACKBONE).fit(X).transform(X / 255)
