"""Batch sizes found best are remembered between runs, and nothing bad comes of a bad memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from engine_models import IMAGES, NCHW, expected, write_onnx
from hypothesis import given
from hypothesis import strategies as st
from test_engine_batching import Fake, ask

from fingerprint.engine.batches import LARGEST, MOST, BatchFile
from fingerprint.engine.batching import BatchTuner
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool


@given(st.integers(1, 200), st.integers(1, 100_000))
def test_a_known_size_is_used_from_the_first_batch(count: int, known: int) -> None:
    model = Fake()
    model.batch_range = (1, 64)
    ask(model, count, BatchTuner(known=known))
    size = min(known, 64)
    assert sum(model.sizes) == count
    assert max(model.sizes) <= min(64, 2 * size)  # equal parts may be larger or smaller, by a factor of two at most
    assert all(2 * asked >= size for asked in model.sizes[:-1])


def test_a_fixed_batch_is_stronger_than_memory() -> None:
    model = Fake(batch=3)
    ask(model, 10, BatchTuner(known=50))
    assert set(model.sizes) == {3}


def test_a_file_remembers(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "batches.json"
    first = BatchFile(path)
    assert first.recall("a") is None
    first.keep("a", 16)
    first.keep("b", 0)
    first.keep("c", LARGEST + 1)
    first.flush()
    assert {k: BatchFile(path).recall(k) for k in "abc"} == {"a": 16, "b": None, "c": None}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    for i in range(MOST + 10):
        first.keep(f"k{i}", 8)
    first.flush()
    assert len(json.loads(path.read_text())) == MOST
    assert not list(path.parent.glob("batches.json.*"))


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": "x", "b": -1, "c": true, "d": 1e9}', "\x00"])
def test_a_damaged_memory_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "batches.json"
    path.write_text(text)
    memory = BatchFile(path)
    assert [memory.recall(k) for k in "abcd"] == [None] * 4
    memory.keep("a", 4)
    memory.flush()
    assert BatchFile(path).recall("a") == 4


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = BatchFile(tmp_path / "file" / "batches.json")
    memory.keep("a", 4)
    memory.flush()
    assert memory.recall("a") == 4


def test_a_pool_remembers_what_its_workers_found(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx")
    many = np.concatenate([IMAGES] * (1 + 4096 // len(IMAGES)))
    path = tmp_path / "batches.json"
    for _ in range(2):
        with WorkerPool(threads=1) as pool, SealedFile.of(model) as sealed:
            pool.memory = BatchFile(path)
            with pool.open(sealed) as session:
                found = session.predict(many, NCHW)
                size = session.batch
        np.testing.assert_allclose(found[: len(IMAGES)], expected(), rtol=1e-4, atol=1e-4)
        assert size is not None
        (key,) = json.loads(path.read_text())
        assert sealed.sha256 in key
        assert json.loads(path.read_text())[key] == size
