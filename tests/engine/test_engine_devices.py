"""Workers that may compute on a GPU: spawned, told apart, and kept from code that is not trusted."""

import os
import socket
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from engine_models import FACTORY, IMAGES, NCHW, expected

from fingerprint.engine import landlock
from fingerprint.engine.environment import worker_environment
from fingerprint.engine.protocol import Header, ProtocolError
from fingerprint.engine.replies import checked_device
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.engine.suspect import _Suspect
from fingerprint.errors import UnsupportedModel, UsageError
from fingerprint.runtimes import devices
from fingerprint.runtimes.registry import runtime_named

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Landlock")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verifier sees a GPU; the worker, which looks for itself, finds what there is."""
    monkeypatch.setattr(devices, "gpus", lambda: ("cuda",))


def test_an_unknown_device_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no device is named 'gpu'"):
        WorkerPool(device="gpu")
    monkeypatch.setenv(devices.VARIABLE, "gpu")
    with pytest.raises(UsageError, match="no device is named 'gpu'"):
        WorkerPool()


def test_workers_fork_on_the_cpu_only(a_gpu: None) -> None:
    with WorkerPool() as pool:
        assert pool.device == "cpu" and pool._fork == (sys.platform == "linux")
    with WorkerPool(device="auto") as pool:
        assert pool.device == "auto" and not pool._fork


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is a GPU build")
def test_auto_in_a_worker_that_finds_none(files: dict[str, Path], a_gpu: None) -> None:
    with WorkerPool(threads=1, device="auto") as pool, SealedFile.of(files["onnx"]) as sealed:
        with pool.open(sealed) as session:
            np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), atol=1e-4)
            assert session.device == "cpu" and " on " not in session.runtime_version
        assert not pool._servers  # it served one suspect


def test_a_worker_never_replaces_what_was_asked(files: dict[str, Path], a_gpu: None) -> None:
    with (
        WorkerPool(threads=1, device="cuda:7") as pool,
        SealedFile.of(files["tflite"]) as sealed,
        pytest.raises(UnsupportedModel, match=r"cuda:7 was asked for, and litert offers cpu"),
    ):
        pool.open(sealed)


def test_code_is_not_contained_beside_a_gpu(files: dict[str, Path]) -> None:
    ours, theirs = socket.socketpair()
    request: Header = {"format": "torchscript", "memory_bytes": 1, "code": True, "device": "cuda"}
    with ours, theirs:
        suspect = _Suspect(runtime_named("torch"), request, theirs, files["torchscript"])
        suspect.device = "cuda"
        with pytest.raises(UnsupportedModel, match="not contained beside a GPU"):
            suspect._load(("memory", "cpu", "files", "landlock", "seccomp"))


def test_the_gpu_is_visible_to_those_who_asked_for_it() -> None:
    caller = {"CUDA_VISIBLE_DEVICES": "3", "AWS_SECRET_ACCESS_KEY": "x"}
    assert worker_environment(Path("/s"), caller=caller)["CUDA_VISIBLE_DEVICES"] == ""
    found = worker_environment(Path("/s"), caller=caller, gpu=True)
    assert found["CUDA_VISIBLE_DEVICES"] == "3" and "AWS_SECRET_ACCESS_KEY" not in found
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(Path("/s"), caller={}, gpu=True)


@pytest.mark.parametrize("name", [None, 1, "auto", "cuda:", "\x1b[2J", "cpu\n"])
def test_a_worker_names_a_device_or_is_lying(name: str | int | None) -> None:
    with pytest.raises(ProtocolError):
        checked_device(name)
    assert checked_device("cuda:1") == "cuda:1"


@LINUX
def test_device_files_can_be_written(tmp_path: Path) -> None:
    """`/dev/full` and `/dev/zero` stand for a GPU's node and another device."""
    import ctypes

    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(38, 1, 0, 0, 0)
        held = landlock.install(libc, tmp_path, (), (Path("/dev/full"),))
        os._exit(0 if not held or (_writable("/dev/full") and not _writable("/dev/zero")) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _writable(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR))
    except PermissionError:
        return False
    return True


@NEEDS_GPU
@pytest.mark.cuda
@pytest.mark.parametrize("format", ["pt2", "torchscript", "state-dict", "onnx"])
def test_a_suspect_on_the_gpu(format: str, files: dict[str, Path]) -> None:
    with (
        WorkerPool(threads=1, device="cuda") as pool,
        SealedFile.of(files[format]) as sealed,
        pool.open(sealed, allow_code=True, factory=FACTORY) as session,
    ):
        answers = session.predict(IMAGES, NCHW)
        np.testing.assert_allclose(answers, expected(), atol=1e-4)
        assert (answers.argmax(axis=1) == expected().argmax(axis=1)).all()
        assert session.device == "cuda" and session.runtime_version.endswith(" on cuda")


@NEEDS_GPU
@pytest.mark.cuda
def test_code_needs_trust_on_the_gpu(files: dict[str, Path]) -> None:
    with (
        WorkerPool(threads=1, device="cuda") as pool,
        SealedFile.of(files["pt2"]) as sealed,
        pytest.raises(UnsupportedModel, match="not contained beside a GPU"),
    ):
        pool.open(sealed)


@NEEDS_GPU
@pytest.mark.cuda
def test_batches_do_not_change_answers_on_the_gpu(files: dict[str, Path]) -> None:
    with (
        WorkerPool(threads=1, device="cuda") as pool,
        SealedFile.of(files["pt2"]) as sealed,
        pool.open(sealed, allow_code=True) as session,
    ):
        whole = session.predict(IMAGES, NCHW)
        single = np.concatenate([session.predict(image[None], NCHW) for image in IMAGES])
    np.testing.assert_allclose(whole, single, atol=1e-5)
