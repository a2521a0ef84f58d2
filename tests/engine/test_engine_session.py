"""Suspects in isolated workers: right answers, typed failures, nothing left behind."""

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import engine_models
import numpy as np
import pytest
import torch
from engine_models import FACTORY, FIXTURES, IMAGES, NCHW, NHWC, expected, write_onnx

from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.errors import (
    DataError,
    DegenerateModel,
    FingerprintError,
    ModelError,
    SpecError,
    UnreadableModel,
    UnsupportedModel,
    UsageError,
    WorkerCrashed,
    WorkerError,
    WorkerTimedOut,
)
from fingerprint.limits import GIB, Limits
from fingerprint.model import labels_of
from fingerprint.runtimes.digest import weights_sha256
from fingerprint.runtimes.registry import runtime_for

ROOT = Path(__file__).parents[2]
FORMATS = ["pt2", "torchscript", "state-dict", "safetensors", "onnx", "tflite"]
TRUST = {"allow_code": True, "factory": FACTORY}
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    os.environ["FINGERPRINT_PASSPHRASE"] = "secret"
    with WorkerPool(threads=1) as made:
        made.prestart("torch")
        yield made
    del os.environ["FINGERPRINT_PASSPHRASE"]


@pytest.fixture
def limited(pool: WorkerPool) -> Iterator[WorkerPool]:
    """The same pool with tight limits."""
    before = pool.limits
    pool.limits = replace(before, predict_s=2.0, worker_memory_bytes=GIB, worker_cpu_s=60)
    yield pool
    pool.limits = before


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)  # where the factory's module is


def opened(pool: WorkerPool, path: Path, **options: object) -> SuspectSession:
    with SealedFile.of(path) as sealed:
        return pool.open(sealed, **options)  # type: ignore[arg-type]


def children() -> list[int]:
    """Living processes that were started from this one, at any depth, and are no zombies."""
    parents: dict[int, tuple[int, str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(stat.parent.name)] = (int(parent), state)
    mine = {os.getpid()}
    while more := {pid for pid, (parent, _) in parents.items() if parent in mine} - mine:
        mine |= more
    return sorted(pid for pid in mine - {os.getpid()} if parents[pid][1] != "Z")


def settled_children() -> list[int]:
    """The same once nothing changes: what another test closed is killed, and may still be on its way out."""
    found, end = children(), time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.3)
        found, last = children(), found
        if found == last:
            break
    return found


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format(pool: WorkerPool, files: dict[str, Path], format: str) -> None:
    lite = format == "tflite"
    with opened(pool, files[format], **TRUST) as session:
        answers = session.predict(IMAGES, NHWC if lite else NCHW)
        assert (session.format, session.runtime) == (format, runtime_for(format).name)
        assert session.runtime_version == runtime_for(format).version()
        assert session.weights_sha256() == weights_sha256(runtime_for(format).weights(files[format], format))
    reference = np.load(FIXTURES / "tiny_float_answers.npy") if lite else expected()
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, reference, atol=1e-4)


def test_signature_and_repeated_requests(pool: WorkerPool, files: dict[str, Path]) -> None:
    with opened(pool, files["onnx"]) as session:
        assert session.signature.shape == (None, 1, 8, 8) and session.signature.classes == 10
        for count in (1, 16, 3):
            np.testing.assert_allclose(session.predict(IMAGES[:count], NCHW), expected()[:count], atol=1e-4)
        assert session.predict(IMAGES[::2], NCHW).shape == (8, 10)  # not contiguous


def test_many_messages_where_one_would_be_too_long(pool: WorkerPool, files: dict[str, Path]) -> None:
    with opened(pool, files["onnx"]) as session:
        session._limits = replace(pool.limits, message_bytes=64 * 5)
        np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), atol=1e-4)


def test_quantized(pool: WorkerPool) -> None:
    with opened(pool, FIXTURES / "tiny_int8.tflite") as session:
        assert session.signature.dtype == "int8"
        answers = session.predict(IMAGES, NHWC)
    assert (labels_of(answers) == np.load(FIXTURES / "tiny_float_answers.npy").argmax(axis=1)).mean() >= 0.9


def test_a_bad_request_does_not_end_the_session(pool: WorkerPool, files: dict[str, Path]) -> None:
    with opened(pool, files["onnx"]) as session:
        with pytest.raises(SpecError, match="the file wants"):
            session.predict(IMAGES, NHWC)
        with pytest.raises(DataError):
            session.predict(IMAGES[..., 0], NCHW)
        with pytest.raises(DataError):
            session.predict(IMAGES[:0], NCHW)
        assert session.predict(IMAGES, NCHW).shape == (16, 10)
    with pytest.raises(WorkerCrashed, match="ended already"):
        session.predict(IMAGES, NCHW)
    session.close()


def test_weights_need_a_factory(pool: WorkerPool, files: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedModel, match="weights only") as caught:
        opened(pool, files["safetensors"])
    assert "--factory module:callable" in caught.value.remedy
    with pytest.raises(UsageError, match="can't be found"):
        opened(pool, files["safetensors"], factory="no_such_module:thing")


def test_bombs_do_not_go_off(pool: WorkerPool, files: dict[str, Path], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(UnsupportedModel, match="refused and nothing ran"):
        opened(pool, engine_models.write_bomb(tmp_path / "bomb.pth", marker), factory=FACTORY)
    raw = engine_models.write_bomb(tmp_path / "raw.pth", marker, raw=True)
    for trust in ({"factory": FACTORY}, TRUST):
        with pytest.raises(UnsupportedModel, match="refused and nothing ran"):
            opened(pool, raw, **trust)
    evil = engine_models.write_pt2_bomb(tmp_path / "evil.pt2", files["pt2"], marker)
    for consent in (False, True):
        with pytest.raises((ModelError, WorkerError)):
            opened(pool, evil, allow_code=consent).predict(IMAGES, NHWC)  # its code runs, and can do nothing
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", UnreadableModel, "empty"),
        (b"hello, world", UnreadableModel, "hello, w"),
        (b"PK\3\4 cut", UnreadableModel, "cut or damaged"),
        (b"GGUF....", UnsupportedModel, "GGUF"),
        (b"7767517\n1 1\n", UnreadableModel, r"weights are missing: there is no m\.bin beside m"),
        (b"\x7fELF\2\1\1", UnsupportedModel, "shared library"),
        (b"version https://git-lfs.github.com/spec/v1\n", UnsupportedModel, "Git LFS"),
    ],
)
def test_what_is_no_model(
    pool: WorkerPool, tmp_path: Path, content: bytes, error: type[ModelError], words: str
) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(error, match=words):
        opened(pool, tmp_path / "m")


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_are_results(pool: WorkerPool, files: dict[str, Path], tmp_path: Path, format: str) -> None:
    whole = files[format].read_bytes()
    chance = random.Random(len(whole))
    damaged = [whole[:cut] for cut in (9, len(whole) // 2, len(whole) - 20)]
    for _ in range(4 if format == "pt2" else 10):
        data = bytearray(whole)
        for _ in range(6):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(data))
    seen = []
    for data in damaged:
        path = tmp_path / "damaged"
        path.write_bytes(data)
        try:
            with opened(pool, path, **TRUST) as session:
                session.predict(IMAGES, NHWC if format == "tflite" else NCHW)
            seen.append("answered")
        except (ModelError, WorkerError, SpecError) as error:
            assert error.message.isprintable()
            seen.append(type(error).__name__)
    assert "answered" not in seen[:3] and set(seen[:3]) <= {"UnreadableModel", "WorkerCrashed"}, seen
    with opened(pool, files["onnx"]) as session:
        assert session.predict(IMAGES, NCHW).shape == (16, 10)


@pytest.mark.parametrize(
    ("tail", "error"),
    [("nan", DegenerateModel), ("constant", DegenerateModel), ("map", UnsupportedModel), ("scalar", UnsupportedModel)],
)
def test_nonsense(pool: WorkerPool, tmp_path: Path, tail: str, error: type[ModelError]) -> None:
    with opened(pool, write_onnx(tmp_path / "m.onnx", tail=tail)) as session, pytest.raises(error):
        session.predict(IMAGES, NCHW)


def test_zero_classes(pool: WorkerPool, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        opened(pool, write_onnx(tmp_path / "m.onnx", classes=0)).predict(IMAGES, NCHW)


def test_shapes_that_are_vectors(pool: WorkerPool, tmp_path: Path) -> None:
    for path in (
        write_onnx(tmp_path / "square.onnx", tail="square"),
        write_onnx(tmp_path / "row.onnx", tail="flat"),
        write_onnx(tmp_path / "fixed.onnx", batch=5),
    ):
        with opened(pool, path) as session:
            np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), atol=1e-4)


def test_hang(limited: WorkerPool, tmp_path: Path) -> None:
    path = engine_models.write_script(tmp_path / "m.pt", engine_models.Looping().eval())
    session = opened(limited, path, allow_code=True)
    start = time.monotonic()
    with pytest.raises(WorkerTimedOut, match="within 2 s"):
        session.predict(IMAGES, NCHW)
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(session.pid, 0)


def test_cpu_limit(limited: WorkerPool, tmp_path: Path) -> None:
    path = engine_models.write_script(tmp_path / "m.pt", engine_models.Looping().eval())
    limited.limits = replace(limited.limits, worker_cpu_s=1, predict_s=60.0)
    with pytest.raises(WorkerTimedOut, match="CPU time"):
        opened(limited, path, allow_code=True).predict(IMAGES, NCHW)


def test_memory_bomb(limited: WorkerPool, tmp_path: Path) -> None:
    path = engine_models.write_script(tmp_path / "m.pt", engine_models.Hoarding().eval())
    limited.limits = replace(limited.limits, predict_s=60.0)
    with opened(limited, path, allow_code=True) as session, pytest.raises(WorkerCrashed, match="memory limit"):
        session.predict(IMAGES, NCHW)


def test_a_program_that_unfolds_without_end(
    limited: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions that call each other twice: a small file, and two to the power of 26 nodes once it is read whole."""
    lines = ["import torch", "def f0(x):", "    return x + 1"]
    for i in range(26):
        lines += [f"def f{i + 1}(x):", f"    return f{i}(f{i}(x))"]
    lines += ["class Net(torch.nn.Module):", "    def forward(self, x):", "        return f26(x).flatten(1)"]
    (tmp_path / "unfolding.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    torch.jit.script(importlib.import_module("unfolding").Net()).save(str(tmp_path / "m.pt"))
    limited.limits = replace(limited.limits, load_s=3.0)
    start = time.monotonic()
    with pytest.raises((WorkerTimedOut, WorkerCrashed)):
        opened(limited, tmp_path / "m.pt", allow_code=True)
    assert time.monotonic() - start < 30


def test_killed_child(pool: WorkerPool, files: dict[str, Path]) -> None:
    session = opened(pool, files["onnx"])
    os.kill(session.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match="SIGKILL"):
        session.predict(IMAGES, NCHW)
    session = opened(pool, files["onnx"])
    os.kill(session.pid, signal.SIGSEGV)
    with pytest.raises(WorkerCrashed, match="SIGSEGV"):
        session.predict(IMAGES, NCHW)
    with opened(pool, files["onnx"]) as session:
        assert session.predict(IMAGES, NCHW).shape == (16, 10)


def test_a_suspect_that_was_closed_is_dead_and_reaped_before_the_next(pool: WorkerPool, files: dict[str, Path]) -> None:
    """Closing waits for the kill, and not until all memory is given back."""
    with SealedFile.of(files["onnx"]) as sealed:
        for _ in range(5):
            with pool.open(sealed) as session:
                session.predict(IMAGES, NCHW)
            ended = session.pid
            with pool.open(sealed) as session:
                with pytest.raises(ProcessLookupError):
                    os.kill(ended, 0)
                session.predict(IMAGES, NCHW)


def test_killed_server(files: dict[str, Path]) -> None:
    with WorkerPool(threads=1) as pool:
        session = opened(pool, files["onnx"])
        pool._servers[0].process.kill()
        pool._servers[0].process.wait()  # the worker dies with its server, not before it
        with pytest.raises(WorkerCrashed):
            session.predict(IMAGES, NCHW)
        with opened(pool, files["onnx"]) as session:
            assert session.predict(IMAGES, NCHW).shape == (16, 10)


def spied(pool: WorkerPool, path: Path) -> dict[str, str]:
    with pytest.raises(UsageError, match="failed: RuntimeError") as caught:
        opened(pool, path, factory="engine_models:spy")
    text = caught.value.message
    found: dict[str, str] = json.loads(text[text.index("{") :])
    return found


@LINUX
def test_what_a_suspect_can_do(pool: WorkerPool, files: dict[str, Path]) -> None:
    with opened(pool, files["onnx"]) as session:
        held = set(session.isolation)
    found = spied(pool, files["safetensors"])
    assert {"memory", "cpu", "files"} <= held
    if "seccomp" in held:
        names = ("inet", "unix", "fork", "exec", "spawn", "kill", "chmod", "limit")
        assert all(found[name].startswith("refused") for name in names), found
    if "landlock" in held:
        assert found["write"].startswith("refused")
    assert found["large"].startswith("refused")
    assert found["scratch"] == found["null"] == "done 1"
    assert found["secrets"] == "done []" and found["session"] == "done True"
    assert (
        len(json.loads(found["descriptors"].removeprefix("done "))) <= 4
    )  # session, sealed copy, the factory's import, the listing
    assert not Path("/tmp/fingerprint-spy").exists()  # noqa: S108


@LINUX
def test_temporary_files_of_a_suspect(pool: WorkerPool, files: dict[str, Path]) -> None:
    """Also where the server, whose folder a suspect can't write to, was asked for such a place by torch.export."""
    with opened(pool, files["pt2"]):
        pass
    assert spied(pool, files["safetensors"])["temporary"] == "done True"


@LINUX
def test_suspects_share_nothing(pool: WorkerPool, files: dict[str, Path]) -> None:
    assert spied(pool, files["safetensors"])["left"] == spied(pool, files["safetensors"])["left"]
    with opened(pool, files["onnx"]) as one, opened(pool, files["onnx"]) as other:
        assert one.pid != other.pid
        np.testing.assert_array_equal(one.predict(IMAGES, NCHW), other.predict(IMAGES, NCHW))


@LINUX
def test_workers_of_onnx_and_tflite_have_no_torch(pool: WorkerPool, files: dict[str, Path]) -> None:
    for format in ("onnx", "tflite"):
        with opened(pool, files[format]) as session:
            session.predict(IMAGES, NHWC if format == "tflite" else NCHW)
            maps = Path(f"/proc/{session.pid}/maps").read_text()
            assert "torch" not in maps and "numpy" in maps


@LINUX
def test_servers_have_one_thread_to_fork_from(pool: WorkerPool, files: dict[str, Path]) -> None:
    for format in FORMATS:
        with opened(pool, files[format], **TRUST):
            pass
    assert {server.runtime for server in pool._servers} == {"torch", "onnx", "litert"}
    for server in pool._servers:
        assert len(list(Path(f"/proc/{server.process.pid}/task").iterdir())) == 1, server.runtime


@LINUX
def test_nothing_is_left_behind(files: dict[str, Path], tmp_path: Path) -> None:
    before, descriptors = settled_children(), descriptors_open()
    with WorkerPool(threads=1) as pool:
        pool.prestart("litert")
        for _ in range(5):
            with opened(pool, files["onnx"]) as session:
                session.predict(IMAGES, NCHW)
            (tmp_path / "m").write_bytes(files["onnx"].read_bytes()[:100] + b"\xff" * 30)
            with pytest.raises(FingerprintError):
                opened(pool, tmp_path / "m")
        opened(pool, files["onnx"])  # never closed
        folders = [Path(server._folder.name) for server in pool._servers]
        assert all(folder.is_dir() for folder in folders)
        assert [p.name for folder in folders for p in folder.iterdir()] == ["11"]  # of the open one
        assert len(settled_children()) == len(before) + 3
    assert children() == before
    assert descriptors_open() == descriptors
    assert not any(folder.exists() for folder in folders)
    with pytest.raises(WorkerCrashed, match="closed"):
        opened(pool, files["onnx"])


@LINUX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_verifier(files: dict[str, Path], tmp_path: Path, how: signal.Signals) -> None:
    code = f"""
import sys, time
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
with WorkerPool(threads=1) as pool, SealedFile.of({str(files["onnx"])!r}) as sealed, pool.open(sealed) as session:
    print(session.pid, pool._servers[0].process.pid, flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    process.send_signal(how)
    process.communicate(timeout=20)
    end = time.monotonic() + 10
    while (left := [pid for pid in pids if _runs(pid)] + list(tmp_path.iterdir())) and time.monotonic() < end:
        time.sleep(0.02)
    assert not left


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_without_fork(files: dict[str, Path]) -> None:
    before = children()
    with WorkerPool(threads=1, fork=False) as pool:
        pool.prestart("onnx")
        with (
            SealedFile.of(files["onnx"], in_memory=False) as sealed,
            pool.open(sealed) as one,
            pool.open(sealed) as two,
        ):
            assert one.pid != two.pid
            np.testing.assert_allclose(one.predict(IMAGES, NCHW), expected(), atol=1e-4)
            np.testing.assert_allclose(two.predict(IMAGES, NCHW), expected(), atol=1e-4)
            os.kill(one.pid, signal.SIGSEGV)
            with pytest.raises(WorkerCrashed, match="SIGSEGV"):
                one.predict(IMAGES, NCHW)
        assert not pool._servers
    assert children() == before


def test_prestart_returns_at_once(files: dict[str, Path]) -> None:
    with WorkerPool(threads=1) as pool:
        start = time.monotonic()
        pool.prestart_for(files["onnx"])
        pool.prestart_for(files["onnx"])
        pool.prestart_for(ROOT / "no such file")
        pool.prestart_for(ROOT)
        pool.prestart_for(files["safetensors"])  # would be refused
        assert time.monotonic() - start < 0.5
        assert [server.runtime for server in pool._servers] == ["onnx"]


def test_closing_waits_for_no_import() -> None:
    pool = WorkerPool()
    pool.prestart("torch", "pt2")
    time.sleep(0.2)
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 0.5


def test_a_runtime_that_cannot_start(files: dict[str, Path]) -> None:
    with WorkerPool(Limits(start_s=0.001)) as pool, pytest.raises(WorkerTimedOut, match="did not start"):
        opened(pool, files["onnx"])
    broken = {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
    with WorkerPool(environment=broken) as pool, pytest.raises(WorkerCrashed, match="could not start"):
        opened(pool, files["onnx"])
    with WorkerPool() as pool:
        pool.prestart("nonsense")


def test_no_torch_in_the_verifier(files: dict[str, Path]) -> None:
    code = f"""
import sys
from fingerprint.engine.session import WorkerPool
assert not {{"numpy", "pydantic", "typer", "rich"}} & set(sys.modules)
pool = WorkerPool(threads=1)
pool.prestart_for({str(files["onnx"])!r})
assert "numpy" not in sys.modules
import numpy as np
from fingerprint.engine.sealed import SealedFile
from fingerprint.model import InputSpec
with pool, SealedFile.of({str(files["onnx"])!r}) as sealed, pool.open(sealed) as session:
    images = np.zeros((3, 8, 8, 1), np.uint8)
    assert session.predict(images, InputSpec("NCHW", (1, 8, 8), channels="L")).shape == (3, 10)
    session.weights_sha256(), session.runtime_version
heavy = {{"torch", "onnxruntime", "onnx", "PIL", "pydantic"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
