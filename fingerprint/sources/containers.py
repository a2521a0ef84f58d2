"""Looking into containers: what archives, split files and remote folders hold, nested, in a folder that goes away."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fingerprint.errors import FingerprintError, ModelError
from fingerprint.limits import DEFAULT, Limits
from fingerprint.sources.archives.unpack import Unpacker
from fingerprint.sources.interface import INSIDE, Artifact, Finding
from fingerprint.sources.pieces import join
from fingerprint.sources.registry import source_named
from fingerprint.sources.walking import artifact_at, inside, walk

PREFIX = "fingerprint-unpacked-"


@contextmanager
def opened(container: Artifact, limits: Limits = DEFAULT) -> Iterator[Iterator[Artifact]]:
    """The suspects in a container, as they are asked for; what was unpacked is removed at the end.

    What can't be unpacked is an artifact with a finding. A container that the caller named, and that holds no model, is
    itself one. Nothing that is yielded is a container.
    """
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        yield _Opened(limits, Path(folder)).all(container)


class _Opened:
    """One container with all that is nested in it."""

    def __init__(self, limits: Limits, folder: Path) -> None:
        self._limits, self._folder = limits, folder
        self._unpacker = Unpacker(limits)
        self._made = 0

    def all(self, container: Artifact) -> Iterator[Artifact]:
        """Every suspect."""
        found = False
        for artifact in self._at(container, 0):
            found = True
            yield artifact
        if not found and container.asked:
            text = "No model was found inside, by content or by name."
            yield inside(container, Artifact(container.path, "", finding=Finding("unsupported", text)), container.name)

    def _at(self, artifact: Artifact, depth: int) -> Iterator[Artifact]:
        if artifact.kind == "file" or artifact.finding is not None:
            yield artifact
            return
        try:
            if depth > self._limits.archive_depth:
                raise _TooDeep
            into = self._new()
            yield from {"archive": self._archive, "pieces": self._pieces, "remote": self._remote}[artifact.kind](
                artifact, into, depth
            )
        except _TooDeep:
            text = f"Archives are nested deeper than {self._limits.archive_depth}; what is inside was not looked at."
            yield inside(artifact, Artifact(artifact.path, "", finding=Finding("unreadable", text)), artifact.name)
        except FingerprintError as error:
            status = "unreadable" if isinstance(error, ModelError) and error.status == "unreadable" else "unsupported"
            said = ". ".join(line.rstrip(".") for line in error.diagnosis().splitlines())
            finding = Finding(status, f"{said[:1].upper()}{said[1:]}.")  # type: ignore[arg-type]
            yield inside(artifact, Artifact(artifact.path, "", finding=finding), artifact.name)

    def _archive(self, archive: Artifact, into: Path, depth: int) -> Iterator[Artifact]:
        renamed, left = self._unpacker.unpack(archive.path, into)

        def name_of(path: Path) -> str:
            within = path.relative_to(into).as_posix()
            return f"{archive.name}{INSIDE}{renamed.get(within, within)}"

        for name, finding in left:
            place = f"{archive.name}{INSIDE}{name}" if name else archive.name
            yield inside(archive, Artifact(archive.path, "", finding=finding), place)
        yield from self._below(archive, into, name_of, depth)

    def _pieces(self, split: Artifact, into: Path, depth: int) -> Iterator[Artifact]:
        whole = into / split.path.name
        join(split.pieces, whole)
        found = artifact_at(whole, split.name)
        if found is not None:
            yield from self._at(inside(split, found, split.name), depth + 1)

    def _remote(self, remote: Artifact, into: Path, depth: int) -> Iterator[Artifact]:
        kind, _, locator = (remote.locator or "").partition("\n")
        source_named(kind).fetch(locator, into)

        def name_of(path: Path) -> str:
            return f"{remote.name}/{path.relative_to(into).as_posix()}"

        yield from self._below(remote, into, name_of, depth)

    def _below(self, outer: Artifact, folder: Path, name_of: object, depth: int) -> Iterator[Artifact]:
        for found in walk(folder, name_of):  # type: ignore[arg-type]
            yield from self._at(inside(outer, found, found.name), depth + 1)
        shutil.rmtree(folder, ignore_errors=True)

    def _new(self) -> Path:
        self._made += 1
        made = self._folder / str(self._made)
        made.mkdir()
        return made


class _TooDeep(Exception):
    """More archives inside archives than are unpacked."""


def sweep() -> None:
    """Remove what processes that were killed had unpacked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(folder.name.removeprefix(PREFIX).split("-")[0])
            if folder.lstat().st_uid == os.getuid() and not folder.is_symlink() and not _runs(pid):
                shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
