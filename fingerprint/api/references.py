"""References: models known to be unrelated, which calibrate. Never thinned by how well they match."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.api.answers import Draw, compare
from fingerprint.api.reduced import MOST_ORDER_BYTES, order_of
from fingerprint.data import CleanImages
from fingerprint.decision.statistics import align
from fingerprint.decision.weights import compare as compare_weights
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.engine.settle import candidates, settle
from fingerprint.errors import CalibrationError, FingerprintError, ModelError, SpecError, UsageError, WorkerError
from fingerprint.model import InputSpec
from fingerprint.progress import Progress
from fingerprint.record import Family, FamilyMatch, Fingerprint, Payload, Reference
from fingerprint.runtimes.formats import Format, sniff
from fingerprint.runtimes.parts import main_file
from fingerprint.runtimes.sketch import WeightSketch
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
        self.doubts: list[str] = []  # of references that look related, for a person to judge

    def measure(self, path: Path) -> tuple[Reference, NDArray[np.uint16]]:
        """One reference's answers, and for each probe the classes in its order (N, K).

        Raises:
            CalibrationError: it is the owner's own, if only converted or compressed, or it can't be asked (named).
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
                    self._weigh(path, session)
                everything = Draw(np.arange(len(self.payload.probes)))
                found = compare(self.families, self.payload, everything, outputs, spec.class_offset)
                classes = self.payload.responses.shape[1]
                self._doubt(path, found)
                order = order_of(align(outputs, spec.class_offset, classes), classes)
                return Reference(sha256=sealed.sha256, author=spec.author, families=found), order
        except (ModelError, WorkerError, SpecError) as error:
            raise CalibrationError(
                f"the reference {path} can't be used: {error.message}", remedy=error.remedy or "Leave it out."
            ) from error

    def _weigh(self, path: Path, session: SuspectSession) -> None:
        """Refuse the owner's weights in whatever container, rounded and pruned ones too; tell where they were tuned."""
        if self.payload.weight_sketch is None:
            return
        try:
            theirs = session.weight_sketch()
        except FingerprintError:  # nothing can be compared
            return
        owner = WeightSketch.from_bytes(self.payload.weight_sketch.tobytes())
        relation = compare_weights(owner, theirs, self.payload.responses.shape[1]).relation
        if relation in _OWNERS:
            raise CalibrationError(f"the reference {path} holds the owner's own weights, {relation}", remedy=_REMEDY)
        if relation in _TUNED:
            self.doubts.append(f"The weights of the reference {path} come from the owner's, and were changed. {_JUDGE}")

    def _doubt(self, path: Path, found: Mapping[str, FamilyMatch]) -> None:
        """Note a reference that answers as copies do. It stays: whoever left it out for that would bias the error."""
        rate = match_rate(found, self.families)
        if rate >= _COPYLIKE:
            self.doubts.append(f"The reference {path} gives the owner's label on {rate:.0%} of the probes. {_JUDGE}")

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
            candidates(session.signature, self.like),
            CleanImages(self.payload.clean_images, labels),
            classes,
        )
        if not settled.settings or settled.settings[0].labels is not None:
            raise SpecError(
                "it has no input spec, and none could be settled on clean images", remedy="Write a sidecar."
            )
        return settled.settings[0].spec


def match_rate(found: Mapping[str, FamilyMatch], families: Sequence[Family]) -> float:
    """Share of the lineage probes with the owner's label."""
    of = [found[f.name] for f in families if f.role == "lineage"]
    return sum(m.matches for m in of) / max(1, sum(m.queries for m in of))


_OWNERS = ("identical", "renamed", "reordered", "re-encoded", "compressed")  # relations of weights
_TUNED = ("changed in part", "changed")
_COPYLIKE = 0.9  # match rate of compressed copies, and rarely of strangers
_JUDGE = "If it was derived from your model, it is no reference: take it out. If you know that it was not, it stays."
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
) -> tuple[tuple[Reference, ...], NDArray[np.uint16] | None]:
    """All references' answers, one per distinct file content, and the order in which they prefer the classes.

    The orders are (R, N, K), or None where they would take too much room.

    Raises:
        UsageError, CalibrationError: as `find_references` and `ReferenceMeter.measure` say.
    """
    meter = ReferenceMeter(families, payload, like, forbidden, pool, allow_code=allow_code, factory=factory)
    found: dict[str, tuple[Reference, NDArray[np.uint16] | None]] = {}
    listed = find_references(paths)
    kept = len(listed) * payload.responses.size * 2 <= MOST_ORDER_BYTES
    for done, path in enumerate(listed, start=1):
        reference, order = meter.measure(path)
        if reference.sha256 in found:
            progress.note(f"The reference {path} is a copy of another and counts once.")
        found.setdefault(reference.sha256, (reference, order if kept else None))
        progress.step("references", done, len(listed))
    for doubt in meter.doubts:
        progress.note(doubt)
    unstated = sum(reference.author is None for reference, _ in found.values())
    if unstated:
        progress.note(
            f"{unstated} of {len(found)} references state no author and are taken as independent of each other."
        )
    orders = [order for _, order in found.values() if order is not None]
    return tuple(reference for reference, _ in found.values()), np.stack(orders) if orders else None


def calibrate(
    fingerprint: Fingerprint,
    references: Sequence[Path],
    *,
    allow_code: bool = False,
    factory: str | None = None,
    origin: str | None = None,
    progress: Progress,
) -> Fingerprint:
    """The same fingerprint with more references: an unsealed new version of the record. origin: see `Reference`.

    Raises:
        UsageError, CalibrationError: as above; also when all references are already in the record.
    """
    manifest = fingerprint.manifest
    forbidden = {manifest.owner.sha256, manifest.owner.weights_sha256 or ""}
    with WorkerPool() as pool:
        measured, orders = measure_references(
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
    fresh = [i for i, r in enumerate(measured) if r.sha256 not in known]
    new = tuple(measured[i].model_copy(update={"origin": origin}) for i in fresh)
    if not new:
        raise UsageError("all of these references are in the record already")
    changed = manifest.model_copy(
        update={"references": (*manifest.references, *new), "previous": fingerprint.id, "tensors": None}
    )
    payload = replace(fingerprint.payload, reference_orders=_joined(fingerprint, orders, fresh))
    return replace(fingerprint, manifest=changed, payload=payload, id=None)


def _joined(fingerprint: Fingerprint, orders: NDArray[np.uint16] | None, fresh: list[int]) -> NDArray[np.uint16] | None:
    """The orders of all references, or None where some are not known."""
    before = fingerprint.payload.reference_orders
    if orders is None or (before is None and fingerprint.manifest.references):
        return None
    added = orders[fresh]
    joined = added if before is None else np.concatenate([before, added])
    return joined if joined.nbytes <= MOST_ORDER_BYTES else None


__all__ = ["FingerprintError", "ReferenceMeter", "calibrate", "find_references", "measure_references"]
