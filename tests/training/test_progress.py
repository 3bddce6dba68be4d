"""What a user sees while stages run, drawn to a string."""

import io
import threading
import types

import pytest
from rich.console import Console

from keras_transfer.training import progress
from keras_transfer.training.audit import AuditRow
from keras_transfer.training.forecast import StageForecast
from keras_transfer.training.progress import Display, Silent, open_display
from keras_transfer.training.stage import Stage

NAMES = [f"block{number}" for number in range(18)]
FROZEN = [AuditRow(name, 1_234_567, 0, None, "frozen") for name in NAMES[:-1]]
FROZEN += [AuditRow(NAMES[-1], 10, 0, None, "-"), AuditRow("head", 7686, 7686, 1e-2, "-")]
TRAINED = [AuditRow(name, 1_234_567, 1_234_000, 1e-3, "affine") for name in NAMES]
TRAINED += [AuditRow("head", 7686, 7686, 1e-3, "-")]


def show(width=100, terminal=False, rows=FROZEN, reason="epochs", run="a [/b] run", seconds=None):
    """Run one stage of 3 epochs of 2 steps; return all that is drawn, and the display."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    display = Display(console)
    stage = Stage("fine-tuning", {"head": 1e-2}, epochs=3)
    with display.progress:
        if run:
            display.start_run(run, 2, 3, seconds)
        display.start_stage(stage, rows, 2)
        for epoch in range(3):
            for _ in range(2):
                display.end_step()
            display.end_epoch({"loss": 0.5 / (epoch + 1), "val_loss": 9.0, "val_score": 0.75})
        if terminal:
            display.progress.refresh()
        live = file.getvalue()
        display.end_stage(reason)
    return live if terminal else file.getvalue()


def test_in_a_pipe_there_are_plain_lines():
    text = show()
    assert text.isprintable() or set(text) - {"\n"} <= set(filter(str.isprintable, text))
    lines = text.strip().splitlines()
    assert lines[0] == "a [/b] run / fine-tuning: what trains"
    assert lines[-1].startswith("a [/b] run / fine-tuning: 3 epochs in 0.")
    assert lines[-1].endswith(" s; loss 0.167  score 0.750")


def test_frozen_neighbours_share_a_row_and_all_are_added_up():
    rows = [line.split() for line in show().splitlines()]
    assert ["block0", "…", "block17", "(18)", "20,987,649", "0", "frozen", "frozen"] in rows
    assert ["head", "7,686", "7,686", "0.01", "-"] in rows
    assert ["all", "20,995,335", "7,686"] in rows


def test_blocks_that_train_are_shown_one_by_one_in_few_lines():
    lines = show(rows=TRAINED).splitlines()
    rows = [line.split() for line in lines]
    for name in NAMES:
        assert [name, "1,234,567", "1,234,000", "0.001", "affine"] in rows
    assert len(lines) == len(TRAINED) + 6  # space, title, heading, rule, sum, end


def test_why_a_stage_stopped_is_said():
    assert "3 epochs in 0.0 s, stopped by time budget; loss" in show(reason="time budget")


def test_an_interrupted_stage_says_so():
    assert "3 epochs in 0.0 s, interrupted; loss" in show(reason="interrupted")


def test_a_stage_that_ended_is_not_ended_again():
    file = io.StringIO()
    display = Display(Console(file=file))
    display.end_stage("interrupted")
    assert file.getvalue() == ""
    display.start_stage(Stage("head", {"head": 1e-2}, epochs=3), FROZEN, 2)
    display.end_stage("epochs")
    before = file.getvalue()
    display.end_stage("interrupted")
    assert file.getvalue() == before


def show_long(monkeypatch, seconds, epochs=6, steps=2):
    """Run a stage whose epochs take so many seconds in a pipe; return what is said of each."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    file = io.StringIO()
    display = Display(Console(file=file, width=100))
    display.start_run("run", 1, 1)
    display.start_stage(Stage("head", {"head": 1e-2}, epochs=epochs), FROZEN, steps)
    for epoch in range(epochs):
        for _ in range(2):
            now[0] += seconds / 2
            display.end_step()
        display.end_epoch({"loss": 0.5 / (epoch + 1), "val_loss": 9.0, "val_score": 0.75})
    display.end_stage("epochs")
    return [line for line in file.getvalue().splitlines() if ": epoch " in line]


def test_a_long_stage_says_a_line_from_time_to_time(monkeypatch):
    assert show_long(monkeypatch, 4.0) == [
        "run / head: epoch 3/6, loss 0.167, score 0.750, 0:12 left",
    ]
    lines = show_long(monkeypatch, 40.0)
    assert [line.split(",")[0] for line in lines] == [
        f"run / head: epoch {number}/6" for number in range(1, 6)
    ]
    assert lines[0].endswith("3:20 left")
    assert show_long(monkeypatch, 40.0, steps=-2)[0].endswith("score 0.750, -:-- left")


def test_a_short_stage_says_none(monkeypatch):
    assert show_long(monkeypatch, 1.5) == []


def test_a_live_display_says_none(monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    assert ": epoch 1/3" in show()
    assert ": epoch 1/3" not in show(terminal=True)


def test_a_ctrl_c_shows_until_the_batch_ends():
    display = Display(Console(file=io.StringIO(), force_terminal=True, width=100))
    display.show_stopping()
    with display.progress:
        display.start_stage(Stage("head", {"head": 1e-2}, epochs=3), FROZEN, 2)
        display.show_stopping()
        (task,) = display.progress.tasks
        assert task.fields["left"] == "stopping"


# === The forecast ===

SHORT = StageForecast("head", 3, 2, 5.0, 2.0, 0.0, 12.0)
LONG = StageForecast("last 2 blocks", 3, 2, 5.0, 2.0, 0.0, 219.7)
UNKNOWN = StageForecast("all", 3, 2)


@pytest.mark.parametrize(
    ("forecasts", "early", "seconds", "words"),
    [
        ([SHORT], False, None, "head 12 s"),
        ([SHORT], False, 12.0, "head 12 s"),
        (
            [SHORT, LONG],
            True,
            None,
            "head 12 s, last 2 blocks 3 min 40 s (at most, without early stopping)",
        ),
        (
            [SHORT, LONG],
            False,
            90.0,
            "head 12 s, last 2 blocks 3 min 40 s; the time budget stops it after 1 min 30 s",
        ),
        (
            [SHORT, UNKNOWN],
            False,
            3600.0,
            "head 12 s, all not known; the time budget stops it after 1 h 0 min",
        ),
        ([UNKNOWN], False, None, "all not known"),
    ],
)
def test_a_forecast_in_words(forecasts, early, seconds, words):
    file = io.StringIO()
    display = Display(Console(file=file, width=40))
    display.show_forecast(forecasts, early, seconds)
    display.start_run("run", 1, 1)
    display.show_forecast(forecasts, early, seconds)
    assert file.getvalue() == f"forecast: {words}\nrun: forecast: {words}\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (3725, "1 h 2 min")],
)
def test_durations_in_words(seconds, words):
    assert progress._word_duration(seconds) == words


# === Lines and times ===


def test_without_runs_the_stage_stands_alone():
    assert show(run="").strip().startswith("fine-tuning: what trains")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_live_lines_hold_name_epoch_figures_and_time_left(width):
    last = show(width, terminal=True).splitlines()[-1]
    assert len(last.split("\r")[-1].rstrip()) <= width
    for part in ("fine-tuning", "epoch 3/3", "loss 0.167  score 0.750", "0:00 left", "━━━"):
        assert part in last


@pytest.mark.parametrize("width", [40, 59])
def test_where_it_is_narrow_the_figures_stay_whole(width):
    text = show(width, terminal=True)
    assert "20,987,649" in text
    assert "fine-tuning" in text.splitlines()[-1]
    assert "fine-tuning: what trains" in " ".join(text.split())


def test_the_run_of_the_display_says_which_of_how_many():
    text = show(terminal=True)
    assert "a [/b] run " in text.splitlines()[-2]
    assert "run 2/3" in text.splitlines()[-2]


def test_a_budget_ends_the_time_left():
    file = io.StringIO()
    display = Display(Console(file=file, force_terminal=True, width=100))
    display.start_run("run", 1, 1, seconds=65.0)
    assert progress._word_seconds(display._seconds_left()) == "1:05 left"


def test_a_dataset_of_unknown_length_shows_as_well():
    display = Display(Console(file=io.StringIO(), force_terminal=True, width=100))
    with display.progress:
        display.start_stage(Stage("head", {"head": 1e-2}, epochs=3), FROZEN, -2)
        for _ in range(4):
            display.end_step()
        display.end_epoch({"loss": 0.1})
        display.end_stage("epochs")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00 left"), (59.5, "1:00 left"), (3661, "1:01:01 left"), (float("inf"), "-:-- left")],
)
def test_seconds_in_words(seconds, words):
    assert progress._word_seconds(seconds) == words


# === Which display ===


@pytest.mark.parametrize("verbose", [True, 1])
def test_asked_for_it_shows_also_in_a_pipe(no_display, verbose):
    with open_display(verbose) as display:
        assert isinstance(display, Display)


@pytest.mark.parametrize("verbose", [False, 0, "auto"])
def test_else_it_is_silent_in_a_pipe(no_display, verbose):
    with open_display(verbose) as display:
        assert type(display) is Silent
        display.start_run("run", 1, 1)
        display.say("nothing")


def test_what_runs_inside_joins(monkeypatch):
    monkeypatch.setattr(progress, "_is_interactive", lambda: True)
    with open_display(True) as outer, open_display("auto") as inner:
        assert inner is outer
    # As under --quiet: the estimators inside would show in a terminal.
    with open_display(False) as outer, open_display("auto") as inner:
        assert inner is outer
        assert type(inner) is Silent
    with open_display("auto") as display:
        assert isinstance(display, Display)


def test_threads_do_not_draw_over_one_another():
    kinds = []

    def other():
        with open_display(True) as display:
            kinds.append(type(display))

    with open_display(True) as display:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert isinstance(display, Display)
    other()
    assert kinds == [Silent, Display]


def test_progress_goes_to_standard_error(capsys):
    with open_display(True) as display:
        display.say("here")
    assert capsys.readouterr() == ("", "here\n")
