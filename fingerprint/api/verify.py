"""verify: is a suspect derived from a fingerprinted model?

suspect bytes -> digest -> isolated worker -> runtime -> input adaptation -> answers -> decision. A generator of frozen
results: a file that can't be opened is a result, not an exception.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from fingerprint.api.answers import Draw, ask, compare, draw
from fingerprint.api.results import FingerprintRef, Result, Status, Suspect
from fingerprint.data import CleanImages, load_images
from fingerprint.decision.lineage import Asked, LineageTest, Settings
from fingerprint.decision.verdict import Verdict
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.engine.settle import Settled, candidates, settle
from fingerprint.errors import (
    FingerprintError,
    MissingExtra,
    ModelError,
    SpecError,
    UnreadableModel,
    UsageError,
    WorkerError,
)
from fingerprint.model import Floats, InputSpec
from fingerprint.progress import Progress, Silent
from fingerprint.record import Fingerprint, canonical
from fingerprint.runtimes.registry import runtime_for
from fingerprint.spec import FoundSpec, find_spec

METHOD_VERSION = 1  # of the decision; part of what makes an earlier verdict reusable
CLEAN_USED = 256  # clean images used to settle a suspect's input
Known = Callable[[str, str, str], dict[str, object] | None]  # (suspect sha256, fingerprint id, settings) -> row


@dataclass(frozen=True)
class VerifyOptions:
    """How to verify. alpha bounds the probability of `derived` for an unrelated model.

    budget: inputs sent to a suspect at most (None: all probes). spec: for all suspects, before their sidecars.
    data: clean images to settle how a suspect wants its input. label_only: use nothing but the top label.
    allow_code: open formats that can carry code. threads: per worker, 0 = all cores.
    """

    alpha: float = 0.01
    calibration: Asked = "auto"
    budget: int | None = None
    label_only: bool = False
    spec: InputSpec | None = None
    data: Path | None = None
    allow_code: bool = False
    factory: str | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise UsageError(f"alpha is {self.alpha}; a probability between 0 and 1 is needed")
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"budget is {self.budget}; at least 1 input must be sent")
        if self.calibration not in get_args(Asked):
            raise UsageError(
                f"calibration {self.calibration!r} is unknown", remedy="One of " + ", ".join(get_args(Asked))
            )


def verify(
    suspects: Sequence[Path],
    fingerprints: Sequence[Fingerprint],
    options: VerifyOptions | None = None,
    *,
    pool: WorkerPool | None = None,
    known: Known | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Compare suspects with fingerprints: one result per pair, suspects outer.

    Args:
        suspects: model files.
        fingerprints: opened records.
        options: how to verify.
        pool: warm workers to use; made and closed here if absent.
        known: looks up what was decided before, by digests; such pairs are not run again.
        progress: told after every suspect.

    Raises:
        UsageError: a suspect path does not exist, or there is no fingerprint.
    """
    missing = [str(path) for path in suspects if not path.exists()]
    if missing:
        raise UsageError(f"no such file: {', '.join(missing)}")
    if not fingerprints:
        raise UsageError(
            "there is no fingerprint to compare with", remedy="Make one with: fingerprint create MODEL --name NAME"
        )
    options, progress = options or VerifyOptions(), progress or Silent()
    with ExitStack() as stack:
        workers = pool if pool is not None else stack.enter_context(WorkerPool(threads=options.threads))
        verifier = Verifier(fingerprints, options, workers, known)
        for done, path in enumerate(suspects, start=1):
            yield from verifier.examine(path)
            progress.step("suspects", done, len(suspects))


class Verifier:
    """Holds fingerprints and their fitted tests; examines one suspect after another."""

    def __init__(
        self,
        fingerprints: Sequence[Fingerprint],
        options: VerifyOptions,
        pool: WorkerPool,
        known: Known | None = None,
        seen: dict[tuple[str, str], list[Result]] | None = None,
    ) -> None:
        self.fingerprints = list(fingerprints)
        self.options = options
        self.pool = pool
        self.known = known
        self.seen = seen if seen is not None else {}
        self._tests: dict[tuple[int, float], LineageTest] = {}

    def examine(self, path: Path) -> list[Result]:
        """All results of one suspect file. Never raises for what the file holds."""
        suspect = Suspect(path=str(path))
        try:
            with SealedFile.of(path) as sealed:
                suspect = Suspect(str(path), sealed.sha256, sealed.format)
                runtime = runtime_for(sealed.format).name if sealed.format else None
                suspect = replace(suspect, runtime=runtime)
                return self._once(_Examination(self, suspect, path, sealed))
        except (ModelError, WorkerError, MissingExtra, SpecError) as error:  # SpecError: a broken sidecar beside it
            return [self._undecided(suspect, f, error) for f in self.fingerprints]
        except UsageError as error:  # gone since it was listed, or no regular file
            return [self._undecided(suspect, f, UnreadableModel(error.message)) for f in self.fingerprints]

    def _once(self, examination: _Examination) -> list[Result]:
        """Results of an examination, or those of an earlier one of the same content under the same spec."""
        found, suspect = examination.found, examination.suspect
        key = (suspect.sha256 or "", repr(found.spec if found else None))
        if key not in self.seen:
            self.seen[key] = examination.results()
        return [replace(result, suspect=suspect) for result in self.seen[key]]

    def test(self, index: int, alpha: float) -> LineageTest:
        """The fitted test of one fingerprint at a level."""
        key = (index, alpha)
        if key not in self._tests:
            settings = Settings(alpha, self.options.calibration, self.options.label_only)
            self._tests[key] = LineageTest(self.fingerprints[index].manifest, settings)
        return self._tests[key]

    @contextmanager
    def fitting(self, indices: Sequence[int], alpha: float) -> Iterator[None]:
        """Fit the tests that are not fitted yet, while the caller waits for a suspect's answers."""
        missing = [i for i in indices if (i, alpha) not in self._tests]
        thread = threading.Thread(target=self._fit, args=(missing, alpha), daemon=True)
        if missing:
            thread.start()
        try:
            yield
        finally:
            if missing:
                thread.join()

    def _fit(self, indices: Sequence[int], alpha: float) -> None:
        with suppress(Exception):  # the caller meets the same error when it asks for the test
            for index in indices:
                self.test(index, alpha)

    @staticmethod
    def _undecided(suspect: Suspect, fingerprint: Fingerprint, error: FingerprintError) -> Result:
        status: Status = getattr(error, "status", "unsupported")
        return Result(suspect, reference(fingerprint), status, ". ".join(error.diagnosis().splitlines()))

    @cached_property
    def data_identity(self) -> str | None:
        """What distinguishes one --data from another without reading it."""
        if self.options.data is None:
            return None
        stat = self.options.data.stat()
        return f"{self.options.data.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"


def reference(fingerprint: Fingerprint) -> FingerprintRef:
    """How a result names a record."""
    return FingerprintRef(fingerprint.id, fingerprint.manifest.name)


class _Examination:
    """One suspect against all fingerprints."""

    def __init__(self, verifier: Verifier, suspect: Suspect, path: Path, sealed: SealedFile) -> None:
        self.verifier = verifier
        self.options = verifier.options
        self.suspect = suspect
        self.sealed = sealed
        self.found = find_spec(path, self.options.spec)

    def results(self) -> list[Result]:
        found: dict[int, Result] = {}
        for i in range(len(self.verifier.fingerprints)):
            early = self._without_queries(i)
            if early is not None:
                found[i] = early
        open_ones = [i for i in range(len(self.verifier.fingerprints)) if i not in found]
        if open_ones:
            found.update(self._with_queries(open_ones))
        return [found[i] for i in sorted(found)]

    def _without_queries(self, index: int) -> Result | None:
        """Recognised by its digest, or decided in an earlier run."""
        fingerprint = self.verifier.fingerprints[index]
        settings = self._settings(fingerprint)
        if self.suspect.sha256 == fingerprint.manifest.owner.sha256:
            verdict = self.verifier.test(index, self.options.alpha).recognised()
            return Result(self.suspect, reference(fingerprint), "decided", verdict=verdict, settings_sha256=settings)
        if self.verifier.known is None or fingerprint.id is None or self.suspect.sha256 is None:
            return None
        row = self.verifier.known(self.suspect.sha256, fingerprint.id, settings)
        if row is None:
            return None
        stored, adaptation = row.get("verdict"), row.get("adaptation")
        return Result(
            self.suspect,
            reference(fingerprint),
            "decided",
            cached=True,
            stored_verdict=stored if isinstance(stored, dict) else None,
            adaptation=adaptation if isinstance(adaptation, dict) else None,
            settings_sha256=settings,
        )

    def _settings(self, fingerprint: Fingerprint) -> str:
        """Digest of all that the verdict depends on besides the suspect and the record."""
        runtime = runtime_for(self.sealed.format) if self.sealed.format else None
        return hashlib.sha256(
            canonical(
                {
                    "method": METHOD_VERSION,
                    "runtime": f"{runtime.name} {runtime.version()}" if runtime else None,
                    "alpha": self.options.alpha,
                    "calibration": self.options.calibration,
                    "budget": self.options.budget,
                    "label_only": self.options.label_only,
                    "factory": self.options.factory,
                    "spec": self.found.spec.to_dict() if self.found else None,  # type: ignore[dict-item]
                    "data": self.verifier.data_identity if not self.found else None,
                    "declared": fingerprint.manifest.declared_bound,
                }
            )
        ).hexdigest()

    def _with_queries(self, indices: list[int]) -> dict[int, Result]:
        fingerprints = self.verifier.fingerprints
        try:
            with self.verifier.pool.open(
                self.sealed, allow_code=self.options.allow_code, factory=self.options.factory
            ) as session:
                if self.found is not None:
                    return self._by_spec(session, indices, self.found)
                return {i: self._by_settling(session, i) for i in indices}
        except (ModelError, WorkerError, MissingExtra, SpecError) as error:
            return {i: self.verifier._undecided(self.suspect, fingerprints[i], error) for i in indices}

    def _by_spec(self, session: SuspectSession, indices: list[int], found: FoundSpec) -> dict[int, Result]:
        """One pass for all fingerprints of an image shape."""
        chosen = [self.verifier.fingerprints[i] for i in indices]
        draws = [draw(f, self.options.budget) for f in chosen]
        with self.verifier.fitting(indices, self.options.alpha):
            outputs = ask(session.predict, found.spec, chosen, draws)
        adaptation: dict[str, object] = {"origin": found.origin, "spec": found.spec.to_dict()}
        return {
            i: self._result(i, self._verdict(i, self.options.alpha, d, o, found.spec, 0), adaptation)
            for i, d, o in zip(indices, draws, outputs, strict=True)
        }

    def _by_settling(self, session: SuspectSession, index: int) -> Result:
        """No spec: settle the input on clean images, then try every setting that explains them equally well."""
        fingerprint = self.verifier.fingerprints[index]
        clean = self._clean(fingerprint)
        if clean is None:
            return self._unsure(
                index, "There is neither an input spec nor a clean image to settle how it wants its input.", 0
            )
        classes = fingerprint.manifest.outputs
        options = candidates(session.signature, fingerprint.manifest.input_spec.to_input_spec(), classes)
        settled = settle(session.predict, options, clean, classes)
        if not settled.specs:
            text = f"No input setting makes it answer clean images better than chance (best {settled.accuracy:.0%})."
            return self._unsure(index, text, settled.queries)
        return self._best_of(session, index, settled)

    def _best_of(self, session: SuspectSession, index: int, settled: Settled) -> Result:
        fingerprint = self.verifier.fingerprints[index]
        budget = self.options.budget
        left = None if budget is None else (budget - settled.queries) // len(settled.specs)
        if left is not None and left < 1:
            return self._unsure(
                index, f"The budget of {budget} inputs was spent on settling its input.", settled.queries
            )
        alpha = self.options.alpha / len(settled.specs)
        sent = settled.queries
        verdicts: list[tuple[Verdict, InputSpec]] = []
        for spec in settled.specs:
            drawn = draw(fingerprint, left)
            (outputs,) = ask(session.predict, spec, [fingerprint], [drawn])
            verdicts.append((self._verdict(index, alpha, drawn, outputs, spec, 0), spec))
            sent += len(drawn.index)
        best, spec = min(verdicts, key=lambda pair: 1.0 if pair[0].total_p is None else pair[0].total_p)
        if best.lineage == "unrelated" and any(v.lineage != "unrelated" for v, _ in verdicts):
            best = replace(best, lineage="inconclusive", reason="Equally good input settings disagree.")
        total = None if best.total_p is None else min(1.0, best.total_p * len(settled.specs))
        best = replace(best, error=best.error * len(settled.specs), total_p=total, queries=sent)
        adaptation: dict[str, object] = {
            "origin": "settled on clean images",
            "spec": spec.to_dict(),
            "equally_good": len(settled.specs),
            "clean_accuracy": settled.accuracy,
            "clean_images": settled.images,
        }
        return self._result(index, best, adaptation)

    def _clean(self, fingerprint: Fingerprint) -> CleanImages | None:
        """Labelled clean images: `--data`, else those kept in the record with true labels or the owner's answers."""
        payload, manifest = fingerprint.payload, fingerprint.manifest
        if self.options.data is not None:
            images = load_images(self.options.data, manifest.probes.shape, manifest.outputs, CLEAN_USED)
            if images.labels is not None:
                return images
        if not len(payload.clean_images):
            return None
        known = payload.clean_labels.min() >= 0
        labels = payload.clean_labels if known else payload.clean_responses.argmax(axis=1).astype(np.int64)
        return CleanImages(payload.clean_images, labels)

    def _verdict(self, index: int, alpha: float, drawn: Draw, outputs: Floats, spec: InputSpec, extra: int) -> Verdict:
        fingerprint = self.verifier.fingerprints[index]
        manifest = fingerprint.manifest
        measured = compare(
            manifest.families,
            fingerprint.payload,
            drawn,
            outputs,
            spec.class_offset,
            label_only=self.options.label_only,
        )
        same = outputs.shape[1] - spec.class_offset == manifest.outputs
        return self.verifier.test(index, alpha).decide(measured, len(drawn.index) + extra, same_labels=same)

    def _result(self, index: int, verdict: Verdict, adaptation: dict[str, object]) -> Result:
        fingerprint = self.verifier.fingerprints[index]
        return Result(
            self.suspect,
            reference(fingerprint),
            "decided",
            verdict=verdict,
            adaptation=adaptation,
            settings_sha256=self._settings(fingerprint),
        )

    def _unsure(self, index: int, reason: str, queries: int) -> Result:
        verdict = Verdict(
            lineage="inconclusive",
            error=self.options.alpha,
            p_value=None,
            score=0.0,
            match_rate=0.0,
            queries=queries,
            decided_by="nothing",
            calibration=None,
            reason=reason + " Give --spec FILE, a sidecar, or --data with labelled images.",
        )
        return self._result(index, verdict, {"origin": "unsettled"})
