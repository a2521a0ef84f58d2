"""verify against a real Open Inference Protocol server of the package index: MLServer, in an environment of its own.

It pins packages, so it is not installed beside this tool; CONTRIBUTING.md says how its environment is made.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_world import World

from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.engine.session import WorkerPool
from fingerprint.record import Fingerprint
from fingerprint.remote.interface import RemoteOptions
from fingerprint.spec import load_spec

PYTHON = os.environ.get("FINGERPRINT_OIP_SERVER_PYTHON")
RUNTIME = Path(__file__).parents[1] / "fixtures" / "mlserver_onnx.py"
START_S = 60
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="FINGERPRINT_OIP_SERVER_PYTHON names no environment with mlserver and onnxruntime"
)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def origin(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLServer with the models `pruned` and `stranger`."""
    assert PYTHON is not None
    folder = tmp_path_factory.mktemp("mlserver")
    http, grpc, metrics = free_ports(3)
    shutil.copy(RUNTIME, folder / "mlserver_onnx.py")
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings = {**ports, "host": "127.0.0.1", "parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    for name in ("pruned", "stranger"):
        (folder / name).mkdir()
        model = {
            "name": name,
            "implementation": "mlserver_onnx.OnnxRuntime",
            "parameters": {"uri": str(world.folder / f"{name}.onnx")},
        }
        (folder / name / "model-settings.json").write_text(json.dumps(model))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PYTHON, "-m", "mlserver.cli.main", "start", str(folder)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{http}"
        wait_for(f"{url}/v2/models/stranger/ready", process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"MLServer did not start: {log.read_text()[-2000:]}")


@pytest.mark.parametrize(("model", "lineage"), [("pruned", "derived"), ("stranger", "unrelated")])
def test_verdicts_of_a_served_model(
    model: str, lineage: str, origin: str, world: World, record: Fingerprint, pool: WorkerPool
) -> None:
    path = world.folder / f"{model}.onnx"
    spec = load_spec(Path(f"{path}.spec.json"))
    options = VerifyOptions(alpha=0.05, spec=spec, sequential=False, remote=RemoteOptions(retries=1))
    file, served = verify([path, f"{origin}/v2/models/{model}"], [record], options, pool=pool)
    assert served.status == "decided", served.reason
    assert file.lineage == served.lineage == lineage
    assert file.verdict is not None and served.verdict is not None
    assert [f.matches for f in file.verdict.families] == [f.matches for f in served.verdict.families]
    for one, other in zip(file.verdict.families, served.verdict.families, strict=True):
        assert one.correlation == pytest.approx(other.correlation, abs=1e-4)


def test_settled_on_clean_images(origin: str, record: Fingerprint, pool: WorkerPool) -> None:
    options = VerifyOptions(alpha=0.05, remote=RemoteOptions(retries=1, batch=32))
    (result,) = verify([f"{origin}/v2/models/pruned"], [record], options, pool=pool)
    assert result.lineage == "derived", result.reason


def test_a_model_that_is_not_served(origin: str, record: Fingerprint, pool: WorkerPool) -> None:
    (result,) = verify([f"{origin}/v2/models/nobody"], [record], VerifyOptions(), pool=pool)
    assert (result.status, result.verdict) == ("unsupported", None)
    assert "404" in result.reason
