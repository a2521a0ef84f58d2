"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Problem:
    """Something that `check` found. An error means that stored evidence does not hold (exit 4); a warning does not."""

    kind: Literal["error", "warning"]
    subject: str
    message: str


def error(subject: str, message: str) -> Problem:
    """Stored evidence that does not hold."""
    return Problem("error", subject, message)


def warning(subject: str, message: str) -> Problem:
    """Something to put in order."""
    return Problem("warning", subject, message)
