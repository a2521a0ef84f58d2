"""Exit codes: what scripts act on (DESIGN section 9).

0 done, nothing at or above `--fail-on` (or `--expect` satisfied); 1 done, a match (or `--expect` violated); 2 usage or
operational error; 3 done but inconclusive, skipped or partial; 4 evidence or store integrity failure.
Where several hold: 4 > 2 > 1 > 3 > 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from fingerprint.frozen import dataclass

OK, FOUND, ERROR, UNDECIDED, EVIDENCE = 0, 1, 2, 3, 4
INTERRUPTED = 130
_RISING = (OK, UNDECIDED, FOUND, ERROR, EVIDENCE)


class FailOn(StrEnum):
    """The least finding that gives exit 1; a rising order from inconclusive to derived."""

    derived = "derived"
    altered = "altered"
    inconclusive = "inconclusive"


class Expect(StrEnum):
    """What every suspect must be."""

    match = "match"
    no_match = "no-match"
    intact = "intact"


_LEVELS = {"inconclusive": 1, "altered": 2, "derived": 3}


@dataclass(frozen=True)
class Finding:
    """What decides about the exit: of which suspect, and its two axes (None where undecided)."""

    suspect: str
    lineage: str | None
    integrity: str | None

    @property
    def level(self) -> int:
        """0 for nothing found, else as `FailOn` orders them."""
        return max(_LEVELS.get(self.lineage or "", 0), _LEVELS.get(self.integrity or "", 0))

    @property
    def open(self) -> bool:
        """Neither derived nor unrelated."""
        return self.lineage in (None, "inconclusive")


def worst(codes: Iterable[int]) -> int:
    """The code that holds where several do: 4 > 2 > 1 > 3 > 0."""
    return max(codes, key=_RISING.index, default=OK)


def exit_code(
    findings: Sequence[Finding], fail_on: FailOn, expect: Expect | None = None, *, partial: bool = False
) -> int:
    """The exit code of a whole `verify` or `audit`."""
    codes = by_fail_on(findings, fail_on) if expect is None else by_expectation(findings, expect)
    return worst([*codes, UNDECIDED if partial else OK])


def by_fail_on(findings: Sequence[Finding], fail_on: FailOn) -> list[int]:
    """One code per result. A result without a verdict is 3, whatever `fail_on` says."""
    return [FOUND if found.level >= _LEVELS[fail_on] else UNDECIDED if found.open else OK for found in findings]


def by_expectation(findings: Sequence[Finding], expect: Expect) -> list[int]:
    """One code per suspect: `match` and `intact` need one fingerprint that says so, `no-match` needs all."""
    suspects: dict[str, list[Finding]] = {}
    for found in findings:
        suspects.setdefault(found.suspect, []).append(found)
    judge = {Expect.match: _match, Expect.no_match: _no_match, Expect.intact: _intact}[expect]
    return [judge(group) for group in suspects.values()]


def _match(group: Sequence[Finding]) -> int:
    if any(f.lineage == "derived" and f.integrity != "altered" for f in group):
        return OK
    if any(f.lineage == "derived" for f in group):
        return FOUND
    return UNDECIDED if any(f.open for f in group) else FOUND


def _no_match(group: Sequence[Finding]) -> int:
    if any(f.lineage == "derived" for f in group):
        return FOUND
    return UNDECIDED if any(f.lineage != "unrelated" for f in group) else OK


def _intact(group: Sequence[Finding]) -> int:
    if any(f.integrity == "intact" for f in group):
        return OK
    return FOUND if any(f.integrity == "altered" for f in group) else UNDECIDED
