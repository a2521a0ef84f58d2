"""What the benchmarks share: real model files, staged with their authors."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from fingerprint.spec import sidecar_path

# unrelated authors in two halves: one calibrates while the other is judged, then the other way round
HALVES = (("atreides-K", "AdityaAS", "DenisDrobyshev"), ("benjames03", "ga-tardochisalles", "mlcommons"))
CIFAR_REFERENCES = (".onnx",)


@dataclass(frozen=True)
class Entry:
    """A model file of the data folder, staged with its author in the sidecar."""

    name: str
    author: str
    path: Path


def stage(data: Path, folder: Path) -> dict[str, Entry]:
    """Copy model files with sidecars that name their author (references are clustered by author)."""
    entries = {}
    for model in json.loads((data / "manifest.json").read_text()):
        author = str(model["source"]).split("/")[0].split(" ")[0]
        for file in model["files"]:
            source = data / file
            sidecar = sidecar_path(source)
            if not sidecar.is_file() or source.suffix == ".param":
                continue
            target = folder / "models" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            spec = {**json.loads(sidecar.read_text()), "author": author}
            sidecar_path(target).write_text(json.dumps(spec))
            entries[Path(file).name] = Entry(Path(file).name, author, target)
    return entries
