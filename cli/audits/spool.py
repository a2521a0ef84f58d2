"""All results of an audit, in little memory: what decides stays there, the rest is read back from a file."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from cli.exits import Finding

if TYPE_CHECKING:
    from cli.audits.ignoring import Suppressed
    from fingerprint.api.results import Result
    from fingerprint.decision.correction import Correction

IN_MEMORY = 200  # results


class Spool(Sequence["Result"]):
    """Results in the order in which they came; those past the first 200 lie in an anonymous temporary file.

    Once `correction` is set, what is read is corrected.
    """

    def __init__(self, suppress: Callable[[Result], Suppressed | None]) -> None:
        self._suppress = suppress
        self._first: list[Result] = []
        self._offsets = array("Q")
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the audit)
        self._end = 0  # where the next line begins: nothing is read before the last was written
        self._decisive: list[tuple[str | None, str | None, float | None, bool]] = []
        self.correction: Correction | None = None
        self.suppressed = 0

    def add(self, result: Result) -> None:
        """One more."""
        ignored = self._suppress(result) is not None
        self.suppressed += ignored
        self._decisive.append((result.lineage, result.integrity, result.total_p, ignored))
        if len(self._first) < IN_MEMORY:
            self._first.append(result)
            return
        self._offsets.append(self._end)
        self._end += self._file.write(_line(result).encode() + b"\n")

    def __len__(self) -> int:
        return len(self._decisive)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> list[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | list[Result]:
        """Corrected results."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        result = self._first[number] if number < IN_MEMORY else self._read(number - IN_MEMORY)
        if self.correction is None:
            return result
        from fingerprint.api.audit import corrected

        return corrected(result, self.correction)

    def _read(self, number: int) -> Result:
        from fingerprint.api.results import Result

        settings, text = self._text(number)
        return Result.from_dict(json.loads(text), settings or None)

    def _text(self, number: int) -> tuple[str, str]:
        """Settings and row of a result in the file."""
        self._file.seek(self._offsets[number])
        settings, _, text = self._file.readline().decode().partition(" ")
        return settings, text

    def row(self, index: int) -> dict[str, Any]:
        """The row of a corrected result. One that is neither corrected nor ignored need not be made a result first."""
        lineage, _, p, ignored = self._decisive[index]
        threshold = self.correction.threshold if self.correction is not None else 1.0
        if index < IN_MEMORY or ignored or (lineage == "derived" and p is not None and p > threshold):
            return row_of(self[index], self._suppress)
        from fingerprint.api.recalled import row_of_text

        return row_of_text(self._text(index - IN_MEMORY)[1])

    def p_values(self) -> list[float]:
        """Total p-values of all tests."""
        return [p for _, _, p, _ in self._decisive if p is not None]

    def findings(self) -> Iterator[Finding]:
        """What decides about the exit, after correction; suppressed results do not."""
        threshold = self.correction.threshold if self.correction is not None else 1.0
        for lineage, integrity, p, ignored in self._decisive:
            if not ignored:
                stands = lineage != "derived" or p is None or p <= threshold
                yield Finding("", lineage if stands else "inconclusive", integrity)

    def close(self) -> None:
        """Drop the file."""
        self._file.close()


def _line(result: Result) -> str:
    """Settings, a space, and the row as it is kept."""
    text = getattr(result, "text", None)  # of a recalled one
    if text is None:
        text = json.dumps(result.to_stored())
    return f"{result.settings_sha256 or ''} {text}"


class Rows(Sequence[dict[str, Any]]):
    """The rows of the JSON contract, made when they are read; a suppressed one says why."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def __len__(self) -> int:
        return len(self._spool)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Rows."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._spool.row(range(len(self))[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All rows in their order."""
        return map(self._spool.row, range(len(self)))


def row_of(result: Result, suppress: Callable[[Result], Suppressed | None]) -> dict[str, Any]:
    """A result's row."""
    ignored = suppress(result)
    return result.to_dict() | ({} if ignored is None else {"suppressed": ignored.to_dict()})
