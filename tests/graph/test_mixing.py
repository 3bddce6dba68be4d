"""Mixing: pictures, labels and weights by the same share; repeatable, outside the model."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import (
    CompositeTransfer,
    ParameterTransfer,
    StructureTransfer,
    TransferClassifier,
    TransferRegressor,
    load,
)
from keras_transfer.errors import InvalidParameterError
from keras_transfer.graph.mixing import MIXES, build_mixing

N = 40
INDICES = np.arange(N)


def mixed(mix, *, seed=0, size=64, weights=None, task="multiclass", targets=INDICES, n=N):
    """Each picture all of one value, its index: what it consists of shows."""
    pictures = np.broadcast_to(
        INDICES.astype("float32")[:, None, None, None], (N, size, size, 3)
    ).copy()
    mixing = build_mixing(mix, task, n, seed)
    return [np.asarray(part) for part in mixing(pictures, targets, weights)]


def shares_of(mix, pictures):
    """Which other is in each picture, and how much the picture itself; from its values alone."""
    others, shares = [], []
    for index, picture in enumerate(pictures):
        values = np.unique(picture)
        if mix == "cutmix":
            others.append(next((int(v) for v in values if v != index), index))
            shares.append(np.mean(picture == index))
        else:
            assert len(values) == 1
            others.append(None)
            shares.append(values[0])
    return others, np.array(shares)


def test_a_rectangle_and_its_label_have_the_same_share():
    pictures, rows, weights = mixed("cutmix", weights=np.ones(N))
    others, shares = shares_of("cutmix", pictures)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights, 1, rtol=1e-6)
    # The share is of a rectangle whose sides end between two pixels.
    np.testing.assert_allclose(rows[INDICES, INDICES], shares, atol=2 / 64)
    assert sum(rows[i, other] > 0 for i, other in enumerate(others) if other != i) > N / 2
    assert all(rows[i, other] > 0 for i, other in enumerate(others))
    # All shares are as likely.
    assert np.histogram(shares, 4, (0, 1))[0].min() >= 3


def test_a_mean_and_its_label_have_the_same_share():
    pictures, rows, _ = mixed("mixup", weights=np.ones(N))
    _, values = shares_of("mixup", pictures)
    np.testing.assert_allclose(rows @ INDICES, values, atol=1e-4)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)
    own = rows[INDICES, INDICES]
    assert ((own > 0) & (own < 1)).mean() > 0.5
    assert (np.count_nonzero(rows, axis=1) <= 2).all()


@pytest.mark.parametrize("mix", MIXES)
def test_each_label_counts_by_its_weight(mix):
    """The weighted loss is that of the two labels, each at its share of its own weight."""
    weights = np.random.default_rng(0).uniform(0.2, 3, N)
    _, plain, ones = mixed(mix, weights=np.ones(N))  # the same shares, of the same seed
    _, rows, total = mixed(mix, weights=weights)
    np.testing.assert_allclose(ones, 1, rtol=1e-6)
    np.testing.assert_allclose(rows * total[:, None], plain * weights, rtol=1e-5)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("mix", MIXES)
def test_a_row_of_weight_0_is_in_no_other(mix):
    weights = np.where(INDICES % 3 == 0, 0.0, 1.0)
    targets = np.where(weights == 0, np.nan, INDICES).astype("float32")
    options = {"weights": weights, "task": "regression", "targets": targets, "n": 1}
    pictures, numbers, total = mixed(mix, **options)
    kept = weights > 0
    assert (total[~kept] == 0).all()
    assert np.isfinite(numbers[kept]).all()
    # Another picture in its place changes nothing.
    size = 64
    other = np.broadcast_to(INDICES.astype("float32")[:, None, None, None], (N, size, size, 3))
    other = np.where(kept[:, None, None, None], other, 200.0).astype("float32")
    again = np.asarray(build_mixing(mix, "regression", 1, 0)(other, targets, weights)[0])
    np.testing.assert_array_equal(again[kept], pictures[kept])
    assert not np.array_equal(pictures[kept], other[kept])  # the rest is mixed


def test_labels_and_numbers_are_mixed_as_they_are():
    labels = np.stack([INDICES % 2, np.ones(N)], axis=1).astype("int64")
    pictures, rows = mixed("mixup", task="multilabel", targets=labels, n=2)
    np.testing.assert_allclose(rows[:, 1], 1, rtol=1e-6)
    assert rows.dtype == pictures.dtype == np.float32
    _, numbers = mixed("mixup", task="regression", targets=INDICES * 2.0, n=1)
    np.testing.assert_allclose(numbers[:, 0], 2 * pictures[:, 0, 0, 0], atol=1e-3)


@pytest.mark.parametrize("mix", MIXES)
def test_the_seed_decides(mix):
    mixing = build_mixing(mix, "multiclass", N, 0)
    pictures = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3)).astype("uint8")
    one, two = (np.asarray(mixing(pictures, INDICES)[0]) for _ in range(2))
    assert not np.array_equal(one, two)  # new in every step
    again = np.asarray(build_mixing(mix, "multiclass", N, 0)(pictures, INDICES)[0])
    np.testing.assert_array_equal(one, again)
    other = np.asarray(build_mixing(mix, "multiclass", N, 1)(pictures, INDICES)[0])
    assert not np.array_equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 255


# === In a fit ===

X, Y = tiny.pictures()
SHAPE = X.shape[1:]
TASKS = {
    "multiclass": (TransferClassifier, Y),
    "multilabel": (TransferClassifier, np.stack([Y == "circle", Y != "square"], axis=1)),
    "regression": (TransferRegressor, X.mean(axis=(1, 2, 3))),
}


def fit(recipe, task="multiclass", seed=0, **options):
    kind, y = TASKS[task]
    options = {"readout": "last", "guard": None, "validation": None, **options}
    return kind(tiny.settled(tiny.residual, SHAPE), recipe, random_state=seed, **options).fit(X, y)


def weights_of(estimator):
    return {weight.path: weight.numpy() for weight in estimator.model_.weights}


def same(one, two):
    return [path for path in one if np.array_equal(one[path], two[path])]


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("task", TASKS)
def test_a_fit(mix, task, tmp_path):
    recipe = CompositeTransfer(1, epochs=2, mix=mix)
    one, two, other = (fit(recipe, task, seed) for seed in (0, 0, 1))
    plain = fit(CompositeTransfer(1, epochs=2), task)
    assert len(same(weights_of(one), weights_of(two))) == len(weights_of(one))
    assert one.history_["loss"] == two.history_["loss"] != other.history_["loss"]
    trained = {path for record in one.stages_ for path in record.weights}
    assert not trained & set(same(weights_of(one), weights_of(plain)))
    frozen = set(weights_of(one)) - trained
    assert frozen
    assert frozen <= set(same(weights_of(one), weights_of(plain)))
    if task != "regression":
        assert all(0 <= accuracy <= 1 for accuracy in one.history_["accuracy"])
    # The exact head, and what comes out, know nothing of it.
    assert one.history_["loss"][0] == plain.history_["loss"][0]
    assert [record.stage.solver for record in one.stages_] == ["exact", "gradient"]
    one.model_.save(tmp_path / "it.keras")
    loaded = keras.models.load_model(tmp_path / "it.keras")
    assert loaded.loss == plain.model_.loss
    one.save(tmp_path / "it.keras_transfer")
    np.testing.assert_array_equal(load(tmp_path / "it.keras_transfer").predict(X), one.predict(X))


def test_stages_mix_by_seeds_of_their_own(monkeypatch):
    from keras_transfer.training import feeding

    seeds = []

    def note(mix, task, n_outputs, seed):
        seeds.append(seed)
        return build_mixing(mix, task, n_outputs, seed)

    monkeypatch.setattr(feeding, "build_mixing", note)
    fit(CompositeTransfer("gradual", epochs=1, mix="mixup"))
    assert len(seeds) == len(set(seeds)) == 3


def test_after_augmentation():
    seen = []

    def blacken(pictures):
        seen.append(pictures)
        return pictures * 0

    recipe = StructureTransfer(1, epochs=1, augmentation=blacken, learning_rate=1e-9)
    black = fit(recipe).history_["loss"]
    mixed_black = fit(recipe.set_params(mix="cutmix")).history_["loss"]
    assert seen
    assert black != mixed_black
    assert all(np.isfinite(mixed_black))


def test_a_class_of_weight_0_leaves_no_trace():
    """BatchNorm aside, whose statistics would be of the whole batch."""
    negative = np.where((Y == "circle")[:, None, None, None], 255 - X, X)
    recipe = ParameterTransfer(epochs=2, mix="mixup", batch_norm="frozen")
    clf = TransferClassifier(
        tiny.settled(tiny.residual, SHAPE),
        recipe,
        class_weight={"circle": 0.0, "square": 1.0, "stripes": 1.0},
        readout="last",
        guard=None,
        validation=None,
        random_state=0,
    )
    one, two = (weights_of(clf.fit(pictures, Y)) for pictures in (X, negative))
    assert len(same(one, two)) == len(one)


def test_belongs_to_pictures():
    X, y = tiny.vectors()
    clf = TransferClassifier(tiny.dense, CompositeTransfer(mix="mixup"))
    with pytest.raises(InvalidParameterError, match="mix: expected None where X holds no pictures"):
        clf.fit(X, y)
