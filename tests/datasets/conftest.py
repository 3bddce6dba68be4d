"""OpenMoji, drawn once for each test file."""

import pytest

from keras_transfer.datasets import load_openmoji


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("data_home")


@pytest.fixture(scope="module")
def data(home):
    """Freshly drawn; the next load from ``home`` is from the cache."""
    assert not list(home.iterdir())
    return load_openmoji(image_size=32, data_home=home)
