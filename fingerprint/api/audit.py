"""audit: verify everything in a registry, then correct for the number of tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

from fingerprint.api.auditing import AuditCodec, Examined, WorkFactory, stamp_of
from fingerprint.api.results import Result, Suspect, correct, corrected
from fingerprint.api.verify import Known, VerifyOptions
from fingerprint.engine.executors.interface import Executor
from fingerprint.engine.executors.local import LocalExecutor
from fingerprint.errors import UsageError
from fingerprint.frozen import dataclass
from fingerprint.progress import Progress, Silent
from fingerprint.record import Fingerprint
from fingerprint.remote.interface import Exposures
from fingerprint.sources.interface import Artifact

Question: TypeAlias = tuple[str, str]  # (the artifact's name, its stamp)
Recall: TypeAlias = Callable[[Sequence[Question]], Sequence[tuple[Result, ...] | None]]
_ASKED = 128  # artifacts that are looked up at a time


@dataclass(frozen=True)
class AuditOptions:
    """How to audit.

    workers: suspects examined at the same time, each in its own process. open_all: open even files whose headers say
    that they take no images; else such a file is `skipped`.
    """

    verify: VerifyOptions
    workers: int = 1
    open_all: bool = False


def audit(
    artifacts: Iterable[Artifact],
    fingerprints: Sequence[Fingerprint],
    options: AuditOptions,
    *,
    known: Known | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Provisional results of every artifact against every fingerprint, models outer, in the order of the artifacts.

    Artifacts are taken as they are needed, and memory does not grow with their number. A file whose content was seen
    before is not opened again. Call `correct` on all results afterwards.

    Raises:
        UsageError: no fingerprints, or `workers` below 1.
    """
    for examined in examine(artifacts, fingerprints, options, known=known, progress=progress):
        yield from examined.results


def examine(
    artifacts: Iterable[Artifact],
    fingerprints: Sequence[Fingerprint],
    options: AuditOptions,
    *,
    executor: Executor | None = None,
    known: Known | None = None,
    recall: Recall | None = None,
    exposures: Exposures | None = None,
    progress: Progress | None = None,
) -> Iterator[Examined]:
    """The same by artifact, with any executor.

    Args:
        artifacts: what to examine, containers among them.
        fingerprints: opened records.
        options: how.
        executor: where; by default threads of this process.
        known: looks up what was decided before, by digests.
        recall: looks up what was found in a file that looks as it did then; such a file is not read.
        exposures: which probes were revealed; they are not asked again.
        progress: told after every artifact; how many there are in all shows as they are found.

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
    make = WorkFactory(tuple(fingerprints), options.verify, threads_of(options), known, exposures, options.open_all)
    listing = _Listing(artifacts, recall)
    executor = executor or LocalExecutor(options.workers)
    running = executor.run(listing, make, AuditCodec(), listing.recalled)
    for done, examined in enumerate(running, start=1):
        yield examined
        progress.step("models", done, max(done, listing.found))


def threads_of(options: AuditOptions) -> int:
    """Threads of each suspect's runtime: the cores shared out among the workers, unless the caller says otherwise."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return options.verify.threads or max(1, cores // options.workers)


class _Listing:
    """The artifacts as an executor takes them, with what is remembered of each, looked up by the hundred."""

    def __init__(self, artifacts: Iterable[Artifact], recall: Recall | None) -> None:
        self._artifacts, self._recall = iter(artifacts), recall
        self._known: dict[int, Examined] = {}
        self.found = 0

    def __iter__(self) -> Iterator[Artifact]:
        while chunk := list(islice(self._artifacts, _ASKED if self._recall else 1)):
            self.found += len(chunk)
            self._known.clear()  # what nobody asked for is of another share
            self._look_up(chunk)
            yield from chunk

    def _look_up(self, chunk: Sequence[Artifact]) -> None:
        if self._recall is None:
            return
        stamped = [(one, stamp) for one in chunk if (stamp := stamp_of(one)) is not None]
        answers = self._recall([(one.name, stamp) for one, stamp in stamped])
        for (one, stamp), results in zip(stamped, answers, strict=True):
            if results is not None:
                self._known[id(one)] = Examined(one, results, stamp, recalled=True)

    def recalled(self, artifact: Artifact) -> Examined | None:
        """What is remembered of an artifact that was just taken."""
        return self._known.pop(id(artifact), None)


__all__ = ["AuditOptions", "Suspect", "audit", "correct", "corrected", "examine", "threads_of"]
