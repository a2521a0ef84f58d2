"""Records that released versions wrote are read for ever, by the command that a user has."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from store import cipher, exchange
from store.home import Home
from store.keys import trusted_keys

HERE = Path(__file__).parent
COMMAND = str(Path(sys.executable).with_name("fingerprint"))
MERKLE_ROOT = {"record-v1.json": "f0599473ba3f007694eb1eaf70afbf22e2dc4689beb559ddfae2d0079e9e6916"}


def run(home: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FINGERPRINT_HOME": str(home)}
    return subprocess.run([COMMAND, *map(str, words)], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", sorted(MERKLE_ROOT))
def test_a_released_record_is_encrypted_to_the_same_bytes(name: str) -> None:
    """What later releases add to the payload is absent, and absent means not one byte."""
    keys = trusted_keys(Home(HERE / "no-home"), [HERE / "signer-v1.pub"])
    sealed, record = exchange.read(HERE / name, keys), exchange.load(HERE / name, keys)
    described = sealed.manifest.tensors
    assert described is not None and sealed.data_key is not None
    associated = cipher.associated_data(record.manifest.probes.merkle_root, record.manifest.owner.sha256)
    made = cipher.encrypt(sealed.data_key, bytes.fromhex(described.nonce), record.payload.to_bytes(), associated)
    assert hashlib.sha256(made).hexdigest() == described.sha256
    assert record.payload.certified_radius is None


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
