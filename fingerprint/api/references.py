"""References: models known to be unrelated, which calibrate. Never thinned by how well they match."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fingerprint.api.answers import Draw, compare
from fingerprint.data import CleanImages
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.engine.settle import candidates, settle
from fingerprint.errors import CalibrationError, FingerprintError, ModelError, SpecError, UsageError, WorkerError
from fingerprint.model import InputSpec
from fingerprint.progress import Progress
from fingerprint.record import Family, Fingerprint, Payload, Reference
from fingerprint.runtimes.formats import Format, sniff
from fingerprint.runtimes.parts import main_file
from fingerprint.spec import find_spec

_OTHERS = (Format.ZIP, Format.NPZ, Format.ARCHIVE, Format.APK, Format.IPA, Format.SHARED_LIBRARY)  # no one model


def find_references(paths: Sequence[Path]) -> list[Path]:
    """Model files among files and folders (recursive, by content; other files in folders are ignored).

    Raises:
        UsageError: a path does not exist, or a folder holds no model.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"no such reference: {path}")
        models = [path] if path.is_file() else list(_models(path))
        if not models:
            raise UsageError(f"the reference folder {path} holds no model file")
        found += models
    return list(dict.fromkeys(main_file(path) for path in found))


def _models(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size and sniff(path) not in (None, *_OTHERS):
            yield path


class ReferenceMeter:
    """Asks references and refuses those that are the owner's own."""

    def __init__(
        self,
        families: Sequence[Family],
        payload: Payload,
        like: InputSpec,
        forbidden: Collection[str],
        pool: WorkerPool,
        *,
        allow_code: bool = False,
        factory: str | None = None,
    ) -> None:
        self.families, self.payload, self.like = families, payload, like
        self.forbidden = set(forbidden) - {""}
        self.pool, self.allow_code, self.factory = pool, allow_code, factory

    def measure(self, path: Path) -> Reference:
        """One reference's answers.

        Raises:
            CalibrationError: it is the owner's own, or it can't be asked (named).
        """
        try:
            with SealedFile.of(path) as sealed:
                if sealed.sha256 in self.forbidden:
                    raise CalibrationError(f"the reference {path} is the owner's own file", remedy=_REMEDY)
                with self.pool.open(sealed, allow_code=self.allow_code, factory=self.factory) as session:
                    if session.weights_sha256() in self.forbidden:
                        raise CalibrationError(f"the reference {path} holds the owner's own weights", remedy=_REMEDY)
                    spec = self._spec(path, session)
                    outputs = session.predict(self.payload.probes, spec)
                everything = Draw(np.arange(len(self.payload.probes)))
                found = compare(self.families, self.payload, everything, outputs, spec.class_offset)
                return Reference(sha256=sealed.sha256, author=spec.author, families=found)
        except (ModelError, WorkerError, SpecError) as error:
            raise CalibrationError(
                f"the reference {path} can't be used: {error.message}", remedy=error.remedy or "Leave it out."
            ) from error

    def _spec(self, path: Path, session: SuspectSession) -> InputSpec:
        found = find_spec(path, None)
        if found is not None:
            return found.spec
        if not len(self.payload.clean_images):
            raise SpecError("it has no input spec", remedy=f"Put one beside it: {path.name}.spec.json")
        labels = self.payload.clean_labels
        if labels.min() < 0:
            labels = self.payload.clean_responses.argmax(axis=1).astype(np.int64)
        classes = self.payload.responses.shape[1]
        settled = settle(
            session.predict,
            candidates(session.signature, self.like, classes),
            CleanImages(self.payload.clean_images, labels),
            classes,
        )
        if not settled.specs:
            raise SpecError(
                "it has no input spec, and none could be settled on clean images", remedy="Write a sidecar."
            )
        return settled.specs[0]


_REMEDY = "References must be unrelated models; take it out of --reference."


def measure_references(
    paths: Sequence[Path],
    families: Sequence[Family],
    payload: Payload,
    like: InputSpec,
    forbidden: Collection[str],
    pool: WorkerPool,
    *,
    allow_code: bool = False,
    factory: str | None = None,
    progress: Progress,
) -> tuple[Reference, ...]:
    """All references' answers, one per distinct file content.

    Raises:
        UsageError, CalibrationError: as `find_references` and `ReferenceMeter.measure` say.
    """
    meter = ReferenceMeter(families, payload, like, forbidden, pool, allow_code=allow_code, factory=factory)
    found: dict[str, Reference] = {}
    listed = find_references(paths)
    for done, path in enumerate(listed, start=1):
        reference = meter.measure(path)
        if reference.sha256 in found:
            progress.note(f"The reference {path} is a copy of another and counts once.")
        found.setdefault(reference.sha256, reference)
        progress.step("references", done, len(listed))
    unstated = sum(r.author is None for r in found.values())
    if unstated:
        progress.note(
            f"{unstated} of {len(found)} references state no author and are taken as independent of each other."
        )
    return tuple(found.values())


def calibrate(
    fingerprint: Fingerprint,
    references: Sequence[Path],
    *,
    allow_code: bool = False,
    factory: str | None = None,
    progress: Progress,
) -> Fingerprint:
    """The same fingerprint with more references: an unsealed new version of the record.

    Raises:
        UsageError, CalibrationError: as above; also when all references are already in the record.
    """
    manifest = fingerprint.manifest
    forbidden = {manifest.owner.sha256, manifest.owner.weights_sha256 or ""}
    with WorkerPool() as pool:
        measured = measure_references(
            references,
            manifest.families,
            fingerprint.payload,
            manifest.input_spec.to_input_spec(),
            forbidden,
            pool,
            allow_code=allow_code,
            factory=factory,
            progress=progress,
        )
    known = {r.sha256 for r in manifest.references}
    new = tuple(r for r in measured if r.sha256 not in known)
    if not new:
        raise UsageError("all of these references are in the record already")
    changed = manifest.model_copy(
        update={"references": (*manifest.references, *new), "previous": fingerprint.id, "tensors": None}
    )
    return replace(fingerprint, manifest=changed, id=None)


__all__ = ["FingerprintError", "ReferenceMeter", "calibrate", "find_references", "measure_references"]
