"""Files and folders: models are found by content; files that only claim to be models (by suffix) are reported too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from fingerprint.errors import UsageError
from fingerprint.runtimes.formats import sniff
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
        if not self.root.is_dir():
            yield Artifact(self.root, str(self.root))
            return
        for folder, folders, files in os.walk(self.root):
            folders.sort()
            for file in sorted(files):
                path = Path(folder) / file
                if path.is_file() and is_model(path):
                    yield Artifact(path, str(path))


def is_model(path: Path) -> bool:
    """Whether a file is, or claims to be, a model."""
    if path.suffix.lower() in MODEL_SUFFIXES:
        return True
    try:
        return sniff(path) is not None
    except OSError:
        return False
