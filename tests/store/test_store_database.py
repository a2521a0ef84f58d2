"""The database: records in and out, names and versions, and every stored byte."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from store_helpers import World, equal, make_fingerprint

from fingerprint.errors import (
    DatabaseReadOnly,
    EvidenceError,
    FingerprintError,
    KeyFileError,
    NameTaken,
    NotFound,
    StoreError,
    Tampered,
    UntrustedSigner,
)
from store import exchange
from store.database import Database
from store.home import Home
from store.schema import APPLICATION_ID, VERSION
from store.sealing import seal


def raw(world: World, sql: str, *values: object) -> list[tuple[object, ...]]:
    """Run SQL behind the database's back."""
    connection = sqlite3.connect(world.database.path)
    try:
        rows = connection.execute(sql, values).fetchall()
        connection.commit()
        return rows
    finally:
        connection.close()


def test_add_and_load(world: World) -> None:
    sealed = world.sealed()
    row = world.database.add(sealed)
    assert (row.id, row.name, row.version, row.key_ids) == (sealed.id, "resnet", 1, (world.signer.key_id,))
    assert row.owner_sha256 == sealed.manifest.owner.sha256
    assert (row.evidential, row.probes, row.tensors_size) == (True, 4, len(sealed.tensors))
    database = world.reopen(readonly=True)
    assert database.list() == database.latest() == [row]
    loaded = database.load(database.find("resnet"), world.keys)
    assert loaded.id == row.id
    assert equal(loaded, make_fingerprint())
    assert database.manifest(row, world.keys) == loaded.manifest
    assert database.envelope(row) == sealed.envelope
    assert database.sealed(row, world.keys) == sealed
    assert database.check(world.keys) == []


def test_modes(world: World) -> None:
    sealed = world.sealed()
    world.database.add(sealed)
    files = [world.database.path, world.tensors(sealed), world.data_key(sealed)]
    assert [stat.S_IMODE(f.stat().st_mode) for f in files] == [0o600] * 3
    assert [stat.S_IMODE(f.parent.stat().st_mode) for f in files] == [0o700] * 3
    log = Path(f"{world.database.path}-wal")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_settings_of_the_connection(world: World) -> None:
    connection = world.database._connection
    found = {
        name: connection.rows(f"PRAGMA {name}")[0][0]
        for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout", "user_version", "application_id")
    }
    assert found == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "synchronous": 2,
        "busy_timeout": 5000,
        "user_version": VERSION,
        "application_id": APPLICATION_ID,
    }
    tables = connection.rows("SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
    assert {row["name"] for row in tables} >= {"fingerprints", "runs", "results"}
    assert all(row["strict"] for row in tables if not row["name"].startswith("sqlite_"))


def test_every_migration_counts_as_a_version() -> None:
    from store.migrations import MIGRATIONS

    assert len(MIGRATIONS._migrations) == VERSION


def test_same_record_again(world: World) -> None:
    sealed = world.sealed()
    assert world.database.add(sealed) == world.database.add(sealed) == world.database.add(sealed, replace=True)
    assert len(world.database.list()) == 1


def test_adding_again_heals_files(world: World) -> None:
    sealed = world.sealed()
    row = world.database.add(sealed)
    world.tensors(sealed).write_bytes(b"damaged")
    world.data_key(sealed).unlink()
    assert world.errors()
    world.database.add(sealed)
    assert world.database.check(world.keys) == []
    assert world.database.load(row, world.keys)


def test_an_inconsistent_record_is_not_added(world: World) -> None:
    sealed = world.sealed()
    for changed in (replace(sealed, tensors=b"x"), replace(sealed, envelope=b"x"), replace(sealed, id="0" * 64)):
        with pytest.raises(Tampered):
            world.database.add(changed)
    assert not world.database.list()


def test_names_and_versions(world: World) -> None:
    first = world.database.add(world.sealed())
    with pytest.raises(NameTaken, match="resnet") as caught:
        world.database.add(world.sealed(seed=1))
    assert "--replace" in caught.value.remedy
    assert len(list(Path(f"{world.database.path}.tensors").iterdir())) == 1
    second = world.database.add(world.sealed(seed=1), replace=True)
    other = world.database.add(world.sealed("other"))
    assert [row.version for row in (first, second, other)] == [1, 2, 1]
    assert world.database.find("resnet") == second
    assert world.database.find(first.id) == first
    assert world.database.list() == [other, first, second]
    assert world.database.latest() == [other, second]
    assert world.database.check(world.keys) == []


def test_a_record_that_says_what_it_follows_needs_no_replace(world: World) -> None:
    first = world.database.add(world.sealed())
    second = world.database.add(world.sealed(seed=1, previous=first.id))
    with pytest.raises(NameTaken):  # follows the first, which is not the latest
        world.database.add(world.sealed(seed=2, previous=first.id))
    assert (second.version, second.previous) == (2, first.id)


def test_earlier_versions_can_come_later(world: World) -> None:
    first = world.sealed()
    second = world.sealed(seed=1, previous=first.id)
    third = world.sealed(seed=2, previous=second.id)
    for sealed in (third, second, first):
        world.database.add(sealed)
    assert [row.id for row in world.database.list()] == [first.id, second.id, third.id]
    assert [row.version for row in world.database.list()] == [1, 2, 3]
    assert world.database.find("resnet").id == third.id
    assert world.database.check(world.keys) == []


def test_find(world: World) -> None:
    row = world.database.add(world.sealed("mobilenet"))
    assert world.database.find(row.id[:4]) == world.database.find(row.id[:30]) == row
    for text in (row.id[:3], row.id.upper(), "%", "mobile", row.id[:63] + "g", row.id + "0", ""):
        with pytest.raises(NotFound):
            world.database.find(text)
    with pytest.raises(NotFound, match="'mobilnet'") as caught:
        world.database.find("mobilnet")
    assert "mobilenet" in caught.value.remedy
    with pytest.raises(NotFound) as caught:
        world.database.find("zzz")
    assert "store list" in caught.value.remedy


def test_an_id_can_not_be_hidden_by_a_name(world: World) -> None:
    row = world.database.add(world.sealed())
    named = world.database.add(world.sealed(row.id, seed=1))
    assert world.database.find(row.id) == row
    short = world.database.add(world.sealed(row.id[:8], seed=2))
    assert world.database.find(row.id[:8]) == short
    assert world.database.find(named.id) == named


def test_ambiguous_prefix(world: World) -> None:
    rows = [world.database.add(world.sealed(f"n{i}", seed=i)) for i in range(2)]
    raw(world, "UPDATE fingerprints SET id = 'abcd' || substr(id, 5)")
    for row in rows:  # repair the digests, as if two ids really began with the same digits
        changed = replace(row, id="abcd" + row.id[4:])
        from store.schema import row_digest

        digest = row_digest("fingerprints", changed.to_sql())
        raw(world, "UPDATE fingerprints SET row_sha256 = ? WHERE id = ?", digest, changed.id)
    with pytest.raises(NotFound, match="begins several ids"):
        world.database.find("abcd")


@pytest.mark.parametrize("name", ["naïve ☃", "a'b\"c; DROP TABLE fingerprints", "x" * 200, "..", "new\nline", "%_"])
def test_any_name(world: World, name: str) -> None:
    row = world.database.add(world.sealed(name))
    assert world.database.find(name) == row
    assert world.database.load(row, world.keys).manifest.name == name


@pytest.mark.parametrize("secrets", [True, False])
def test_export_and_import(world: World, tmp_path: Path, secrets: bool) -> None:
    row = world.database.add(world.sealed())
    file = tmp_path / "record.json"
    world.database.export(row, file, include_secrets=secrets)
    elsewhere = Home(tmp_path / "elsewhere")
    with Database.open(elsewhere.database, elsewhere) as database:
        copy = database.import_(file, world.keys)
        assert replace(copy, added=row.added) == row
        assert database.import_(file, world.keys) == copy
        if secrets:
            assert equal(database.load(copy, world.keys), make_fingerprint())
            assert database.check(world.keys) == []
        else:
            assert database.manifest(copy, world.keys).name == "resnet"
            with pytest.raises(StoreError, match="data key is not on this machine"):
                database.load(copy, world.keys)
            assert [problem.kind for problem in database.check(world.keys)] == ["warning"]
            with pytest.raises(StoreError, match="data key"):
                database.export(copy, tmp_path / "again.json", include_secrets=True, keys=world.keys)
            world.database.export(row, file, include_secrets=True)
            database.import_(file, world.keys)  # brings the key that was missing
            assert equal(database.load(copy, world.keys), make_fingerprint())


def test_import_refusals(world: World, tmp_path: Path) -> None:
    exchange.write(tmp_path / "stranger", seal(make_fingerprint(), world.stranger), include_secrets=True)
    with pytest.raises(UntrustedSigner):
        world.database.import_(tmp_path / "stranger", world.keys)
    assert not world.database.list()
    world.database.add(world.sealed())
    exchange.write(tmp_path / "taken", world.sealed(seed=1), include_secrets=True)
    with pytest.raises(NameTaken):
        world.database.import_(tmp_path / "taken", world.keys)
    assert world.database.import_(tmp_path / "taken", world.keys, replace=True).version == 2


def test_a_damaged_record_is_not_exported(world: World, tmp_path: Path) -> None:
    sealed = world.sealed()
    row = world.database.add(sealed)
    key = json.loads(world.data_key(sealed).read_bytes())
    key["key"] = base64.b64encode(bytes(32)).decode()
    world.data_key(sealed).write_text(json.dumps(key, sort_keys=True, separators=(",", ":")) + "\n")
    with pytest.raises(Tampered):
        world.database.export(row, tmp_path / "out", include_secrets=True)
    assert len(world.errors()) == 1
    world.database.export(row, tmp_path / "public")
    world.tensors(sealed).write_bytes(b"x")
    with pytest.raises(Tampered):
        world.database.export(row, tmp_path / "out")
    with pytest.raises(UntrustedSigner):
        world.database.export(row, tmp_path / "out", keys={})
    assert not (tmp_path / "out").exists()


def test_untrusted_signer(world: World) -> None:
    row = world.database.add(world.sealed())
    keys = {world.stranger.key_id: world.stranger.public}
    for read in (world.database.load, world.database.manifest, world.database.sealed):
        with pytest.raises(UntrustedSigner):
            read(row, keys)
    assert [problem.kind for problem in world.database.check(keys)] == ["error"]


def test_every_byte_of_the_stored_envelope(world: World) -> None:
    sealed = world.sealed(count=2, side=1)
    row = world.database.add(sealed)
    for position in range(len(sealed.envelope)):
        changed = bytearray(sealed.envelope)
        changed[position] ^= 1 << position % 8
        world.tamper("UPDATE envelopes SET envelope = ?", (bytes(changed),))
        with pytest.raises(EvidenceError):
            world.database.load(row, world.keys)
        with pytest.raises(EvidenceError):
            world.database.manifest(row, world.keys)
    for changed_envelope in (b"", sealed.envelope[:-1], sealed.envelope + b" "):
        world.tamper("UPDATE envelopes SET envelope = ?", (changed_envelope,))
        with pytest.raises(EvidenceError):
            world.database.load(row, world.keys)
        assert len(world.errors()) == 1


def test_every_byte_of_the_stored_tensors(world: World) -> None:
    sealed = world.sealed(count=2, side=1)
    row = world.database.add(sealed)
    path = world.tensors(sealed)
    for position in range(len(sealed.tensors)):
        changed = bytearray(sealed.tensors)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(EvidenceError):
            world.database.load(row, world.keys)
    for length in (0, 1, len(sealed.tensors) - 1):
        path.write_bytes(sealed.tensors[:length])
        with pytest.raises(EvidenceError):
            world.database.load(row, world.keys)
        assert world.errors()
    path.unlink()
    with pytest.raises(EvidenceError, match="are gone"):
        world.database.load(row, world.keys)
    assert len(world.errors()) == 1


def test_every_byte_of_the_data_key(world: World) -> None:
    sealed = world.sealed()
    row = world.database.add(sealed)
    path = world.data_key(sealed)
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(EvidenceError):
            world.database.load(row, world.keys)
    path.write_bytes(data[:-1])
    with pytest.raises(EvidenceError):
        world.database.load(row, world.keys)
    assert len(world.errors()) == 1


def test_a_data_key_that_a_newer_release_wrapped(world: World) -> None:
    sealed = world.sealed()
    row = world.database.add(sealed)
    path = world.data_key(sealed)
    path.write_bytes(path.read_bytes().replace(b'"wrap":null', b'"wrap":{"kdf":"argon2id"}'))
    with pytest.raises(StoreError, match="this release does not know") as caught:
        world.database.load(row, world.keys)
    assert not isinstance(caught.value, EvidenceError)


COLUMNS = {
    "id": "substr(id, 2) || 'x'",
    "name": "'other'",
    "version": "2",
    "created": "'2020-01-01T00:00:00Z'",
    "added": "'2020-01-01T00:00:00Z'",
    "owner_sha256": "id",
    "owner_weights_sha256": "id",
    "owner_format": "'tflite'",
    "key_ids": "'[]'",
    "evidential": "0",
    "probes": "5",
    "tensors_sha256": "id",
    "tensors_size": "tensors_size + 1",
    "previous": "id",
    "row_sha256": "id",
}


@pytest.mark.parametrize("column", COLUMNS)
def test_every_index_column(world: World, column: str) -> None:
    row = world.database.add(world.sealed())
    world.database._connection.execute(f"UPDATE fingerprints SET {column} = {COLUMNS[column]}")
    assert world.errors()
    for read in (world.database.list, world.database.latest):
        with pytest.raises(Tampered):
            read()
    if column == "id":
        with pytest.raises(NotFound):
            world.database.find(row.id)
    elif column != "name":
        with pytest.raises(Tampered):
            world.database.find("resnet")


@pytest.mark.parametrize("column", ["name", "owner_sha256", "tensors_sha256", "evidential", "previous", "key_ids"])
def test_an_index_rewritten_with_its_digest_contradicts_the_signature(world: World, column: str) -> None:
    """Somebody who knows the scheme, but has no key."""
    from store.rows import FingerprintRow
    from store.schema import row_digest

    row = world.database.add(world.sealed())
    values = {"name": "x", "owner_sha256": "0" * 64, "tensors_sha256": "../x", "evidential": False}
    changed: FingerprintRow = replace(
        row, **{column: values.get(column, ("0" * 64,) if column == "key_ids" else row.id)}
    )
    sql = changed.to_sql()
    digest = row_digest("fingerprints", sql)
    world.database._connection.execute(f"UPDATE fingerprints SET {column} = ?, row_sha256 = ?", (sql[column], digest))
    assert world.database.find(row.id) == changed
    with pytest.raises(Tampered, match="contradicts"):
        world.database.load(changed, world.keys)
    assert any("contradicts" in error for error in world.errors())


def test_versions_out_of_order(world: World) -> None:
    from store.schema import row_digest

    first = world.database.add(world.sealed())
    second = world.database.add(world.sealed(seed=1, previous=first.id))
    for rows in ([replace(second, version=1), replace(first, version=2)], [replace(second, version=3)]):
        connection = world.database._connection
        connection.execute("UPDATE fingerprints SET version = version + 10")
        for row in [first, second, *rows]:
            if row in (first, second) and row.id in {changed.id for changed in rows}:
                continue
            digest = row_digest("fingerprints", row.to_sql())
            connection.execute(
                "UPDATE fingerprints SET version = ?, row_sha256 = ? WHERE id = ?", (row.version, digest, row.id)
            )
        assert any("version" in error for error in world.errors())


def test_missing_database_reads_as_empty(tmp_path: Path) -> None:
    home = Home(tmp_path / "absent")
    with Database.open(home.database, home, readonly=True) as database:
        assert database.list() == database.latest() == []
        assert database.runs() == []
        assert database.check({}) == []
        assert database.known("a" * 64, "b" * 64, "c" * 64) is None
        with pytest.raises(NotFound, match="there is no fingerprint 'x'"):
            database.find("x")
        with pytest.raises(DatabaseReadOnly):
            database.start_run("verify", {}, "0.1.0")
    assert not home.path.exists()
    with pytest.raises(NotFound, match="there is no database"):
        Database.open(home.database, home, create=False)
    assert not home.path.exists()


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    path.touch()
    with Database.open(path, Home(tmp_path), readonly=True) as database:
        assert database.list() == []
    assert path.stat().st_size == 0
    with Database.open(path, Home(tmp_path), create=False) as database:
        assert database.list() == []
    assert path.stat().st_size > 0


def test_reading_does_not_write(world: World) -> None:
    sealed = world.sealed()
    world.database.add(sealed)
    world.database.close()
    before = world.database.path.read_bytes()
    with Database.open(world.home.database, world.home, readonly=True) as database:
        for write in (lambda: database.add(sealed), lambda: database.start_run("verify", {}, "0")):
            with pytest.raises(DatabaseReadOnly):
                write()
        assert database.load(database.find("resnet"), world.keys)
    assert world.database.path.read_bytes() == before


def test_links_keep_the_tensors_beside_the_file(world: World, tmp_path: Path) -> None:
    row = world.database.add(world.sealed())
    (tmp_path / "link.db").symlink_to(world.database.path)
    with Database.open(tmp_path / "link.db", world.home, readonly=True) as database:
        assert database.load(row, world.keys)


def test_newer_schema_is_refused(world: World) -> None:
    world.database.close()
    raw(world, f"PRAGMA user_version = {VERSION + 1}")
    raw(world, "INSERT INTO _sqlite_migrations VALUES (99, 'dnn-fingerprint', 'm002_ledger', '2027-01-01')")
    before = world.database.path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(StoreError, match="newer release") as caught:
            Database.open(world.home.database, world.home, readonly=readonly)
        assert "pip install -U" in caught.value.remedy
    assert world.database.path.read_bytes() == before


@pytest.mark.parametrize("pragma", ["user_version = 0", f"user_version = {VERSION + 1}", "application_id = 1"])
def test_a_header_that_contradicts_the_content(world: World, pragma: str) -> None:
    world.database.close()
    raw(world, f"PRAGMA {pragma}")
    for readonly in (False, True):
        with pytest.raises(Tampered, match="header"):
            Database.open(world.home.database, world.home, readonly=readonly)


@pytest.mark.parametrize("version", [0, 1, 7])
def test_somebody_elses_database_is_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "places.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(f"CREATE TABLE history (url TEXT); PRAGMA user_version = {version};")
    connection.close()
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(StoreError, match="not a fingerprint database"):
            Database.open(path, Home(tmp_path), readonly=readonly)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_files_that_are_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.db"
    path.write_bytes(content)
    for readonly in (False, True):
        with pytest.raises(Tampered):
            Database.open(path, Home(tmp_path), readonly=readonly)
    assert path.read_bytes() == content
    with pytest.raises(StoreError, match="is a folder"):
        Database.open(tmp_path, Home(tmp_path))


def outcome(world: World, expected: dict[str, bytes], readonly: bool = True) -> str:
    """Open, check and load a database that was changed behind our back; what comes out must be right or refused."""
    try:
        with Database.open(world.home.database, world.home, readonly=readonly) as database:
            if any(problem.kind == "error" for problem in database.check(world.keys)):
                return "found by check"
            rows = database.list()
            assert {row.name: database.load(row, world.keys).payload.to_bytes() for row in rows} == expected
            assert database.run(database.runs()[0].id).parameters == {"alpha": 0.01}
            return "unharmed"
    except FingerprintError as error:
        return f"refused: {type(error).__name__}"


def test_changed_bytes_of_the_database_file_are_harmless_or_seen(world: World) -> None:
    for i in range(3):
        world.database.add(world.sealed(f"n{i}", seed=i))
    world.database.finish_run(world.database.start_run("verify", {"alpha": 0.01}, "0.1.0"))
    rows = world.database.list()
    expected = {row.name: world.database.load(row, world.keys).payload.to_bytes() for row in rows}
    world.database.close()
    path, choose = world.database.path, random.Random(0)
    original = path.read_bytes()
    used = [i for i, byte in enumerate(original) if byte]  # leave out most of the unused space
    seen = []
    for i in range(300):
        changed = bytearray(original)
        changed[choose.choice(used)] ^= 1 << choose.randrange(8)
        path.write_bytes(changed)
        seen.append(outcome(world, expected, readonly=bool(i % 2)))
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    assert sum(word != "unharmed" for word in seen) > 150, seen
    path.write_bytes(original)
    assert outcome(world, expected) == "unharmed"


def test_truncated_database_file(world: World) -> None:
    world.database.add(world.sealed())
    world.database.close()
    path = world.database.path
    original = path.read_bytes()
    for length in range(100, len(original), 4096 + 512):
        path.write_bytes(original[:length])
        assert outcome(world, {}) != "unharmed"


def test_the_schema_is_checked(world: World) -> None:
    connection = world.database._connection
    connection.execute("CREATE VIEW mine AS SELECT 1")
    assert [problem.kind for problem in world.database.check(world.keys)] == ["warning"]
    connection.execute("CREATE TRIGGER evil AFTER INSERT ON runs BEGIN DELETE FROM runs; END")
    assert len(world.errors()) == 1
    connection.execute("DROP TRIGGER evil")
    connection.execute("DROP INDEX results_known")
    assert len(world.errors()) == 1


def test_leftovers_and_open_modes_are_warnings(world: World) -> None:
    sealed = world.sealed()
    world.database.add(sealed)
    folder = Path(f"{world.database.path}.tensors")
    (folder / ".tmp-0123").write_bytes(b"half")
    (folder / f"{'0' * 64}.bin").write_bytes(b"orphan")
    world.database.path.chmod(0o644)
    problems = world.database.check(world.keys)
    assert {problem.kind for problem in problems} == {"warning"}
    messages = " ".join(problem.message for problem in problems)
    assert all(text in messages for text in ("interrupted", "belongs to no record", "chmod 600"))


def test_a_data_key_that_others_can_read_is_refused(world: World) -> None:
    sealed = world.sealed()
    row = world.database.add(sealed)
    for mode in (0o644, 0o640, 0o606):
        world.data_key(sealed).chmod(mode)
        with pytest.raises(KeyFileError, match="open to other users") as caught:
            world.database.load(row, world.keys)
        assert "chmod 600" in caught.value.remedy
    world.data_key(sealed).chmod(0o600)
    assert world.database.load(row, world.keys)


def test_records_share_nothing_by_accident(world: World) -> None:
    """The same seeded record under two names has the same ciphertext, and so one file and one key."""
    first, second = (world.sealed(name, evidential=False) for name in ("a", "b"))
    assert first.tensors == second.tensors
    rows = [world.database.add(sealed) for sealed in (first, second)]
    assert [world.database.load(row, world.keys).manifest.name for row in rows] == ["a", "b"]
    assert len(list(Path(f"{world.database.path}.tensors").iterdir())) == 1
    assert world.database.check(world.keys) == []
