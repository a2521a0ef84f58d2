"""Contents of small files that are, or are not, models; and archives of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from fingerprint.limits import DEFAULT, Limits
from fingerprint.sources.containers import opened
from fingerprint.sources.directory import DirectorySource
from fingerprint.sources.interface import Artifact

TFLITE = b"\x1c\x00\x00\x00TFL3" + bytes(range(256)) * 4
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def suspects(location: Path, limits: Limits = DEFAULT) -> list[tuple[str, str | None]]:
    """(name below the location, status of its finding) of everything there, containers opened."""
    found: list[tuple[str, str | None]] = []

    def add(one: Artifact) -> None:
        name = one.name.removeprefix(str(location)).removeprefix("/")
        found.append((name, one.finding.status if one.finding else None))

    for artifact in DirectorySource(str(location)).artifacts():
        if artifact.kind == "file" or artifact.finding:
            add(artifact)
            continue
        with opened(artifact, limits) as inner:
            for one in inner:
                add(one)
    return found
