"""The look at the data: what it finds, what it leaves alone, and what it says."""

import numpy as np
import pytest

from keras_transfer.errors import DataError
from keras_transfer.inputs import data_look
from keras_transfer.inputs.data_look import look_at
from keras_transfer.inputs.data_report import Leak


def groups(n_per_class=30, n_classes=3, n_features=64, apart=3.0, seed=0):
    """Features of classes that lie apart, and their labels, in turn."""
    rng = np.random.default_rng(seed)
    classes = np.tile(np.arange(n_classes), n_per_class)
    centres = rng.normal(size=(n_classes, n_features)) * apart / np.sqrt(2)
    features = centres[classes] + rng.normal(size=(len(classes), n_features))
    return features.astype(np.float32), np.array(["cat", "dog", "owl", "pig"])[classes]


def look(features, labels, n_train=None, **options):
    names = [f"{row}.png" for row in range(len(features))]
    n_train = len(features) if n_train is None else n_train
    return look_at(features, labels, names, n_train=n_train, **options)


# === Copies ===


def test_exact_copies_are_grouped_and_across_the_split_are_leaks():
    features, labels = groups(4)
    digests = [str(row) for row in range(12)]
    digests[3] = digests[0]  # both train
    digests[11] = digests[6] = digests[5]  # two train, one validates
    report = look(features, labels, 10, digests=digests)
    assert report.duplicates == (("0.png", "3.png"), ("5.png", "6.png"))
    assert report.leaks == (Leak("5.png", "11.png", 1.0, "exact"),)
    assert any("1 validation example is a copy of a training" in said for said in report.warnings())


def test_unknown_contents_are_no_copies():
    features, labels = groups(4)
    assert look(features, labels, digests=[None] * 6 + [""] * 6).duplicates == ()


def test_equal_pictures_of_different_labels_are_a_conflict():
    features, labels = groups(4)
    digests = [str(row) for row in range(12)]
    digests[4] = digests[0]
    report = look(features, labels, digests=digests)
    (conflict,) = report.conflicts
    assert conflict.names == ("0.png", "4.png")
    assert conflict.labels == ("cat", "dog")
    assert any("0.png is 'cat', 4.png is 'dog'" in text for text in report.warnings())


def test_near_copies_across_the_split_are_found_and_mere_neighbours_are_not():
    features, labels = groups(43, apart=1.0)
    fresh = features[120:]  # of the same classes
    near = features[50:53] + np.random.default_rng(1).normal(size=(3, 64)) * 0.1
    everything = np.concatenate([features[:120], near, fresh]).astype(np.float32)
    report = look(everything, np.resize(labels, len(everything)), 120)
    pairs = [(leak.train, leak.validation, leak.kind) for leak in report.leaks]
    assert pairs == [(f"{50 + n}.png", f"{120 + n}.png", "near") for n in range(3)]
    assert all(0.9 < leak.similarity <= 1 for leak in report.leaks)


def test_an_exact_copy_is_not_reported_a_second_time_as_a_near_one():
    features, labels = groups(40, apart=1.0)
    everything = np.concatenate([features, features[:1], features[1:2] + 0.01])
    digests = [str(row) for row in range(120)] + ["0", "other"]
    report = look(everything, np.resize(labels, 122), 120, digests=digests)
    assert [(leak.validation, leak.kind) for leak in report.leaks] == [
        ("120.png", "exact"),
        ("121.png", "near"),
    ]


def test_in_few_dimensions_nobody_is_a_near_copy():
    rng = np.random.default_rng(0)
    report = look(rng.normal(size=(200, 2)).astype(np.float32), np.resize(["a", "b"], 200), 150)
    assert report.leaks == ()


# === Doubtful labels ===


def test_flipped_labels_are_found_the_most_suspicious_first():
    features, labels = groups()
    flipped = [0, 31, 62, 70]
    wrong = labels.copy()
    wrong[flipped] = np.roll(np.array(["cat", "dog", "owl"]), 1)[
        [["cat", "dog", "owl"].index(label) for label in labels[flipped]]
    ]
    report = look(features, wrong)
    found = {suspect.name for suspect in report.suspects}
    assert found == {f"{row}.png" for row in flipped}
    for suspect in report.suspects:
        row = int(suspect.name.removesuffix(".png"))
        assert (suspect.label, suspect.likely) == (wrong[row], labels[row])
        assert suspect.likely_confidence >= data_look.CONFIDENT > suspect.confidence
    confidences = [suspect.likely_confidence for suspect in report.suspects]
    assert confidences == sorted(confidences, reverse=True)
    (text,) = report.warnings()
    assert text.startswith("4 of 90 labels look wrong")
    assert report.suspects[0].name in text
    assert report.agreement == pytest.approx(1 - 4 / 90)


def test_clean_labels_and_labels_of_which_nothing_can_be_told_warn_of_none():
    assert look(*groups()).warnings() == ()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(90, 64)).astype(np.float32)
    report = look(noise, groups()[1])
    assert report.suspects == ()
    assert report.warnings() == ()


def test_a_class_in_the_majority_hides_nothing():
    features, _ = groups(90, n_classes=2, apart=5.0)
    rows = np.concatenate([np.arange(0, 180, 2), np.arange(1, 16, 2)])  # 90 and 8
    labels = np.array(["cat", "dog"])[rows % 2]
    labels[3] = "dog"  # it is a cat
    report = look(features[rows], labels)
    assert [suspect.name for suspect in report.suspects] == ["3.png"]
    (said,) = (text for text in report.warnings() if "wrong" in text)
    assert said.startswith("1 of 98 labels looks wrong (3.png is 'dog' and looks like 'cat')")


def test_features_that_overflow_tell_nothing():
    features, labels = groups()
    features[7, 3] = np.inf
    report = look(features, labels)
    assert (report.suspects, report.n_judged, report.agreement) == ((), 0, None)


def test_small_classes_are_neither_judged_nor_proposed():
    features, labels = groups()
    labels = labels.copy()
    labels[:4] = "rare"
    report = look(features, labels)
    assert report.n_judged == 86
    assert "rare" not in {suspect.likely for suspect in report.suspects}


def test_many_features_are_reduced_and_still_tell():
    features, labels = groups(n_features=3000)
    labels = labels.copy()
    labels[0] = "dog"  # it is a cat
    assert [suspect.name for suspect in look(features, labels).suspects] == ["0.png"]


def test_the_out_of_fold_scores_are_those_of_fits_without_the_row():
    from sklearn.linear_model import Ridge

    units = data_look._standardise(groups(10, n_features=8)[0]).astype(float)
    classes = np.tile(np.arange(3), 10)
    for columns in (8, 3):  # fewer features than rows, both ways of solving
        x = np.concatenate([units[:, :columns]] * (1 if columns == 3 else 5), axis=1)
        probabilities = data_look._out_of_fold(x, classes, 3)
        targets = np.eye(3)[classes]
        targets -= targets.mean(axis=0)
        rest = np.arange(1, 30)
        answer = Ridge(1.0, fit_intercept=False).fit(x[rest], targets[rest]).predict(x[:1])[0]
        logs = np.log(probabilities[0])
        steps = np.diff(logs), np.diff(answer)
        ratio = steps[0] / steps[1]  # one temperature for all
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_features_that_do_not_vary_tell_nothing():
    features, labels = groups()
    for scale in (0.0, 1e-3):  # and what varies by no more than rounding
        report = look((1e3 + scale * features).astype(np.float32), labels, 60)
        assert (report.leaks, report.suspects, report.n_judged) == ((), (), 0)
        assert report.agreement is None
    assert look(1e3 + features, labels, 60).agreement > 0.9


# === Classes ===


def test_classes_are_counted_and_lacking_ones_are_named():
    labels = ["a"] * 30 + ["b"] * 2 + ["c"] + ["d"] * 5 + ["a"] * 3 + ["e"]
    features = np.zeros((len(labels), 0), np.float32)
    report = look(features, labels, 38)
    counts = {count.label: (count.n_train, count.n_validation) for count in report.class_counts}
    assert counts == {"a": (30, 3), "b": (2, 0), "c": (1, 0), "d": (5, 0), "e": (0, 1)}
    said = report.warnings()
    assert "Class 'c' has one example only. Add examples, or leave it out." in said
    assert any(text.startswith("Class 'e' has no training example") for text in said)
    assert any(text.startswith("Classes 'b', 'd' have no validation example") for text in said)
    assert any("pass class_weight='balanced'" in text for text in said)
    assert not any("class_weight" in text for text in report.warnings(balanced=True))


def test_labels_that_cannot_be_sorted_together_are_no_problem():
    report = look(np.zeros((4, 0), np.float32), [1, "a", 1, None])
    assert {count.label: count.n_train for count in report.class_counts} == {1: 2, "a": 1, None: 1}


def test_numbers_have_no_classes():
    features, _ = groups()
    report = look(features, None, 60)
    assert (report.class_counts, report.suspects, report.agreement) == ((), (), None)


# === Large data ===


def test_of_large_data_only_a_part_is_looked_at_and_asked_for(monkeypatch):
    monkeypatch.setattr(data_look, "MAX_LOOKED_AT", 20)
    features, labels = groups()
    digests = [str(row) for row in range(90)]
    digests[89] = digests[2]
    asked = []

    def features_of(rows):
        asked.append(rows)
        return features[rows]

    report = look_at(
        features_of, labels, [str(row) for row in range(90)], n_train=60, digests=digests
    )
    (rows,) = asked
    assert len(rows) == report.n_looked_at == 40
    assert (np.diff(rows) > 0).all()
    assert (rows < 60).sum() == 20
    assert sum(count.n_train for count in report.class_counts) == 60  # counted whole
    assert [leak.kind for leak in report.leaks] == ["exact"]
    assert "(40 looked at)" in repr(report)
    assert report == look_at(
        features, labels, [str(row) for row in range(90)], n_train=60, digests=digests
    )


def test_lengths_that_differ_are_refused():
    features, labels = groups()
    with pytest.raises(DataError, match="as many rows as labels"):
        look_at(features[:-1], labels, ["a"] * 90, n_train=90)
    with pytest.raises(DataError, match="n_train=91"):
        look(features, labels, 91)
