"""Who else can read or change what lies in the home, and what `check` says where the data keys can't be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_helpers import World

from fingerprint.errors import FingerprintError, KeyFileError, StoreError
from store import locks
from store.database import Database
from store.keys import load_public, public_pem, trusted_keys
from store.locks import Secret


@pytest.fixture
def stored(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with one record."""
    monkeypatch.setattr(locks, "MEMORY_KIB", 64)
    world.database.add(world.sealed())
    return world


def found(world: World) -> list[tuple[str, str]]:
    return [(p.kind, p.message) for p in world.database.check(world.keys)]


def test_a_database_that_others_can_change_is_not_opened(stored: World) -> None:
    stored.database.close()
    for mode in (0o620, 0o602, 0o666):
        stored.home.database.chmod(mode)
        for readonly in (True, False):
            with pytest.raises(StoreError, match="can be changed by other users") as caught:
                Database.open(stored.home.database, stored.home, readonly=readonly)
            assert f"chmod 600 {stored.home.database}" in caught.value.remedy
    stored.home.database.chmod(0o600)
    stored.reopen()
    assert found(stored) == []


@pytest.mark.parametrize("name", ["trusted", "revoked", "authorities"])
def test_folders_that_decide_what_is_trusted(stored: World, name: str) -> None:
    folder = stored.home.ensure(getattr(stored.home, name))
    file = folder / "me.pub"
    file.write_bytes(public_pem(stored.signer.public))
    folder.chmod(0o770)
    with pytest.raises(StoreError, match="can be changed by other users"):
        trusted_keys(stored.home)
    folder.chmod(0o755)
    file.chmod(0o664)  # the folder lets others in, so that this matters
    with pytest.raises(StoreError, match=r"me\.pub can be changed") as caught:
        trusted_keys(stored.home)
    assert f"chmod 600 {file}" in caught.value.remedy
    folder.chmod(0o700)  # and now it does not
    assert trusted_keys(stored.home)
    assert load_public(file)


def test_the_check_names_what_is_open_to_others(stored: World) -> None:
    row = stored.database.list()[0]
    places = [
        (stored.home.path, 0o755, "chmod 700"),
        (stored.home.secrets, 0o750, "chmod 700"),
        (Path(f"{stored.home.database}.tensors"), 0o711, "chmod 700"),
        (stored.home.database, 0o644, "chmod 600"),
        (stored.home.secrets / f"{row.tensors_sha256}.key", 0o640, "chmod 600"),
    ]
    for path, mode, remedy in places:
        before = path.stat().st_mode
        path.chmod(mode)
        problems = stored.database.check(stored.keys)
        assert {p.kind for p in problems} == {"warning"}
        assert any(f"{remedy} {path}" in p.message for p in problems)
        path.chmod(before)
    assert found(stored) == []


def test_a_locked_store_is_checked_as_far_as_it_can_be(stored: World) -> None:
    stored.database.add(stored.sealed("second", seed=1))
    stored.database.data_keys.change(Secret("passphrase", b"right"))
    asked: list[str] = []

    def check(secret: Secret | None) -> list[tuple[str, str]]:
        def ask(lock: locks.Lock) -> Secret | None:
            asked.append(lock.id)
            return secret

        with Database.open(stored.home.database, stored.home, readonly=True, ask=ask) as database:
            return [(p.kind, p.message) for p in database.check(stored.keys)]

    (warned,) = check(None)
    assert warned[0] == "warning"
    assert "not opened" in warned[1]
    assert check(Secret("passphrase", b"right")) == []
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        check(Secret("passphrase", b"wrong"))
    assert len(asked) == 3  # once for a check, and not for every record
    tensors = stored.tensors(stored.sealed("second", seed=1))
    assert not tensors.exists()  # evidential records are sealed anew every time
    for path in Path(f"{stored.home.database}.tensors").iterdir():
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert [kind for kind, _ in check(None)] == ["warning", "error", "error"]  # the digests tell without the keys
    (stored.home.secrets / "lock.json").write_bytes(b"{}")
    assert any(kind == "error" for kind, _ in check(Secret("passphrase", b"right")))


def test_remedies_reach_the_person(stored: World) -> None:
    row = stored.database.list()[0]
    stored.tensors(stored.sealed()).parent.joinpath(f"{row.tensors_sha256}.bin").write_bytes(b"x")
    (problem,) = stored.database.check(stored.keys)
    assert problem.kind == "error"
    assert "backup" in problem.remedy
    with pytest.raises(FingerprintError):
        stored.database.load(row, stored.keys)
