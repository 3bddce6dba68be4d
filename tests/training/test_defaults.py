"""What is chosen where the user left it open, as a table."""

import pytest

from keras_transfer.training.defaults import stage_defaults

#        examples, backbone trains, pretrained -> epochs, rate, BatchNorm, momentum
TABLE = [
    (1, False, True, 150, 3e-3, "affine", 0.9),
    (32, False, True, 150, 3e-3, "affine", 0.9),
    (60, False, True, 75, 3e-3, "affine", 0.9),
    (1000, False, True, 10, 3e-3, "affine", 0.9),
    (60, True, True, 75, 3e-4, "affine", 0.9),
    (1000, True, True, 10, 3e-4, "affine", 0.9),
    (4000, True, True, 10, 3e-4, "affine", None),
    (60, True, False, 300, 1e-3, "train", 0.9),
    (1000, True, False, 19, 1e-3, "train", 0.9),
    (50_000, True, False, 10, 1e-3, "train", 0.9),
]


@pytest.mark.parametrize("row", TABLE)
def test_table(row):
    n, trains, pretrained, *expected = row
    chosen = stage_defaults(n, batch_size=32, trains_backbone=trains, pretrained=pretrained)
    assert [
        chosen.epochs,
        chosen.learning_rate,
        chosen.batch_norm,
        chosen.batch_norm_momentum,
    ] == expected


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("pretrained", [True, False])
def test_more_examples_never_mean_more_epochs(trains, pretrained):
    epochs = [
        stage_defaults(n, batch_size=32, trains_backbone=trains, pretrained=pretrained).epochs
        for n in (1, 10, 100, 1000, 10_000, 100_000)
    ]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] == 10
