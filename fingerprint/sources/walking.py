"""Walking a folder: models by content, archives to look into, split files, packages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from fingerprint.runtimes.formats import Format, sniff
from fingerprint.runtimes.parts import is_package, main_file
from fingerprint.sources.archives.unpack import ARCHIVES
from fingerprint.sources.claims import claims_to_be_model, opaque
from fingerprint.sources.interface import Artifact, Finding
from fingerprint.sources.pieces import split_models

NameOf: TypeAlias = Callable[[Path], str]
_ALONE = (None, Format.SHARED_LIBRARY)  # no model of its own


def walk(root: Path, name_of: NameOf = str, claimed: Callable[[Path], bool] | None = None) -> Iterator[Artifact]:
    """Everything in a folder, in sorted order, without following links to folders.

    Args:
        root: the folder.
        name_of: the provenance path of a path in it.
        claimed: whether a folder is read by another kind of source; it is left out then.
    """
    closed: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=closed.append):
        yield from _closed(closed, name_of)
        here = Path(folder)
        if claimed is not None and here != root and claimed(here):
            folders.clear()
            continue
        packages = [name for name in sorted(folders) if is_package(here / name)]
        folders[:] = sorted(set(folders) - set(packages))
        for name in packages:
            yield Artifact(here / name, name_of(here / name))
        yield from _files([here / file for file in sorted(files)], name_of)
    yield from _closed(closed, name_of)


def _closed(errors: list[OSError], name_of: NameOf) -> Iterator[Artifact]:
    """Folders that could not be listed: there may be models in them, so each is a result."""
    for error in errors:
        path = Path(os.fsdecode(error.filename))
        text = f"The folder can't be read, so what is in it was not looked at: {error.strerror or error}."
        yield Artifact(path, name_of(path), finding=Finding("unreadable", text))
    errors.clear()


def _files(paths: list[Path], name_of: NameOf) -> Iterator[Artifact]:
    """The artifacts among the files of one folder."""
    others = [path for path in paths if not path.is_file()]
    paths = [path for path in paths if path not in others] if others else paths
    for path in others:
        if claims_to_be_model(path.name):
            text = "It is a link that leads to no file." if path.is_symlink() else "It is no regular file."
            yield Artifact(path, name_of(path), finding=Finding("unreadable", text))
    split = {pieces[0]: pieces for pieces in split_models(paths)}
    later = {piece for pieces in split.values() for piece in pieces[1:]}
    for path in paths:
        if path in split:
            pieces = split[path]
            yield Artifact(path, f"{name_of(path)} (+{len(pieces) - 1} pieces)", "pieces", pieces=pieces)
        elif path not in later:
            found = artifact_at(path, name_of(path))
            if found is not None:
                yield found


def artifact_at(path: Path, name: str, *, asked: bool = False) -> Artifact | None:
    """The artifact that a file is; None where it is, and claims to be, none. `asked`: it is one in any case."""
    claims = asked or claims_to_be_model(path.name)
    try:
        format = sniff(path)
        if format in ARCHIVES:
            return Artifact(path, name, "archive", asked=claims)
        if claims and format is None and not asked and (finding := opaque(path)) is not None:
            return Artifact(path, name, finding=finding)
        own = format not in _ALONE and main_file(path) == path
    except OSError as error:
        finding = Finding("unreadable", f"It can't be read: {error.strerror or error}.")
        return Artifact(path, name, finding=finding) if claims else None
    return Artifact(path, name, asked=asked) if claims or own else None


def inside(outer: Artifact, found: Artifact, name: str) -> Artifact:
    """An artifact of a container, named by its provenance; what the container says of specs holds for it too."""
    return replace(found, name=name, spec=found.spec or outer.spec)
