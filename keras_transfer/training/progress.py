"""What a user sees while stages run: one live display, plain lines in a pipe, or nothing."""

from __future__ import annotations

import contextlib
import contextvars
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_transfer.training.audit import AuditRow
from keras_transfer.training.stage import Stage

if TYPE_CHECKING:  # what makes forecasts shows its progress here
    from keras_transfer.training.forecast import StageForecast

__all__ = ["Display", "Silent", "open_display"]

# Columns that the figures need.
_NARROW = 60
# In a pipe, between two lines of one stage.
_SECONDS_BETWEEN_LINES = 10.0


class Silent:
    """Shows nothing."""

    is_shown = False

    def say(self, message: str) -> None:
        """Show a line."""

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """Show how many of a total are done; gives what to call after one or n, in any thread."""
        yield lambda n=1: None

    def start_run(self, name: str, number: int, total: int, seconds: float | None = None) -> None:
        """Name what the next stages belong to: one of several runs, and the time it may take."""

    def show_forecast(
        self, forecasts: Sequence[StageForecast], may_stop_early: bool, seconds: float | None
    ) -> None:
        """Show what the stages will take, and the time they may take."""

    def start_stage(
        self, stage: Stage, rows: Sequence[AuditRow], steps: int, stored: str = ""
    ) -> None:
        """Show what trains, and what of the rest is stored; then the stage's progress."""

    def end_step(self) -> None:
        """Move on by one batch."""

    def show_stopping(self) -> None:
        """Show that a Ctrl-C was noticed; called from the handler of its signal."""

    def end_epoch(self, logs: dict[str, float]) -> None:
        """Show an epoch's figures."""

    def end_stage(self, reason: str) -> None:
        """Show why the stage ended."""


class Display(Silent):
    """A live display on the terminal; plain lines where the output is none.

    Parameters
    ----------
    console : rich.console.Console
    """

    is_shown = True

    def __init__(self, console: Any):
        from rich.progress import BarColumn, Progress, TextColumn

        def text(field: str) -> Any:
            # Not markup: what users name may hold brackets.
            return TextColumn(f"{{task.{field}}}", markup=False)

        columns = [text("description"), text("fields[epoch]"), text("fields[left]")]
        if console.width >= _NARROW:
            # The bar is as wide as the rest of the line leaves it.
            columns[1:1] = [BarColumn(bar_width=None)]
            columns[3:3] = [text("fields[figures]")]
        self.console = console
        self._is_live = console.is_terminal or console.is_jupyter
        # In a pipe it would draw itself once, at the end.
        self.progress = Progress(
            *columns,
            console=console,
            expand=True,
            transient=True,
            refresh_per_second=4,
            disable=not self._is_live,
        )
        self._run = ""
        self._run_ends = math.inf
        self._run_task: Any = None
        self._stage: Stage | None = None
        self._stage_task: Any = None
        self._stage_began = 0.0
        self._second_step_began = self._last_line = 0.0
        self._steps: int | None = None
        self._steps_done = self._epochs = 0
        self._figures: list[str] = []

    def say(self, message: str) -> None:
        """Show a line."""
        # Whole in a pipe, where no terminal says how wide a line may be.
        self.progress.console.print(
            message, highlight=False, markup=False, soft_wrap=not self._is_live
        )

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """Show how many of a total are done; gives what to call after one or n, in any thread."""
        task = self._add_task(what, total)
        try:
            yield lambda n=1: self.progress.advance(task, n)
        finally:
            self.progress.remove_task(task)

    def start_run(self, name: str, number: int, total: int, seconds: float | None = None) -> None:
        """Name what the next stages belong to: one of several runs, and the time it may take."""
        self._run = name
        self._run_ends = math.inf if seconds is None else time.monotonic() + seconds
        if self._run_task is None:
            self._run_task = self._add_task(name, total)
        self.progress.update(
            self._run_task, description=name, completed=number - 1, epoch=f"run {number}/{total}"
        )

    def show_forecast(
        self, forecasts: Sequence[StageForecast], may_stop_early: bool, seconds: float | None
    ) -> None:
        """Show what the stages will take, and the time they may take."""
        stages = [f"{each.stage} {_word_duration(each.seconds)}" for each in forecasts]
        whole = sum(each.seconds for each in forecasts)
        line = f"{self._run}: forecast: " if self._run else "forecast: "
        line += ", ".join(stages)
        if may_stop_early:
            line += " (at most, without early stopping)"
        # Also where the sum is not known: the budget may be what kept a stage from being timed.
        if seconds is not None and not whole <= seconds:
            line += f"; the time budget stops it after {_word_duration(seconds)}"
        self.say(line)

    def start_stage(
        self, stage: Stage, rows: Sequence[AuditRow], steps: int, stored: str = ""
    ) -> None:
        """Show what trains, and what of the rest is stored; then the stage's progress."""
        self._stage, self._stage_began = stage, time.monotonic()
        self._last_line = self._stage_began
        self._epochs, self._steps_done, self._figures = 0, 0, []
        # A dataset of one's own may not know its length.
        self._steps = steps * stage.epochs if steps > 0 else None
        self.say(f"\n{self._name()}: what trains")
        self.progress.console.print(_Uncut(_audit_table(rows)), crop=False)
        if stored:
            self.say(f"frozen part: {stored}")
        self._stage_task = self._add_task(stage.name, self._steps)
        self._update()

    def end_step(self) -> None:
        """Move on by one batch."""
        self._steps_done += 1
        # The first batch includes compilation and says nothing about the next ones.
        if self._steps_done == 1:
            self._second_step_began = time.monotonic()
        self._update()

    def show_stopping(self) -> None:
        """Show that a Ctrl-C was noticed; called from the handler of its signal."""
        # Nothing is printed here: the signal may have come in the middle of a print.
        if self._stage_task is not None:
            self.progress.update(self._stage_task, left="stopping")

    def end_epoch(self, logs: dict[str, float]) -> None:
        """Show an epoch's figures."""
        self._epochs += 1
        self._figures = [
            f"{word} {logs[key]:.3f}"
            for key, word in {"loss": "loss", "val_score": "score"}.items()
            if key in logs
        ]
        self._update()
        self._say_epoch()

    def end_stage(self, reason: str) -> None:
        """Show why the stage ended; if it is called again, nothing."""
        if self._stage is None:
            return
        if self._stage_task is not None:
            # In this order: a Ctrl-C in between updates the task.
            task, self._stage_task = self._stage_task, None
            self.progress.remove_task(task)
        outcome = "" if reason in ("epochs", "solved") else f", stopped by {reason}"
        outcome = ", interrupted" if reason == "interrupted" else outcome
        epochs = f"{self._epochs} epoch{'s' if self._epochs != 1 else ''}"
        if self._stage.solver == "exact":
            epochs = "solved" if self._epochs else "not solved"
        seconds = time.monotonic() - self._stage_began
        figures = f"; {'  '.join(self._figures)}" if self._figures else ""
        self.say(f"{self._name()}: {epochs} in {seconds:.1f} s{outcome}{figures}")
        self._stage = None

    def _say_epoch(self) -> None:
        """Show a plain line from time to time where no live one does."""
        now = time.monotonic()
        if self._is_live or self._stage is None or self._epochs == self._stage.epochs:
            return
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            epoch = f"epoch {self._epochs}/{self._stage.epochs}"
            parts = [epoch, *self._figures, _word_seconds(self._seconds_left())]
            self.say(f"{self._name()}: {', '.join(parts)}")

    def _name(self) -> str:
        name = self._stage.name if self._stage is not None else ""
        return f"{self._run} / {name}" if self._run else name

    def _add_task(self, name: str, total: int | None) -> Any:
        return self.progress.add_task(name, total=total, epoch="", figures="", left="")

    def _update(self) -> None:
        if not self._is_live or self._stage is None:
            return
        epochs = self._stage.epochs
        self.progress.update(
            self._stage_task,
            completed=self._steps_done,
            epoch=f"epoch {min(self._epochs + 1, epochs)}/{epochs}",
            figures="  ".join(self._figures),
            left=_word_seconds(self._seconds_left()),
        )

    def _seconds_left(self) -> float:
        """Estimate the rest of the stage, and of the run where that ends before."""
        now = time.monotonic()
        of_run = max(0.0, self._run_ends - now)
        if self._steps is None or self._steps_done < 2:
            return of_run
        pace = (now - self._second_step_began) / (self._steps_done - 1)
        return min(pace * (self._steps - self._steps_done), of_run)


# Where the display of this context is, whether it shows anything or not.
_CURRENT: contextvars.ContextVar[Silent | None] = contextvars.ContextVar("display", default=None)
# Fits in several threads would draw over one another: the first one shows.
_TERMINAL = threading.Lock()


@contextlib.contextmanager
def open_display(verbose: bool | str | int = "auto") -> Iterator[Silent]:
    """Open the display, or join the one that is open.

    Parameters
    ----------
    verbose : {"auto", True, False}
        ``"auto"`` shows only where standard error is a terminal or a notebook.
    """
    current = _CURRENT.get()
    if current is not None:
        yield current
        return
    shows = bool(verbose) and (verbose != "auto" or _is_interactive())
    with contextlib.ExitStack() as stack:
        display: Silent = Silent()
        if shows and _TERMINAL.acquire(blocking=False):
            stack.callback(_TERMINAL.release)
            from rich.console import Console

            # Standard output is left to results.
            display = Display(Console(stderr=True))
            stack.enter_context(display.progress)
        # Also where it is silent: what runs inside is to be silent too.
        token = _CURRENT.set(display)
        stack.callback(_CURRENT.reset, token)
        yield display


def _is_interactive() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _word_seconds(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-:-- left"
    minutes, seconds = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


def _word_duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "not known"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class _Uncut:
    """Draws a table whole: where it is wider than the terminal, that breaks its lines."""

    def __init__(self, table: Any):
        self._table = table

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        width = max(options.max_width, _NARROW + 20)
        yield from console.render(self._table, options.update_width(width))


def _audit_table(rows: Sequence[AuditRow]) -> Any:
    """Draw what trains; frozen neighbours share a row."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("blocks", "parameters", "trained", "learning rate", "BatchNorm"):
        side: Any = "left" if heading in ("blocks", "BatchNorm") else "right"
        table.add_column(heading, justify=side)
    merged: list[list[AuditRow]] = []
    for row in rows:
        # Blocks that train are shown one by one, since their parameters are what is asked about.
        if merged and row.learning_rate is None and merged[-1][-1].learning_rate is None:
            merged[-1].append(row)
        else:
            merged.append([row])
    for group in merged:
        first, last = group[0], group[-1]
        name = first.block if len(group) == 1 else f"{first.block} … {last.block} ({len(group)})"
        rate = "frozen" if first.learning_rate is None else f"{first.learning_rate:g}"
        rate = "solved" if rate == "nan" else rate
        policies = {row.batch_norm for row in group} - {"-"}
        table.add_row(
            Text(name),
            f"{sum(row.parameters for row in group):,}",
            f"{sum(row.trained for row in group):,}",
            rate,
            ", ".join(sorted(policies)) or "-",
            style="dim" if first.learning_rate is None else "",
        )
    total, trained = sum(row.parameters for row in rows), sum(row.trained for row in rows)
    table.add_row("all", f"{total:,}", f"{trained:,}", style="bold")
    return table
