"""The exact head: scikit-learn's optimum, folded into a kernel for features as they are."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from keras_transfer.errors import KerasTransferWarning
from keras_transfer.training import directions, exact_head, newton
from keras_transfer.training.exact_head import leave_one_out_loss, solve_head

# More features than examples, and fewer.
SIZES = {"wide": (40, 90), "tall": (120, 12)}
sizes = pytest.mark.parametrize(("n", "d"), SIZES.values(), ids=SIZES)


@pytest.fixture(autouse=True)
def no_memo():
    directions._bases.clear()


def data(n, d, k, seed=0):
    """Classes that overlap, on features of very different scales, and weights."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    X = rng.normal(size=(k, d))[y] * 0.4 + rng.normal(size=(n, d))
    scales = 10.0 ** rng.integers(-3, 4, d)
    X = (X + rng.normal(size=d)) * scales
    return X.astype(np.float32), y, rng.uniform(0.2, 3, n)


def scale_of(X, weights):
    """The standard deviation; of more features than examples with a floor under it."""
    scale = StandardScaler().fit(X.astype(np.float64), sample_weight=weights).scale_
    return np.sqrt(scale**2 + 0.1 * np.median(scale**2)) if X.shape[1] > len(X) else scale


def standardised(X, weights):
    X = X.astype(np.float64)
    mean = StandardScaler().fit(X, sample_weight=weights).mean_
    return (X - mean) / scale_of(X, weights)


def probabilities(X, head):
    logits = X.astype(np.float64) @ head.kernel + head.bias
    likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
    return likelihood / likelihood.sum(axis=1, keepdims=True)


def reference(X, y, weights, penalty):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=20_000)
        return model.fit(standardised(X, weights), y, sample_weight=weights)


def objective(X, y, weights, penalty, chances, squares):
    return -(weights * np.log(chances[np.arange(len(y)), y])).sum() + penalty / 2 * squares


@pytest.mark.parametrize("penalty", [1e-2, 1.0, 100.0])
@pytest.mark.parametrize("k", [2, 4])
@sizes
def test_classes_reach_the_optimum_of_logistic_regression(n, d, k, penalty):
    X, y, weights = data(n, d, k)
    head = solve_head(X, y, "multiclass", n_outputs=k, weights=weights, penalty=penalty)
    theirs = reference(X, y, weights, penalty)
    scale = scale_of(X, weights)
    kernel = head.kernel * scale[:, np.newaxis]
    if k == 2:  # the halves of one logit
        np.testing.assert_array_equal(head.kernel[:, 0], -head.kernel[:, 1])
        kernel = kernel[:, 1:] - kernel[:, :1]
    given = X, y, weights, penalty
    expected = objective(
        *given, theirs.predict_proba(standardised(X, weights)), np.square(theirs.coef_).sum()
    )
    chances = probabilities(X, head)
    found = objective(*given, chances, np.square(kernel).sum())
    assert found <= expected * (1 + 1e-6)
    np.testing.assert_allclose(chances, theirs.predict_proba(standardised(X, weights)), atol=2e-4)
    loss = objective(*given[:3], 0, chances, 0) / weights.sum()
    np.testing.assert_allclose(head.loss, loss, rtol=1e-4, atol=1e-6)


@sizes
def test_labels_are_as_many_logistic_regressions(n, d):
    X, y, weights = data(n, d, 3)
    labels = np.eye(3)[y]
    labels[:, 2] = np.arange(n) % 2
    head = solve_head(X, labels, "multilabel", n_outputs=3, weights=weights, penalty=2.0)
    scores = X.astype(np.float64) @ head.kernel + head.bias
    for column in range(3):
        theirs = reference(X, labels[:, column], weights, 2.0)
        expected = theirs.predict_proba(standardised(X, weights))[:, 1]
        np.testing.assert_allclose(1 / (1 + np.exp(-scores[:, column])), expected, atol=2e-4)


def test_a_label_that_all_have_or_none_is_its_frequency():
    X, y, weights = data(40, 6, 2)
    labels = np.stack([np.ones(40), y, np.zeros(40)], axis=1)
    head = solve_head(X, labels, "multilabel", n_outputs=3, weights=weights, penalty=1.0)
    alone = solve_head(X, labels[:, 1:2], "multilabel", n_outputs=1, weights=weights, penalty=1.0)
    assert not head.kernel[:, [0, 2]].any()
    assert head.bias[0] > 4 > -4 > head.bias[2]
    np.testing.assert_allclose(head.kernel[:, 1:2], alone.kernel, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("n_outputs", [1, 3])
@sizes
def test_numbers_are_ridge_regression(n, d, n_outputs):
    X, _, weights = data(n, d, 2)
    y = np.random.default_rng(1).normal(5, 2, (n, n_outputs))
    head = solve_head(X, y, "regression", n_outputs=n_outputs, weights=weights, penalty=3.0)
    theirs = Ridge(alpha=3.0).fit(standardised(X, weights), y, sample_weight=weights)
    expected = theirs.predict(standardised(X, weights)).reshape(n, -1)
    np.testing.assert_allclose(X.astype(np.float64) @ head.kernel + head.bias, expected, atol=2e-4)
    loss = np.average(np.square(y - expected).mean(axis=1), weights=weights)
    np.testing.assert_allclose(head.loss, loss, rtol=1e-4)


def test_constant_features_say_nothing():
    X, y, _ = data(40, 6, 3)
    constant = np.full((40, 2), [0.0, 1e4], np.float32)
    head = solve_head(np.hstack([X, constant]), y, "multiclass", n_outputs=3, penalty=1.0)
    alone = solve_head(X, y, "multiclass", n_outputs=3, penalty=1.0)
    assert not head.kernel[6:].any()
    np.testing.assert_allclose(head.kernel[:6], alone.kernel, rtol=1e-3, atol=1e-9)


def test_all_features_constant():
    y = np.repeat([0, 1], [30, 10])
    head = solve_head(np.ones((40, 3)), y, "multiclass", n_outputs=2)
    np.testing.assert_allclose(probabilities(np.ones((1, 3)), head), [[0.75, 0.25]], atol=1e-4)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_weights_count_as_repetitions(task):
    X, y, _ = data(60, 8, 3)
    targets = {"multiclass": y, "multilabel": np.eye(3)[y], "regression": X[:, :3] + y[:, None]}
    weights = np.arange(60) % 3
    rows = np.repeat(np.arange(60), weights)
    options = {"n_outputs": 3, "penalty": 1.0}
    weighted = solve_head(X, targets[task], task, weights=weights, **options)
    repeated = solve_head(X[rows], targets[task][rows], task, **options)
    scores = [X @ head.kernel + head.bias for head in (weighted, repeated)]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=2e-3)
    doubled = solve_head(
        X, targets[task], task, weights=2 * weights, **(options | {"penalty": 2.0})
    )
    np.testing.assert_allclose(doubled.kernel, weighted.kernel, rtol=1e-3, atol=1e-6)


def test_a_class_without_examples_never_comes():
    X, y, _ = data(60, 8, 3)
    for y_given, weights in ((y * 2, None), (np.where(y == 2, 1, y * 2), y < 2)):
        head = solve_head(X, y_given, "multiclass", n_outputs=5, weights=weights, penalty=1.0)
        present = np.unique(y_given if weights is None else y_given[weights])
        absent = np.setdiff1d(np.arange(5), present)
        assert not head.kernel[:, absent].any()
        assert probabilities(X * 10, head)[:, absent].max() < 1e-20
        assert np.isfinite(head.bias).all()
    only = solve_head(X, np.ones(60, int), "multiclass", n_outputs=3)
    assert probabilities(X, only)[:, [0, 2]].max() < 1e-20


# === The penalty ===


def held_out_loss(X, y, train, penalty):
    head = solve_head(X[train], y[train], "multiclass", n_outputs=3, penalty=penalty)
    rest = np.setdiff1d(np.arange(len(y)), train)
    chances = probabilities(X[rest], head)[np.arange(len(rest)), y[rest]]
    return head.penalty, -np.log(np.maximum(chances, 1e-12)).mean()


@pytest.mark.parametrize(("signal", "wrong"), [(0.1, 1e-4), (0.6, 1e6)])
def test_the_chosen_penalty_suits_the_data(signal, wrong):
    """Where there is little to learn, it is not learned by heart; where there is much, it is."""
    losses = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = np.arange(330) % 3
        X = rng.normal(size=(3, 200))[y] * signal + rng.normal(size=(330, 200))
        losses.append([held_out_loss(X, y, np.arange(30), p)[1] for p in (None, wrong)])
    chosen, other = np.mean(losses, axis=0)
    assert chosen < other


def test_noise_is_penalised_more():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = rng.normal(size=(90, 30))
    noise = solve_head(X, y, "multiclass", n_outputs=3).penalty
    assert noise > 30 * solve_head(X + 4 * np.eye(30)[y], y, "multiclass", n_outputs=3).penalty


@sizes
def test_the_penalty_of_numbers_leaves_each_example_out(n, d):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    y = X[:, :2] @ [[2.0], [1.0]] + rng.normal(0, 2, (n, 1))
    Z = standardised(X, None)
    unit = np.square(Z).sum() / n

    def left_out(penalty):
        errors = []
        for row in range(n):
            rest = np.arange(n) != row
            foretold = Ridge(alpha=penalty).fit(Z[rest], y[rest]).predict(Z[[row]])
            errors.append(np.square(y[row] - foretold).sum())
        return np.sum(errors)

    # The formula takes the mean of the features as known, which costs next to nothing.
    path = exact_head._PATH * unit
    best = path[np.argmin([left_out(penalty) for penalty in path])]
    assert solve_head(X, y, "regression", n_outputs=1).penalty == pytest.approx(best)


# === The decomposition ===


def test_the_memo_changes_no_bits_and_tells_its_data():
    X, y, weights = data(40, 12, 3)
    options = {"n_outputs": 3, "penalty": 1.0}
    first = solve_head(X, y, "multiclass", weights=weights, **options)
    again = solve_head(X, y, "multiclass", weights=weights, **options)
    assert len(directions._bases) == 1
    np.testing.assert_array_equal(first.kernel, again.kernel)
    other = X.copy()
    other[0, 0] *= 3
    for changed in ({"features": other, "weights": weights}, {"features": X, "weights": y + 1.0}):
        found = solve_head(targets=y, task="multiclass", **changed, **options)
        assert not np.array_equal(found.kernel, first.kernel)
        directions._bases.clear()
        fresh = solve_head(targets=y, task="multiclass", **changed, **options)
        np.testing.assert_array_equal(found.kernel, fresh.kernel)


def test_the_order_of_examples_does_not_matter():
    X, y, weights = data(60, 90, 3)
    order = np.random.default_rng(0).permutation(60)
    one = solve_head(X, y, "multiclass", n_outputs=3, weights=weights)
    two = solve_head(X[order], y[order], "multiclass", n_outputs=3, weights=weights[order])
    assert one.penalty == pytest.approx(two.penalty)
    np.testing.assert_allclose(probabilities(X, one), probabilities(X, two), atol=1e-4)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_what_is_too_large_is_not_decomposed(task, monkeypatch):
    X, y, weights = data(120, 40, 3)
    targets = y if task == "multiclass" else np.eye(3)[y]
    options = {"n_outputs": 3, "weights": weights, "penalty": 5.0}
    whole = solve_head(X, targets, task, **options)
    for module in (exact_head, directions):
        monkeypatch.setattr(module, "LARGEST", 30)
    directions._bases.clear()
    large = solve_head(X, targets, task, **options)
    assert not next(iter(directions._bases.values())).is_decomposed
    scores = [X @ head.kernel + head.bias for head in (large, whole)]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=5e-3)
    # The penalty is chosen by a part of the rows.
    chosen = solve_head(X, targets, task, **(options | {"penalty": None})).penalty
    assert chosen == solve_head(X, targets, task, **(options | {"penalty": None})).penalty > 0


def test_no_penalty_of_separable_classes_ends(monkeypatch):
    X, y, _ = data(30, 60, 3)
    head = solve_head(X, y, "multiclass", n_outputs=3, penalty=0)
    assert np.isfinite(head.kernel).all()
    assert (probabilities(X, head).argmax(axis=1) == y).all()


def test_what_does_not_converge_is_said_once(monkeypatch):
    monkeypatch.setattr(newton, "MAX_ITERATIONS", 1)
    X, y, _ = data(40, 12, 3)
    with pytest.warns(KerasTransferWarning, match=r"in 1 iterations.*head_penalty") as seen:
        solve_head(X, y, "multiclass", n_outputs=3, penalty=1e-3)
    assert len(seen) == 1


# === Bad input ===

GOOD = {"features": np.eye(4), "targets": [0, 1, 0, 1], "task": "multiclass", "n_outputs": 2}
NOT_FINITE = np.eye(4)
NOT_FINITE[2, 0] = np.nan
BAD = {
    "not finite": ({"features": NOT_FINITE}, r"NaN or infinity in 1 of 4 rows, the first: row 2"),
    "one axis": ({"features": np.ones(4)}, r"expected shape \(n, n_features\)"),
    "lengths": ({"targets": [0, 1]}, r"a target and a weight for each"),
    "weights' length": ({"weights": [1.0]}, r"a target and a weight for each"),
    "empty": ({"features": np.ones((0, 4)), "targets": []}, r"at least one row"),
    "negative": ({"penalty": -1.0}, r"penalty: expected a number of at least 0. Received: -1"),
    "no number": ({"penalty": np.nan}, r"penalty: expected a number of at least 0"),
    "no weight": ({"weights": np.zeros(4)}, r"one above it"),
    "negative weight": ({"weights": [1, 1, 1, -1]}, r"at least 0, and one above it"),
    "class": ({"targets": [0, 1, 2, 1]}, r"class indices below 2. Received: 0 to 2"),
    "columns": ({"task": "regression", "targets": np.ones((4, 3))}, r"expected 2 columns"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        solve_head(**(GOOD | changes))


def test_classes_that_few_examples_part_leave_a_penalty():
    # Any ridge parts them, and foretells each from the others; without bounds the logits grow.
    rng = np.random.default_rng(0)
    targets = np.arange(12) % 2
    features = rng.normal(size=(12, 50)) * 0.01 + np.where(targets, 1, -1)[:, np.newaxis]
    head = solve_head(features, targets, "multiclass", n_outputs=2)
    variances = np.var(features, axis=0)
    share = np.mean(variances / (variances + 0.1 * np.median(variances)))
    assert head.penalty == pytest.approx(0.1 * 0.1 * 50 * share)
    numbers = solve_head(features, 1.0 * targets[:, np.newaxis], "regression", n_outputs=1)
    assert numbers.penalty < 0.1 * 50


def test_leaving_one_out_tells_which_features_are_better():
    rng = np.random.default_rng(0)
    targets = np.arange(60) % 3
    good = rng.normal(size=(60, 40)) + 2 * np.eye(3, 40)[targets]
    losses = {}
    for name, features in {"good": good, "noise": rng.normal(size=(60, 40))}.items():
        losses[name] = leave_one_out_loss(features, targets, "multiclass", n_outputs=3)
        wrong = np.where(np.arange(60) < 30, targets, 0)
        weights = np.where(np.arange(60) < 30, 1.0, 0.0)
        assert leave_one_out_loss(
            features, wrong, "multiclass", n_outputs=3, weights=weights
        ) == pytest.approx(
            leave_one_out_loss(features[:30], targets[:30], "multiclass", n_outputs=3)
        )
    assert losses["good"] < 0.7 * np.log(3) < 0.9 * np.log(3) < losses["noise"]


def test_what_hardly_moves_in_few_examples_is_not_blown_up_to_noise():
    """Features that tell the classes a little each, and others of a fiftieth that do not."""
    rng = np.random.default_rng(0)
    y = np.arange(640) % 4
    telling = rng.normal(size=(4, 100))[y] * 0.4 + rng.normal(size=(640, 100))
    X = np.concatenate([telling, 0.02 * rng.normal(size=(640, 90))], axis=1)
    rights = {}
    for name, features in {"with": X, "without": telling}.items():
        head = solve_head(features[:40], y[:40], "multiclass", n_outputs=4)
        answers = (features[40:] @ head.kernel + head.bias).argmax(axis=1)
        rights[name] = np.mean(answers == y[40:])
    assert rights["without"] > 0.6
    assert rights["with"] > rights["without"] - 0.02


def test_an_example_that_outweighs_all_others_is_foretold_by_none():
    X, y, _ = data(40, 6, 2)
    for heavy, is_told in ((1.0, True), (1e13, False)):
        weights = np.r_[heavy, np.ones(39)]
        loss = leave_one_out_loss(X, y, "multiclass", n_outputs=2, weights=weights)
        assert np.isfinite(loss) == is_told
        head = solve_head(X, y, "multiclass", n_outputs=2, weights=weights)
        assert probabilities(X[:1], head)[0, y[0]] > 0.5


def test_a_large_ridge_that_does_not_end_is_said(monkeypatch):
    monkeypatch.setattr(directions, "LARGEST", 5)
    X, _, _ = data(200, 60, 2)
    target = np.random.default_rng(1).normal(size=(200, 1))
    solve_head(X, target, "regression", n_outputs=1, penalty=1.0)  # without a warning
    monkeypatch.setattr(exact_head, "MAX_ITERATIONS", 1)
    with pytest.warns(KerasTransferWarning, match="penalty of 1: the residual of a column"):
        solve_head(X, target, "regression", n_outputs=1, penalty=1.0)
