"""The database of a verify or audit, in a thread of its own: what is known, and the record of the run.

An SQLite connection belongs to one thread, suspects are examined in several; and writing durably is waiting, which the
process can do while it does other things.
"""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from cli.access import Selection, open_for_results, quiet_signer, select
from fingerprint import __version__
from fingerprint.errors import KeyFileError, NotFound, StoreError
from store.home import Home
from store.rows import ResultRow, RunKind, RunRow
from store.takeovers import TakenRows

if TYPE_CHECKING:
    from fingerprint.api.results import Result
    from fingerprint.model import Images
    from fingerprint.progress import Progress
    from store.data_keys import Ask
    from store.database import Database
    from store.exposures import ExportRow, Exposed
    from store.keys import Keys, Signer

T = TypeVar("T")
WRITE_EVERY_S = 0.5  # seconds of results that a killed run may lose


class Records:
    """An open database and at most one run in it. Use it as a context manager.

    Where the database can't be written, the run goes on unrecorded, with one note. What is recorded is each result by
    itself, before any correction for many tests: that is what a later run reuses.
    """

    def __init__(
        self, home: Home, db: Path | None, progress: Progress, *, create: bool, ask: Ask | None = None
    ) -> None:
        self.progress = progress
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="database", daemon=True)
        self._thread.start()
        self._begin: Callable[[], None] | None = None
        self._run: str | None = None
        self._on = True
        self._pending: list[ResultRow | TakenRows] = []
        self._written = time.monotonic()
        self._failed: BaseException | None = None
        self._signer: Signer | None = None
        self._database: Database = self._call(lambda: open_for_results(home, db, create=create, ask=ask))

    def select(self, against: Sequence[str], keys: Keys) -> Selection:
        """See `access.select`."""
        return self._call(lambda: select(self._database, against, keys))

    def probes(self, text: str, keys: Keys, most_bytes: int) -> Images | None:
        """The probes that a name or id stands for (see `Database.probes`); None where they take more than that."""

        def look() -> Images | None:
            row = self._database.find(text)
            return None if row.tensors_size > most_bytes else self._database.probes(row, keys)

        return self._call(look)

    def known(self, suspect: str, fingerprint: str, settings: str) -> dict[str, Any] | None:
        """The newest stored result for exactly this question, or None. From any thread."""
        found = self._call(lambda: self._database.known(suspect, fingerprint, settings))
        self._start()
        return found

    def exposed(self, merkle_root: str) -> Exposed:
        """See `Database.exposed`. From any thread."""
        return self._call(lambda: self._database.exposed(merkle_root))

    def expose(self, merkle_root: str, probes: Collection[int], place: str) -> None:
        """See `Database.expose`. Returns when it is on the disk; from any thread."""
        self._call(lambda: self._database.expose(merkle_root, probes, place))

    def find_export(self, text: str) -> ExportRow:
        """See `Database.find_export`."""
        return self._call(lambda: self._database.find_export(text))

    def begin(self, kind: RunKind, parameters: Mapping[str, object], *, now: bool) -> None:
        """Record that a run begins: now, or after the first look at what is known, which would wait for it."""
        self._begin = lambda: self._write(
            lambda: self._started(self._database.start_run(kind, parameters, __version__))
        )
        if now:
            self._start()

    def add(self, result: Result) -> None:
        """Record a result; those of half a second are written together."""
        self._pending.append(stored(result))
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            self._flush()

    def finish(self, correction: Mapping[str, object] | None = None) -> None:
        """Write what is left, and record that the run ended, signed where the home's key opens without asking.

        Does not wait: `run` and `close` do. `correction`: what was controlled over all tests of an audit.
        """
        self._flush()
        self._post(lambda: self._write(lambda: self._finish(correction)))

    def prepare(self) -> None:
        """Load what signing the run will need; ask for it where there is time. From any thread."""
        import store.signing  # noqa: F401

        with suppress(KeyFileError):  # told when the run ends
            self._signer = quiet_signer(self._database.home)

    def _finish(self, correction: Mapping[str, object] | None) -> None:
        signer = self._signer
        try:
            signer = signer or quiet_signer(self._database.home)
        except KeyFileError as error:
            self.progress.note(f"The results are not signed: {error.diagnosis()}")
        self._database.finish_run(self._run or "", [] if signer is None else [signer], correction)

    def stamped(self, identity: str) -> tuple[bytes, list[bytes]]:
        """A record's envelope and the timestamps kept for it, not checked; nothing where it is not in the database."""

        def look() -> tuple[bytes, list[bytes]]:
            try:
                return self._database.read_envelope(identity), list(self._database.timestamps(identity))
            except NotFound:
                return b"", []

        return self._call(look)

    def signers(self, identity: str) -> tuple[str, ...]:
        """The key ids of a record's signers; none where it came from a file and is not in the database."""

        def look() -> tuple[str, ...]:
            try:
                return self._database.find(identity).key_ids
            except NotFound:
                return ()

        return self._call(look)

    def row(self) -> RunRow | None:
        """The run as the database keeps it, or None where it could not be recorded."""
        return self._call(lambda: self._database.run(self._run) if self._on and self._run else None)

    @property
    def run(self) -> str | None:
        """The run's id, or None where it could not be recorded."""
        return self._call(lambda: self._run if self._on else None)

    def close(self) -> None:
        """Wait until all is written, and close the database. Raises what a write found out about stored evidence."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def __enter__(self) -> Records:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    # -- in the caller's thread --------------------------------------------------------------------------------------

    def _start(self) -> None:
        begin, self._begin = self._begin, None
        if begin is not None:
            self._post(begin)

    def _flush(self) -> None:
        self._start()
        rows, self._pending, self._written = self._pending, [], time.monotonic()
        if rows:
            own = [row for row in rows if isinstance(row, ResultRow)]
            self._post(lambda: self._write(lambda: self._database.add_results(self._run or "", rows, intake(own))))

    def _post(self, work: Callable[[], None]) -> None:
        self._queue.put(work)

    def _call(self, work: Callable[[], T]) -> T:
        """The result of `work`, or its exception."""
        answer: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

        def answered() -> None:
            try:
                answer.put((work(), None))
            except BaseException as error:  # the caller's to handle
                answer.put((None, error))

        self._post(answered)
        value, error = answer.get()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    # -- in the database's thread ------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
        if hasattr(self, "_database"):
            self._database.close()

    def _started(self, run: str) -> None:
        self._run = run

    def _write(self, work: Callable[[], None]) -> None:
        if not self._on:
            return
        try:
            work()
        except StoreError as error:
            self._on = False
            self.progress.note(f"The results are not recorded: {error.diagnosis()}")
        except BaseException as error:
            self._on = False
            self._failed = error


def stored(result: Result) -> ResultRow:
    """A result as the database keeps it."""
    return ResultRow(
        suspect_sha256=result.suspect.sha256,
        suspect_path=result.suspect.path,
        format=result.suspect.format,
        runtime=result.suspect.runtime,
        fingerprint_id=result.fingerprint.id,
        settings_sha256=result.settings_sha256 or "",
        status=result.status,
        row=result.to_stored(),
    )


def intake(rows: Iterable[ResultRow]) -> list[dict[str, object]]:
    """Where suspects came from, as the ledger records it: each once, with its size where the file is still there."""
    found: dict[tuple[str, str | None], dict[str, object]] = {}
    for row in rows:
        outer, _, inner = row.suspect_path.partition("!")
        key = (row.suspect_path, row.suspect_sha256)
        if key not in found:
            found[key] = {
                "source": printable_path(outer),
                "extracted": printable_path(inner) if inner else None,
                "sha256": row.suspect_sha256,
                "size": _size(row.suspect_path),
                "format": row.format,
                "runtime": row.runtime,
                "tool_version": __version__,
            }
    return list(found.values())


def printable_path(path: str) -> str:
    """A path in which bytes that are no text are spelled out."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _size(path: str) -> int | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
