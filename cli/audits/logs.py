"""Structured logs: one JSON object per line on stderr, for machines that read logs."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO

from cli.terminal import Terminal

STEP_EVERY_S = 5.0


class LogFormat(StrEnum):
    """How progress and notes are written to stderr."""

    text = "text"
    json = "json"


class JsonTerminal(Terminal):
    """A `Terminal` that writes `{"time", "level", "event", ...}` lines and draws nothing.

    Steps come every five seconds, and the last one. Quiet: only what `say` says.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        super().__init__(quiet=quiet, stream=stream)
        self._draws = False
        self._told: dict[str, float] = {}
        self._last: tuple[str, int, int] | None = None

    def step(self, task: str, done: int, total: int) -> None:
        """See `Terminal.step`."""
        self._last = (task, done, total)
        if not self.quiet and time.monotonic() - self._told.get(task, -STEP_EVERY_S) >= STEP_EVERY_S:
            self._tell_step()

    def _tell_step(self) -> None:
        if self._last is not None:
            task, done, total = self._last
            self._told[task] = time.monotonic()
            self._last = None
            self.event("info", "step", task=task, done=done, total=total)

    def note(self, text: str) -> None:
        """See `Terminal.note`."""
        if not self.quiet:
            self.event("info", "note", message=text)

    def say(self, text: str) -> None:
        """See `Terminal.say`."""
        self.event("warning", "message", message=text)

    def event(self, level: str, event: str, **values: object) -> None:
        """Write one line."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        print(json.dumps({"time": when, "level": level, "event": event, **values}), file=self._stream, flush=True)

    def close(self) -> None:
        """See `Terminal.close`; the last step is told."""
        if not self.quiet:
            self._tell_step()


def terminal(format: LogFormat, *, quiet: bool) -> Terminal:
    """The terminal of a format."""
    return JsonTerminal(quiet=quiet) if format == LogFormat.json else Terminal(quiet=quiet)
