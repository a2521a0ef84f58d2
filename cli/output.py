"""stdout and `-o FORMAT=PATH`: where documents and reports go. Files appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from fingerprint.errors import StoreError, UsageError
from fingerprint.report.interface import Page, Report, Row, Summary
from fingerprint.report.registry import report_class

SCHEMA_VERSION = 1
FILE_WIDTH = 100


@dataclass(frozen=True)
class Target:
    """A format and where to write it: None is stdout."""

    format: str
    path: Path | None = None


def targets(format: str, output: Sequence[str] | None) -> list[Target]:
    """Read `-f` and `-o`, before any long work.

    Raises:
        UsageError: an unknown format, no FORMAT=PATH, or a folder that does not exist or can't be written.
    """
    found = [Target(format)]
    for text in output or ():
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError(f"-o {text!r} is not FORMAT=PATH", remedy="For example: -o json=results.json")
        found.append(Target(name, Path(path)))
    for target in found:
        report_class(target.format)
        if target.path is not None:
            _require_writable(target.path)
    return found


def _require_writable(path: Path) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"-o can't write {path}", remedy="Give a file in a folder that exists.")
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise UsageError(f"-o can't write to the folder {path.absolute().parent}", remedy="Choose another folder.")


def page_for(path: Path | None, *, verbose: bool = False) -> Page:
    """How wide a table is, and whether it may be coloured."""
    if path is not None:
        return Page(FILE_WIDTH, verbose=verbose)
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((80, 24)).columns if terminal or "COLUMNS" in os.environ else 80
    return Page(max(40, width), terminal and "NO_COLOR" not in os.environ, verbose)


@dataclass
class Sink:
    """One open target: text goes to stdout at once, or to a temporary file that `commit` renames."""

    path: Path | None
    _file: IO[str] | None = field(default=None, repr=False)

    def write(self, text: str) -> None:
        """Append text."""
        if self.path is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115  (closed by commit or discard)
                "w",
                encoding="utf-8",
                errors="backslashreplace",
                dir=self.path.absolute().parent,
                prefix=".tmp-",
                delete=False,
            )
        self._file.write(text)

    def commit(self) -> None:
        """Put the file in place, with the rights that a new file gets.

        Raises:
            StoreError: it can't be written.
        """
        if self._file is None or self.path is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            mask = os.umask(0)
            os.umask(mask)
            Path(self._file.name).chmod(0o666 & ~mask)
            Path(self._file.name).replace(self.path)
            self._file = None
        except OSError as error:
            raise StoreError(f"can't write {self.path}: {error.strerror or error}") from error

    def discard(self) -> None:
        """Remove the temporary file, if there is one."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
                Path(self._file.name).unlink(missing_ok=True)
            self._file = None


class Reports:
    """All reports of a run: rows are streamed to each, the end is written once. Use as a context manager."""

    def __init__(self, wanted: Iterable[Target], *, verbose: bool = False) -> None:
        self._open: list[tuple[Report, Sink]] = [
            (report_class(t.format)(page_for(t.path, verbose=verbose)), Sink(t.path)) for t in wanted
        ]

    def stream(self, row: Row, *, final: bool) -> None:
        """Show a row to the formats that write rows as they come."""
        for report, sink in self._open:
            text = report.stream(row, final=final)
            if text:
                sink.write(text)

    def finish(self, rows: Sequence[Row], summary: Summary) -> None:
        """Write the end, files first."""
        for report, sink in sorted(self._open, key=lambda pair: pair[1].path is None):
            sink.write(report.finish(rows, summary))
            sink.commit()

    def __enter__(self) -> Reports:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, sink in self._open:
            sink.discard()


def emit(wanted: Iterable[Target], document: Mapping[str, object], table: Callable[[Page], str]) -> None:
    """Write a document that is no report: json as it is, jsonl on one line, table by the function given.

    Raises:
        UsageError: another format.
    """
    from fingerprint.report.json import dumps

    versioned = {"schema_version": SCHEMA_VERSION, **document}
    for target in sorted(wanted, key=lambda t: t.path is None):
        sink = Sink(target.path)
        try:
            if target.format == "json":
                sink.write(dumps(versioned, indent=2) + "\n")
            elif target.format == "jsonl":
                sink.write(dumps(versioned) + "\n")
            elif target.format == "table":
                sink.write(table(page_for(target.path)))
            else:
                raise UsageError(f"this verb can't write {target.format}", remedy="One of table, json, jsonl")
            sink.commit()
        finally:
            sink.discard()


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of text in aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)
