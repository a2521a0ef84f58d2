"""What a report is: rows of `verify` or `audit` as text in one format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

Row: TypeAlias = Mapping[str, Any]  # `Result.to_dict()`: the row of the JSON contract


@dataclass(frozen=True)
class Page:
    """Where text is shown. width: in characters. color: whether escape sequences are understood."""

    width: int = 80
    color: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class Summary:
    """What a report says about the whole run.

    run: its id in the database, or None where it was not recorded. correction: what was controlled over all tests of
    an audit. partial: the run was cut short, and rows are missing.
    """

    kind: Literal["verify", "audit"]
    run: str | None = None
    correction: Mapping[str, object] | None = None
    partial: bool = False


class Report(ABC):
    """One format. Texts are written in the order in which they are made."""

    name: ClassVar[str]

    def __init__(self, page: Page | None = None) -> None:
        self.page = page or Page()

    def stream(self, row: Row, *, final: bool) -> str:
        """Text for a row as soon as it is known, or "" in a format that is written as a whole.

        `final` is False where a correction over all rows may still change it.
        """
        return ""

    @abstractmethod
    def finish(self, rows: Sequence[Row], summary: Summary) -> str:
        """Text for the end: all final rows (in a format that streams: those that it has not shown as final)."""
