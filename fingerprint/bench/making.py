"""Probes of the owners, one family each, made by the product's own `create` and kept by content."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fingerprint.api.choosing import make_probes
from fingerprint.api.create_options import CreateOptions
from fingerprint.bench.splits import Splits
from fingerprint.bench.zoo import Member
from fingerprint.errors import FingerprintError
from fingerprint.frozen import dataclass
from fingerprint.model import Images, Labels
from fingerprint.probes.registry import family as family_named
from fingerprint.progress import Progress
from fingerprint.runtimes.parts import model_sha256

TOGETHER = 4  # families that are made in one go, and share the nets that screen


@dataclass(frozen=True)
class Made:
    """One family's probes of one owner.

    groups (N,): number of the group (composite, trajectory) that a probe belongs to, -1 where it stands alone. passes:
    example-passes spent on them; seconds: their share of the time.
    """

    family: str
    probes: Images
    targets: Labels
    groups: Labels
    passes: int
    seconds: float


@dataclass(frozen=True)
class Screening:
    """What screens candidates: so many nets that `create` trains on the owner's images, and the owner's own models."""

    nets: int
    models: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Maker:
    """Makes up to `budget` probes of each family below `folder`.

    screens: nets trained on the owner's images that screen candidates for transfer (never references).
    """

    folder: Path
    splits: Splits
    budget: int
    seed: int
    screens: int
    progress: Progress

    def make(self, owner: Member, families: Sequence[str], screening: Screening | None = None) -> dict[str, Made | str]:
        """The probes of each family, or why there are none. What was made before is not made again."""
        screens = Screening(self.screens) if screening is None else screening
        found: dict[str, Made | str] = {}
        missing = []
        for family in families:
            try:
                if not self._place(owner, family, screens).is_file():
                    missing.append(family)
            except FingerprintError as error:
                found[family] = error.message
        for start in range(0, len(missing), TOGETHER):
            found |= self._group(owner, missing[start : start + TOGETHER], screens)
        for family in families:
            if family not in found:
                found[family] = _read(family, self._place(owner, family, screens))
        return found

    def _group(self, owner: Member, families: Sequence[str], screens: Screening) -> Mapping[str, str]:
        """Make families together; where one fails, one by one. Answers what failed."""
        try:
            self._create(owner, families, screens)
        except FingerprintError as error:
            if len(families) == 1:
                return {families[0]: error.message}
            failed: dict[str, str] = {}
            for family in families:
                failed |= self._group(owner, [family], screens)
            return failed
        return {}

    def _create(self, owner: Member, families: Sequence[str], screens: Screening) -> None:
        options = CreateOptions(
            owner.name,
            spec=owner.spec,
            data=self._images(),
            budget=self.budget * len(families),
            families=families,
            seed=self.seed,
            screen=screens.nets,
            screen_models=screens.models,
        )
        started = time.monotonic()
        made = make_probes(owner.path, options, progress=self.progress)
        seconds = time.monotonic() - started
        groups = np.full(len(made.images), -1, np.int64) if made.groups is None else made.groups
        for number, family in enumerate(families):
            rows = made.family == number
            place = self._place(owner, family, screens)
            temporary = place.with_suffix(".part.npz")
            np.savez(
                temporary,
                probes=made.images[rows],
                targets=made.targets[rows],
                groups=groups[rows],
                passes=made.passes[number],
                seconds=seconds * made.passes[number] / max(1, sum(made.passes)),
            )
            temporary.replace(place)

    def _place(self, owner: Member, family: str, screens: Screening) -> Path:
        what: dict[str, object] = {
            "owner": owner.sha256,
            "family": family,
            "code": code_of(family),
            "budget": self.budget,
            "seed": self.seed,
            "screens": screens.nets,
            "data": self.splits.digest,
        }
        if screens.models:
            what["models"] = [model_sha256(path)[0] for path in screens.models]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / f"{owner.name}-{family.partition(':')[0]}-{digest}.npz"

    def _images(self) -> Path:
        """The owner's images as the file that `create` reads."""
        path = self.folder / f"probe-images-{self.splits.digest[:12]}.npz"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part.npz")
            np.savez(temporary, images=self.splits.probes.images, labels=np.asarray(self.splits.probes.labels))
            temporary.replace(path)
        return path


def _read(family: str, place: Path) -> Made:
    with np.load(place, allow_pickle=False) as file:
        passes, seconds = int(file["passes"]), float(file["seconds"])
        return Made(family, file["probes"], file["targets"], file["groups"], passes, seconds)


def code_of(family: str) -> str:
    """Digest of the source file of a family.

    Raises:
        UsageError: there is no such family, or it knows no such setting.
    """
    source = inspect.getsource(sys.modules[type(family_named(family)).__module__])
    return hashlib.sha256(source.encode()).hexdigest()[:16]
