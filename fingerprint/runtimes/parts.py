"""Models in several files: which one is the main one, which ones belong to it, and one digest for all of them.

OpenVINO keeps a network in NAME.xml and its weights in NAME.bin, ncnn in NAME.param and NAME.bin; a Core ML package is
a folder. Parts go by neutral names (`model.xml`, `model.bin`), so that renaming a model changes nothing.

The SHA-256 of a model in one file is that of the file. Of several parts it is the SHA-256 of one line per part, in the
order of their names: its own SHA-256 in hex, two spaces, its neutral name, a line feed. For files that are called by
their neutral names, `LC_ALL=C sha256sum model.* | sha256sum` shows it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from fingerprint.errors import UnreadableModel
from fingerprint.runtimes.formats import Format, sniff

PACKAGE_PARTS = 64  # files in a Core ML package at most
_PACKAGE = ".mlpackage"
_MAIN_SUFFIXES = (".xml", ".param", ".param.bin")
_NAMES = {Format.OPENVINO: "model.xml", Format.NCNN: "model.param", Format.NCNN_BINARY: "model.param.bin"}
_WEIGHTS = "model.bin"


def main_file(path: Path) -> Path:
    """The file that says which model this is: of weights beside their network and of a package another, else itself."""
    if path.is_dir():
        return _package_main(path) or path
    if path.suffix.lower() != ".bin" or _sniffed(path) is not None:
        return path
    for suffix in _MAIN_SUFFIXES:
        main = path.with_suffix(suffix)
        found = _sniffed(main) if main.is_file() else None
        if found in _NAMES and weights_of(main) == path:
            return main
    return path


def main_part(format: str | None) -> str:
    """Neutral name of the main file of a format; empty where such models have one file only."""
    return _NAMES.get(Format(format), "") if format in set(Format) else ""


def companions(main: Path, format: str | None) -> dict[str, Path]:
    """The other files of a model by their neutral names. Empty for a model in one file.

    Raises:
        UnreadableModel: one is missing (named), or a package holds too many.
    """
    if format in _NAMES:
        weights = weights_of(main)
        if weights == main or not weights.is_file():
            raise UnreadableModel(
                f"its weights are missing: there is no {weights.name} beside {main.name}",
                remedy=f"Put {weights.name} into the same folder.",
            )
        return {_WEIGHTS: weights}
    package = _package_of(main) if format == Format.COREML else None
    if package is None:
        return {}
    return {name: path for name, path in _package_files(package).items() if path != main}


def weights_of(main: Path) -> Path:
    """Where the weights of an OpenVINO or ncnn network are looked for: beside it, under the same stem."""
    name = main.name.removesuffix(".bin") if main.name.endswith(".param.bin") else main.name
    return main.with_name(name).with_suffix(".bin")


def package_part(main: Path) -> str:
    """Neutral name of the main file of a Core ML package; empty for a Core ML model in one file."""
    package = _package_of(main)
    return main.relative_to(package).as_posix() if package else ""


def joint_sha256(digests: Mapping[str, str]) -> str:
    """The digest of a model in several parts, from those of its parts by neutral name."""
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def model_sha256(path: Path) -> tuple[str, int]:
    """Digest and size in bytes of a model file with all that belongs to it.

    Raises:
        UnreadableModel: a part is missing. OSError: a file can't be read.
    """
    main = main_file(path)
    format = sniff(main)
    others = companions(main, format)
    if not others:
        return _sha256(main), main.stat().st_size
    parts = {main_part(format) or package_part(main): main, **others}
    digests = {name: _sha256(part) for name, part in parts.items()}
    return joint_sha256(digests), sum(part.stat().st_size for part in parts.values())


def is_package(path: Path) -> bool:
    """Whether a folder is a Core ML package."""
    return path.is_dir() and _package_main(path) is not None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sniffed(path: Path) -> Format | None:
    try:
        return sniff(path)
    except OSError:
        return None


def _package_main(folder: Path) -> Path | None:
    """The network of a package; the manifest's own entry is not needed, as there is one such file."""
    if folder.suffix.lower() != _PACKAGE or not (folder / "Manifest.json").is_file():
        return None
    return next((p for p in _package_files(folder).values() if p.suffix == ".mlmodel"), None)


def _package_of(main: Path) -> Path | None:
    return next((p for p in main.parents[:4] if p.suffix.lower() == _PACKAGE and p.is_dir()), None)


def _package_files(folder: Path) -> dict[str, Path]:
    """Regular files of a package by their path inside it, sorted; links are left out."""
    found: dict[str, Path] = {}
    for inner, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(inner) / name
            if path.is_file() and not path.is_symlink():
                found[path.relative_to(folder).as_posix()] = path
            if len(found) > PACKAGE_PARTS:
                raise UnreadableModel(f"the package {folder.name} holds more than {PACKAGE_PARTS} files")
    return found
