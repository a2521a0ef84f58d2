"""Answers depend neither on the batch nor on the threads nor on the worker that gave them, up to rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_models import FACTORY, IMAGES, NCHW, NHWC, network

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


class _Dynamic(torch.nn.Module):
    """The network, with 8-bit features whose range is that of the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        import torch.ao.quantization.fx._decomposed

        work = torch.ops.quantized_decomposed
        scale, zero = work.choose_qparams.tensor(images, -128, 127, 1e-6, torch.int8)
        small = work.quantize_per_tensor.tensor(images, scale, zero, -128, 127, torch.int8)
        plain = work.dequantize_per_tensor.tensor(small, scale, zero, -128, 127, torch.int8)
        return self.inner(plain)


def _dynamic(kind: str, files: dict[str, Path], folder: Path) -> Path:
    """A file that sets 8-bit ranges while it runs."""
    if kind == "onnx":
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(str(files["onnx"]), str(folder / "dynamic.onnx"))
        return folder / "dynamic.onnx"
    example = torch.zeros(2, 1, 8, 8)
    if kind == "torchscript":
        small = torch.ao.quantization.quantize_dynamic(network().eval(), {torch.nn.Linear})
        torch.jit.trace(small, example).save(str(folder / "dynamic.pt"))
        return folder / "dynamic.pt"
    sizes = {"images": {0: torch.export.Dim("batch", min=1, max=512)}}
    torch.export.save(torch.export.export(_Dynamic().eval(), (example,), dynamic_shapes=sizes), folder / "dynamic.pt2")
    return folder / "dynamic.pt2"


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", ["onnx", "torchscript", "pt2"])
def test_ranges_of_a_whole_batch(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """A file that sets its 8-bit ranges while it runs answers each image alone: no answer depends on the company."""
    path = _dynamic(kind, files, tmp_path)
    images = (IMAGES * np.linspace(0.1, 1.0, len(IMAGES)).reshape(-1, 1, 1, 1)).astype(np.uint8)
    for threads in (1, 2):
        model = open_local(path, options=LoadOptions(threads=threads))
        prepared = Adapter(NCHW, model.signature)(images)
        together = model.loaded.predict(prepared)
        assert np.abs(together - model.predict(images, NCHW)).max() > 1e-4  # the company matters, if there is any
        found = model.predict(images, NCHW)
        for i in range(len(images)):
            assert (model.predict(images[i : i + 1], NCHW) == found[i]).all()
