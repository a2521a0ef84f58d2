"""Fingerprints of the owners, one family each, made by the product's own `create` and kept by content."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fingerprint.api.create import CreateOptions, create
from fingerprint.bench.splits import Splits
from fingerprint.bench.zoo import Member
from fingerprint.model import Floats, Images, Labels
from fingerprint.probes.registry import family as family_named
from fingerprint.progress import Progress
from fingerprint.record import Payload


@dataclass(frozen=True)
class Made:
    """One family's probes of one owner. passes: example-passes spent on them."""

    family: str
    probes: Images
    targets: Labels
    responses: Floats
    passes: int
    seconds: float


@dataclass(frozen=True)
class Maker:
    """Makes fingerprints of `budget` probes below `folder`.

    screens: nets trained on the owner's images that screen candidates for transfer (never references).
    """

    folder: Path
    splits: Splits
    budget: int
    seed: int
    screens: int
    progress: Progress

    def make(self, owner: Member, family: str, screens: int | None = None) -> Made:
        """The fingerprint, or what was kept of it.

        Raises:
            FingerprintError: as `create` does.
        """
        screens = self.screens if screens is None else screens
        what = {
            "owner": owner.sha256,
            "family": family,
            "code": code_of(family),
            "budget": self.budget,
            "seed": self.seed,
            "screens": screens,
            "data": self.splits.digest,
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
        place = self.folder / f"{owner.name}-{family}-{digest}"
        if not place.with_suffix(".json").is_file():
            self._create(owner, family, screens, place, what)
        facts = json.loads(place.with_suffix(".json").read_text())
        payload = Payload.from_bytes(place.with_suffix(".safetensors").read_bytes())
        return Made(
            family, payload.probes, payload.targets, payload.responses, int(facts["passes"]), float(facts["seconds"])
        )

    def _create(self, owner: Member, family: str, screens: int, place: Path, what: dict[str, object]) -> None:
        options = CreateOptions(
            owner.name,
            spec=owner.spec,
            data=self._images(),
            budget=self.budget,
            families=(family,),
            seed=self.seed,
            screen=screens,
        )
        started = time.monotonic()
        record = create(owner.path, options, progress=self.progress)
        facts = {
            "passes": record.manifest.families[0].passes,
            "seconds": round(time.monotonic() - started, 1),
            "made": what,
        }
        place.with_suffix(".safetensors").write_bytes(record.payload.to_bytes())
        place.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")

    def _images(self) -> Path:
        """The owner's images as the file that `create` reads."""
        path = self.folder / f"probe-images-{self.splits.digest[:12]}.npz"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part.npz")
            np.savez(temporary, images=self.splits.probes.images, labels=np.asarray(self.splits.probes.labels))
            temporary.replace(path)
        return path


def code_of(family: str) -> str:
    """Digest of the source file of a family."""
    source = inspect.getsource(sys.modules[type(family_named(family)).__module__])
    return hashlib.sha256(source.encode()).hexdigest()[:16]
