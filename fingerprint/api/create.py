"""create: make a fingerprint of a released model.

file -> runtime (differentiable, or black box) -> probe families -> selection -> the owner's responses, those of its
transformed copies (robustness), of screening nets (transferability) and of references (calibration) -> record.
Signing and storing are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

import fingerprint
from fingerprint.api.answers import Draw, compare
from fingerprint.api.owner import Owner, confirm_spec, detect_spec
from fingerprint.api.references import measure_references
from fingerprint.data import CleanImages, load_images
from fingerprint.decision.integrity import FEWEST_PROBES
from fingerprint.decision.statistics import measure, target_margins
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import CreateError, DataError, UsageError
from fingerprint.limits import DEFAULT
from fingerprint.model import Floats, Images, InputSpec, Labels, labels_of
from fingerprint.probes.interface import Candidates, ProbeContext, ProbeFamily
from fingerprint.probes.registry import family as family_named
from fingerprint.probes.seeds import DERIVATION, derive, new_secret, numpy_seed
from fingerprint.probes.selection import RECORDED_COPIES, SELECTION_COPIES, select, select_groups, uniqueness
from fingerprint.progress import Progress, Silent
from fingerprint.record import (
    Clean,
    Copy,
    Family,
    FamilyMatch,
    Fingerprint,
    Making,
    Manifest,
    Payload,
    Probes,
    Reference,
    Screen,
    Seed,
    Spec,
    Tool,
    Uniqueness,
    canonical,
)
from fingerprint.record import Owner as OwnerRecord
from fingerprint.spec import find_spec

if TYPE_CHECKING:
    from fingerprint.probes.screening import ScreeningNet

CLEAN_KEPT = 64  # clean images kept (encrypted) to settle how a suspect wants its input
DATA_BYTES = 2 * 1024**3  # memory that clean images may take
DEFAULT_SCREENS = 3
LARGEST_BUDGET = 10_000
INTEGRITY_FAMILY = "intrinsic:kinds=plain+mean,margins=0.02+0.05+0.1+0.2+0.4+0.8"  # docs/integrity.md
SPARE = 1.2  # candidates per integrity probe


@dataclass(frozen=True)
class CreateOptions:
    """How to create.

    spec: the owner's input spec (None: its sidecar, else detected on labelled data). references: files or folders of
    unrelated models, which calibrate. data: clean images. budget: probes stored. families: None = characteristic
    where the file gives gradients, else natural. seed: for tests; the record is then non-evidential. declared_bound:
    match rate that the owner declares unrelated models not to exceed. screen: small nets to train for screening
    (None: 3 where the data allow). allow_code: open references whose format can carry code. make_references: small nets
    to train from the data as references. control_sets: other owners' models, of which probe sets of the same make are
    kept. ancestors: public models that the owner's was made from. secret: K itself, to make the same probes again.
    nonce: SHA-256 of the judge's nonce that K was derived from, to be recorded. integrity: probes that tell tampering
    from compression, besides the budget; copies of the owner are made to calibrate them. certify: state how large a
    random weight change the probes stand (`probes.certificate`).
    """

    name: str
    spec: InputSpec | None = None
    references: Sequence[Path] = ()
    data: Path | None = None
    budget: int = 100
    families: Sequence[str] | None = None
    seed: int | None = None
    declared_bound: float | None = None
    screen: int | None = None
    factory: str | None = None
    allow_code: bool = False
    make_references: int = 0
    control_sets: Sequence[Path] = ()
    ancestors: Sequence[Path] = ()
    secret: bytes | None = field(default=None, repr=False)
    nonce: str | None = None
    integrity: int = 0
    certify: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 200 or not self.name.isprintable():
            raise UsageError("a name has 1 to 200 printable characters")
        if not 1 <= self.budget <= LARGEST_BUDGET:
            raise UsageError(f"budget is {self.budget}; 1 to {LARGEST_BUDGET} probes can be stored")
        if self.declared_bound is not None and not 0.0 <= self.declared_bound < 1.0:
            raise UsageError(f"the declared bound is {self.declared_bound}; a match rate from 0 to below 1 is needed")
        if self.screen is not None and not 0 <= self.screen <= 100:
            raise UsageError(f"screen is {self.screen}; 0 to 100 nets can be trained")
        if not 0 <= self.make_references <= 1000:
            raise UsageError(f"make-references is {self.make_references}; 0 to 1000 nets can be trained")
        if self.integrity and not FEWEST_PROBES <= self.integrity <= LARGEST_BUDGET:
            raise UsageError(
                f"integrity is {self.integrity}; 0, or {FEWEST_PROBES} to {LARGEST_BUDGET} probes can be stored"
            )


def create(model: Path, options: CreateOptions, *, progress: Progress | None = None) -> Fingerprint:
    """Make a fingerprint of a model file.

    Raises:
        UsageError, SpecError, DataError, ModelError, CreateError, CalibrationError, MissingExtra: as `errors` says.
    """
    creation = _Creation(Owner(model, options.factory), options, progress or Silent())
    return creation.run()


@dataclass(frozen=True)
class ProbeSet:
    """Probes without what others answer to them, and all candidates that they were chosen from.

    images (N, H, W, C) uint8, targets (N,), family (N,) index, of `families`; and the same of the candidates. passes:
    example-passes that each family spent. groups (N,): see `Payload`.
    """

    owner: Owner
    families: tuple[str, ...]
    images: Images
    targets: Labels
    family: NDArray[np.uint8]
    candidate_images: Images
    candidate_targets: Labels
    data: CleanImages | None
    passes: tuple[int, ...] = ()
    groups: NDArray[np.int64] | None = None


def make_probes(model: Path, options: CreateOptions, *, progress: Progress | None = None) -> ProbeSet:
    """The probes that `create` would make, and nothing else. Raises as `create`."""
    creation = _Creation(Owner(model, options.factory), options, progress or Silent())
    return creation.probes()


@dataclass
class _Made:
    """One family's chosen probes and what made them."""

    family: ProbeFamily
    chosen: Candidates
    pool: Candidates
    passes: int
    certificate: dict[str, JsonValue] | None = None

    @property
    def candidates(self) -> int:
        return len(self.pool)


@dataclass
class _Creation:
    owner: Owner
    options: CreateOptions
    progress: Progress
    secret: bytes = field(init=False, repr=False)
    data: CleanImages | None = None
    nets: list[ScreeningNet] = field(default_factory=list)

    def run(self) -> Fingerprint:
        self.secret = self.options.secret or new_secret(self.options.seed)
        self._prepare()
        made = [self._make(f, n) for f, n in self._families()]
        payload = self._payload(made)
        families = self._family_records(made)
        copies = self._copies(families, payload)
        screens = self._screens(families, payload)
        references, orders = self._references(families, payload)
        payload = replace(payload, reference_orders=orders)
        manifest = Manifest(
            name=self.options.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            tool=Tool(name="dnn-fingerprint", version=fingerprint.__version__, torch=version("torch")),
            owner=OwnerRecord(
                sha256=self.owner.sha256,
                size=self.owner.size,
                format=self.owner.format,
                runtime=self.owner.runtime.name,
                weights_sha256=self.owner.weights_sha256,
            ),
            input_spec=Spec.of(self.owner.spec),
            outputs=self.owner.classes,
            seed=self._seed_record(),
            families=families,
            probes=Probes(
                count=len(payload.probes), shape=self.owner.spec.image_shape, merkle_root=payload.merkle_root()
            ),
            copies=copies,
            screens=screens,
            uniqueness=_uniqueness(families, copies, screens),
            references=references,
            declared_bound=self.options.declared_bound,
            clean=self._clean_record(payload),
            making=self._making(),
        )
        record = self._with_others(Fingerprint(manifest, payload))
        record.check()
        return record

    def probes(self) -> ProbeSet:
        """See `make_probes`."""
        self.secret = self.options.secret or new_secret(self.options.seed)
        self._prepare()
        made = [self._make(f, n) for f, n in self._families()]
        return ProbeSet(
            owner=self.owner,
            families=tuple(m.family.name for m in made),
            images=np.concatenate([m.chosen.images for m in made]),
            targets=np.concatenate([m.chosen.targets for m in made]),
            family=np.repeat(np.arange(len(made), dtype=np.uint8), [len(m.chosen) for m in made]),
            candidate_images=np.concatenate([m.pool.images for m in made]),
            candidate_targets=np.concatenate([m.pool.targets for m in made]),
            data=self.data,
            passes=tuple(m.passes for m in made),
            groups=_groups([m.chosen for m in made]),
        )

    def _with_others(self, record: Fingerprint) -> Fingerprint:
        """What other models answer that are no reference files; refuses probes that match too many of them."""
        from fingerprint.api.refusal import refuse_transfer

        options = self.options
        if options.make_references:
            from fingerprint.api.made_references import add_made_references

            record = add_made_references(record, self.data, options.make_references, progress=self.progress)
        refuse_transfer(record.manifest)
        if options.integrity:
            from fingerprint.api.copies import add_trials

            seed = numpy_seed(self._derive("trials"), "copies") % 2**32
            record = add_trials(record, self.owner, self.data, seed, progress=self.progress)
        if options.control_sets:
            from fingerprint.api.control_sets import add_control_sets

            record = add_control_sets(record, options.control_sets, options=options, progress=self.progress)
        if options.ancestors:
            from fingerprint.api.ancestry import AncestorOptions, add_ancestors

            opening = AncestorOptions(factory=options.factory)
            record = add_ancestors(record, options.ancestors, self.data, opening, progress=self.progress)
        return record

    # -- inputs ------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Spec, gradients, data, screening nets."""
        found = find_spec(self.owner.path, self.options.spec)
        spec = found.spec if found else detect_spec(self.owner, self._load_data, self.progress)
        self.owner.bind(spec)
        self.owner.find_gradients(self.progress)
        self.data = self._load_data(spec)
        if self.data is not None and self.data.labels is not None:
            confirm_spec(self.owner, self.data, self.progress)
        self._train_screens()

    def _load_data(self, spec: InputSpec) -> CleanImages | None:
        if self.options.data is None:
            return None
        height, width, depth = spec.image_shape
        limit = min(DEFAULT.data_images, DATA_BYTES // (height * width * depth))
        classes = getattr(self.owner, "classes", None) or self.owner.model.signature.classes
        data = load_images(self.options.data, spec.image_shape, classes, limit)
        if data.labels is None:
            self.progress.note(
                "The images of --data are unlabelled: neither natural probes nor screening nets are made."
            )
        return data

    def _train_screens(self) -> None:
        from fingerprint.probes.screening import can_screen, train

        wanted = self.options.screen
        if wanted == 0 or (self.data is None and wanted is None):
            return
        if self.data is None or not can_screen(self.data, self.owner.classes):
            if wanted:
                raise DataError(
                    "--screen needs labelled images, at least 10 per class",
                    remedy="Give more with --data, or --screen 0.",
                )
            self.progress.note("Too few labelled images to train screening nets: transferability is not measured.")
            return
        seed = numpy_seed(self._derive("screens"), "train") % 2**62
        self.nets = train(self.data, self.owner.classes, wanted or DEFAULT_SCREENS, seed, self.progress)

    # -- probes ------------------------------------------------------------------------------------------------------

    def _families(self) -> list[tuple[ProbeFamily, int]]:
        """The families to make, each with its number of probes."""
        labelled = self.data is not None and self.data.labels is not None
        names = list(dict.fromkeys(self.options.families)) if self.options.families else []
        if not names:
            names = ["characteristic"] if self.owner.module is not None else ["natural"]
        families = [family_named(n) for n in names]
        if len({f.name for f in families}) < len(families):
            raise UsageError("a family is named twice", remedy="Give all its settings in one place: NAME:A=1,B=2")
        for family in families:
            if family.needs_gradients and self.owner.module is None:
                raise CreateError(
                    f"{family.name} probes need gradients, which {self.owner.path.name} can't give",
                    remedy="Create from its .pt2, TorchScript or .onnx, or choose --families natural.",
                )
            if family.needs_labels and not labelled:
                raise CreateError(
                    f"{family.name} probes need labelled images",
                    remedy="Give --data: a folder or zip with one folder per class, or an .npz with images and labels.",
                )
            if family.needs_data and not self.data:
                raise CreateError(
                    f"{family.name} probes need clean images", remedy="Give --data: images, labels or not."
                )
            if family.needs_others and not self.nets:
                raise CreateError(
                    f"{family.name} probes need unrelated nets to compare with",
                    remedy="Give --data with at least 10 labelled images per class, and no --screen 0.",
                )
        if self.options.budget < len(families):
            raise UsageError(f"a budget of {self.options.budget} can't hold {len(families)} families")
        share, rest = divmod(self.options.budget, len(families))
        return [*((f, share + (i < rest)) for i, f in enumerate(families)), *self._integrity_families(families)]

    def _integrity_families(self, others: Sequence[ProbeFamily]) -> list[tuple[ProbeFamily, int]]:
        if not self.options.integrity:
            return []
        if self.owner.module is None:
            raise CreateError(
                f"integrity probes need gradients, which {self.owner.path.name} can't give",
                remedy="Create from its .pt2, TorchScript or .onnx, or leave --integrity out.",
            )
        made = family_named(INTEGRITY_FAMILY)
        if made.name in [family.name for family in others]:
            raise UsageError(f"--integrity makes {made.name} probes: leave them out of --families")
        return [(made, self.options.integrity)]

    def _make(self, family: ProbeFamily, count: int) -> _Made:
        """Over-generate, keep what the owner's own runtime confirms, select."""
        context = ProbeContext(
            predict=self.owner.predict,
            module=self.owner.module,
            survival=self._survival,
            spec=self.owner.spec,
            classes=self.owner.classes,
            data=self.data,
            seed=self._derive(f"family/{family.name}"),
            progress=self.progress,
            batches=self.owner.batches,
            others=tuple(net.outputs for net in self.nets),
        )
        before = self.owner.passes
        plain = bool(self.options.integrity) and family.purpose == "integrity"  # then none is preferred to another
        candidates = family.generate(context, math.ceil(count * (SPARE if plain else family.oversample)))
        spent = candidates.passes if family.needs_gradients else self.owner.passes - before
        confirmed = np.nonzero(labels_of(self.owner.predict(candidates.images)) == candidates.targets)[0]
        candidates = candidates.take(confirmed)
        if len(candidates) < count:
            self.progress.note(f"Only {len(candidates)} of {count} {family.name} probes came out.")
        if not len(candidates):
            raise CreateError(f"no {family.name} probe came out that the model's own runtime confirms")
        order = np.random.default_rng(numpy_seed(self._derive(f"ties/{family.name}"), "order")).permutation(
            len(candidates)
        )
        groups = candidates.groups
        scores = np.zeros(len(candidates)) if plain else self._scores(candidates)
        if plain:
            kept = np.sort(order[:count])
        elif groups is not None:
            kept = select_groups(scores, groups, count, order)
        else:
            kept = select(scores, candidates.targets, self.owner.classes, count, order)
        chosen = candidates.take(kept)
        return _Made(family, chosen, candidates, spent, self._certificate(family, chosen))

    def _certificate(self, family: ProbeFamily, chosen: Candidates) -> dict[str, JsonValue] | None:
        """How large a random weight change the labels stand, for the manifest."""
        if not self.options.certify:
            return None
        if self.owner.module is None:
            raise CreateError(
                "a certificate needs a file whose weights can be changed in memory", remedy="No --certify."
            )
        from fingerprint.probes.certificate import certify
        from fingerprint.probes.gradient import DifferentiableOwner
        from fingerprint.probes.seeds import torch_generator

        owner = DifferentiableOwner(self.owner.module, self.owner.spec, self.owner.classes, self.owner.batches)
        generator = torch_generator(self._derive(f"certificate/{family.name}"), "draws")
        return {**certify(owner, chosen.images, chosen.targets, generator).summary()}

    def _scores(self, candidates: Candidates) -> NDArray[np.float64]:
        kept = self._survival(candidates.images, candidates.targets) >= candidates.slack
        transferred = [net.labels(candidates.images) == candidates.targets for net in self.nets]
        found = uniqueness(kept, transferred)
        return found if candidates.merit is None else found + candidates.merit

    def _survival(self, images: Images, targets: Labels) -> Floats:
        """Margin of the target label on compressed copies, (copies, N)."""
        margins = []
        for how in SELECTION_COPIES:
            with self.owner.copy(how) as predict:
                outputs = predict(images)
            margin = target_margins(outputs, targets)
            margin[outputs.max(axis=1) == outputs.min(axis=1)] = -np.inf
            margins.append(margin)
        return np.stack(margins)

    def _payload(self, made: Sequence[_Made]) -> Payload:
        probes = np.concatenate([m.chosen.images for m in made])
        clean = self._kept_clean()
        salts = np.frombuffer(self._derive("salts", length=32), np.uint8)
        return Payload(
            probes=probes,
            targets=np.concatenate([m.chosen.targets for m in made]),
            family=np.repeat(np.arange(len(made), dtype=np.uint8), [len(m.chosen) for m in made]),
            responses=self.owner.predict(probes),
            salts=_salts(salts.tobytes(), len(probes)),
            secret=np.frombuffer(self.secret, np.uint8),
            clean_images=clean.images,
            clean_labels=clean.labels if clean.labels is not None else np.full(len(clean), -1, np.int64),
            clean_responses=self.owner.predict(clean.images)
            if len(clean)
            else np.zeros((0, self.owner.classes), np.float32),
            groups=_groups([m.chosen for m in made]),
        )

    def _kept_clean(self) -> CleanImages:
        if self.data is None:
            return CleanImages(np.zeros((0, *self.owner.spec.image_shape), np.uint8), np.zeros(0, np.int64))
        return self.data.take(CLEAN_KEPT, numpy_seed(self._derive("clean"), "take") % 2**32)

    # -- what others answer ------------------------------------------------------------------------------------------

    def _copies(self, families: Sequence[Family], payload: Payload) -> tuple[Copy, ...]:
        everything = Draw(np.arange(len(payload.probes)))
        copies = []
        for i, how in enumerate(RECORDED_COPIES):
            with self.owner.copy(how) as predict:
                found = compare(families, payload, everything, predict(payload.probes), 0)
                agreement = None
                if len(payload.clean_images):
                    same = labels_of(predict(payload.clean_images)) == labels_of(payload.clean_responses)
                    agreement = float(same.mean())
            copies.append(Copy(transform=how, agreement=agreement, families=found))
            self.progress.step("robustness on compressed copies", i + 1, len(RECORDED_COPIES))
        return tuple(copies)

    def _screens(self, families: Sequence[Family], payload: Payload) -> tuple[Screen, ...]:
        screens = []
        for net in self.nets:
            labels = net.labels(payload.probes)
            one_hot: Floats = np.eye(self.owner.classes, dtype=np.float32)[labels]
            found = {}
            for i, family in enumerate(families):
                rows = payload.family == i
                found[family.name] = measure(
                    payload.targets[rows], payload.responses[rows], one_hot[rows], 0, label_only=True
                )
            screens.append(Screen(name=net.name, families=found))
        return tuple(screens)

    def _references(
        self, families: Sequence[Family], payload: Payload
    ) -> tuple[tuple[Reference, ...], NDArray[np.uint16] | None]:
        if not self.options.references:
            alone = not (self.options.make_references or self.options.control_sets)
            if alone:
                self.progress.note(
                    "No --reference models: verdicts can't be better than inconclusive until there are some."
                )
            return (), None
        with WorkerPool() as pool:
            return measure_references(
                self.options.references,
                families,
                payload,
                self.owner.spec,
                {self.owner.sha256, self.owner.weights_sha256 or ""},
                pool,
                allow_code=self.options.allow_code,
                factory=self.options.factory,
                progress=self.progress,
            )

    # -- parts of the record -----------------------------------------------------------------------------------------

    def _derive(self, purpose: str, length: int = 32) -> bytes:
        parameters: Mapping[str, JsonValue] = {
            "budget": self.options.budget,
            "families": list(self.options.families or []),
        }
        return derive(self.secret, purpose, self.owner.sha256, canonical(dict(parameters)), length)

    def _making(self) -> Making:
        return Making(
            budget=self.options.budget,
            families=None if self.options.families is None else tuple(self.options.families),
            screens=len(self.nets),
            data_sha256=None if self.data is None else data_sha256(self.data),
            nonce=self.options.nonce,
            integrity=self.options.integrity,
        )

    def _seed_record(self) -> Seed:
        import hashlib

        return Seed(
            commitment=hashlib.sha256(self.secret).hexdigest(),
            derivation=DERIVATION,
            evidential=self.options.seed is None,  # K given: that of an evidential record, or a judge's
        )

    def _family_records(self, made: Sequence[_Made]) -> tuple[Family, ...]:
        """Families that serve integrity spend nothing of alpha, unless there are no others."""
        serving = [bool(self.options.integrity) and m.family.purpose == "integrity" for m in made]
        weight = 1.0 / (len(made) - sum(serving))
        return tuple(self._family_record(m, 0.0 if s else weight) for m, s in zip(made, serving, strict=True))

    @staticmethod
    def _family_record(made: _Made, weight: float) -> Family:
        kinds: dict[str, JsonValue] = {k: made.chosen.kinds.count(k) for k in dict.fromkeys(made.chosen.kinds)}
        return Family(
            name=made.family.name,
            count=len(made.chosen),
            weight=weight,
            parameters={**made.chosen.parameters, "oversample": made.family.oversample, "chosen": kinds}
            | ({"certificate": made.certificate} if made.certificate else {}),
            candidates=made.candidates,
            passes=made.passes,
            role="lineage" if weight else "integrity",
        )

    @staticmethod
    def _clean_record(payload: Payload) -> Clean | None:
        count = len(payload.clean_images)
        return Clean(count=count, labelled=bool(payload.clean_labels.min() >= 0)) if count else None


def _groups(parts: Sequence[Candidates]) -> NDArray[np.int64] | None:
    """Groups of all probes, -1 for one that stands alone; None where all do."""
    if all(part.groups is None for part in parts):
        return None
    return np.concatenate([np.full(len(p), -1, np.int64) if p.groups is None else p.groups for p in parts])


def data_sha256(data: CleanImages) -> str:
    """Digest (hex) of decoded images and labels."""
    import hashlib

    digest = hashlib.sha256(f"{data.images.shape} {data.labels is None}".encode())
    digest.update(np.ascontiguousarray(data.images).data)
    digest.update(b"" if data.labels is None else np.ascontiguousarray(data.labels).tobytes())
    return digest.hexdigest()


def _salts(seed: bytes, count: int) -> NDArray[np.uint8]:
    """One 32-byte salt per probe."""
    import hashlib

    rows = [hashlib.sha256(seed + i.to_bytes(4, "big")).digest() for i in range(count)]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(count, 32)


def _uniqueness(families: Sequence[Family], copies: Sequence[Copy], screens: Sequence[Screen]) -> Uniqueness:
    """Of the probes that serve lineage: those for integrity are made to be lost."""
    names = [family.name for family in families if family.role == "lineage"]

    def mean(found: Sequence[Mapping[str, FamilyMatch]]) -> float:
        return float(np.mean([sum(f[n].matches for n in names) / sum(f[n].queries for n in names) for f in found]))

    robust = mean([c.families for c in copies])
    transfer = mean([s.families for s in screens]) if screens else None
    return Uniqueness(
        robustness=robust, transferability=transfer, score=None if transfer is None else robust - transfer
    )
