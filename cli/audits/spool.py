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

IN_MEMORY = 2000  # results


class Spool(Sequence["Result"]):
    """Results in the order in which they came; those past the first 2,000 lie in an anonymous temporary file.

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
        from dataclasses import replace

        from fingerprint.api.results import Result

        self._file.seek(self._offsets[number])
        settings, row = json.loads(self._file.readline())
        return replace(Result.from_dict(row, settings), answers=row.get("answers"))

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
    """[settings, row] in one line; the answers stand in the row."""
    text = getattr(result, "text", None)  # of a recalled one
    if text is None:
        answers = {} if result.answers is None else {"answers": result.answers}
        text = json.dumps(result.to_dict() | answers)
    return f"[{json.dumps(result.settings_sha256)},{text}]"


class Rows(Sequence[dict[str, Any]]):
    """The rows of the JSON contract, made when they are read; a suppressed one says why."""

    def __init__(self, spool: Spool, suppress: Callable[[Result], Suppressed | None]) -> None:
        self._spool, self._suppress = spool, suppress

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
        return row_of(self._spool[index], self._suppress)


def row_of(result: Result, suppress: Callable[[Result], Suppressed | None]) -> dict[str, Any]:
    """A result's row."""
    ignored = suppress(result)
    return result.to_dict() | ({} if ignored is None else {"suppressed": ignored.to_dict()})
