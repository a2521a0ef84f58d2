"""Answers depend neither on the batch nor on the threads nor on the worker that gave them, up to rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_models import FACTORY, IMAGES, NCHW, NHWC

from fingerprint.engine.adapt import Adapter
from fingerprint.engine.batching import BatchTuner, answer
from fingerprint.engine.local import open_local
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.model import Floats
from fingerprint.runtimes.interface import LoadOptions

FORMATS = ["pt2", "torchscript", "state-dict", "safetensors", "onnx", "tflite"]


def alone(path: Path, spec_name: str, batch: int, threads: int) -> Floats:
    """Its answers in batches of at most `batch`."""
    spec = NHWC if spec_name == "tflite" else NCHW
    model = open_local(path, options=LoadOptions(threads=threads, factory=FACTORY))
    adapter = Adapter(spec, model.signature)
    return answer(model.loaded, adapter, IMAGES, BatchTuner(most_bytes=batch * adapter.input_bytes))


@pytest.mark.parametrize("format", FORMATS)
def test_batches_and_threads(files: dict[str, Path], format: str) -> None:
    first = alone(files[format], format, 1, 1)
    for batch, threads in ((3, 1), (16, 1), (16, 2), (1, 2)):
        found = alone(files[format], format, batch, threads)
        np.testing.assert_allclose(found, first, rtol=1e-4, atol=1e-5)
        assert (found.argmax(axis=1) == first.argmax(axis=1)).all()


@pytest.mark.parametrize("format", FORMATS)
def test_workers(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """Two suspects at a time, twice: the same bytes each time."""
    monkeypatch.chdir(Path(__file__).parents[1] / "fixtures")
    spec = NHWC if format == "tflite" else NCHW
    seen = set()
    with WorkerPool(threads=1) as pool, SealedFile.of(files[format]) as sealed:
        for _ in range(2):
            with (
                pool.open(sealed, allow_code=True, factory=FACTORY) as one,
                pool.open(sealed, allow_code=True, factory=FACTORY) as other,
            ):
                seen |= {session.predict(IMAGES, spec).tobytes() for session in (one, other, one)}
    assert len(seen) == 1
