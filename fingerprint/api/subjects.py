"""What verify looks at: a suspect that can be identified, fed and opened, whatever it is.

A file is opened in an isolated worker. Endpoints, functions and recorded answers are in `api.blackbox`, which is
imported only for them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from fingerprint.api.results import Suspect
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.errors import UnreadableModel
from fingerprint.limits import MIB
from fingerprint.model import Floats, Images, InputSpec, Signature
from fingerprint.remote.interface import Answering, Manner, Meter
from fingerprint.remote.places import is_file, is_url
from fingerprint.runtimes.devices import on_device
from fingerprint.runtimes.registry import runtime_for
from fingerprint.spec import FoundSpec, find_spec

if TYPE_CHECKING:
    from fingerprint.api.verify import VerifyOptions
    from fingerprint.record import Fingerprint
    from fingerprint.runtimes.sketch import WeightSketch


EARLY_BYTES = 64 * MIB  # of a file that is opened before its turn: larger ones take memory beside each other


class Subject(ABC):
    """A suspect before it is asked. Use it as a context manager: entering identifies it.

    Attributes:
        suspect: how results name it; complete once entered.
        place: where its probes go if they leave this machine, else None.
        checked: ask a few inputs twice, to see whether the answers are random.
        recorded: its answers lie in a file; nothing else can be asked.
    """

    suspect: Suspect
    place: str | None = None
    checked: bool = False
    recorded: bool = False

    @abstractmethod
    def __enter__(self) -> Self:
        """Identify it.

        Raises:
            FingerprintError: it can't be read, or there is nothing to open it with.
        """

    def __exit__(  # noqa: B027  (only files hold something)
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it go."""

    @abstractmethod
    def spec_for(self, fingerprint: Fingerprint) -> FoundSpec | None:
        """How it wants the probes of a fingerprint; None: that must be settled on clean images."""

    def prepare(self, *, early: bool = False) -> None:  # noqa: B027  (only files gain by it)
        """Begin what can be done before its turn comes, in a thread; entering or `discard` ends it.

        `early`: it will most likely be asked, so it may be opened too.
        """

    def discard(self) -> None:  # noqa: B027
        """It will not be entered: drop what was prepared."""

    def answered(self, fingerprint: Fingerprint) -> Sequence[int] | None:
        """Probes that were answered before, in their order, where no others can be asked; else None."""
        del fingerprint
        return None

    @abstractmethod
    def identity(self) -> str | None:
        """What its answers depend on besides its content and the spec, such as the runtime's version."""

    @abstractmethod
    def open(self, meter: Meter) -> AbstractContextManager[Answering]:
        """Open it; what it is sent is counted by `meter`.

        Raises:
            ModelError, WorkerError, HostError, MissingExtra.
        """


class FileSubject(Subject):
    """A model file, opened in an isolated worker."""

    def __init__(
        self, path: Path, options: VerifyOptions, pool: WorkerPool, suggested: FoundSpec | None = None
    ) -> None:
        self.suspect = Suspect(path=str(path))
        self._suggested = suggested  # by the place that it was found in
        self._path, self._options, self._pool = path, options, pool
        self._stack = ExitStack()
        self._found: FoundSpec | None = None
        self._reading: Reading | None = None
        self._early: SuspectSession | None = None

    def prepare(self, *, early: bool = False) -> None:
        """See `Subject.prepare`: it is read and hashed; a small one may be opened."""
        if self._reading is None:
            self._reading = Reading(self._path, self._open_early if early else None)

    def _open_early(self, sealed: SealedFile) -> SuspectSession | None:
        if sealed.size > EARLY_BYTES:
            return None
        options = self._options  # not what a pool hands out that has opened another one ahead
        return WorkerPool.open(self._pool, sealed, allow_code=options.allow_code, factory=options.factory)

    def discard(self) -> None:
        """See `Subject.discard`."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.discard()

    def __enter__(self) -> Self:
        reading, self._reading = self._reading, None
        with ExitStack() as stack:
            self._sealed = stack.enter_context(reading.result() if reading else SealedFile.of(self._path))
            self._early = stack.enter_context(reading.session) if reading and reading.session else None
            self.suspect = Suspect(str(self._path), self._sealed.sha256, self._sealed.format)
            runtime = runtime_for(self._sealed.format).name if self._sealed.format else None
            self.suspect = replace(self.suspect, runtime=runtime)
            self._found = find_spec(self._path, self._options.spec) or self._suggested
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the sealed copy."""
        self._stack.close()

    def spec_for(self, fingerprint: Fingerprint) -> FoundSpec | None:
        """See `Subject.spec_for`: `--spec`, else its sidecar."""
        del fingerprint
        return self._found

    def identity(self) -> str | None:
        """See `Subject.identity`."""
        runtime = runtime_for(self._sealed.format) if self._sealed.format else None
        return f"{runtime.name} {runtime.version()}{on_device(self._pool.device)}" if runtime else None

    @contextmanager
    def open(self, meter: Meter) -> Iterator[Answering]:
        """See `Subject.open`."""
        options, early = self._options, self._early
        self._early = None
        with early or self._pool.open(self._sealed, allow_code=options.allow_code, factory=options.factory) as session:
            yield _Counted(session, meter)


class Reading:
    """A file that is copied, hashed and, where that is wanted, opened in a thread while another suspect computes."""

    def __init__(self, path: Path, opened: Callable[[SealedFile], SuspectSession | None] | None = None) -> None:
        self._path, self._opened = path, opened
        self._sealed: SealedFile | None = None
        self.session: SuspectSession | None = None  # once `result` came back
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._sealed = SealedFile.of(self._path)
        except Exception as error:  # raised again where the file is wanted
            self._error = error
        if self._sealed is not None and self._opened is not None:
            with suppress(Exception):  # it will be met again in its turn
                self.session = self._opened(self._sealed)

    def result(self) -> SealedFile:
        """The sealed copy; raises what `SealedFile.of` did."""
        self._thread.join()
        if self._sealed is None:
            raise self._error or UnreadableModel("it can't be read")
        return self._sealed

    def discard(self) -> None:
        """Wait, and drop the copy."""
        self._thread.join()
        if self.session is not None:
            self.session.close()
        if self._sealed is not None:
            self._sealed.close()


class _Counted:
    """A worker's session; what it is sent is counted."""

    def __init__(self, session: SuspectSession, meter: Meter) -> None:
        self._session, self._meter = session, meter
        self.signature: Signature = session.signature
        self.manner = Manner()
        self.step = 1
        self._sketch: WeightSketch | None = None

    def predict(self, images: Images, spec: InputSpec) -> Floats:
        """See `Answering.predict`."""
        self._meter.take(len(images))
        return self._session.predict(images, spec)

    def weight_sketch(self) -> WeightSketch:
        """The summary of its weights, made once. Raises what `SuspectSession.weight_sketch` does."""
        if self._sketch is None:
            self._sketch = self._session.weight_sketch()
        return self._sketch


Place: TypeAlias = Path | str | Subject  # a file, a URL, `module:callable`, or a subject made by the caller


def file_at(place: Place) -> Path | None:
    """The path of a place that is looked for on the disk, else None."""
    if isinstance(place, Path):
        return place
    return Path(place) if isinstance(place, str) and is_file(place) else None


@contextmanager
def ahead(
    subjects: Sequence[Subject], reach: int = 1, early: Callable[[], bool] = lambda: False
) -> Iterator[Callable[[int], Subject]]:
    """The subjects by their place; asking for one prepares the one `reach` places later. Drops what nobody asked for.

    A copy of a file takes its size in memory: no more than `reach` of them wait. `early`: whether to open them too.
    """
    waiting: dict[int, Subject] = {}

    def take(index: int) -> Subject:
        if index + reach < len(subjects):
            waiting[index + reach] = subjects[index + reach]
            subjects[index + reach].prepare(early=early())
        waiting.pop(index, None)
        return subjects[index]

    try:
        yield take
    finally:
        for subject in waiting.values():
            subject.discard()


def subject_of(place: Place, options: VerifyOptions, pool: WorkerPool) -> Subject:
    """The subject at a place. Nothing is opened yet.

    Raises:
        UsageError: a URL that is none of a known protocol's, or a function that can't be imported.
    """
    if isinstance(place, Subject):
        return place
    path = file_at(place)
    if path is not None:
        return FileSubject(path, options, pool)
    from fingerprint.api import blackbox

    text = str(place)
    return blackbox.endpoint(text, options) if is_url(text) else blackbox.function(text, options)
