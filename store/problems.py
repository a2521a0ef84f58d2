"""What a check finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from fingerprint.errors import FingerprintError


@dataclass(frozen=True)
class Problem:
    """Something that `check` found. An error means that stored evidence does not hold (exit 4); a warning does not.

    remedy: what a person can do about it; empty where the message says so already.
    """

    kind: Literal["error", "warning"]
    subject: str
    message: str
    remedy: str = ""


def error(subject: str, message: str) -> Problem:
    """Stored evidence that does not hold."""
    return Problem("error", subject, message)


def failure(subject: str, raised: FingerprintError) -> Problem:
    """Stored evidence that does not hold, as an exception tells it."""
    return Problem("error", subject, raised.message, raised.remedy)


def warning(subject: str, message: str, remedy: str = "") -> Problem:
    """Something to put in order."""
    return Problem("warning", subject, message, remedy)
