"""`backbones`: every name, and whether its weights are at hand."""

import json

from keras_transfer import list_backbones


def test_the_table_and_json(call):
    rows = json.loads(call("backbones", "--json").stdout)
    assert [row["name"] for row in rows] == list_backbones()
    lite = next(row for row in rows if row["name"] == "EfficientNetLite0")
    assert lite["at_hand"] is True
    assert (lite["input_size"], lite["features"], lite["licence"]) == (
        [224, 224],
        1280,
        "Apache-2.0",
    )
    lines = call("backbones").stdout.splitlines()
    assert len(lines) == len(rows) + 2
    assert lines[0].split()[:3] == ["name", "input", "parameters"]
    assert lines[2].split()[:4] == ["EfficientNetLite0", "224", "x", "224"]
