"""OCI image layouts on the disk (registries' own folders, ORAS, `skopeo copy ... oci:`): layers are models or archives.

OCI image-spec, image-layout.md: `index.json` lists manifests, manifests list layers, all in `blobs/ALGORITHM/DIGEST`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from fingerprint.errors import UsageError
from fingerprint.limits import DEFAULT
from fingerprint.sources.interface import Artifact, Finding, Source
from fingerprint.sources.walking import artifact_at

_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]{64,128})")
_TITLE, _REF = "org.opencontainers.image.title", "org.opencontainers.image.ref.name"
_DEPTH, _MOST = 4, 10_000  # indexes in indexes; descriptors in one list
_SHOWN = 19  # characters of a digest


class OciSource(Source):
    """A folder with an `oci-layout` file."""

    name: ClassVar[str] = "oci"

    @classmethod
    def accepts(cls, location: str) -> bool:
        """See `Source.accepts`."""
        return (Path(location) / "oci-layout").is_file() and (Path(location) / "index.json").is_file()

    def __init__(self, location: str) -> None:
        self.folder = Path(location)
        if not self.accepts(location):
            raise UsageError(f"{location} is no OCI layout: it has no oci-layout and index.json")

    def artifacts(self) -> Iterator[Artifact]:
        """See `Source.artifacts`: every layer once, under the first manifest that lists it."""
        seen: set[str] = set()
        yield from self._index(self.folder / "index.json", "", 0, seen)

    def _index(self, path: Path, label: str, depth: int, seen: set[str]) -> Iterator[Artifact]:
        try:
            listed = _descriptors(_document(path), "manifests")
        except ValueError as error:
            yield Artifact(path, str(path), finding=Finding("unreadable", f"It is no OCI index: {error}."))
            return
        for one in listed:
            digest = str(one.get("digest"))
            tag = _annotation(one, _REF) or label or digest[:_SHOWN]
            if digest in seen or depth > _DEPTH:
                continue
            seen.add(digest)
            yield from self._manifest(digest, tag, depth, seen)

    def _manifest(self, digest: str, tag: str, depth: int, seen: set[str]) -> Iterator[Artifact]:
        name, path = f"{self.folder}@{tag}", self._blob(digest)
        try:
            if path is None:
                raise ValueError("it is not in the layout")
            document = _document(path)
            if "manifests" in document:
                yield from self._index(path, tag, depth + 1, seen)
                return
            layers = _descriptors(document, "layers")
        except ValueError as error:
            yield Artifact(self.folder, name, finding=Finding("unreadable", f"The manifest can't be read: {error}."))
            return
        for layer in layers:
            yield from self._layer(layer, name, seen)

    def _layer(self, layer: Mapping[str, object], name: str, seen: set[str]) -> Iterator[Artifact]:
        digest = str(layer.get("digest"))
        if digest in seen:
            return
        seen.add(digest)
        title, path = _annotation(layer, _TITLE), self._blob(digest)
        place = f"{name}/{title or digest}"
        if path is None:
            yield Artifact(self.folder, place, finding=Finding("unreadable", "The layer is not in the layout."))
            return
        found = artifact_at(path, place)
        if found is not None:
            yield found

    def _blob(self, digest: str) -> Path | None:
        """The file of a digest; only well-formed ones, so that none leads out of the layout."""
        match = _DIGEST.fullmatch(digest)
        path = self.folder / "blobs" / match[1] / match[2] if match else None
        return path if path is not None and path.is_file() else None


def _document(path: Path) -> Mapping[str, object]:
    try:
        if path.stat().st_size > DEFAULT.listing_bytes:
            raise ValueError("it is too large")
        value = json.loads(path.read_bytes())
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError("it holds no object")
    return value


def _descriptors(document: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    listed = document.get(key)
    if not isinstance(listed, list) or len(listed) > _MOST or not all(isinstance(one, dict) for one in listed):
        raise ValueError(f"it lists no {key}")
    return listed


def _annotation(descriptor: Mapping[str, object], key: str) -> str:
    notes = descriptor.get("annotations")
    value = notes.get(key) if isinstance(notes, Mapping) else None
    return value[:1000] if isinstance(value, str) else ""
