"""Other runtimes in isolated workers: right answers, and damaged files that are results, whatever they do inside."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_models import IMAGES, NCHW, expected
from native_models import MODULES, has, parts, write_all

from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.errors import ModelError, SpecError, WorkerError
from fingerprint.runtimes.digest import weights_sha256
from fingerprint.runtimes.registry import runtime_for

FORMATS = [
    pytest.param(format, marks=pytest.mark.skipif(not has(*modules), reason=f"{modules[0]} is not installed"))
    for format, modules in MODULES.items()
]


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(threads=1) as made:
        yield made


def opened(pool: WorkerPool, path: Path) -> SuspectSession:
    with SealedFile.of(path) as sealed:
        return pool.open(sealed)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format(pool: WorkerPool, natives: dict[str, Path], format: str) -> None:
    with opened(pool, natives[format]) as session:
        assert (session.format, session.runtime) == (format, runtime_for(format).name)
        assert session.runtime_version == runtime_for(format).version()
        np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), atol=1e-3)
        assert session.weights_sha256() == weights_sha256(runtime_for(format).weights(natives[format], format))
    server = next(s for s in pool._servers if s.runtime == session.runtime)
    assert len(list(Path(f"/proc/{server.process.pid}/task").iterdir())) == 1  # safe to fork


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_answered_is_the_sealed_copy(pool: WorkerPool, natives: dict[str, Path], format: str) -> None:
    path = natives[format]
    before = {part: part.read_bytes() for part in parts(path)}
    with SealedFile.of(path) as sealed:
        try:
            for part in before:
                part.write_bytes(b"other content")
            with pool.open(sealed) as session:
                np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), atol=1e-3)
        finally:
            for part, content in before.items():
                part.write_bytes(content)


@pytest.mark.parametrize("format", FORMATS)
def test_private_files_where_there_is_no_sealed_memory(pool: WorkerPool, natives: dict[str, Path], format: str) -> None:
    with SealedFile.of(natives[format], in_memory=False) as sealed, pool.open(sealed) as session:
        np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), atol=1e-3)
    assert not any(part.location.exists() for part in sealed.parts if part.location)


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Truncations, then flips."""
    for cut in (9, len(content) // 3, len(content) - 20):
        yield "cut", content[:cut]
    chance = random.Random(len(content))
    for _ in range(6):
        data = bytearray(content)
        for _ in range(4):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield "flipped", bytes(data)


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_are_results(pool: WorkerPool, natives: dict[str, Path], tmp_path: Path, format: str) -> None:
    files = parts(natives[format])
    for damaged in files:
        for what, data in damages(damaged.read_bytes()):
            for file in files:
                (tmp_path / file.name).write_bytes(data if file == damaged else file.read_bytes())
            try:
                with opened(pool, tmp_path / files[0].name) as session:
                    session.predict(IMAGES, NCHW)
                assert what == "flipped", f"a cut {damaged.suffix} answered"
            except (ModelError, WorkerError, SpecError) as error:
                assert error.message.isprintable()
    with opened(pool, natives[format]) as session:
        assert session.predict(IMAGES, NCHW).shape == (16, 10)
