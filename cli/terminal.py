"""stderr: progress for people, notes, and what went wrong. Everything that strangers wrote is made printable first."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from fingerprint.report.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Terminal:
    """A `fingerprint.progress.Progress` that draws on stderr: bars on a terminal only, notes always unless quiet.

    rich is imported at the first bar.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self._stream = stream or sys.stderr
        self._draws = not quiet and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def step(self, task: str, done: int, total: int) -> None:
        """Move the bar of `task`."""
        if not self._draws or (total <= 1 and self._bars is None):
            return
        bars = self._bars or self._start()
        if task not in self._tasks:
            self._tasks[task] = bars.add_task(printable(task), total=total)
        bars.update(self._tasks[task], completed=done, total=total, visible=done < total)

    def _start(self) -> Bars:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        console = Console(file=self._stream, markup=False, highlight=False)
        self._bars = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._bars.start()
        return self._bars

    def note(self, text: str) -> None:
        """Print a remark, unless quiet."""
        if not self.quiet:
            self.say(f"note: {text}")

    def say(self, text: str) -> None:
        """Print a line to stderr in any case."""
        line = printable(text, keep="\n")
        if self._bars is not None:
            self._bars.console.print(line, soft_wrap=True)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Take the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
