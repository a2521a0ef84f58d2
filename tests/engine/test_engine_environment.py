"""What a worker's environment holds, and what it does not."""

from pathlib import Path

import fingerprint
from fingerprint.engine import environment
from fingerprint.engine.environment import worker_environment

CALLER = {
    "PATH": "/bin",
    "PYTHONPATH": "/here",
    "HOME": "/home/me",
    "FINGERPRINT_PASSPHRASE": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "HF_TOKEN": "x",
    "SSH_AUTH_SOCK": "/agent",
    "LD_PRELOAD": "/evil.so",
    "OMP_NUM_THREADS": "7",
}


def test_only_what_is_needed() -> None:
    found = worker_environment(Path("/scratch"), caller=CALLER)
    assert not {name for name in CALLER if name.startswith(("FINGERPRINT", "AWS", "HF", "SSH", "LD_"))} & set(found)
    assert found["PATH"] == "/bin" and found["OMP_NUM_THREADS"] == "7"
    assert found["HOME"] == found["TMPDIR"] == "/scratch"
    assert found["ORT_DISABLE_TELEMETRY"] == "1"


def test_this_package_is_found() -> None:
    home = str(Path(fingerprint.__file__).parents[1])
    assert worker_environment(Path("/s"), caller=CALLER)["PYTHONPATH"].split(":") == ["/here", home]
    assert worker_environment(Path("/s"), caller={})["PYTHONPATH"] == home
    relative = worker_environment(Path("/s"), caller={"PYTHONPATH": "lib"})["PYTHONPATH"]
    assert relative.split(":") == [str(Path.cwd() / "lib"), home]


def test_an_installed_package_is_not_put_before_the_standard_library(monkeypatch) -> None:
    monkeypatch.setattr(environment, "_HOME", Path("/venv/lib/site-packages"))
    assert "PYTHONPATH" not in worker_environment(Path("/s"), caller={})


def test_threads_and_extras() -> None:
    found = worker_environment(Path("/s"), threads=3, extra={"MINE": "1"}, caller=CALLER)
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "3" and found["MINE"] == "1"
