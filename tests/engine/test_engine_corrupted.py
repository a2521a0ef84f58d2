"""The long suite of damaged files: per format ten truncations and fifty corruptions, each a typed result in time."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from engine_models import FACTORY, FIXTURES, IMAGES, NCHW, NHWC
from native_models import parts, write_all

from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import ModelError, SpecError, WorkerError

pytestmark = pytest.mark.slow
TRUNCATIONS, CORRUPTIONS = 10, 50
LIMIT_S = 10.0  # of wall time for any answer
ORDINARY = ("pt2", "torchscript", "state-dict", "safetensors", "onnx", "tflite")
NATIVE = ("openvino", "ncnn", "mnn", "executorch")


@pytest.fixture(scope="module")
def everything(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {**files, **write_all(tmp_path_factory.mktemp("native"))}


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(threads=1) as made:
        made.limits = replace(made.limits, load_s=LIMIT_S, predict_s=LIMIT_S)
        yield made


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)  # where the factory's module is


def damages(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Truncations at lengths that are spread evenly; then bytes replaced, bits flipped, and pieces overwritten."""
    for k in range(TRUNCATIONS):
        yield "cut", content[: max(1, len(content) * k // TRUNCATIONS)]
    for k in range(CORRUPTIONS):
        data = bytearray(content)
        if k % 3 == 0:
            data[chance.randrange(len(data))] = chance.randrange(256)
        elif k % 3 == 1:
            for _ in range(8):
                data[chance.randrange(min(len(data), 512))] ^= 1 << chance.randrange(8)
        else:
            start, length = chance.randrange(len(data)), chance.randrange(1, 64)
            data[start : start + length] = chance.randbytes(min(length, len(data) - start))
        yield "corrupted", bytes(data)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("format", [*ORDINARY, *NATIVE])
def test_damaged_files(pool: WorkerPool, everything: dict[str, Path], tmp_path: Path, format: str) -> None:
    if format not in everything:
        pytest.skip(f"{format} can't be made here")
    found: Counter[str] = Counter()
    originals = parts(everything[format])
    for damaged in originals:
        for what, data in damages(damaged.read_bytes(), random.Random(7)):
            for part in originals:
                (tmp_path / part.name).write_bytes(data if part == damaged else part.read_bytes())
            started = time.monotonic()
            try:
                with (
                    SealedFile.of(tmp_path / originals[0].name) as sealed,
                    pool.open(sealed, allow_code=True, factory=FACTORY) as session,
                ):
                    session.predict(IMAGES, NHWC if format == "tflite" else NCHW)
                found[f"{what}: answered"] += 1
            except (ModelError, WorkerError, SpecError) as error:
                assert error.message.isprintable()
                found[f"{what}: {type(error).__name__}"] += 1
            assert time.monotonic() - started < 3 * LIMIT_S
    assert sum(found.values()) == len(originals) * (TRUNCATIONS + CORRUPTIONS)
    assert not found["cut: answered"], found
    with SealedFile.of(everything["onnx"]) as sealed, pool.open(sealed) as session:
        assert session.predict(IMAGES, NCHW).shape == (16, 10)
