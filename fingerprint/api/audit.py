"""audit: verify everything in a registry, then correct for the number of tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

from fingerprint.api.results import Result, Suspect
from fingerprint.api.subjects import ahead, subject_of
from fingerprint.api.verify import Known, Verifier, VerifyOptions
from fingerprint.decision.correction import Correction, benjamini_hochberg
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import UsageError
from fingerprint.progress import Progress, Silent
from fingerprint.record import Fingerprint
from fingerprint.sources.interface import Artifact


@dataclass(frozen=True)
class AuditOptions:
    """How to audit. workers: suspects examined at the same time, each in its own process."""

    verify: VerifyOptions
    workers: int = 1


def audit(
    artifacts: Iterable[Artifact],
    fingerprints: Sequence[Fingerprint],
    options: AuditOptions,
    *,
    known: Known | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Provisional results of every artifact against every fingerprint, models outer, in the order of the artifacts.

    A file whose content was seen before is not opened again. Call `correct` on all of them afterwards.

    Raises:
        UsageError: no fingerprints, or `workers` below 1.
    """
    if not fingerprints:
        raise UsageError(
            "there is no fingerprint to compare with", remedy="Make one with: fingerprint create MODEL --name NAME"
        )
    if options.workers < 1:
        raise UsageError(f"workers is {options.workers}; at least 1 is needed")
    progress = progress or Silent()
    with ExitStack() as stack:
        listed = list(artifacts)
        examine = _Examiner(listed, fingerprints, options, known, stack)
        executor = ThreadPoolExecutor(options.workers, thread_name_prefix="audit")
        stack.callback(executor.shutdown, wait=True, cancel_futures=True)
        for done, results in enumerate(executor.map(examine, range(len(listed))), start=1):
            yield from results
            progress.step("models", done, len(listed))


class _Examiner:
    """Examines artifacts from several threads: a verifier per thread, one warm pool for all, the cores shared out."""

    def __init__(
        self,
        artifacts: Sequence[Artifact],
        fingerprints: Sequence[Fingerprint],
        options: AuditOptions,
        known: Known | None,
        stack: ExitStack,
    ) -> None:
        self._artifacts = artifacts
        self._fingerprints, self._options, self._known = fingerprints, options.verify, known
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = options.verify.threads or max(1, cores // options.workers)
        self._pool = stack.enter_context(WorkerPool(threads=threads))
        subjects = [subject_of(artifact.path, options.verify, self._pool) for artifact in artifacts]
        self._take = stack.enter_context(ahead(subjects, options.workers))
        self._local = threading.local()
        self._seen: dict[tuple[str, str], list[Result]] = {}

    def __call__(self, index: int) -> list[Result]:
        results, name = self._verifier().examine(self._take(index)), self._artifacts[index].name
        return [replace(r, suspect=replace(r.suspect, path=name)) for r in results]

    def _verifier(self) -> Verifier:
        verifier: Verifier | None = getattr(self._local, "verifier", None)
        if verifier is None:
            verifier = Verifier(self._fingerprints, self._options, self._pool, self._known, self._seen)
            self._local.verifier = verifier
        return verifier


def correct(results: Sequence[Result], alpha: float) -> tuple[list[Result], Correction]:
    """Final results: `derived` stands only where it survives Benjamini-Hochberg over all tests of the audit."""
    tested = [r for r in results if r.total_p is not None]
    correction = benjamini_hochberg([r.total_p for r in tested if r.total_p is not None], alpha)
    text = f"It stands out by itself, but not after correction for {correction.tests} tests."
    final = [
        r.with_lineage("inconclusive", text)
        if r.lineage == "derived" and r.total_p is not None and r.total_p > correction.threshold
        else r
        for r in results
    ]
    return final, correction


__all__ = ["AuditOptions", "Suspect", "audit", "correct"]
