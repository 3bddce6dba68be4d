"""Examples, parted into those that train and those that are held out."""

import numpy as np
import pytest

from keras_transfer.errors import InvalidParameterError
from keras_transfer.fitting.task import Task
from keras_transfer.inputs.examples import Examples
from keras_transfer.inputs.features import FeatureInput
from keras_transfer.inputs.reader import Loaded
from keras_transfer.inputs.targets import ClassTargets, LabelTargets, NumberTargets

READER = FeatureInput.from_data(np.zeros((2, 3)))
CLASSES = ClassTargets(np.array(["no", "yes"]))


def examples(targets, weights=None):
    n = len(targets)
    inputs = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    return Examples.from_loaded(Loaded(inputs, np.arange(n)), np.asarray(targets), weights)


def part(
    targets,
    held=None,
    groups=None,
    *,
    kind=CLASSES,
    validation="auto",
    score=False,
    solved=False,
    **rest,
):
    return Task.part(
        examples(targets),
        held,
        groups,
        targets=kind,
        validation=validation,
        has_target_score=score,
        is_solved=solved,
        seed=0,
        reader=READER,
        **rest,
    )


@pytest.mark.parametrize("per_class", [5, 60])
@pytest.mark.parametrize("validation", ["auto", None, 0.4])
@pytest.mark.parametrize("score", [False, True])
def test_how_many_are_held_out(per_class, validation, score):
    task = part(np.repeat([0, 1], per_class), validation=validation, score=score)
    share = {None: 0, 0.4: 0.4, "auto": 0.2 if score or per_class == 60 else 0}[validation]
    assert (0 if task.held is None else len(task.held)) == pytest.approx(2 * per_class * share)
    assert len(task.train) == pytest.approx(2 * per_class * (1 - share))
    # A few that are held out for the sake of a target score only measure.
    assert task.steers == (validation != "auto" or per_class == 60)


def test_nothing_is_held_out_of_what_nobody_can_steer():
    task = part(np.repeat([0, 1], 60), solved=True)
    assert (task.held, len(task.train), task.steers) == (None, 120, False)
    measured = part(np.repeat([0, 1], 60), solved=True, score=True)
    assert (len(measured.held), measured.steers) == (24, False)
    assert len(part(np.repeat([0, 1], 60), solved=True, validation=0.2).held) == 24


def test_what_the_user_held_out_is_all():
    held = examples([0, 1])
    task = part(np.repeat([0, 1], 40), held)
    assert task.held is held
    assert len(task.train) == 80
    assert task.steers


def test_the_inputs_of_both_sides():
    task = part(np.repeat([0, 1], 60))
    train, held = task.inputs
    assert sorted([*train[:, 0], *held[:, 0]]) == list(range(0, 360, 3))
    assert part([0, 1]).inputs[1] is None


def test_groups_never_straddle():
    groups = np.arange(240) % 8
    task = part(np.repeat([0, 1], 120), groups=groups)
    row = task.held.inputs[:, 0].astype(int) // 3
    assert 0 < len(row) < 240
    assert set(task.groups).isdisjoint(groups[row])
    assert len(task.groups) == len(task.train)


def test_few_groups_are_few_examples():
    assert part(np.repeat([0, 1], 120), groups=np.arange(240) % 4).held is None


def test_weights_of_examples_and_classes():
    task = part([0, 0, 0, 1], class_weight={"no": 2.0, "yes": 5.0})
    np.testing.assert_array_equal(task.weights, [2, 2, 2, 5])
    np.testing.assert_array_equal(task.weigh(examples([1, 0], np.array([10.0, 1.0]))), [50, 2])
    np.testing.assert_allclose(part([0, 0, 0, 1], class_weight="balanced").weights[-1], 2)
    np.testing.assert_array_equal(part([0, 0, 0, 1]).weights, [1, 1, 1, 1])


def test_of_weights_one_is_above_0():
    with pytest.raises(InvalidParameterError, match=r"class_weight: expected a class in y"):
        part([0, 0], class_weight={"no": 0.0}).weights  # noqa: B018


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        (CLASSES, np.array([0, 1, 1])),
        (LabelTargets(2), np.array([[0, 1], [1, 1], [0, 0]], np.float32)),
        (NumberTargets(1, False, (20.0,), (10.0,)), np.array([[10.0], [20.0], [30.0]])),
    ],
)
def test_what_the_loss_reads(kind, targets):
    task = part(targets, kind=kind, validation=None)
    expected = (targets - 20) / 10 if kind.task == "regression" else targets
    np.testing.assert_array_equal(task.trained_targets, expected)
