"""scikit-learn's own checks, on a backbone for vectors: nothing is excused that is ours to mend."""

import pytest
import tiny
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from keras_transfer import (
    ParameterTransfer,
    TransferClassifier,
    TransferEncoder,
    TransferRegressor,
    get_backbone,
)

RECIPE = ParameterTransfer(epochs=20, learning_rate=1e-2)
BACKBONE = get_backbone(tiny.dense)  # a bare function shows its address, in names of tests too
ESTIMATORS = [
    # What is held out is not weighted by class: with a weight of a million early stopping would
    # undo it.
    TransferClassifier(BACKBONE, RECIPE, validation=None),
    TransferRegressor(BACKBONE, RECIPE),
    TransferEncoder(BACKBONE),
]
# What scikit-learn lists for its own SGDClassifier, SGDRegressor and (sgd) MLPs: a row of weight 2
# stands in one mini-batch once, a row that is there twice comes in two, in another order. Rows of
# weight 0 are as if they were not there; that half is tested in test_supervised.py.
EXCUSED = {
    "check_sample_weight_equivalence_on_dense_data": (
        "sample_weight is not equivalent to repeating samples in mini-batches"
    )
}


def excused(estimator):
    return {} if isinstance(estimator, TransferEncoder) else EXCUSED


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=excused)
def test_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "at_least"), list(zip(ESTIMATORS, (60, 55, 45), strict=True))
)
def test_how_many_checks_run(estimator, at_least):
    """Tags that say too little would leave checks out without a word."""
    assert len(list(estimator_checks_generator(estimator))) >= at_least


@pytest.mark.parametrize("kind", [TransferClassifier, TransferRegressor, TransferEncoder])
def test_tags_are_true_for_the_modality(kind):
    def axes(estimator):
        tags = get_tags(estimator).input_tags
        return tags.two_d_array, tags.three_d_array

    assert axes(kind("MobileNetV2")) == (False, True)
    assert axes(kind(tiny.dense)) == (True, True)  # nothing tells
    assert axes(kind(tiny.dense, modality="features")) == (True, False)
    assert axes(kind(get_backbone(tiny.dense((3,))))) == (True, False)
    assert axes(kind("no such backbone")) == (True, True)  # tags never raise: fit does
    assert not get_tags(kind()).input_tags.sparse
    assert get_tags(kind()).target_tags.required == (kind is not TransferEncoder)
