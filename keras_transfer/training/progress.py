"""What a user sees while stages run: one live display, or nothing."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from keras_transfer.training.audit import AuditRow
from keras_transfer.training.stage import Stage

__all__ = ["Display", "Silent", "open_display"]


class Silent:
    """Shows nothing."""

    def say(self, message: str) -> None:
        """Show a line."""

    def start_stage(self, stage: Stage, rows: Sequence[AuditRow], steps: int) -> None:
        """Show what trains, then the stage's progress."""

    def end_step(self) -> None:
        """Move on by one batch."""

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

    def __init__(self, console: Any):
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("batches"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._title = ""
        self._epoch = 0
        self._stage: Stage | None = None
        self._task: Any = None

    def title(self, title: str) -> None:
        """Name what the next stages belong to."""
        self._title = title

    def say(self, message: str) -> None:
        """Show a line."""
        self.progress.console.print(message, highlight=False)

    def start_stage(self, stage: Stage, rows: Sequence[AuditRow], steps: int) -> None:
        """Show what trains, then the stage's progress."""
        self._stage, self._epoch = stage, 0
        self.progress.console.print(_audit_table(self._name(), rows))
        self._task = self.progress.add_task(
            self._name(), total=steps * stage.epochs, figures="", visible=True
        )

    def end_step(self) -> None:
        """Move on by one batch."""
        self.progress.advance(self._task)

    def end_epoch(self, logs: dict[str, float]) -> None:
        """Show an epoch's figures."""
        self._epoch += 1
        shown = [
            f"{key} {logs[key]:.3f}" for key in ("loss", "val_loss", "val_score") if key in logs
        ]
        self.progress.update(self._task, figures="  ".join(shown))

    def end_stage(self, reason: str) -> None:
        """Show why the stage ended."""
        figures = next(t.fields["figures"] for t in self.progress.tasks if t.id == self._task)
        self.progress.remove_task(self._task)
        epochs = f"{self._epoch} epoch{'s' if self._epoch != 1 else ''}"
        self.say(f"{self._name()}: {epochs}, stopped by {reason}.  {figures}")

    def _name(self) -> str:
        name = self._stage.name if self._stage is not None else ""
        return f"{self._title} / {name}" if self._title else name


_CURRENT: contextvars.ContextVar[Silent | None] = contextvars.ContextVar("display", default=None)


@contextlib.contextmanager
def open_display(verbose: bool | str | int = "auto") -> Iterator[Any]:
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
    if not verbose or (verbose == "auto" and not _is_interactive()):
        yield Silent()
        return
    from rich.console import Console

    # Standard output is left to results.
    display = Display(Console(stderr=True))
    token = _CURRENT.set(display)
    try:
        with display.progress:
            yield display
    finally:
        _CURRENT.reset(token)


def _is_interactive() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _audit_table(title: str, rows: Sequence[AuditRow]) -> Any:
    """Draw what trains; neighbours that are alike share a row."""
    from rich.table import Table

    table = Table(title=f"{title}: what trains", title_justify="left")
    for heading in ("blocks", "parameters", "trained", "learning rate", "BatchNorm"):
        table.add_column(heading, justify="left" if heading in ("blocks", "BatchNorm") else "right")
    merged: list[list[AuditRow]] = []
    for row in rows:
        alike = merged and (
            (merged[-1][0].learning_rate, merged[-1][0].batch_norm, bool(merged[-1][0].trained))
            == (row.learning_rate, row.batch_norm, bool(row.trained))
        )
        # Blocks that train are shown one by one, since their parameters are what is asked about.
        if alike and row.learning_rate is None:
            merged[-1].append(row)
        else:
            merged.append([row])
    for group in merged:
        first, last = group[0], group[-1]
        name = first.block if len(group) == 1 else f"{first.block} … {last.block} ({len(group)})"
        rate = "frozen" if first.learning_rate is None else f"{first.learning_rate:g}"
        table.add_row(
            name,
            f"{sum(row.parameters for row in group):,}",
            f"{sum(row.trained for row in group):,}",
            rate,
            first.batch_norm,
        )
    return table
