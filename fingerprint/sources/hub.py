"""The Hugging Face hub cache, in place: `models--ORG--NAME/snapshots/REVISION/...`, links into `blobs`.

The layout is documented (huggingface.co/docs/huggingface_hub/guides/manage-cache); it is read without the hub's client,
so that a cache can be audited on a machine that has no such client. Nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from fingerprint.errors import UsageError
from fingerprint.limits import DEFAULT
from fingerprint.sources.hubconfig import architecture, spec_of
from fingerprint.sources.interface import Artifact, Source
from fingerprint.sources.walking import walk

SCHEME = "hf:"
_PREFIX = "models--"
_SHOWN = 12  # digits of a revision


class HubSource(Source):
    """`hf:` (the cache of this user), `hf:ORG/NAME`, or a folder that is such a cache or one repository in it."""

    name: ClassVar[str] = "hub"

    @classmethod
    def accepts(cls, location: str) -> bool:
        """See `Source.accepts`."""
        if location.startswith(SCHEME):
            return True
        folder = Path(location)
        return _is_repository(folder) or (folder.is_dir() and any(map(_is_repository, folder.glob(f"{_PREFIX}*"))))

    def __init__(self, location: str) -> None:
        wanted = location.removeprefix(SCHEME) if location.startswith(SCHEME) else ""
        self.folder = cache_folder() if location.startswith(SCHEME) else Path(location)
        if wanted:
            self.folder = self.folder / f"{_PREFIX}{wanted.replace('/', '--')}"
        if not self.folder.is_dir():
            raise UsageError(
                f"there is no hub cache at {self.folder}",
                remedy="Name its folder, or set HF_HUB_CACHE. Nothing is downloaded: use `hf download` for that.",
            )

    def artifacts(self) -> Iterator[Artifact]:
        """See `Source.artifacts`: repositories and revisions in sorted order; every file once per revision."""
        one = _is_repository(self.folder)
        for repository in [self.folder] if one else sorted(self.folder.glob(f"{_PREFIX}*")):
            if not _is_repository(repository):
                continue
            for snapshot in sorted((repository / "snapshots").iterdir()):
                if snapshot.is_dir():
                    yield from _snapshot(repository, snapshot)


def cache_folder() -> Path:
    """Where the hub's client keeps its cache: HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("HF_HOME", cache / "huggingface")).expanduser() / "hub"


def _is_repository(folder: Path) -> bool:
    return folder.name.startswith(_PREFIX) and (folder / "snapshots").is_dir()


def _snapshot(repository: Path, snapshot: Path) -> Iterator[Artifact]:
    """The models of one revision, with what its configuration says of their input."""
    names = _refs(repository).get(snapshot.name, [])
    revision = f"{snapshot.name[:_SHOWN]}" + (f" ({', '.join(names)})" if names else "")
    model = repository.name.removeprefix(_PREFIX).replace("--", "/")
    spec, what = spec_of(snapshot), architecture(snapshot)

    def name_of(path: Path) -> str:
        return f"{SCHEME}{model}@{revision}/{path.relative_to(snapshot).as_posix()}"

    for found in walk(snapshot, name_of):
        yield replace(found, spec=spec, note=what)


def _refs(repository: Path) -> dict[str, list[str]]:
    """Revision -> branches and tags that point to it."""
    found: dict[str, list[str]] = {}
    folder = repository / "refs"
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and path.stat().st_size <= DEFAULT.spec_bytes:
            revision = path.read_text("utf-8", "replace").strip()
            found.setdefault(revision, []).append(path.relative_to(folder).as_posix())
    return found
