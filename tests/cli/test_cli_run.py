"""The command: exit codes, what goes where, and no tracebacks for a user's mistakes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from keras_transfer import __version__
from keras_transfer.cli import main
from keras_transfer.errors import DivergedError
from keras_transfer.experiment import RunScore

COMMAND = [sys.executable, "-c", "from keras_transfer.cli import main; main()"]
RECIPE = """
title = "A [/title]"
[data]
dataset = "openmoji"
train_per_class = 2
test_per_class = 1
image_size = 32
[estimator]
backbone = "MobileNetV2"
[[runs]]
name = "a [/b] run"
recipe = "structure"
weights = "random"
settings = {epochs = 1}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The subprocesses find the package where this one does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return "recipe.toml"


def run(*arguments):
    return CliRunner().invoke(main, ["run", *arguments])


def answer(monkeypatch, result):
    monkeypatch.setattr("keras_transfer.cli.run.start_tensorflow", lambda: None)

    def run_recipe_file(*args, **kwargs):
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr("keras_transfer.experiment.run_recipe_file", run_recipe_file)


@pytest.mark.parametrize("code", ["import keras_transfer", None])
@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(recipe, argument, code):
    code = code or (
        "import sys; from keras_transfer.cli import main; "
        f"main([{argument!r}], standalone_mode=False)"
    )
    heavy = "tensorflow keras sklearn rich numpy pydantic"
    code += f"; import sys; print('HEAVY', sorted(set({heavy!r}.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


def test_help_and_version_say_what_there_is():
    assert __version__ in CliRunner().invoke(main, ["--version"]).output
    text = CliRunner().invoke(main, ["run", "--help"]).output
    for option in ("--quick", "--overwrite", "--quiet", "KEY=VALUE"):
        assert option in text
    # As it is written, each command on its line.
    assert "\n      keras-transfer run recipes/quickstart.toml --quick output=runs/try\n" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["none.toml"],
        ["."],
        ["recipe.toml", "sed=1"],
        ["recipe.toml", "x"],
        ["recipe.toml", "--fast"],
    ],
)
def test_a_mistake_in_the_file_or_the_call_ends_with_2(recipe, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "rror: " in result.stderr


@pytest.mark.parametrize(
    "error", [DivergedError("the loss is nan"), OSError(28, "No space left"), ImportError("no x")]
)
def test_what_fails_while_running_ends_with_1(recipe, monkeypatch, error):
    error.add_note("This was in the run 'x'.")
    answer(monkeypatch, error)
    result = run(recipe)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"Error: {error}\nThis was in the run 'x'.\n"


def test_an_existing_folder_ends_with_1(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    result = run(recipe, "output=out")
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr


SCORES = {"balanced accuracy": 0.5}


@pytest.mark.parametrize("quiet", [False, True])
def test_the_table_goes_to_standard_output(recipe, monkeypatch, quiet):
    answer(
        monkeypatch,
        [RunScore("a [/b] run of some sixty characters, which is the most", 0, SCORES, 7, 1)],
    )
    result = run(recipe, *["--quiet"] * quiet)
    assert result.exit_code == 0
    title, heading, _, row = result.stdout.splitlines()
    assert title == "A [/title]"
    assert heading.split() == ["run", "balanced", "accuracy", "trained", "parameters", "seconds"]
    assert row.split()[-3:] == ["0.500", "7", "1.0"]
    assert "a [/b] run of some sixty characters, which is the most" in row
    assert result.stderr == ("" if quiet else "\nWritten to runs/recipe/\n")


def test_ctrl_c_ends_with_130(recipe, monkeypatch):
    answer(monkeypatch, KeyboardInterrupt())
    result = run(recipe)
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Nothing was written" in result.stderr


# === In a process of its own ===


def test_in_a_pipe_there_are_plain_lines_and_no_control_characters(recipe):
    done = subprocess.run([*COMMAND, "run", recipe], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not {"\x1b", "\r", "\x07"} & set(done.stdout + done.stderr)
    assert "TF_" not in done.stderr  # none of TensorFlow's own start-up lines
    assert done.stderr.strip().startswith("a [/b] run / head: what trains")
    assert "a [/b] run / head: 1 epoch in " in done.stderr
    assert "what trains" not in done.stdout
    assert len(done.stdout.splitlines()) == 4


def test_ctrl_c_while_it_trains_leaves_nothing(recipe, tmp_path):
    # Never done by itself: the stage would take a million epochs.
    process = subprocess.Popen(
        [*COMMAND, "run", recipe, "output=out/x", "runs.0.settings.epochs=1000000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stderr:
            if "what trains" in line:
                break
        time.sleep(3)  # into the training, or the compilation before it
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml"]
