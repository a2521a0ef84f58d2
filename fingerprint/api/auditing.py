"""The work of an audit: one artifact against all fingerprints, containers opened, whatever executor runs it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fingerprint.api.examination import METHOD_VERSION, reference
from fingerprint.api.prefilter import unaskable
from fingerprint.api.results import Result, Suspect
from fingerprint.api.subjects import FileSubject
from fingerprint.api.verify import Known, Verifier, VerifyOptions
from fingerprint.engine.executors.interface import Codec, Work
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import NotAskable
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec
from fingerprint.record import Fingerprint
from fingerprint.remote.interface import Answering, Exposures, Meter
from fingerprint.runtimes.declared import declared
from fingerprint.runtimes.parts import is_package, weights_of
from fingerprint.sources.containers import opened
from fingerprint.sources.interface import Artifact
from fingerprint.spec import FoundSpec, sidecar_path

if TYPE_CHECKING:
    from fingerprint.engine.executors.interface import Prepared

_SEEN = 256  # contents whose results are held within a run; others are looked up in the database, if there is one
_PARTED = (".xml", ".param", ".bin")


@dataclass(frozen=True)
class Examined:
    """All results of one artifact; of a container those of everything in it.

    stamp: how the file looked before it was read (`stamp_of`), None where it can't be told whether it changes.
    recalled: from an earlier look at the same file.
    """

    artifact: Artifact
    results: tuple[Result, ...]
    stamp: str | None = None
    recalled: bool = False


class _Recent(dict[tuple[str, str], list[Result]]):
    """Forgets the oldest entries, so that memory does not grow with the number of models."""

    def __setitem__(self, key: tuple[str, str], value: list[Result]) -> None:
        while len(self) >= _SEEN:
            self.pop(next(iter(self)), None)
        super().__setitem__(key, value)


@dataclass(frozen=True)
class WorkFactory:
    """Makes the work in any process.

    threads: of each suspect's runtime. exposures: which probes were revealed, and are not asked again. open_all: see
    `AuditOptions`.
    """

    fingerprints: tuple[Fingerprint, ...]
    options: VerifyOptions
    threads: int
    known: Known | None = None
    exposures: Exposures | None = None
    open_all: bool = False

    def __call__(self) -> Work[Artifact, Examined]:
        """The work, with workers of its own."""
        return AuditWork(self)


class AuditWork(Work[Artifact, Examined]):
    """Examines artifacts from several threads: a verifier per thread, one warm pool for all."""

    def __init__(self, made: WorkFactory) -> None:
        self._made = made
        self._pool = WorkerPool(threads=made.threads)
        self._local = threading.local()
        self._seen = _Recent()

    def prepare(self, task: Artifact) -> Prepared[Examined]:
        """See `Work.prepare`: a plain file is read and hashed."""
        return _Prepared(self, task)

    def subject(self, artifact: Artifact) -> FileSubject:
        """What is examined of a file."""
        given = FoundSpec(artifact.spec, "source") if artifact.spec is not None else None
        kind = FileSubject if self._made.open_all else AskableSubject
        return kind(artifact.path, self._made.options, self._pool, given)

    def results(self, artifact: Artifact, subject: FileSubject | None = None) -> Iterator[Result]:
        """Results of an artifact, named by its provenance."""
        if artifact.finding is not None:
            for fingerprint in self._made.fingerprints:
                yield Result(
                    Suspect(artifact.name), reference(fingerprint), artifact.finding.status, artifact.finding.reason
                )
        elif artifact.kind == "file":
            for result in self._verifier().examine(subject or self.subject(artifact)):
                reason = result.reason if result.status == "decided" else f"{result.reason} {artifact.note}".strip()
                yield replace(result, suspect=replace(result.suspect, path=artifact.name), reason=reason)
        else:
            with opened(artifact) as inner:
                for one in inner:
                    yield from self.results(one)

    def _verifier(self) -> Verifier:
        verifier: Verifier | None = getattr(self._local, "verifier", None)
        if verifier is None:
            made = self._made
            verifier = Verifier(made.fingerprints, made.options, self._pool, made.known, self._seen, made.exposures)
            self._local.verifier = verifier
        return verifier

    def close(self) -> None:
        """See `Work.close`."""
        self._pool.close()


class AskableSubject(FileSubject):
    """A file that is opened only if its header does not rule out that it takes images."""

    @contextmanager
    def open(self, meter: Meter) -> Iterator[Answering]:
        """See `Subject.open`. Raises NotAskable too."""
        why = unaskable(declared(self._sealed.fd, self._sealed.format))
        if why is not None:
            raise NotAskable(f"{why}, so it can't be asked about images and was not opened")
        with super().open(meter) as session:
            yield session


class _Prepared:
    """An artifact whose turn comes soon."""

    def __init__(self, work: AuditWork, artifact: Artifact) -> None:
        self._work, self._artifact = work, artifact
        self._stamp = stamp_of(artifact)
        self._subject: FileSubject | None = None
        if artifact.kind == "file" and artifact.finding is None:
            self._subject = work.subject(artifact)
            self._subject.prepare()

    def run(self) -> Examined:
        """See `Prepared.run`."""
        return Examined(self._artifact, tuple(self._work.results(self._artifact, self._subject)), self._stamp)

    def drop(self) -> None:
        """See `Prepared.drop`."""
        if self._subject is not None:
            self._subject.discard()


class AuditCodec(Codec[Artifact, Examined]):
    """Artifacts and their results as JSON."""

    def key(self, task: Artifact) -> str:
        """See `Codec.key`."""
        return task.name

    def pack(self, task: Artifact) -> str:
        """See `Codec.pack`."""
        value: dict[str, object] = {"path": str(task.path), "name": task.name, "kind": task.kind}
        if task.pieces:
            value["pieces"] = [str(piece) for piece in task.pieces]
        if task.finding is not None:
            value["finding"] = [task.finding.status, task.finding.reason]
        if task.spec is not None:
            value["spec"] = task.spec.to_dict()
        return json.dumps({**value, "locator": task.locator, "note": task.note, "asked": task.asked})

    def unpack(self, text: str) -> Artifact:
        """See `Codec.unpack`."""
        from fingerprint.sources.interface import Finding

        value = json.loads(text)
        spec, finding = value.pop("spec", None), value.pop("finding", None)
        return Artifact(
            path=Path(value.pop("path")),
            pieces=tuple(Path(piece) for piece in value.pop("pieces", ())),
            spec=_spec(spec) if spec else None,
            finding=Finding(*finding) if finding else None,
            **value,
        )

    def encode(self, result: Examined) -> str:
        """See `Codec.encode`."""
        rows = [[r.to_stored(), r.settings_sha256] for r in result.results]
        return json.dumps({"rows": rows, "stamp": result.stamp})

    def decode(self, task: Artifact, text: str) -> Examined:
        """See `Codec.decode`."""
        value = json.loads(text)
        results = tuple(Result.from_dict(row, settings) for row, settings in value["rows"])
        return Examined(task, results, value["stamp"])


def _spec(fields: Mapping[str, Any]) -> InputSpec:
    made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return InputSpec(**made)


def stamp_of(artifact: Artifact) -> str | None:
    """How the files of an artifact look, without reading them: names, sizes, times, inodes. None for remote ones.

    The time of the last change of the inode is part of it: unlike that of the content, nobody can set it.
    """
    if artifact.kind == "remote" or artifact.finding is not None:
        return None
    try:
        looks = [_look(path) for path in _files_of(artifact)]
    except OSError:
        return None
    spec = None if artifact.spec is None else artifact.spec.to_dict()
    return json.dumps([looks, spec], separators=(",", ":"))


def _look(path: Path) -> list[object] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116  (called for every file of a registry)
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _files_of(artifact: Artifact) -> Iterator[Path]:
    """All files that decide about the results: the parts, and the sidecar, which may come to be."""
    path = artifact.path
    yield from artifact.pieces or (path,)
    if artifact.kind == "file":
        yield sidecar_path(path)
        if path.suffix.lower() in _PARTED:
            yield weights_of(path)
        elif is_package(path):
            yield from sorted(path.rglob("*"))


def question_of(fingerprints: Sequence[Fingerprint], options: VerifyOptions, *, open_all: bool = False) -> str:
    """All that the results of any artifact depend on besides its files: records, options, what runs and where.

    Raises:
        UsageError: a device that this machine does not have.
    """
    import hashlib

    from fingerprint import __version__
    from fingerprint.errors import FingerprintError
    from fingerprint.runtimes.devices import on_device, wanted
    from fingerprint.runtimes.registry import runtime_named, runtime_names

    versions: dict[str, str] = {}
    for name in runtime_names():
        try:
            runtime = runtime_named(name)
            runtime.check()
            versions[name] = runtime.version() + on_device(wanted())
        except FingerprintError as error:
            versions[name] = type(error).__name__
    given = {name: repr(value) for name, value in vars(options).items() if name not in ("threads", "remote", "data")}
    data = options.data.stat() if options.data is not None else None
    seen = [str(options.data), data.st_size, data.st_mtime_ns] if data is not None else None
    parts = [__version__, METHOD_VERSION, [f.id for f in fingerprints], given, seen, versions, open_all]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
