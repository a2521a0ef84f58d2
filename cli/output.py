"""stdout and `-o FORMAT=PATH`: where documents and reports go. Files appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from types import TracebackType
from typing import IO

from fingerprint.errors import StoreError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.report.interface import Page, Report, Row, Summary
from fingerprint.report.registry import report_class

SCHEMA_VERSION = 1
FILE_WIDTH = 100


PLAIN = ("table", "json", "jsonl")  # formats of verbs whose output is no report


@dataclass(frozen=True)
class Target:
    """A format and where to write it: None is stdout."""

    format: str
    path: Path | None = None


def targets(format: str, output: Sequence[str] | None, *, reports: bool = False) -> list[Target]:
    """Read `-f` and `-o`, before any long work. With `reports` every report format is known, else `PLAIN`.

    Raises:
        UsageError: an unknown format, no FORMAT=PATH, a folder that does not exist or can't be written, or a binary
            format that would go to a terminal.
        MissingExtra: what the format needs is not installed.
    """
    found = [Target(format)]
    for text in output or ():
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError(f"-o {text!r} is not FORMAT=PATH", remedy="For example: -o json=results.json")
        found.append(Target(name, Path(path)))
    for target in found:
        _require_known(target, reports=reports)
        if target.path is not None:
            _require_writable(target.path)
    return found


def _require_known(target: Target, *, reports: bool) -> None:
    kind = report_class(target.format)
    if not reports and target.format not in PLAIN:
        raise UsageError(f"this verb can't write {target.format}", remedy="One of " + ", ".join(PLAIN))
    if kind.binary and target.path is None and sys.stdout.isatty():
        raise UsageError(
            f"{target.format} is binary, and standard output is a terminal",
            remedy=f"For example: -o {target.format}=results.{target.format}",
        )
    kind()


def _require_writable(path: Path) -> None:
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir():
        raise UsageError(f"-o can't write {path}", remedy="Give a file in a folder that exists.")
    if is_special(path):
        if not os.access(path, os.W_OK):
            raise UsageError(f"-o can't write {path}", remedy="Choose another file.")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"-o can't write to the folder {folder}", remedy="Choose another folder.")


def is_special(path: Path) -> bool:
    """Whether it is a device or a pipe, such as /dev/null: written to as it is, never replaced by a file."""
    return path.exists() and not path.is_file()


def page_for(path: Path | None, *, verbose: bool = False) -> Page:
    """How wide a table is, and whether it may be coloured."""
    if path is not None:
        return Page(FILE_WIDTH, verbose=verbose)
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((80, 24)).columns if terminal or "COLUMNS" in os.environ else 80
    return Page(max(40, width), terminal and "NO_COLOR" not in os.environ, verbose)


@dataclass
class Sink:
    """One open target: text goes to stdout or a device at once, or to a temporary file that `commit` renames.

    A link stays a link: the file that it leads to is replaced. private: nobody else may read the file.
    """

    path: Path | None
    private: bool = False
    _file: IO[bytes] | None = field(default=None, repr=False)

    def write(self, made: str | bytes) -> None:
        """Append text, or bytes as they are.

        Raises:
            StoreError: the file can't be written, for instance because the disk is full.
        """
        if self.path is None:
            _to_stdout(made)
            return
        try:
            if self._file is None and is_special(self.path):
                self._file = self.path.open("wb")
            elif self._file is None:
                folder = self.path.resolve().parent
                self._file = tempfile.NamedTemporaryFile(dir=folder, prefix=".tmp-", delete=False)  # noqa: SIM115
            self._file.write(made if isinstance(made, bytes) else made.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise StoreError(f"can't write {self.path}: {error.strerror or error}") from error

    def commit(self) -> None:
        """Put the file in place, with the rights that a new file gets (0600 if it is private).

        Raises:
            StoreError: it can't be written.
        """
        if self._file is None or self.path is None:
            return
        try:
            self._file.flush()
            if is_special(self.path):
                self._file.close()
                self._file = None
                return
            os.fsync(self._file.fileno())
            self._file.close()
            mask = os.umask(0)
            os.umask(mask)
            Path(self._file.name).chmod(0o600 if self.private else 0o666 & ~mask)
            Path(self._file.name).replace(self.path.resolve())
            self._file = None
        except OSError as error:
            raise StoreError(f"can't write {self.path}: {error.strerror or error}") from error

    def discard(self) -> None:
        """Remove the temporary file, if there is one."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()  # writes what is left, which a full disk refuses again
            if self.path is not None and not is_special(self.path):
                with suppress(OSError):
                    Path(self._file.name).unlink(missing_ok=True)
            self._file = None


def _to_stdout(made: str | bytes) -> None:
    if isinstance(made, str):
        sys.stdout.write(made)
        sys.stdout.flush()
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(made)
    sys.stdout.buffer.flush()


class Reports:
    """All reports of a run: rows are streamed to each, the end is written once. Use as a context manager.

    private: the files are for the caller's eyes only, for they show probes.
    """

    def __init__(self, wanted: Iterable[Target], *, verbose: bool = False, private: bool = False) -> None:
        self._open: list[tuple[Report, Sink]] = [
            (report_class(t.format)(page_for(t.path, verbose=verbose)), Sink(t.path, private)) for t in wanted
        ]

    @property
    def show_records(self) -> bool:
        """Whether a format has a use for `Summary.records`."""
        return any(report.shows_records for report, _ in self._open)

    @property
    def streaming(self) -> bool:
        """Whether a format writes rows as they come."""
        return any(type(report).stream is not Report.stream for report, _ in self._open)

    def stream(self, row: Row, *, final: bool) -> None:
        """Show a row to the formats that write rows as they come."""
        for report, sink in self._open:
            text = report.stream(row, final=final)
            if text:
                sink.write(text)

    def finish(self, rows: Sequence[Row], summary: Summary) -> None:
        """Write the end, files first; one that can't be written does not keep the others from it.

        Raises:
            StoreError: a file can't be written.
        """
        failed: StoreError | None = None
        for report, sink in sorted(self._open, key=lambda pair: pair[1].path is None):
            try:
                for piece in report.pieces(rows, summary):
                    sink.write(piece)
                sink.commit()
            except StoreError as error:
                failed = failed or error
        if failed is not None:
            remedy = f"Nothing is lost. Write it again with: fingerprint report {summary.run}" if summary.run else ""
            raise StoreError(failed.message, remedy=remedy) from failed

    def __enter__(self) -> Reports:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, sink in self._open:
            sink.discard()


def emit(wanted: Iterable[Target], document: Mapping[str, object], table: Callable[[Page], str]) -> None:
    """Write a document that is no report: json as it is, jsonl on one line, table by the function given."""
    from fingerprint.report.json import dumps

    versioned = {"schema_version": SCHEMA_VERSION, **document}
    for target in sorted(wanted, key=lambda t: t.path is None):
        sink = Sink(target.path)
        try:
            if target.format == "json":
                sink.write(dumps(versioned, indent=2) + "\n")
            elif target.format == "jsonl":
                sink.write(dumps(versioned) + "\n")
            else:
                sink.write(table(page_for(target.path)))
            sink.commit()
        finally:
            sink.discard()


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of text in aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)
