"""The example scripts run as they stand, in the order that they name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_three_uses_one_after_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    folder.mkdir()
    assert "stored " in run("fingerprint_release.py", folder)
    verified = run("verify_suspect.py", folder)
    assert "pruned.onnx decided derived" in verified
    assert "stranger.onnx decided derived" not in verified
    audited = run("audit_registry.py", folder)
    assert "pruned.onnx decided derived" in audited
    assert "1 of 2 tests stand" in audited


@pytest.mark.e2e
def test_readme_commands_exist() -> None:
    """Every `fingerprint VERB --flag` line of README and docs parses: the verb exists and knows the flags."""
    command = str(Path(sys.executable).with_name("fingerprint"))
    texts = [EXAMPLES.parent / "README.md", *sorted((EXAMPLES.parent / "docs").glob("*.md"))]
    lines = {
        line.strip().removeprefix("$ ")
        for text in texts
        for line in text.read_text().splitlines()
        if line.strip().startswith("$ fingerprint ")
    }
    assert lines
    helps: dict[str, str] = {}
    for line in sorted(lines):
        words = line.split("#")[0].split()
        verb = " ".join(w for w in words[1:3] if w.isalpha() and (w == words[1] or words[1] in ("store", "probes")))
        if verb not in helps:
            done = subprocess.run([command, *verb.split(), "--help"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, line
            helps[verb] = done.stdout
        for flag in (w for w in words if w.startswith("-")):
            assert flag in helps[verb], f"{line}: {flag}"
