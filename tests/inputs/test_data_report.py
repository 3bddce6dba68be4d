"""The report of the look at the data: its words, and the way to a file and back."""

import dataclasses
import json

import numpy as np
import pytest

from keras_transfer.inputs.data_look import look_at
from keras_transfer.inputs.data_report import Conflict, DataReport, Leak, Suspect


def test_a_report_comes_back_from_json():
    rng = np.random.default_rng(0)
    classes = np.tile(np.arange(3), 30)
    features = rng.normal(size=(3, 64))[classes] * 2 + rng.normal(size=(90, 64))
    labels = np.array(["cat", "dog", "owl"])[classes]
    labels[0] = "dog"
    digests = ["x", "x", *map(str, range(88))]
    names = [f"{row}.png" for row in range(90)]
    report = look_at(features, labels, names, n_train=90, digests=digests)
    report = dataclasses.replace(report, skipped=(("a", "b"),))
    assert report.suspects
    content = json.loads(json.dumps(dataclasses.asdict(report), default=str))
    again = DataReport(**content)
    assert isinstance(again.suspects[0], Suspect)
    assert again.suspects == report.suspects
    assert again.class_counts == report.class_counts
    assert repr(again) == repr(report)


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        ("exact", "is a copy of a training example (v1", "are copies of training examples (the f"),
        ("near", "is nearly a copy of a training", "are nearly copies of training examples"),
    ],
)
def test_one_copy_and_several(kind, one, two):
    leaks = [Leak("t1", "v1", 1.0, kind), Leak("t2", "v2", 1.0, kind)]
    (said,) = DataReport(10, 5, 15, leaks=leaks[:1]).warnings()
    assert f"1 validation example {one}" in said
    assert "Remove it," in said
    (said,) = DataReport(10, 5, 15, leaks=leaks).warnings()
    assert f"2 validation examples {two}" in said
    assert "Remove them," in said


def test_one_conflict_and_several():
    first = Conflict(("a", "b"), ("cat", "dog"))
    (said,) = DataReport(10, 0, 10, conflicts=[first]).warnings()
    assert "1 example is there more than once" in said
    (said,) = DataReport(10, 0, 10, conflicts=[first, first]).warnings()
    assert "2 examples are there more than once" in said


def test_suspects_are_a_warning_where_there_are_more_than_clean_labels_have():
    suspects = [Suspect(f"{row}.png", "cat", "dog", 0.01, 0.99) for row in range(30)]

    def said(n_suspects, agreement):
        found = {"suspects": suspects[:n_suspects], "n_judged": 1000, "agreement": agreement}
        return DataReport(1000, 0, 1000, **found).warnings()

    assert said(24, 0.9) == ()  # hard data have as many
    assert said(25, 0.9)[0].startswith("25 of 1000 labels look wrong (the first: 0.png is 'cat'")
    # Classes that are hardly ever confused otherwise.
    assert said(1, 0.995)[0].startswith("1 of 1000 labels looks wrong (0.png is 'cat'")


def test_shows_how_many_of_each():
    leaks = [Leak("t1", "v1", 1.0, "exact")]
    shown = repr(DataReport(1000, 5, 20, leaks=leaks, duplicates=[("a", "b"), ("c", "d")]))
    assert "1,000 training and 5 validation examples (20 looked at)" in shown
    assert "2 duplicates, 1 leak, 0 conflicts, 0 suspects, 0 skipped" in shown
