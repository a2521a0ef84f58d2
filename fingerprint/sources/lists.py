"""Lists of suspects: `@FILE` with a path per line, `-` for standard input, and Parquet manifests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar

from fingerprint.errors import MissingExtra, UsageError
from fingerprint.limits import DEFAULT
from fingerprint.sources.directory import DirectorySource
from fingerprint.sources.interface import Artifact, Finding, Source

STDIN = "-"
_PARQUET = b"PAR1"
COLUMN = "path"
_ROWS = 10_000  # of a manifest that are read at a time


class ListSource(Source):
    """`@FILE`, or `-`: one path per line, or separated by NUL (`find -print0`). Folders are read recursively.

    Relative paths are looked for from the current folder, as `xargs` would. Empty lines are passed over.
    """

    name: ClassVar[str] = "list"

    @classmethod
    def accepts(cls, location: str) -> bool:
        """See `Source.accepts`."""
        return location == STDIN or location.startswith("@")

    def __init__(self, location: str) -> None:
        self.file = None if location == STDIN else Path(location.removeprefix("@"))
        if self.file is not None and not self.file.is_file():
            raise UsageError(f"there is no list {self.file}")

    def artifacts(self) -> Iterator[Artifact]:
        """See `Source.artifacts`: in the list's order, read as far as it is needed."""
        if self.file is None:
            yield from _listed(sys.stdin.buffer)
            return
        with self.file.open("rb") as file:
            yield from _listed(file)


class ManifestSource(Source):
    """A Parquet file with a column `path` of text; other columns are left alone. Relative paths are from its folder."""

    name: ClassVar[str] = "manifest"

    @classmethod
    def accepts(cls, location: str) -> bool:
        """See `Source.accepts`."""
        path = Path(location)
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_PARQUET)) == _PARQUET

    def __init__(self, location: str) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise MissingExtra("pyarrow, which reads Parquet manifests,", "parquet") from None
        self.path = Path(location)
        try:
            self._file = parquet.ParquetFile(self.path)
            if COLUMN not in self._file.schema_arrow.names:
                raise UsageError(f"the manifest {location} has no column {COLUMN!r}")
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise UsageError(f"the manifest {location} can't be read: {error}") from error

    def artifacts(self) -> Iterator[Artifact]:
        """See `Source.artifacts`: in the manifest's order, a batch of rows at a time."""
        for batch in self._file.iter_batches(_ROWS, columns=[COLUMN]):
            for value in batch.column(0).to_pylist():
                if isinstance(value, str) and value:
                    yield from _at(str(self.path.parent / value))


def _listed(file: IO[bytes]) -> Iterator[Artifact]:
    for line in _entries(file):
        yield from _at(line)


def _entries(file: IO[bytes]) -> Iterator[str]:
    """Paths in a stream: by NUL where the first block has one, else by line.

    Raises:
        UsageError: a line is longer than a path can be.
    """
    separator, rest = None, b""
    while block := file.read1(1 << 16) if hasattr(file, "read1") else file.read(1 << 16):
        if separator is None:
            separator = b"\0" if b"\0" in block else b"\n"
        *whole, rest = (rest + block).split(separator)
        if len(rest) > DEFAULT.list_line_bytes:
            raise UsageError(f"the list holds a path of more than {DEFAULT.list_line_bytes} bytes")
        yield from filter(None, map(_decoded, whole))
    if rest:
        yield from filter(None, [_decoded(rest)])


def _decoded(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")


def _at(path: str) -> Iterator[Artifact]:
    """What lies at a listed path; one that is not there is a result, for the list may be older than the disk."""
    if not DirectorySource.accepts(path):
        reason = "It is on the list, but there is no such file."
        yield Artifact(Path(path), path, finding=Finding("unreadable", reason))
    else:
        yield from DirectorySource(path).artifacts()
