"""Files that carry code, opened without anybody's consent: what they try comes to nothing, and is a typed result."""

from __future__ import annotations

import errno
import json
import pickle
import socket
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from engine_models import IMAGES, NCHW, expected, write_onnx, write_pt2, write_script
from torch._higher_order_ops import while_loop

from fingerprint.engine import suspect as inside
from fingerprint.engine.sandbox import holds_code, runtime_files
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import SuspectSession, WorkerPool
from fingerprint.errors import (
    FingerprintError,
    ModelError,
    UnsupportedModel,
    WorkerCrashed,
    WorkerError,
    WorkerTimedOut,
)
from fingerprint.limits import GIB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems can't contain code, and refuse it")
SECRET = "the passphrase"


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(threads=1) as made:
        yield made


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.key"
    path.write_bytes(SECRET.encode() + bytes(64 * 4 - len(SECRET)))
    return path


def opened(pool: WorkerPool, path: Path, **options: object) -> SuspectSession:
    with SealedFile.of(path) as sealed:
        return pool.open(sealed, **options)  # type: ignore[arg-type]


class Act:
    """Runs Python code when it is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, object]]]:
        return exec, (self.code, {})


def evil_pt2(path: Path, code: str) -> Path:
    """A torch.export program whose example inputs are such a pickle."""
    plain = write_pt2(path.with_suffix(".plain"))
    payload = path.with_suffix(".evil")
    torch.save(Act(code), payload)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            data = payload.read_bytes() if info.filename.endswith("sample_inputs/model.pt") else old.read(info)
            new.writestr(info.filename, data)
    return path


ATTEMPTS = """
import json, os, socket, subprocess
found = {}
def attempt(name, act):
    try: act(); found[name] = "done"
    except OSError as error: found[name] = error.errno
attempt("write", lambda: open(%(outside)r, "w").write("x"))
attempt("read", lambda: open(%(secret)r, "rb").read())
attempt("passwd", lambda: open("/etc/passwd").read())
attempt("list", lambda: os.listdir(%(folder)r))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", %(port)d), 2))
attempt("run", lambda: subprocess.run(["/bin/true"]))
attempt("children", lambda: [os.fork() for _ in range(200)])
attempt("signal", lambda: os.kill(os.getppid(), 9))
attempt("parent", lambda: open("/proc/%%d/environ" %% os.getppid(), "rb").read())
raise NameError(json.dumps(found))  # the kind that torch passes on
"""


def test_a_pt2_that_does_what_it_wants(pool: WorkerPool, tmp_path: Path, secret: Path) -> None:
    """All that it tries is refused; it can still say so, for an error's text is all that leaves the process."""
    outside = tmp_path / "written"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = ATTEMPTS % {
            "outside": str(outside), "secret": str(secret), "folder": str(tmp_path), "port": server.getsockname()[1],
        }  # fmt: skip
        with pytest.raises(FingerprintError) as caught:
            opened(pool, evil_pt2(tmp_path / "evil.pt2", code)).predict(IMAGES, NCHW)
        with pytest.raises(TimeoutError):
            server.accept()
    assert isinstance(caught.value, ModelError | WorkerError)
    assert not outside.exists()
    text = caught.value.message
    assert SECRET not in text
    found = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert set(found) == {"write", "read", "passwd", "list", "connect", "run", "children", "signal", "parent"}
    assert set(found.values()) <= {errno.EPERM, errno.EACCES}, found


def test_the_attempts_succeed_outside(tmp_path: Path, secret: Path) -> None:
    """The same pickle, unpickled here, does what it wants: so the test above can fail."""
    outside = tmp_path / "written"
    code = f"open({str(outside)!r}, 'w').write(open({str(secret)!r}).read())"
    pickle.loads(pickle.dumps(Act(code)))
    assert SECRET in outside.read_text()


class Writes(torch.nn.Module):
    """TorchScript that saves a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.from_file(self.path, True, 64)
        y.fill_(1.0)
        return x.flatten(1)[:, :10] + y[:10]


class Reads(torch.nn.Module):
    """TorchScript that answers with the content of a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :10] * 0.0 + torch.from_file(self.path, False, 64)[:10]


class Loops(torch.nn.Module):
    """TorchScript that never ends."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(1)[:, :10]
        while bool(y.sum() != 123456.789):
            y = y * 1.0
        return y


class LoopsInGraph(torch.nn.Module):
    """The same as an operator of a torch.export program."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (count,) = while_loop(lambda n: n < 1, lambda n: (n * 1,), (torch.zeros((), dtype=torch.int64),))
        return x.flatten(1)[:, :10] + count


class Grabs(torch.nn.Module):
    """Wants 64 GiB, in every kind of program."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ones(16 * 1024, 1024, 1024)
        return x.flatten(1)[:, :10] + y.flatten()[:10]


def test_torchscript_writes_nothing(pool: WorkerPool, tmp_path: Path) -> None:
    outside = tmp_path / "written"
    with (
        opened(pool, write_script(tmp_path / "m.pt", Writes(str(outside)))) as session,
        pytest.raises(FingerprintError),
    ):
        session.predict(IMAGES, NCHW)
    assert not outside.exists()


def test_torchscript_reads_no_secret(pool: WorkerPool, tmp_path: Path, secret: Path) -> None:
    path = write_script(tmp_path / "m.pt", Reads(str(secret)))
    with opened(pool, path) as session, pytest.raises(UnsupportedModel, match="can't answer"):  # it did not open
        session.predict(IMAGES, NCHW)
    here = torch.jit.load(str(path))(torch.zeros(1, 1, 8, 8))  # outside it answers with the secret
    assert here.detach().numpy().astype(np.float32).tobytes()[: len(SECRET)] == SECRET.encode()


def test_torchscript_that_never_ends(tmp_path: Path) -> None:
    with WorkerPool(threads=1) as own:
        own.limits = replace(own.limits, predict_s=2.0)
        with opened(own, write_script(tmp_path / "m.pt", Loops())) as session, pytest.raises(WorkerTimedOut):
            session.predict(IMAGES, NCHW)


def test_torchscript_that_wants_all_memory(tmp_path: Path) -> None:
    with WorkerPool(threads=1) as own:
        own.limits = replace(own.limits, worker_memory_bytes=2 * GIB)
        with opened(own, write_script(tmp_path / "m.pt", Grabs())) as session, pytest.raises(WorkerCrashed):
            session.predict(IMAGES, NCHW)


def program(path: Path, module: torch.nn.Module) -> Path:
    """A torch.export program for one image."""
    torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 8, 8),)), path)
    return path


def test_a_pt2_that_never_ends(pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an operator of its graph when it is asked, and by code when it is opened; the pool works on."""
    honest = pool.limits
    monkeypatch.setattr(pool, "limits", replace(honest, predict_s=1.0))
    with opened(pool, program(tmp_path / "m.pt2", LoopsInGraph())) as session, pytest.raises(WorkerTimedOut):
        session.predict(IMAGES, NCHW)
    monkeypatch.setattr(pool, "limits", replace(honest, load_s=1.0))
    with pytest.raises(WorkerTimedOut):
        opened(pool, evil_pt2(tmp_path / "evil.pt2", "while True: pass"))
    monkeypatch.setattr(pool, "limits", honest)
    with opened(pool, tmp_path / "evil.plain") as session:
        np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), rtol=1e-4, atol=1e-4)


def test_a_pt2_that_wants_all_memory(pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of 64 GiB when it is asked, and as many bytes when it is opened; the pool works on."""
    monkeypatch.setattr(pool, "limits", replace(pool.limits, worker_memory_bytes=2 * GIB))
    with opened(pool, program(tmp_path / "m.pt2", Grabs())) as session, pytest.raises(WorkerCrashed, match="memory"):
        session.predict(IMAGES, NCHW)
    with pytest.raises(WorkerCrashed, match="memory"):
        opened(pool, evil_pt2(tmp_path / "evil.pt2", "bytearray(64 << 30)"))
    with opened(pool, tmp_path / "evil.plain") as session:
        np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("where", ["beside", "above", "absolute", "link", "link above"])
def test_onnx_weights_in_another_file(pool: WorkerPool, tmp_path: Path, where: str) -> None:
    """The file that it names exists and holds the right weights: a model that answered would have read it."""
    folder = tmp_path / "suspect"
    folder.mkdir()
    model = onnx.load(write_onnx(tmp_path / "whole.onnx"))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    weights = folder / "weights.bin"
    if where != "beside":
        weights = weights.rename(tmp_path / "secret.bin")
    if where.startswith("link"):
        link = tmp_path / "up" if where == "link above" else folder / "weights.bin"
        link.symlink_to(tmp_path if where == "link above" else weights)
    names = {
        "above": "../secret.bin", "absolute": str(weights), "link above": "../up/secret.bin",
    }  # fmt: skip
    changed = onnx.load(folder / "m.onnx", load_external_data=False)
    for tensor in changed.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names.get(where, "weights.bin")
    (folder / "m.onnx").write_bytes(changed.SerializeToString())
    before = weights.read_bytes()
    with pytest.raises(UnsupportedModel, match="weights in another file") as caught:
        opened(pool, folder / "m.onnx")
    assert "Save it in one file" in caught.value.remedy and str(tmp_path) not in caught.value.message
    assert weights.read_bytes() == before


@pytest.mark.parametrize("write", [write_pt2, write_script])
def test_honest_files_need_no_consent(pool: WorkerPool, tmp_path: Path, write: object) -> None:
    path = write(tmp_path / "m.bin")  # type: ignore[operator]
    with opened(pool, path) as session:
        assert holds_code(session.isolation)
        np.testing.assert_allclose(session.predict(IMAGES, NCHW), expected(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lost", ["memory", "cpu", "files", "landlock", "seccomp"])
def test_where_the_sandbox_has_a_hole_code_is_refused(lost: str, tmp_path: Path) -> None:
    held = tuple(sorted({"memory", "cpu", "files", "landlock", "seccomp"} - {lost}))
    request = {"format": "pt2", "memory_bytes": GIB, "factory": None, "threads": 1, "code": True}

    class NoRuntime:
        def load(self, *_: object) -> None:
            raise AssertionError("it was opened")

    one = inside._Suspect(NoRuntime(), request, None, tmp_path / "m.pt2")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModel, match="can carry code") as caught:
        one._load(held)
    assert "--allow-code" in caught.value.remedy
    consenting = inside._Suspect(NoRuntime(), {**request, "code": False}, None, tmp_path / "m.pt2")  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="opened"):
        consenting._load(held)


def test_what_a_runtime_reads_holds_no_home() -> None:
    """The user's folders are not among what a suspect may read, unless Python itself is installed there."""
    packages = {Path(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if p}
    for path in set(runtime_files()) - packages:
        assert path.parts[1] in ("usr", "lib", "lib64", "opt", "etc", "dev", "proc", "sys")
        assert str(path) not in ("/etc", "/proc", "/dev", "/sys", "/usr", "/")
