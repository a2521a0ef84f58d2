"""Small records, keys, and child processes that may lose their rights or be killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fingerprint.record import (
    Clean,
    Family,
    Fingerprint,
    Manifest,
    Owner,
    Payload,
    Probes,
    Seed,
    Spec,
    Tool,
    Uniqueness,
)
from store.database import Database
from store.home import Home
from store.keys import Keys, Signer
from store.sealing import Sealed, seal

NOBODY = 65534


def make_fingerprint(
    name: str = "resnet",
    *,
    seed: int = 0,
    count: int = 4,
    side: int = 2,
    outputs: int = 3,
    evidential: bool = True,
    created: str = "2026-11-23T00:00:00Z",
    previous: str | None = None,
) -> Fingerprint:
    """A valid record of `count` random probes; the same arguments give the same record."""
    random = np.random.default_rng(seed)
    shape = (side, side, 3)
    payload = Payload(
        probes=random.integers(0, 256, (count, *shape), dtype=np.uint8),
        targets=random.integers(0, outputs, count),
        family=np.array([i % 2 for i in range(count)], dtype=np.uint8) if count > 1 else np.zeros(1, np.uint8),
        responses=random.normal(size=(count, outputs)).astype(np.float32),
        salts=random.integers(0, 256, (count, 32), dtype=np.uint8),
        secret=random.integers(0, 256, 32, dtype=np.uint8),
        clean_images=random.integers(0, 256, (2, *shape), dtype=np.uint8),
        clean_labels=np.array([-1, 1], dtype=np.int64),
        clean_responses=random.normal(size=(2, outputs)).astype(np.float32),
    )
    counts = np.bincount(payload.family).tolist()
    manifest = Manifest(
        name=name,
        created=created,
        tool=Tool(name="dnn-fingerprint", version="0.1.0"),
        owner=Owner(sha256=hashlib.sha256(b"owner%d" % seed).hexdigest(), size=10, format="onnx", runtime="onnx"),
        input_spec=Spec(
            layout="NCHW",
            shape=(3, side, side),
            dtype="float32",
            range=(0, 1),
            mean=(0.5,),
            std=(0.25,),
            channels="RGB",
        ),
        outputs=outputs,
        seed=Seed(
            commitment=hashlib.sha256(payload.secret.tobytes()).hexdigest(), derivation="HKDF", evidential=evidential
        ),
        families=tuple(
            Family(name=f"family{i}", count=n, weight=0.5, parameters={"steps": 10}, candidates=9, passes=99)
            for i, n in enumerate(counts)
        ),
        probes=Probes(count=count, shape=shape, merkle_root=payload.merkle_root()),
        uniqueness=Uniqueness(robustness=1.0, transferability=0.25, score=0.75),
        clean=Clean(count=2, labelled=False),
        previous=previous,
    )
    return Fingerprint(manifest, payload)


def equal(first: Fingerprint, second: Fingerprint) -> bool:
    """The same tensors, and the same manifest but for what sealing adds."""
    same = first.payload.to_bytes() == second.payload.to_bytes()
    plain = [record.manifest.model_copy(update={"tensors": None}) for record in (first, second)]
    return same and plain[0] == plain[1]


@dataclass
class World:
    """A home with a trusted signer and an open database."""

    home: Home
    signer: Signer
    stranger: Signer
    database: Database

    @property
    def keys(self) -> Keys:
        """The trusted keys."""
        return {self.signer.key_id: self.signer.public}

    def sealed(self, name: str = "resnet", **options: object) -> Sealed:
        """A sealed record."""
        return seal(make_fingerprint(name, **options), self.signer)  # type: ignore[arg-type]

    def tensors(self, sealed: Sealed) -> Path:
        """The stored ciphertext."""
        return Path(f"{self.database.path}.tensors") / f"{sealed.manifest.tensors.sha256}.bin"

    def data_key(self, sealed: Sealed) -> Path:
        """The stored data key."""
        return self.home.secrets / f"{sealed.manifest.tensors.sha256}.key"

    def tamper(self, sql: str, values: Iterable[object] = ()) -> None:
        """Run SQL behind the store's back, with its triggers out of the way."""
        connection = self.database._connection.raw
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(sql, tuple(values))
        for _, create in triggers:
            connection.execute(create)

    def reopen(self, **options: object) -> Database:
        """Close and open again."""
        self.database.close()
        self.database = Database.open(self.home.database, self.home, **options)  # type: ignore[arg-type]
        return self.database

    def errors(self) -> list[str]:
        """What `check` calls errors."""
        return [str(problem) for problem in self.database.check(self.keys) if problem.kind == "error"]


@dataclass
class Child:
    """A forked process that runs `body` and sends what it reports, line by line."""

    pid: int
    pipe: int

    @classmethod
    def start(cls, body: Callable[[Callable[[object], None]], object]) -> Child:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            return cls(pid, reader)
        write = os.write
        status = 1
        try:
            os.close(reader)
            result = body(lambda value: write(writer, json.dumps(value).encode() + b"\n") and None)
            write(writer, json.dumps({"result": result}).encode() + b"\n")
            status = 0
        except BaseException:
            sys.__stderr__.write(traceback.format_exc())
        finally:
            os._exit(status)

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    def join(self) -> tuple[int, list[object]]:
        """Wait for the end: (exit status or minus the signal, what was reported in whole lines)."""
        with os.fdopen(self.pipe, "rb") as pipe:
            lines = pipe.read().split(b"\n")
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), [json.loads(line) for line in lines[:-1]]


def run_child(body: Callable[[], object], *, unprivileged: bool = False) -> object:
    """What `body` returns in a process of its own; as nobody if `unprivileged` and we are root."""

    def start(_: object) -> object:
        if unprivileged and os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return body()

    code, lines = Child.start(start).join()
    assert code == 0, "the child process failed; see its traceback"
    last = lines[-1]
    assert isinstance(last, dict)
    return last["result"]
