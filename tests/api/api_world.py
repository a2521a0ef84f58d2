"""Where the models of these tests lie, and progress that remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

REFERENCES = 8


@dataclass
class Notes:
    """Progress that remembers."""

    notes: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, int]] = field(default_factory=list)

    def step(self, task: str, done: int, total: int) -> None:
        self.steps.append((task, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True)
class World:
    """Where everything lies."""

    folder: Path
    net: nn.Sequential

    def __getattr__(self, name: str) -> Path:
        """`world.owner_pt2` is the file owner.pt2."""
        stem, _, suffix = name.rpartition("_")
        return self.folder / (f"{stem}.{suffix}" if stem else name)
