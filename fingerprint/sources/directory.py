"""Files and folders: models are found by content; files that only claim to be models (by suffix) are reported too.

A model in several files is one artifact: its main file, or the folder where it is a Core ML package. Archives are
artifacts to unpack; hub caches and OCI layouts inside a folder are read as such.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from fingerprint.errors import UsageError
from fingerprint.runtimes.parts import is_package
from fingerprint.sources.interface import Artifact, Source
from fingerprint.sources.walking import artifact_at, walk


class DirectorySource(Source):
    """A file, or a folder read recursively in sorted order without following links to folders."""

    name: ClassVar[str] = "directory"

    @classmethod
    def accepts(cls, location: str) -> bool:
        """See `Source.accepts`."""
        return Path(location).exists()

    def __init__(self, location: str) -> None:
        self.root = Path(location)
        if not self.root.exists():
            raise UsageError(f"no such file or folder: {location}")

    def artifacts(self) -> Iterator[Artifact]:
        """See `Source.artifacts`."""
        if self.root.is_dir() and not is_package(self.root):
            yield from walk(self.root, str, _special)
            yield from self._special_folders()
            return
        found = artifact_at(self.root, str(self.root), asked=True) if self.root.is_file() else None
        yield found or Artifact(self.root, str(self.root), asked=True)

    def _special_folders(self) -> Iterator[Artifact]:
        """What lies in hub caches and OCI layouts somewhere below."""
        from fingerprint.sources.hub import HubSource
        from fingerprint.sources.oci import OciSource

        for folder, folders, _ in os.walk(self.root):
            folders.sort()
            here = Path(folder)
            if here == self.root or not _special(here):
                continue
            folders.clear()
            kind = OciSource if OciSource.accepts(folder) else HubSource
            yield from kind(folder).artifacts()


def _special(folder: Path) -> bool:
    if (folder / "oci-layout").is_file():
        return True
    return folder.name.startswith("models--") and (folder / "snapshots").is_dir()


def is_model(path: Path) -> bool:
    """Whether a file is, or claims to be, a model of its own: no weights beside their network, no plain program."""
    found = artifact_at(path, str(path))
    return found is not None and found.kind == "file"
