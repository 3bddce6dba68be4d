"""A run to work with: a folder of pictures, and an estimator that was fitted on it."""

import pytest
import tiny
from click.testing import CliRunner

from keras_transfer import register_backbone
from keras_transfer.cli import main

X, Y = tiny.pictures(n_per_class=6)
BACKBONE = "TinyOfTheCommand"


@pytest.fixture(scope="session", autouse=True)
def backbone():
    register_backbone(BACKBONE, tiny.cnn, overwrite=True)


@pytest.fixture
def call():
    """Run the command in this process."""

    def call(*arguments, **options):
        return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)

    return call


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    tiny.write_folder(folder, X, Y)
    return folder


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, folder, backbone):
    """The output folder of `fit`."""
    output = tmp_path_factory.mktemp("runs") / "shapes"
    options = ["--backbone", BACKBONE, "--recipe", "parameter", "--image-size", "16"]
    arguments = ["fit", str(folder), "--output", str(output), *options, "--epochs", "12", "--quiet"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return output
