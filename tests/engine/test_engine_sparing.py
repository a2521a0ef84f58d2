"""A suspect that is opened ahead leaves a core to the verifier, until it has worked for a while."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from engine_models import IMAGES, NCHW, expected
from numpy.typing import NDArray

from fingerprint.engine import protocol, sparing, suspect
from fingerprint.engine.protocol import Header
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.engine.sparing import SparingModel
from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.registry import runtime_named

BATCH = np.arange(6, dtype=np.float32).reshape(3, 2)


class Fake(LoadedModel):
    """Answers twice its input, slowly."""

    def __init__(self, threads: int, cost: float = 0.01) -> None:
        self.signature, self.cost, self.calls = Signature((None, 2), "float32"), cost, 0
        self.concurrent = self.threads = threads

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        self.calls += 1
        time.sleep(self.cost)
        return np.asarray(batch, np.float32) * 2


def test_little_work_is_done_in_fewer_threads() -> None:
    few = Fake(1, cost=0.0)
    model = SparingModel(few, lambda: pytest.fail("opened again"))
    for _ in range(20):
        assert (model.predict(BATCH) == 2 * BATCH).all()
    assert model.sparing and few.calls == 20 and model.concurrent == 1


def test_long_work_gets_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparing, "_ENOUGH_S", 0.025)
    few, all_of_them = Fake(1), Fake(4)
    model = SparingModel(few, lambda: all_of_them)
    assert (model.signature, model.batch_range, model.own_batch) == (few.signature, few.batch_range, None)
    for _ in range(10):
        assert (model.predict(BATCH) == 2 * BATCH).all()
    assert few.calls <= 3 and few.calls + all_of_them.calls == 10
    assert not model.sparing and model.concurrent == 4


def test_batches_at_the_same_time_open_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparing, "_ENOUGH_S", 0.02)
    opened: list[Fake] = []

    def reopen() -> Fake:
        time.sleep(0.05)  # others ask meanwhile
        opened.append(Fake(4))
        return opened[-1]

    model = SparingModel(Fake(1), reopen)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: model.predict(BATCH), range(64)):
            assert (found == 2 * BATCH).all()
    assert len(opened) == 1 and opened[0].calls > 0


def test_a_file_that_can_t_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparing, "_ENOUGH_S", 0.0)

    def reopen() -> LoadedModel:
        raise UnreadableModel("gone")

    model = SparingModel(Fake(1), reopen)
    model.predict(BATCH)
    with pytest.raises(UnreadableModel, match="gone"):
        model.predict(BATCH)
    with pytest.raises(UnsupportedModel, match="once"):
        model.predict(BATCH)


class FakeRuntime(Runtime):
    """Notes in how many threads it opens."""

    name, extra, formats, spares = "fake", None, ("fake",), True

    def __init__(self) -> None:
        self.threads: list[int] = []

    def version(self) -> str:
        return "1"

    def preload(self) -> None:
        pass

    def load(self, path: Path, format: str, options: LoadOptions) -> Fake:
        self.threads.append(options.threads)
        return Fake(options.threads)


@pytest.mark.parametrize(
    ("request_of", "cores", "spares", "threads"),
    [
        ({"ahead": True}, 4, True, 3),
        ({"ahead": True}, 2, True, 1),
        ({"ahead": True}, 1, True, 0),
        ({"ahead": True}, 4, False, 0),
        ({"ahead": False}, 4, True, 0),
        ({}, 4, True, 0),
        ({"ahead": True, "threads": 2}, 4, True, 2),
    ],
)
def test_who_leaves_a_core(
    monkeypatch: pytest.MonkeyPatch, request_of: Header, cores: int, spares: bool, threads: int
) -> None:
    monkeypatch.setattr(suspect, "cores", lambda: cores)
    monkeypatch.setattr(FakeRuntime, "spares", spares)
    runtime = FakeRuntime()
    one, other = socket.socketpair()
    with one, other:
        asked: Header = {"format": "fake", "memory_bytes": 1, "threads": 0, **request_of}
        opened = suspect._Suspect(runtime, asked, one, Path("m"))._opened(LoadOptions(threads=asked["threads"]))  # type: ignore[arg-type]
    assert runtime.threads == [threads]
    assert isinstance(opened, SparingModel) == (threads not in (0, 2))


class Pictures(Fake):
    """Takes images."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads, cost=0.0)
        self.signature = Signature((None, 1, 8, 8), "float32")

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        return super().predict(batch).reshape(len(batch), -1)


@pytest.mark.parametrize("sparing", [False, True])
def test_a_batch_that_was_found_in_fewer_threads_is_not_remembered(sparing: bool) -> None:
    one, other = socket.socketpair()
    with one, other:
        asked: Header = {"format": "fake", "memory_bytes": 1, "threads": 0, "batch": 2}
        served = suspect._Suspect(FakeRuntime(), asked, one, Path("m"))
        few = Pictures(1)
        served._loaded = SparingModel(few, lambda: Pictures(2)) if sparing else few
        other.sendall(IMAGES[:4].tobytes())
        served._predict({"spec": NCHW.to_dict(), "shape": list(IMAGES[:4].shape)})
        reply = protocol.receive(other, 10_000)
    assert reply["batch"] == (None if sparing else 2)


@pytest.mark.parametrize("format", ["onnx", "tflite", "pt2"])
def test_its_answers_are_the_same(files: dict[str, Path], format: str) -> None:
    from engine_models import NHWC

    spec = NHWC if format == "tflite" else NCHW
    with WorkerPool() as pool, SealedFile.of(files[format]) as sealed:
        with pool.open(sealed, allow_code=True, ahead=True) as session:
            ahead = [session.predict(IMAGES, spec) for _ in range(2)]
        with pool.open(sealed, allow_code=True) as session:
            plain = session.predict(IMAGES, spec)
    for found in ahead:
        np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)
    if format != "tflite":
        np.testing.assert_allclose(plain, expected(), rtol=1e-3, atol=1e-3)


def test_runtimes_that_open_quickly() -> None:
    assert {n for n in ("onnx", "litert", "mnn", "torch", "tvm", "executorch") if runtime_named(n).spares} == {
        "onnx", "litert", "mnn",
    }  # fmt: skip
