"""Records that released versions wrote are read for ever, by the command that a user has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMMAND = str(Path(sys.executable).with_name("fingerprint"))
MERKLE_ROOT = {"record-v1.json": "f0599473ba3f007694eb1eaf70afbf22e2dc4689beb559ddfae2d0079e9e6916"}


def run(home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FINGERPRINT_HOME": str(home)}
    return subprocess.run([COMMAND, *map(str, words)], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.e2e
@pytest.mark.parametrize("name", sorted(MERKLE_ROOT))
def test_a_released_record_is_imported_shown_and_checked(name: str, tmp_path: Path) -> None:
    record, key = HERE / name, HERE / "signer-v1.pub"
    refused = run(tmp_path, "store", "import", record)
    assert refused.returncode == 4, refused.stderr  # signed by nobody who is trusted here
    taken = run(tmp_path, "store", "import", record, "--key", key)
    assert taken.returncode == 0, taken.stderr
    shown = run(tmp_path, "store", "show", "golden", "--key", key, "-f", "json")
    assert shown.returncode == 0, shown.stderr
    assert MERKLE_ROOT[name] in shown.stdout
    checked = run(tmp_path, "store", "check", "--key", key)
    assert checked.returncode == 0, checked.stdout + checked.stderr
