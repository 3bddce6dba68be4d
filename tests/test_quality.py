"""The presets: each names what there is."""

import pytest

from keras_transfer import get_backbone
from keras_transfer.modes import RECIPES
from keras_transfer.quality import QUALITIES


def test_their_names():
    assert list(QUALITIES) == ["fast", "good", "best"]


@pytest.mark.parametrize("quality", QUALITIES.values(), ids=QUALITIES)
def test_each_names_what_there_is(quality):
    RECIPES[quality.recipe](**quality.settings).check()
    backbone = get_backbone(quality.backbone)
    shape = backbone.resolve_shape((quality.image_size, quality.image_size, 3))
    assert shape == (quality.image_size, quality.image_size, 3)
