"""`fit`: what it writes, what it prints, and what it keeps when it is interrupted."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import tiny

import keras_transfer
from keras_transfer import register_backbone
from keras_transfer.cli import fit as module

BACKBONE = "TinyOfTheCommand"  # as in conftest.py
OPTIONS = ["--backbone", BACKBONE, "--recipe", "structure", "--image-size", "16", "--epochs", "2"]


def test_the_folder_that_it_writes(fitted):
    names = {path.name for path in fitted.iterdir()}
    expected = {"estimator.keras_transfer", "results.json", "history.csv", "data_report.json"}
    assert names == expected
    figures = json.loads((fitted / "results.json").read_text())
    assert figures["classes"] == ["circle", "square", "stripes"]
    assert figures["training_pictures"] == 18
    assert figures["validation_score"] is None
    assert figures["readout_reason"].startswith(f"{figures['readout']}, ")
    assert figures["fine_tuning"] is None  # the head alone
    assert [stage["ended_by"] for stage in figures["stages"]] == ["epochs"]
    with open(fitted / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13))
    clf = keras_transfer.load(fitted / "estimator.keras_transfer")
    assert clf.classes_.tolist() == figures["classes"]
    report = json.loads((fitted / "data_report.json").read_text())
    assert report["skipped"] == []


def test_json_and_validation_data(call, folder, tmp_path):
    arguments = ["fit", folder, "--output", tmp_path / "run", *OPTIONS, "--json"]
    result = call(*arguments, "--validation", folder, "--target-score", "0.01")
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["run"] == str(tmp_path / "run")
    assert figures["stages"][-1]["ended_by"] == "target score"
    assert 0 <= figures["validation_score"] <= 1
    assert f"keras-transfer predict {tmp_path / 'run'} FILE..." in result.stderr
    assert "what trains" in result.stderr


def test_the_table(call, folder, tmp_path):
    result = call("fit", folder, "--output", tmp_path / "run", *OPTIONS, "--quiet")
    assert result.stderr == ""
    lines = {line.split("  ")[0]: line.split()[-1] for line in result.stdout.splitlines()}
    assert lines["training pictures"] == "18"
    assert lines["epochs"] == "2"
    assert "not measured: too few pictures" in result.stdout


def test_a_folder_for_what_is_frozen(call, folder, tmp_path):
    arguments = ["fit", folder, "--output", tmp_path / "run", *OPTIONS[:-2], "--overwrite"]
    for _ in range(2):
        result = call(*arguments, "--memory", tmp_path / "kept", "--json")
        assert result.exit_code == 0, result.stderr
        (stage,) = json.loads(result.stdout)["stages"]
        assert stage["frozen_part"] == "stored at readout"
        assert stage["ended_by"] == "solved"
    info = json.loads(call("cache", "info", tmp_path / "kept", "--json").stdout)
    assert info["rows"] == 18
    clf = keras_transfer.load(tmp_path / "run" / "estimator.keras_transfer")
    assert clf.memory is None


def test_the_default_folder_and_overwriting(call, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("fit", folder, *OPTIONS).exit_code == 0
    before = (tmp_path / "runs/shapes/results.json").stat().st_mtime_ns
    result = call("fit", folder, *OPTIONS)
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    assert call("fit", folder, *OPTIONS, "--overwrite").exit_code == 0
    assert (tmp_path / "runs/shapes/results.json").stat().st_mtime_ns > before


def test_a_table_of_numbers(call, tmp_path):
    X, _ = tiny.pictures(n_per_class=4)
    for row, pixels in enumerate(X):
        (tmp_path / f"{row}.png").write_bytes(tiny.encode(pixels))
    lines = [f"{row}.png,{pixels.mean()}" for row, pixels in enumerate(X)]
    (tmp_path / "numbers.csv").write_text("\n".join(lines))
    run = tmp_path / "run"
    result = call("fit", tmp_path / "numbers.csv", "--regression", "--output", run, *OPTIONS)
    assert result.exit_code == 0, result.stderr
    assert "classes" not in result.stdout
    predicted = call("predict", run, tmp_path / "0.png").stdout.splitlines()
    assert predicted[0] == "path,value"
    regressor = keras_transfer.load(run / "estimator.keras_transfer")
    expected = regressor.predict([tmp_path / "0.png"])
    assert float(predicted[1].split(",")[1]) == pytest.approx(expected[0])
    scores = json.loads(call("evaluate", run, tmp_path / "numbers.csv", "--json").stdout)
    assert set(scores) == {"pictures", "r2", "mean_absolute_error"}


def test_the_table_says_what_the_score_is_of(call, folder, tmp_path):
    arguments = ["fit", folder, "--output", tmp_path / "run", *OPTIONS[:-2], "--overwrite"]
    shown = {}
    for name, more in {"own": ["--validation", folder], "folds": []}.items():
        result = call(*arguments, *more)
        assert result.exit_code == 0, result.stderr
        (shown[name],) = [line for line in result.stdout.splitlines() if "score" in line]
        assert re.search(r"validation score +\d\.\d{3} ± \d\.\d{3}", shown[name])
    assert shown["own"].split()[-2] == "±"
    assert shown["folds"].endswith("(exact heads, out of fold)")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), (" 1.5 H ", 5400), ("2min", 120), ("0.5", 0.5)],
)
def test_times(text, seconds):
    assert module._Seconds().convert(text, None, None) == seconds


WRONG = {
    "no such folder": (["missing"], 1, "no such file or folder"),
    "an empty folder": (["empty"], 1, "class folders"),
    "time": (["shapes", "--time-budget", "soon"], 2, "a time such as 90, 10m or 1.5h"),
    "no time": (["shapes", "--time-budget", "0m"], 2, "or 1.5h. Received: '0m'."),
    "a time before": (["shapes", "--time-budget", "-5"], 2, "or 1.5h. Received: '-5'."),
    "unit of time": (["shapes", "--time-budget", "3 days"], 2, "or 1.5h. Received: '3 days'."),
    "not a time": (["shapes", "--time-budget", "nan"], 2, "or 1.5h. Received: 'nan'."),
    "quality": (["shapes", "--quality", "superb"], 2, "superb"),
    "backbone": (["shapes", "--backbone", "ResNet5O"], 1, "ResNet50"),
    "readout": (["shapes", *OPTIONS, "--readout", "nowhere"], 1, "nowhere"),
    "validation": (["shapes", *OPTIONS, "--validation", "none"], 1, "no such file or folder"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG.values(), ids=WRONG)
def test_mistakes(call, folder, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "shapes").symlink_to(folder)
    result = call("fit", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_skipped_files_are_told(call, folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for part in folder.iterdir():
        (data / part.name).symlink_to(part)
    extra = data / "circle2"
    extra.mkdir()
    for number in range(3):
        (extra / f"{number}.png").write_bytes(tiny.encode(tiny.pictures()[0][number]))
    (extra / "broken.png").write_text("no picture")
    arguments = ["fit", data, "--output", tmp_path / "run", *OPTIONS]
    result = call(*arguments)
    assert result.exit_code == 1
    assert f"{extra / 'broken.png'}: no picture" in result.stderr
    result = call(*arguments, "--on-error", "skip", "--json")
    assert result.exit_code == 0
    assert "Warning: X: 1 of 22 pictures cannot be read" in result.stderr
    assert json.loads(result.stdout)["skipped"] == 1


INTERRUPTED = """
import sys
sys.path[:0] = {paths!r}
import tiny
from keras_transfer import register_backbone
from keras_transfer.cli import main
register_backbone("Tiny", tiny.cnn)
main(sys.argv[1:])
"""


def test_ctrl_c_keeps_what_was_learned(folder, tmp_path):
    run = tmp_path / "run"
    arguments = ["fit", folder, "--output", run, "--backbone", "Tiny", "--recipe", "parameter"]
    arguments += ["--image-size", 16, "--epochs", 100_000, "--json"]
    code = INTERRUPTED.format(paths=sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    heard = []
    while "epoch" not in "".join(heard[-1:]):  # lines tell of epochs from time to time
        line = process.stderr.readline()
        assert line, "".join(heard)
        heard.append(line)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the best weights so far were kept" in err
    assert "Traceback" not in err
    figures = json.loads(out)
    assert figures["interrupted"] is True
    assert figures["stages"][-1]["ended_by"] == "interrupted"
    clf = keras_transfer.load(run / "estimator.keras_transfer")
    assert clf.score(folder) > 0.9  # thousands of epochs on 18 pictures


def test_ctrl_c_before_anything_was_learned(folder, tmp_path):
    code = INTERRUPTED.format(paths=sys.path)
    arguments = ["fit", str(folder), "--output", str(tmp_path / "run"), "--backbone", "Tiny"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True
    )
    time.sleep(1)  # it is importing
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_the_network_is_made(call, folder, tmp_path):
    def press(input_shape):
        os.kill(os.getpid(), signal.SIGINT)
        return tiny.cnn(input_shape)

    register_backbone("Pressing", press, overwrite=True)
    run = tmp_path / "new" / "run"
    arguments = ["--backbone", "Pressing", "--image-size", 16, "--output", run]
    result = call("fit", folder, *arguments, "--json")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.endswith("Interrupted. Nothing was written.\n")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_it_trains(call, folder, tmp_path, monkeypatch):
    """As above in a process of its own: what was learned is written, and the code tells."""
    from keras_transfer.training.progress import Silent

    def press(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Silent, "end_epoch", press)
    arguments = ["--backbone", BACKBONE, "--recipe", "parameter", "--image-size", 16, "--quiet"]
    result = call("fit", folder, "--output", tmp_path / "run", *arguments, "--json")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted: the best weights so far were kept.\n"
    figures = json.loads(result.stdout)
    assert figures["interrupted"] is True
    assert figures == {"run": str(tmp_path / "run")} | json.loads(
        (tmp_path / "run" / "results.json").read_text()
    )
