"""Suspects are read and hashed while the one before them computes; what was read for nothing is dropped."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from api_world import World

from fingerprint.api.subjects import FileSubject, ahead, subject_of
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import UsageError
from fingerprint.record import Fingerprint


def subjects(pool: WorkerPool, *paths: Path) -> list[FileSubject]:
    found = [subject_of(path, VerifyOptions(), pool) for path in paths]
    return [s for s in found if isinstance(s, FileSubject)]


def test_the_next_one_is_read_meanwhile(world: World, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, str]] = []
    original = SealedFile.of.__func__  # type: ignore[attr-defined]

    def watched(kind: type[SealedFile], path: Path, *args: object, **options: object) -> SealedFile:
        read.append((Path(path).name, threading.current_thread().name))
        return original(kind, path, *args, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(SealedFile, "of", classmethod(watched))
    files = subjects(pool, world.pruned_onnx, world.stranger_onnx, world.softmax_onnx)
    with ahead(files) as take:
        for index in range(3):
            with take(index) as subject:
                assert subject.suspect.sha256 is not None
    main = threading.current_thread().name
    assert sorted(read) == sorted(
        [(world.pruned_onnx.name, main), (world.stranger_onnx.name, "reading"), (world.softmax_onnx.name, "reading")]
    )


def test_what_nobody_asked_for_is_dropped(world: World, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    original = SealedFile.close
    monkeypatch.setattr(SealedFile, "close", lambda self: (closed.append(self.sha256), original(self))[1])
    files = subjects(pool, world.pruned_onnx, world.stranger_onnx)
    with pytest.raises(KeyboardInterrupt), ahead(files) as take:
        take(0)
        raise KeyboardInterrupt
    assert len(closed) == 1


def test_what_can_not_be_read_is_told_in_its_turn(
    world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path
) -> None:
    gone = tmp_path / "gone.onnx"
    gone.write_bytes(b"x")
    found = verify([world.pruned_onnx, gone, world.pruned_onnx], [record], VerifyOptions(alpha=0.05), pool=pool)
    first = next(found)
    gone.unlink(missing_ok=True)
    rest = list(found)
    assert first.lineage == "derived"
    assert [r.status for r in rest] == ["unreadable", "decided"]
    (missing,) = subjects(pool, tmp_path / "never.onnx") or [None]
    if missing is not None:
        missing.prepare()
        with pytest.raises(UsageError):
            missing.__enter__()
