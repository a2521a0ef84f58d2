"""The record of an audit: it remembers files, goes on where a killed one stopped, and tells what another run saw."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from cli.records import WRITE_EVERY_S, Records, stored
from fingerprint import __version__
from fingerprint.errors import StoreError
from store.audits import Remembered
from store.takeovers import TakenRows

if TYPE_CHECKING:
    from fingerprint.api.auditing import Examined
    from fingerprint.api.recalled import RecalledResult
    from fingerprint.api.results import FingerprintRef, Result, Suspect
    from store.audits import Recalled, StoredResult

LAST = "last"  # --since last


class Journal(Records):
    """`Records` of an audit. Results are stored by artifact, with how its files looked.

    A lock beside the database says that the run goes on; the system drops it with the process, however it ends.
    """

    _lock: IO[bytes] | None = None
    _question = ""
    _next = 0  # position of the next result

    def __enter__(self) -> Self:
        return self

    def open_run(self, parameters: Mapping[str, object], question: str, *, resume: bool) -> str | None:
        """Begin a run, or go on with one of the same parameters that was killed; answers its id in that case.

        Args:
            parameters: what was asked.
            question: see `store.audits`.
            resume: go on with a run that did not end.
        """
        self._question = question
        self._files: list[tuple[str, str, int, int]] = []
        self._taken = Taken()
        if resume:
            for run in self._call(lambda: self._database.audits.unfinished(parameters, __version__)):
                if self._locked(run):
                    self._run = run
                    self._next = self._call(self._position)
                    for rows in self._call(lambda run=run: self._database.audits.taken(run)):  # type: ignore[misc]
                        self._taken.add(rows)
                    return run
        self.begin("audit", parameters, now=True)
        begun = self.run
        if begun is not None:
            self._locked(begun)
        return None

    def _position(self) -> int:
        return self._database.audits.next_position(self._run or "")

    def _locked(self, run: str) -> bool:
        """Take the run's lock; False where another process has it."""
        path = self._lock_path(run)
        try:
            import fcntl

            self._lock = path.open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (OSError, ImportError):
            if self._lock is not None:
                self._lock.close()
                self._lock = None
            return False
        return True

    def _lock_path(self, run: str) -> Path:
        database = self._call(lambda: self._database.path)
        return database.with_name(f"{database.name}-audit-{run}.lock")

    def recall(self, asked: Sequence[tuple[str, str]]) -> list[tuple[Result, ...] | None]:
        """Results of files that look as they did, by (name, stamp)."""

        def look() -> list[Recalled | None]:
            return self._database.audits.recall(self._question, asked, self._run)

        made: list[tuple[Result, ...] | None] = []
        for found in self._call(look):
            if found is None:
                made.append(None)
                continue
            own = found.rows.run_id == self._run
            results = RecalledResults(recalled(found.results, own=own))
            results.rows = found.rows
            made.append(results)
        return made

    def told_once(self, examined: Examined) -> Examined:
        """A copy of a file that this run has decided before is not `cached`, whether a kill lay in between or not."""
        if examined.recalled or not any(result.cached for result in examined.results):
            return examined

        def own(result: Result) -> bool:
            sha256, identity = result.suspect.sha256, result.fingerprint.id
            if not (result.cached and sha256 and identity and self._run):
                return False
            return self._database.audits.has(self._run, sha256, identity)

        def look() -> tuple[Result, ...]:
            return tuple(replace(one, cached=False) if own(one) else one for one in examined.results)

        return replace(examined, results=self._call(look))

    def add_examined(self, examined: Examined, closed: Sequence[Result]) -> None:
        """Record an artifact's results, and those for fingerprints that can't be opened here.

        What an earlier run found is not stored again, and is remembered where it stands.
        """
        rows = getattr(examined.results, "rows", None)
        if rows is not None:
            if rows.run_id == self._run or rows in self._taken:
                return
            self._taken.add(rows)
            self._next += rows.count
            last = self._pending[-1] if self._pending else None
            joined = last.followed_by(rows) if isinstance(last, TakenRows) else None
            self._pending[len(self._pending) - (joined is not None) :] = [joined or rows]
        else:
            if examined.stamp is not None and examined.results:
                name = examined.artifact.name
                self._files.append((name, examined.stamp, self._next, len(examined.results)))
            self._pending += map(stored, examined.results)
            self._next += len(examined.results)
        self._pending += map(stored, closed)
        self._next += len(closed)
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            self._flush()

    def _flush(self) -> None:
        files, self._files = getattr(self, "_files", []), []
        if files:
            self._post(lambda: self._write(lambda: self._remember(files)))
        super()._flush()

    def _remember(self, files: Iterable[tuple[str, str, int, int]]) -> None:
        run, question = self._run or "", self._question
        self._database.audits.remember(Remembered(question, name, stamp, run, *place) for name, stamp, *place in files)

    def seen_in(self, run: str) -> set[int]:
        """Hashes of `pair_of` for every result of a run. Raises NotFound."""

        def look() -> set[int]:
            name = run
            if run == LAST:
                ended = [r.id for r in self._database.runs() if r.kind == "audit" and r.finished]
                if not ended:
                    raise StoreError("no audit has ended yet, so there is no last one", remedy="Leave --since out.")
                name = ended[-1]
            return {hash(pair) for pair in self._database.audits.pairs(name)}

        return self._call(look)

    def close(self) -> None:
        """See `Records.close`; the run's lock is given back."""
        over = self._thread.is_alive() and self._lock is not None
        path = Path(str(self._lock.name)) if over and self._lock is not None else None
        super().close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if path is not None:
            with suppress(OSError):
                path.unlink()


class RecalledResults(tuple["RecalledResult", ...]):
    """Results of a file that was not read. rows: where they stand."""

    rows: TakenRows


def recalled(found: Iterable[StoredResult], *, own: bool) -> Iterator[RecalledResult]:
    """The results of a file that was not read. own: of this very run, which was killed and goes on."""
    from fingerprint.api.recalled import RecalledResult, as_cached

    for one in found:
        yield RecalledResult(
            one.text if own else as_cached(one.text),
            _suspect(one.suspect_path, one.suspect_sha256, one.format, one.runtime),
            _reference(one.fingerprint_id, one.fingerprint_name),
            one.status,  # type: ignore[arg-type]
            one.settings_sha256,
            (one.lineage, one.integrity, one.total_p),
        )


@lru_cache(maxsize=1)  # the results of a file come together
def _suspect(path: str, sha256: str | None, format: str | None, runtime: str | None) -> Suspect:
    from fingerprint.api.results import Suspect

    return Suspect(path, sha256, format, runtime)


@lru_cache(maxsize=256)
def _reference(identity: str | None, name: str) -> FingerprintRef:
    from fingerprint.api.results import FingerprintRef

    return FingerprintRef(identity, name)


class Taken:
    """Rows that a run has taken over, as stretches: an unchanged registry is a few of them."""

    def __init__(self) -> None:
        self._stretches: dict[str, list[tuple[int, int]]] = {}  # run -> (first, one after the last), sorted, apart

    def add(self, rows: TakenRows) -> None:
        """These too."""
        found = self._stretches.setdefault(rows.run_id, [])
        first, end = rows.first, rows.first + rows.count
        i = bisect_left(found, (first, end))
        if i and found[i - 1][1] >= first:
            i -= 1
            first = found[i][0]
        j = i
        while j < len(found) and found[j][0] <= end:
            end = max(end, found[j][1])
            j += 1
        found[i:j] = [(first, end)]

    def __contains__(self, rows: TakenRows) -> bool:
        """Whether all of them are."""
        found = self._stretches.get(rows.run_id, [])
        i = bisect_right(found, (rows.first, 1 << 62))
        return bool(i) and rows.first + rows.count <= found[i - 1][1]


def pair_of(result: Result) -> tuple[str, str | None, str | None]:
    """What makes a result the same in two runs, as the database spells it."""
    path = result.suspect.path.encode("utf-8", "backslashreplace").decode("utf-8")
    return path, result.suspect.sha256, result.fingerprint.id
