"""create: make a fingerprint of a released model.

file -> runtime (differentiable, or black box) -> probe families -> selection -> the owner's responses, those of its
transformed copies (robustness), of screening nets (transferability) and of references (calibration) -> record.
Signing and storing are the caller's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

import fingerprint
from fingerprint.api.answers import Draw, compare
from fingerprint.api.asked_owner import open_owner
from fingerprint.api.choosing import Choosing, Made, groups_of, radii_of
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.preparation import data_sha256
from fingerprint.api.references import measure_references
from fingerprint.data import CleanImages
from fingerprint.decision.statistics import measure
from fingerprint.engine.session import WorkerPool
from fingerprint.model import Floats, labels_of
from fingerprint.probes.seeds import DERIVATION, numpy_seed
from fingerprint.probes.selection import RECORDED_COPIES
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
)
from fingerprint.record import Owner as OwnerRecord

CLEAN_KEPT = 64  # clean images kept (encrypted) to settle how a suspect wants its input


def create(model: Path | str, options: CreateOptions, *, progress: Progress | None = None) -> Fingerprint:
    """Make a fingerprint of a model: a file, or, as text, the URL of a served one or `module:callable`.

    Of compiled files, URLs and functions there are answers only (`api.asked_owner`).

    Raises:
        UsageError, SpecError, DataError, ModelError, CreateError, CalibrationError, MissingExtra: as `errors` says.
    """
    owner = open_owner(model, options)
    try:
        return _Creation(owner, options, progress or Silent()).run()
    finally:
        owner.close()


class _Creation(Choosing):
    """Assembles one record."""

    def run(self) -> Fingerprint:
        self.prepare()
        made = self.make()
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
                runtime=self.owner.runtime_name,
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

            seed = numpy_seed(self.derive("trials"), "copies") % 2**32
            record = add_trials(record, self.owner, self.data, seed, progress=self.progress)
        if options.control_sets:
            from fingerprint.api.control_sets import add_control_sets

            record = add_control_sets(record, options.control_sets, options=options, progress=self.progress)
        if options.ancestors:
            from fingerprint.api.ancestry import AncestorOptions, add_ancestors

            opening = AncestorOptions(factory=options.factory)
            record = add_ancestors(record, options.ancestors, self.data, opening, progress=self.progress)
        return record

    def _payload(self, made: Sequence[Made]) -> Payload:
        probes = np.concatenate([m.chosen.images for m in made])
        clean = self._kept_clean()
        salts = np.frombuffer(self.derive("salts", length=32), np.uint8)
        weights = self.owner.weight_sketch()
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
            groups=groups_of([m.chosen for m in made]),
            weight_sketch=None if weights is None else weights.to_bytes(),
            certified_radius=radii_of(made),
        )

    def _kept_clean(self) -> CleanImages:
        if self.data is None:
            return CleanImages(np.zeros((0, *self.owner.spec.image_shape), np.uint8), np.zeros(0, np.int64))
        return self.data.take(CLEAN_KEPT, numpy_seed(self.derive("clean"), "take") % 2**32)

    def _copies(self, families: Sequence[Family], payload: Payload) -> tuple[Copy, ...]:
        if not self.owner.editable:
            return ()
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
        for net in self.screening:
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
        return Seed(
            commitment=hashlib.sha256(self.secret).hexdigest(),
            derivation=DERIVATION,
            evidential=self.options.seed is None,  # K given: that of an evidential record, or a judge's
        )

    def _family_records(self, made: Sequence[Made]) -> tuple[Family, ...]:
        """Families that serve integrity spend nothing of alpha, unless there are no others."""
        serving = [bool(self.options.integrity) and m.family.purpose == "integrity" for m in made]
        weight = 1.0 / (len(made) - sum(serving))
        return tuple(self._family_record(m, 0.0 if s else weight) for m, s in zip(made, serving, strict=True))

    @staticmethod
    def _family_record(made: Made, weight: float) -> Family:
        kinds: dict[str, JsonValue] = {k: made.chosen.kinds.count(k) for k in dict.fromkeys(made.chosen.kinds)}
        return Family(
            name=made.family.name,
            count=len(made.chosen),
            weight=weight,
            parameters={**made.chosen.parameters, "oversample": made.family.oversample, "chosen": kinds}
            | ({"certificate": {**made.certificate.summary()}} if made.certificate else {}),
            candidates=made.candidates,
            passes=made.passes,
            role="lineage" if weight else "integrity",
        )

    @staticmethod
    def _clean_record(payload: Payload) -> Clean | None:
        count = len(payload.clean_images)
        return Clean(count=count, labelled=bool(payload.clean_labels.min() >= 0)) if count else None


def _salts(seed: bytes, count: int) -> NDArray[np.uint8]:
    """One 32-byte salt per probe."""
    rows = [hashlib.sha256(seed + i.to_bytes(4, "big")).digest() for i in range(count)]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(count, 32)


def _uniqueness(families: Sequence[Family], copies: Sequence[Copy], screens: Sequence[Screen]) -> Uniqueness:
    """Of the probes that serve lineage: those for integrity are made to be lost."""
    names = [family.name for family in families if family.role == "lineage"]

    def mean(found: Sequence[Mapping[str, FamilyMatch]]) -> float:
        return float(np.mean([sum(f[n].matches for n in names) / sum(f[n].queries for n in names) for f in found]))

    robust = mean([c.families for c in copies]) if copies else None
    transfer = mean([s.families for s in screens]) if screens else None
    score = None if robust is None or transfer is None else robust - transfer
    return Uniqueness(robustness=robust, transferability=transfer, score=score)
