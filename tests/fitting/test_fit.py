"""One fit: what is asked about it once it has trained, and what is not."""

import keras
import numpy as np
import pytest
import tiny

from keras_transfer import CompositeTransfer, StructureTransfer, TransferClassifier

X, Y = tiny.striped(32)


def make(recipe=None, **parameters):
    recipe = CompositeTransfer(epochs=3, learning_rate=1e-3) if recipe is None else recipe
    options = {"readout": "last", "random_state": 0, "batch_size": 16, **parameters}
    return TransferClassifier(tiny.edges(), recipe, **options)


@pytest.mark.parametrize("validation", ["auto", 0.25])
def test_a_training_that_a_callback_ended_is_not_compared_with_its_start(validation):
    """Without some of the examples, the callback would end it elsewhere."""
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
    ended = make(callbacks=[stop], validation=validation).fit(X, Y)
    assert ended.stages_[-1].reason == "callback"
    assert ended.fine_tuning_ is None
    whole = make(callbacks=[keras.callbacks.Callback()], validation=validation).fit(X, Y)
    assert whole.stages_[-1].reason == "epochs"
    assert whole.fine_tuning_ is not None


def test_after_the_deadline_held_out_examples_are_not_asked_again():
    recipe = CompositeTransfer(epochs=10**6, learning_rate=1e-3)
    # With a target score, which is never reached, what is held out only measures.
    clf = make(recipe, target_score=1.1, time_budget=5).fit(X, Y)
    assert [record.reason for record in clf.stages_] == ["solved", "time budget"]
    assert clf.fine_tuning_ is None
    assert 0 <= clf.validation_score_ <= 1  # of what the training itself measured


def test_where_each_class_is_all_in_one_group_nothing_is_scored():
    clf = make(StructureTransfer()).fit(X, Y, groups=Y)
    assert clf.guard_ is None
    assert clf.temperature_ == 1
    assert np.isnan(clf.validation_score_)
    assert np.isnan(clf.validation_standard_error_)
    assert clf.score(X, Y) > 0.9  # what is learned is learned all the same
