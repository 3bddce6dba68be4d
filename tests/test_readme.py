"""The README's code runs as printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow  # trains EfficientNet-Lite0: a minute
# What a fold of 15 pictures tells of fine-tuning is now this, now that; both are no defect.
@pytest.mark.filterwarnings("ignore:fine-tuning does not help")
def test_code_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 9
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        "activations",
        "emoji.keras_transfer",
        "lite0",
        "model.keras",
        "pictures",
        "published.keras_transfer",
    }
    labels, data, test = names["labels"], names["data"], names["test"]
    clf = names["keras_transfer"].load("emoji.keras_transfer")
    assert clf.score(data.images[test], labels[test]) > 0.4  # chance is a sixth
    assert names["clf"].score(data.images[test], labels[test]) > 0.4  # of a SavedModel
    assert names["search"].score(data.images[test], labels[test]) > 0.4
    assert names["regressor"].score(data.images[test], names["brightness"][test]) > 0.5


def test_the_two_commands_are_there():
    text = README.read_text(encoding="utf-8")
    assert "pip install . && keras-transfer run recipes/quickstart.toml" in text
    assert "pip install '.[test]' && pytest" in text
