"""Devices: names, what is offered, and models that are placed where they were asked for."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from engine_models import FACTORY, IMAGES, NCHW, expected

from fingerprint.engine.adapt import Adapter
from fingerprint.engine.local import open_local
from fingerprint.errors import UnsupportedModel, UsageError
from fingerprint.runtimes import devices
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.registry import runtime_named
from fingerprint.runtimes.torch_model import TorchModel, raise_if_out_of_memory

TORCH = ["pt2", "torchscript", "state-dict", "safetensors"]
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: ())


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: ("cuda",))


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:100", "cuda:-1", "cpu:0", "meta", "mps:0"])
def test_a_wrong_name_is_an_error(name: str, a_gpu: None) -> None:
    with pytest.raises(UsageError, match="no device is named") as caught:
        devices.wanted(name)
    assert "auto, cpu, cuda" in caught.value.remedy


def test_the_cpu_unless_asked(monkeypatch: pytest.MonkeyPatch, a_gpu: None) -> None:
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    assert devices.wanted() == "cpu"
    monkeypatch.setenv(devices.VARIABLE, " CUDA:1 ")
    assert devices.wanted() == "cuda:1"
    assert devices.wanted("auto") == "auto"
    assert devices.wanted("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_missing_gpu_is_never_replaced(name: str, no_gpu: None) -> None:
    with pytest.raises(UsageError, match=f"{name} was asked for") as caught:
        devices.wanted(name)
    assert "doctor" in caught.value.remedy


def test_auto_takes_what_there_is(no_gpu: None) -> None:
    assert devices.wanted("auto") == "cpu"
    assert devices.choose("auto", ("cpu", "cuda", "cuda:0"), "torch") == "cuda"
    assert devices.choose("auto", ("cpu",), "litert") == "cpu"


def test_a_gpu_that_a_runtime_has_not_is_never_replaced() -> None:
    with pytest.raises(UnsupportedModel, match=r"litert offers cpu for such a file"):
        devices.choose("cuda", ("cpu",), "litert")
    with pytest.raises(UnsupportedModel, match=r"torch offers cpu, cuda, cuda:0"):
        devices.choose("cuda:1", ("cpu", "cuda", "cuda:0"), "torch")


def test_what_torch_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    runtime = runtime_named("torch")
    assert runtime.devices("pt2")[:4] == ("cpu", "cuda", "cuda:0", "cuda:1")
    assert runtime.devices("aotinductor") == ("cpu",)
    assert runtime_named("litert").devices("tflite") == ("cpu",)


def test_what_onnx_runtime_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_named("onnx")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert runtime.devices("onnx") == ("cpu",)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert runtime.devices("onnx") == ("cpu", "cuda")


def test_onnx_runtime_may_not_fall_back(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers on the CPU, with a warning, where CUDA does not start."""
    real, asked = onnxruntime.InferenceSession, []

    def session(path: str, settings: object, providers: list[object]) -> object:
        asked.append(providers)
        return real(path, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(UnsupportedModel, match="can't start CUDA"):
        runtime_named("onnx").load(files["onnx"], "onnx", LoadOptions(device="cuda"))
    (name, settings), last = asked[0]
    assert name == "CUDAExecutionProvider" and settings["use_tf32"] == "0" and last == "CPUExecutionProvider"


@pytest.mark.parametrize("format", TORCH)
def test_weights_go_to_the_device(format: str, files: dict[str, Path]) -> None:
    """torch's `meta` device holds no values; that all of a model lies there shows that all of it was moved."""
    loaded = runtime_named("torch").load(files[format], format, LoadOptions(factory=FACTORY, device="meta"))
    module = loaded.differentiable()
    tensors = [*module.parameters(), *module.buffers()]
    assert tensors and {t.device.type for t in tensors} == {"meta"}
    with pytest.raises(UnsupportedModel, match="meta"):  # computed there, and no answer comes back
        loaded.predict(Adapter(NCHW, loaded.signature)(IMAGES[:2]))


def test_memory_of_a_device_is_memory() -> None:
    with pytest.raises(MemoryError):
        raise_if_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"))


def test_trusted_models_follow_the_variable(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "nonsense")
    with pytest.raises(UsageError, match="nonsense"):
        open_local(files["onnx"])
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    monkeypatch.setattr(devices, "gpus", lambda: ("cuda",))
    with pytest.raises(UnsupportedModel, match="litert offers cpu"):
        open_local(files["tflite"])


def test_device_files_are_found() -> None:
    for node in devices.nodes():
        assert node.exists() and node.parts[1] == "dev"


@NEEDS_GPU
@pytest.mark.cuda
@pytest.mark.parametrize("format", [*TORCH, "onnx"])
def test_answers_of_the_gpu(format: str, files: dict[str, Path]) -> None:
    options = LoadOptions(factory=FACTORY, device="cuda")
    found = open_local(files[format], options=options)
    np.testing.assert_allclose(found.predict(IMAGES, NCHW), expected(), atol=1e-4)
    if isinstance(found.loaded, TorchModel):
        assert {p.device.type for p in found.loaded.differentiable().parameters()} == {"cuda"}


@NEEDS_GPU
@pytest.mark.cuda
def test_gradients_of_the_gpu(files: dict[str, Path]) -> None:
    from fingerprint.probes.gradient import DifferentiableOwner

    gradients = {}
    for device in ("cpu", "cuda"):
        module = open_local(files["onnx"], options=LoadOptions(device=device)).loaded.differentiable()
        owner = DifferentiableOwner(module, NCHW, 10)
        assert owner.device.type == device
        images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()
        _, gradient = owner.margin_and_gradient(images, torch.zeros(len(images), dtype=torch.long).to(device), 1e6)
        gradients[device] = gradient.cpu()
    torch.testing.assert_close(gradients["cpu"], gradients["cuda"], atol=1e-4, rtol=1e-3)
