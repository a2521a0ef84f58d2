"""Models, made once; a home with one fingerprint, made once; and fresh homes with keys."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_tool import Done, Tool  # type: ignore[import-not-found]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the installed command are slower than the others: they run last, and can be left out by their mark."""
    for item in items:
        if "tool" in getattr(item, "fixturenames", ()) or "owner" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs keep compiled modules."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that make_cli_models.py fills."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, str(HERE / "make_cli_models.py"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def created(models: Path, bytecode: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tool, Done]:
    """A home with a key and the calibrated fingerprint "owner" (characteristic probes), and what create printed."""
    home = tmp_path_factory.mktemp("home")
    tool = Tool(home, models, bytecode)
    assert tool("keygen", "--no-passphrase").code == 0
    done = tool("create", "owner.onnx", "--name", "owner", "--reference", "references", "--budget", "30", "-f", "json")
    assert done.code == 0, done.err
    derived = tool("derive", "owner.onnx", "--how", "prune:magnitude:0.3", "--out", "derived.onnx", "-f", "json")
    assert derived.code == 0, derived.err
    return tool, done


@pytest.fixture(scope="session")
def owner(created: tuple[Tool, Done]) -> Tool:
    """The command, with the home that holds "owner". Tests add runs to it, but no fingerprints."""
    return created[0]


@pytest.fixture
def copied(owner: Tool, tmp_path: Path) -> Tool:
    """The command, with a copy of that home that a test may damage."""
    shutil.copytree(owner.home, tmp_path / "home")
    return Tool(tmp_path / "home", owner.cwd, owner.bytecode)


@pytest.fixture
def tool(tmp_path: Path, bytecode: Path) -> Tool:
    """The command, with a home that does not exist yet, in an empty folder."""
    (tmp_path / "work").mkdir()
    return Tool(tmp_path / "fresh-home", tmp_path / "work", bytecode)


@pytest.fixture
def keyed(models: Path, tmp_path: Path, bytecode: Path, owner: Tool) -> Tool:
    """The command, with a home that holds the same keys as `owner` and nothing else."""
    home = tmp_path / "keyed-home"
    for part in ("keys", "trusted"):
        shutil.copytree(owner.home / part, home / part)
    home.chmod(0o700)
    return Tool(home, models, bytecode)
