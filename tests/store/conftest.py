"""Fixtures: keys, a home with a database, and a folder that any user can reach."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from store_helpers import World

from store.database import Database
from store.home import Home
from store.keys import Signer, public_pem


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@pytest.fixture(scope="session")
def stranger() -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a place: thousands of commits are synced, which a disk takes long for."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="store-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def world(home: Home, signer: Signer, stranger: Signer) -> Iterator[World]:
    home.ensure(home.trusted)
    (home.trusted / "me.pub").write_bytes(public_pem(signer.public))
    world = World(home, signer, stranger, Database.open(home.database, home))
    yield world
    world.database.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="store-test-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)
