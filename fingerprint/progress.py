"""How long work tells the caller where it is. The library reports; only a terminal program prints."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives steps of long work and remarks that a person should see."""

    def step(self, task: str, done: int, total: int) -> None:
        """`done` of `total` units of `task` are finished."""

    def note(self, text: str) -> None:
        """A remark: a choice that was made, something left out and why."""


class Silent:
    """Drops everything."""

    def step(self, task: str, done: int, total: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
