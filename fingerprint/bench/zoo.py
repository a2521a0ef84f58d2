"""The zoo: owners, strangers and their derivatives, each built once and kept by content.

A member lies in a folder of its own, named by a digest of what it was made from (source, chain, images, seed, version
of the step). A folder appears whole or not at all, so that a killed build goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from fingerprint.bench import scratch
from fingerprint.bench.asking import Asker, Question
from fingerprint.bench.deriving import context_for, version_of
from fingerprint.bench.plan import Base, Plan, Row
from fingerprint.bench.splits import Splits
from fingerprint.errors import DataError, FingerprintError, SpecError
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec, labels_of
from fingerprint.progress import Progress
from fingerprint.runtimes.parts import model_sha256
from fingerprint.spec import find_spec, load_spec, sidecar_path
from fingerprint.transforms.derive import derive

TWIN_SEEDS = 499  # from an owner's seed to that of its first twin: far from those of other nets
Maker = Callable[[Path], Path]  # a folder -> the model file made in it


@dataclass(frozen=True)
class Member:
    """One model of the zoo. base: whose descendant it is; row: how it was derived, "" for the base itself."""

    name: str
    base: str
    author: str
    row: str
    path: Path
    spec: InputSpec
    sha256: str
    accuracy: float
    seconds: float = 0.0


@dataclass(frozen=True)
class NotMade:
    """A member that could not be made, and why."""

    name: str
    base: str
    row: str
    reason: str


class Zoo:
    """Builds members, or finds them built."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        splits: Splits,
        asker: Asker,
        progress: Progress,
        *,
        build: bool = True,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """`build`: make what is missing; else it is told as `NotMade`.

        `shard` (i, n): only the i-th of every n, from 0, so that several processes can build one zoo. What needs a
        base that another one trains is left out until that is there: run it again.
        """
        self.folder, self.plan, self.splits, self.asker, self.progress = folder, plan, splits, asker, progress
        self.build, self.shard = build, shard
        self._evaluation = Question.of(splits.evaluation.images)
        self._bases: dict[str, Member] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def members(self) -> Iterator[Member | NotMade]:
        """Everybody: owners and strangers, then row by row what was made of them."""
        for number, base in enumerate((*self.plan.owners, *self.plan.strangers)):
            yield self.base(base, self.build and self._mine(number))
            if self.build and self._mine(number):
                self.twins(base)
        yield from self.derivatives()

    def _mine(self, number: int) -> bool:
        return number % self.shard[1] == self.shard[0]

    def base(self, base: Base, build: bool = False) -> Member | NotMade:
        """One owner or stranger; `build`: train it if it is to be trained and was not."""
        if base.name not in self._bases:
            try:
                found = self._file(base) if base.path is not None else self._trained(base, build)
            except FingerprintError as error:
                return NotMade(base.name, base.name, "", error.message)
            self._bases[base.name] = found
        return self._bases[base.name]

    def derivatives(self) -> Iterator[Member | NotMade]:
        """All rows of all owners and matched strangers, row by row."""
        everyone = [(base, found) for base in self.plan.derived_from() if isinstance(found := self.base(base), Member)]
        total, done = len(everyone) * len(self.plan.rows), 0
        for row in self.plan.rows:
            for base, member in everyone:
                yield self._derived(member, row, row.chain(base), self.build and self._mine(done))
                done += 1
                self.progress.step("zoo", done, total)

    def twins(self, base: Base) -> list[Path]:
        """The nets that this owner trained by its recipe to screen with; they are no members."""
        recipe = base.recipe or base.twin_recipe
        if not base.twins or recipe is None:
            return []
        found = []
        for number in range(base.twins):
            other = replace(recipe, seed=recipe.seed + TWIN_SEEDS + number)
            twin = replace(base, name=f"{base.name}-twin-{number}", path=None, recipe=other, twins=0, twin_recipe=None)
            try:
                found.append(self._trained(twin, self.build).path)
            except DataError as error:
                self.progress.note(f"{twin.name}: {error.message}")
        return found

    # -- making ------------------------------------------------------------------------------------------------------

    def _file(self, base: Base) -> Member:
        path = base.path
        assert path is not None  # noqa: S101  (the caller looked)
        found = find_spec(path, None)
        if found is None:
            raise SpecError(f"{path} has no input spec", remedy=f"Put one beside it: {path.name}.spec.json")
        spec = replace(found.spec, author=base.author)
        sha256, _ = model_sha256(path)
        accuracy = self._accuracy(path, sha256, spec)
        return Member(base.name, base.name, base.author, "", path, spec, sha256, accuracy)

    def _trained(self, base: Base, build: bool) -> Member:
        recipe = base.recipe
        assert recipe is not None  # noqa: S101  (the caller looked)
        what = {
            "recipe": asdict(recipe),
            "spec": self.plan.spec.to_dict(),
            "data": self.splits.digest,
            "version": scratch.VERSION,
        }
        place = self.folder / "scratch" / f"{base.name}-{_digest(what)}"

        def make(folder: Path) -> Path:
            module = scratch.train(recipe, self.splits.training, self.plan.spec, self.plan.classes, self.progress)
            scratch.save(module, self.plan.spec, base.author, folder / "model.pt2")
            return folder / "model.pt2"

        return self._kept(
            place, what, make, Member(base.name, base.name, base.author, "", place, self.plan.spec, "", 0), build
        )

    def _derived(self, source: Member, row: Row, how: str, build: bool) -> Member | NotMade:
        name = f"{source.name} / {row.name}"
        seed = int.from_bytes(hashlib.sha256(f"{self.plan.seed}/{source.sha256}/{how}".encode()).digest()[:4], "big")
        try:
            what = {
                "source": source.sha256,
                "how": how,
                "suffix": row.suffix,
                "data": self.splits.digest,
                "seed": seed,
                "version": version_of(how),
            }
            slug = "".join(c if c.isalnum() else "-" for c in row.name)
            place = self.folder / source.name / f"{slug}-{_digest(what)}"

            def make(folder: Path) -> Path:
                out = folder / f"model{row.suffix}"
                derive(source.path, how, out, context_for(source.spec, self.splits, seed, self.progress))
                return out

            like = replace(source, name=name, row=row.name)
            return self._kept(place, what, make, like, build)
        except FingerprintError as error:
            return NotMade(name, source.base, row.name, error.message)

    def _kept(self, place: Path, what: dict[str, object], make: Maker, like: Member, build: bool) -> Member:
        """The member at `place`; made in a folder beside it and moved there where it is missing."""
        note = place / "member.json"
        if not note.is_file() and not build:
            raise DataError("not built yet")
        if not note.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as temporary:
                started = time.monotonic()
                made = make(Path(temporary))
                seconds = time.monotonic() - started
                spec = load_spec(sidecar_path(made)) if sidecar_path(made).is_file() else like.spec
                sha256, _ = model_sha256(made)
                facts = {
                    "name": like.name,
                    "file": made.name,
                    "sha256": sha256,
                    "accuracy": self._accuracy(made, sha256, spec),
                    "seconds": round(seconds, 1),
                    "made": what,
                }
                (Path(temporary) / "member.json").write_text(json.dumps(facts, indent=1) + "\n")
                shutil.rmtree(place, ignore_errors=True)
                Path(temporary).rename(place)
                Path(temporary).mkdir()  # for the context manager to remove
        facts = json.loads(note.read_text())
        path = place / facts["file"]
        spec = load_spec(sidecar_path(path)) if sidecar_path(path).is_file() else like.spec
        return replace(
            like,
            path=path,
            spec=replace(spec, author=like.author),
            sha256=facts["sha256"],
            accuracy=facts["accuracy"],
            seconds=facts["seconds"],
        )

    def _accuracy(self, path: Path, sha256: str, spec: InputSpec) -> float:
        (outputs,) = self.asker.ask(path, sha256, spec, [self._evaluation])
        return float((labels_of(outputs) == self.splits.evaluation.labels).mean())


def _digest(what: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]
