"""What is known of each named backbone, without building one."""

import subprocess
import sys

import pytest
import tiny

from keras_transfer import list_backbones, register_backbone
from keras_transfer.backbones import registry
from keras_transfer.backbones.applications import FAMILIES
from keras_transfer.backbones.catalogue import BackboneRow, describe_backbones
from keras_transfer.backbones.efficientnet_lite import build_efficientnet_lite0


def rows():
    return {row.name: row for row in describe_backbones()}


def test_every_name_has_a_row():
    assert list(rows()) == list_backbones()
    for name, family in FAMILIES.items():
        row = rows()[name]
        assert row.input_size == (family.size, family.size)
        assert (row.parameters, row.features) == (family.parameters, family.features)
        assert (row.licence, row.weights_from) == (
            family.licence,
            f"{family.source} through keras.applications, ImageNet",
        )


def test_the_embedded_default(monkeypatch):
    row = rows()["EfficientNetLite0"]
    model = build_efficientnet_lite0((64, 64, 3))
    assert (row.parameters, row.features) == (model.count_params(), model.output_shape[-1])
    assert (row.input_size, row.licence, row.at_hand) == ((224, 224), "Apache-2.0", True)
    monkeypatch.setattr("keras_transfer.backbones.efficientnet_lite._PACKAGE", "not_installed")
    assert not rows()["EfficientNetLite0"].at_hand


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, None), ({"input_shape": (24, 32, 3)}, (24, 32)), ({"input_shape": (5,)}, None)],
)
def test_a_registered_backbone(options, size, monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {})
    register_backbone("Mine", tiny.cnn, **options)
    assert rows()["Mine"] == BackboneRow("Mine", size, None, None, "", "registered", True)


def test_weights_that_keras_has_downloaded_are_at_hand(tmp_path):
    """Put there by Keras itself, as it does with a download."""
    file = tmp_path / "some.h5"
    file.write_text("weights")
    code = (
        "import sys\n"
        "from keras_transfer.backbones.applications import FAMILIES\n"
        "from keras_transfer.backbones.catalogue import describe_backbones\n"
        "def at_hand(): return [r.name for r in describe_backbones() if r.at_hand]\n"
        "before = at_hand()\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\n"
        "import keras\n"
        "keras.utils.get_file(\n"
        f"    FAMILIES['VGG16'].weights_file, {file.as_uri()!r}, cache_subdir='models')\n"
        "print([name for name in at_hand() if name not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "KERAS_HOME": str(tmp_path / "home"), "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert done.stdout.splitlines()[-1] == "['VGG16']"
