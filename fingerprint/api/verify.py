"""verify: is a suspect derived from a fingerprinted model?

suspect bytes -> digest -> isolated worker -> runtime -> input adaptation -> answers -> decision. A generator of frozen
results: a file that can't be opened is a result, not an exception.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

from fingerprint.api.examination import EXPECTED, Examination, undecided_by
from fingerprint.api.reduced import reduced
from fingerprint.api.results import Result
from fingerprint.api.subjects import Place, ahead, file_at, subject_of
from fingerprint.data import look_for_images
from fingerprint.decision.lineage import Asked, LineageTest, Settings
from fingerprint.engine.labels import LabelMap
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import (
    UnreadableModel,
    UsageError,
)
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec
from fingerprint.progress import Progress, Silent
from fingerprint.record import Fingerprint
from fingerprint.remote.interface import Exposures, ForgottenExposures, RemoteOptions

Known = Callable[[str, str, str], dict[str, object] | None]  # (suspect sha256, fingerprint id, settings) -> row


@dataclass(frozen=True)
class VerifyOptions:
    """How to verify. alpha bounds the probability of `derived` for an unrelated model.

    budget: inputs sent to a suspect at most, whatever for (None: all probes). repeat: times that each input is sent.
    cover: clean inputs mixed in for every probe (0: none); jitter: grey levels of noise on all inputs, with cover only.
    sequential: ask probe by probe until the answer is clear (None: where probes leave this machine).
    spec: for all suspects, before their sidecars. data: clean images to settle how a suspect wants its input.
    allow: declared compression, upper limits in the grammar of transformations. label_only: use nothing but the top
    label. weights: compare a file's weights with the owner's; done anyway where integrity is judged. allow_code: open
    formats that can carry code. threads: per worker, 0 = all cores. remote: how to ask endpoints.
    """

    alpha: float = 0.01
    calibration: Asked = "auto"
    budget: int | None = None
    repeat: int = 1
    sequential: bool | None = None
    cover: float = 0.0
    jitter: int = 1
    label_only: bool = False
    weights: bool = False
    allow: Sequence[str] = ()
    spec: InputSpec | None = None
    data: Path | None = None
    allow_code: bool = False
    factory: str | None = None
    threads: int = 0
    remote: RemoteOptions = field(default_factory=RemoteOptions)

    def __post_init__(self) -> None:
        if self.allow:
            from fingerprint.transforms.derive import parse_how, spell

            object.__setattr__(self, "allow", tuple(spell(parse_how(text)) for text in self.allow))
        if not 0.0 < self.alpha < 1.0:
            raise UsageError(f"alpha is {self.alpha}; a probability between 0 and 1 is needed")
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"budget is {self.budget}; at least 1 input must be sent")
        if self.repeat < 1:
            raise UsageError(f"repeat is {self.repeat}; every input is sent at least once")
        if not 0.0 <= self.cover <= 100.0 or not 0 <= self.jitter <= 8:
            raise UsageError(f"cover {self.cover} and jitter {self.jitter}; 0 to 100 and 0 to 8 are possible")
        if self.data is not None:
            look_for_images(self.data)
        if self.calibration not in get_args(Asked):
            raise UsageError(
                f"calibration {self.calibration!r} is unknown", remedy="One of " + ", ".join(get_args(Asked))
            )


def verify(
    suspects: Sequence[Place],
    fingerprints: Sequence[Fingerprint],
    options: VerifyOptions | None = None,
    *,
    pool: WorkerPool | None = None,
    known: Known | None = None,
    exposures: Exposures | None = None,
    progress: Progress | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Compare suspects with fingerprints: one result per pair, suspects outer.

    Args:
        suspects: model files, URLs of endpoints, `module:callable`, or subjects (`api.subjects`).
        fingerprints: opened records.
        options: how to verify.
        pool: warm workers to use; made and closed here if absent.
        known: looks up what was decided before, by digests; such pairs are not run again.
        exposures: remembers which probes are sent to remote hosts; without it that is forgotten afterwards.
        progress: told after every suspect.
        meanwhile: called once, in a thread, while the first suspect answers: what the caller must do anyway.

    Raises:
        UsageError: a suspect path does not exist, a URL or function can't be used, or there is no fingerprint.
    """
    paths = [file_at(place) for place in suspects]
    missing = [str(path) for path in paths if path is not None and not path.exists()]
    if missing:
        raise UsageError(f"no such file: {', '.join(missing)}")
    if not fingerprints:
        raise UsageError(
            "there is no fingerprint to compare with", remedy="Make one with: fingerprint create MODEL --name NAME"
        )
    options, progress = options or VerifyOptions(), progress or Silent()
    with ExitStack() as stack:
        workers = pool if pool is not None else stack.enter_context(WorkerPool(threads=options.threads))
        verifier = Verifier(fingerprints, options, workers, known, exposures=exposures)
        verifier.tests, verifier.meanwhile = len(suspects) * len(fingerprints), meanwhile
        subjects = [subject_of(place, options, workers) for place in suspects]
        asked = known is None  # what was decided before is not opened, and the next one seldom differs in that
        take = stack.enter_context(ahead(subjects, early=lambda: asked))
        for index in range(len(subjects)):
            results = verifier.examine(take(index))
            asked = any(not result.cached for result in results)
            yield from results
            progress.step("suspects", index + 1, len(suspects))


class Verifier:
    """Holds fingerprints and their fitted tests; examines one suspect after another."""

    def __init__(
        self,
        fingerprints: Sequence[Fingerprint],
        options: VerifyOptions,
        pool: WorkerPool,
        known: Known | None = None,
        seen: dict[tuple[str, str], list[Result]] | None = None,
        exposures: Exposures | None = None,
    ) -> None:
        self.fingerprints = list(fingerprints)
        self.options = options
        self.pool = pool
        self.known = known
        self.seen = seen if seen is not None else {}
        self.exposures: Exposures = exposures if exposures is not None else ForgottenExposures()
        self.tests = 1  # pairs of suspect and fingerprint in this run
        self.meanwhile: Callable[[], None] | None = None
        self._tests: dict[tuple[int, float], LineageTest] = {}
        self._reduced: dict[tuple[int, float, LabelMap], LineageTest | None] = {}

    def examine(self, place: Place) -> list[Result]:
        """All results of one suspect. Never raises for what a file holds or a host answers."""
        subject = subject_of(place, self.options, self.pool)
        try:
            with subject:
                return self._once(Examination(self, subject))
        except EXPECTED as error:  # SpecError: a broken sidecar beside it
            return [undecided_by(subject.suspect, f, error) for f in self.fingerprints]
        except UsageError as error:  # gone since it was listed, or no regular file
            return [undecided_by(subject.suspect, f, UnreadableModel(error.message)) for f in self.fingerprints]

    def _once(self, examination: Examination) -> list[Result]:
        """Results of an examination, or those of an earlier one of the same content under the same spec."""
        suspect = examination.subject.suspect
        if suspect.sha256 is None:
            return examination.results()
        key = (suspect.sha256, repr(examination.specs))
        found = self.seen.get(key)
        if found is None:
            found = self.seen[key] = examination.results()
        return [replace(result, suspect=suspect) for result in found]

    def test(self, index: int, alpha: float) -> LineageTest:
        """The fitted test of one fingerprint at a level."""
        key = (index, alpha)
        if key not in self._tests:
            settings = Settings(alpha, self.options.calibration, self.options.label_only)
            self._tests[key] = LineageTest(self.fingerprints[index].manifest, settings)
        return self._tests[key]

    def test_among(self, index: int, alpha: float, labels: LabelMap) -> LineageTest | None:
        """The test for suspects of another label space; None where the record can't calibrate for it."""
        if labels.complete:
            return self.test(index, alpha)
        key = (index, alpha, labels)
        if key not in self._reduced:
            manifest = reduced(self.fingerprints[index], labels)
            settings = Settings(alpha, self.options.calibration, self.options.label_only)
            self._reduced[key] = None if manifest is None else LineageTest(manifest, settings)
        return self._reduced[key]

    @contextmanager
    def fitting(self, wanted: Sequence[tuple[int, float]]) -> Iterator[None]:
        """Fit the tests (index, alpha) that are not fitted yet, while the caller waits for a suspect's answers."""
        missing = [test for test in wanted if test not in self._tests]
        waiting, self.meanwhile = self.meanwhile, None
        thread = threading.Thread(target=self._fit, args=(missing, waiting), daemon=True)
        if missing or waiting:
            thread.start()
        try:
            yield
        finally:
            if missing or waiting:
                thread.join()

    def _fit(self, wanted: Sequence[tuple[int, float]], waiting: Callable[[], None] | None) -> None:
        with suppress(Exception):  # the caller meets the same error when it asks for the test
            for index, alpha in wanted:
                self.test(index, alpha)
        if waiting is not None:
            waiting()

    @cached_property
    def data_identity(self) -> str | None:
        """What distinguishes one --data from another without reading it."""
        if self.options.data is None:
            return None
        stat = self.options.data.stat()
        return f"{self.options.data.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
