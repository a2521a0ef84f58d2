"""Files and folders: models are found by content; files that only claim to be models (by suffix) are reported too.

A model in several files is one artifact: its main file, or the folder where it is a Core ML package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from fingerprint.errors import UsageError
from fingerprint.runtimes.formats import Format, sniff
from fingerprint.runtimes.parts import is_package, main_file
from fingerprint.sources.interface import Artifact, Source

MODEL_SUFFIXES = frozenset(
    {".onnx", ".tflite", ".pt2", ".pt", ".pth", ".ts", ".safetensors", ".pte", ".mnn", ".mlmodel", ".ptl"}
)


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
        if not self.root.is_dir() or is_package(self.root):
            yield Artifact(self.root, str(self.root))
            return
        for folder, folders, files in os.walk(self.root):
            packages = [name for name in sorted(folders) if is_package(Path(folder) / name)]
            folders[:] = sorted(set(folders) - set(packages))
            for name in packages:
                yield Artifact(Path(folder) / name, str(Path(folder) / name))
            for file in sorted(files):
                path = Path(folder) / file
                if path.is_file() and is_model(path):
                    yield Artifact(path, str(path))


def is_model(path: Path) -> bool:
    """Whether a file is, or claims to be, a model of its own: no weights beside their network, no plain program."""
    if path.suffix.lower() in MODEL_SUFFIXES:
        return True
    try:
        return sniff(path) not in (None, Format.SHARED_LIBRARY) and main_file(path) == path
    except OSError:
        return False
