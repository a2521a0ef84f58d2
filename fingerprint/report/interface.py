"""What a report is: rows of `verify` or `audit` in one format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from fingerprint.record import Manifest, Payload

Row: TypeAlias = Mapping[str, Any]  # `Result.to_dict()`: the row of the JSON contract


@dataclass(frozen=True)
class Page:
    """Where text is shown. width: in characters. color: whether escape sequences are understood."""

    width: int = 80
    color: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class RecordView:
    """What a report may show of a fingerprint's record, whose signature was checked.

    key_ids: who signed it. payload: the secret part, present only where its probes are to be shown.
    """

    manifest: Manifest
    key_ids: tuple[str, ...] = ()
    payload: Payload | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Summary:
    """What a report says about the whole run.

    run: its id in the database, or None where it was not recorded. correction: what was controlled over all tests,
    where there are several. partial: the run was cut short, and rows are missing. parameters: what was asked. records:
    by the fingerprint's id, filled for formats that say `shows_records`. answers: by the suspect's path and the
    fingerprint's id, filled where probes are to be shown (see `Result.answers`).
    """

    kind: Literal["verify", "audit"]
    run: str | None = None
    correction: Mapping[str, object] | None = None
    partial: bool = False
    tool_version: str | None = None
    started: str | None = None
    finished: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    records: Mapping[str, RecordView] = field(default_factory=dict)
    answers: Mapping[tuple[str, str | None], Mapping[str, Sequence[int]]] = field(default_factory=dict, repr=False)


class Report(ABC):
    """One format. What it makes is written in the order in which it is made.

    shows_records: it has a use for `Summary.records`. binary: `finish` gives bytes.
    """

    name: ClassVar[str]
    shows_records: ClassVar[bool] = False
    binary: ClassVar[bool] = False

    def __init__(self, page: Page | None = None) -> None:
        self.page = page or Page()

    def stream(self, row: Row, *, final: bool) -> str:
        """Text for a row as soon as it is known, or "" in a format that is written as a whole.

        `final` is False where a correction over all rows may still change it.
        """
        return ""

    @abstractmethod
    def finish(self, rows: Sequence[Row], summary: Summary) -> str | bytes:
        """What is written at the end: all final rows (in a format that streams: those not shown as final yet)."""

    def pieces(self, rows: Sequence[Row], summary: Summary) -> Iterator[str | bytes]:
        """The same in pieces. A format of lines makes them as they are written: audits have no bound to their rows."""
        yield self.finish(rows, summary)
