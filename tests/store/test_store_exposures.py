"""Probes that left this machine, exports, and the upgrade that brought them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlite_utils
from store_helpers import World

from fingerprint.errors import DatabaseOutdated, DatabaseReadOnly, NotFound, Tampered
from store.database import Database
from store.exposures import ExportRow
from store.home import Home
from store.schema import APPLICATION_ID, VERSION

ROOT = "ab" * 32
ID = "cd" * 32


def export(probes: tuple[int, ...] = (3, 1, 2), identity: str = ID) -> ExportRow:
    return ExportRow(identity, ROOT, "ef" * 32, "resnet", probes, "2026-01-01T00:00:00.000Z")


def test_exposures_add_up(world: World) -> None:
    database = world.database
    assert database.exposed(ROOT) == {}
    database.expose(ROOT, {1, 2}, "https://a:443")
    database.expose(ROOT, {2, 3}, "https://a:443")
    database.expose(ROOT, {2}, "https://b:443")
    database.expose("00" * 32, {9}, "https://a:443")
    assert database.exposed(ROOT) == {"https://a:443": {1, 2, 3}, "https://b:443": {2}}
    assert world.reopen(readonly=True).exposed(ROOT)["https://a:443"] == {1, 2, 3}


def test_the_same_again_takes_no_room(world: World) -> None:
    for _ in range(3):
        world.database.expose(ROOT, {1, 2}, "https://a:443")
    with sqlite3.connect(world.database.path) as connection:
        assert connection.execute("SELECT count(*) FROM exposures").fetchone() == (1,)


def test_exports_are_found_and_count_as_exposed(world: World) -> None:
    world.database.record_export(export())
    world.database.record_export(export())
    for text in (ID, ID[:16], ID[:8]):
        assert world.database.find_export(text) == export()
    assert world.database.exposed(ROOT) == {f"export {ID[:16]}": {1, 2, 3}}
    for text in ("", "cd", ID[:7], "%", "ef" * 32, "x" * 64):
        with pytest.raises(NotFound, match="no export"):
            world.database.find_export(text)
    world.database.record_export(export(identity=ID[:62] + "00"))
    with pytest.raises(NotFound, match="more than one"):
        world.database.find_export(ID[:16])


def test_what_can_not_be_recorded_is_an_error(world: World) -> None:
    database = world.reopen(readonly=True)
    for write in (lambda: database.expose(ROOT, {1}, "p"), lambda: database.record_export(export())):
        with pytest.raises(DatabaseReadOnly):
            write()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE exposures SET probes = '[1]'", "UPDATE exposures SET place = 'https://other:443'",
        "UPDATE exports SET probes = '[1,2,3]'", "UPDATE exports SET name = 'x'",
    ],
)  # fmt: skip
def test_changed_rows_are_found(sql: str, world: World) -> None:
    world.database.record_export(export())
    assert world.database.check(world.keys) == []
    world.tamper(sql)
    assert world.errors()
    table = sql.split()[1]
    with pytest.raises(Tampered, match=table):
        _ = world.database.exposed(ROOT) if table == "exposures" else world.database.find_export(ID)


def test_a_database_of_the_first_release_is_upgraded(tmp_path: Path) -> None:
    from store.migrations import MIGRATIONS, expected_schema, schema_of

    path = tmp_path / "fingerprint.db"
    connection = sqlite3.connect(path, isolation_level=None)
    first = sqlite_utils.Database(connection, execute_plugins=False, strict=True)
    MIGRATIONS.apply(first, stop_before="m002_exposures_and_exports")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    assert len(schema_of(connection)) < len(expected_schema())
    connection.close()
    with pytest.raises(DatabaseOutdated, match="older release"):
        Database.open(path, Home(tmp_path), readonly=True)
    with Database.open(path, Home(tmp_path)) as database:
        database.expose(ROOT, {1}, "https://a:443")
        assert database.exposed(ROOT)
    with sqlite3.connect(path) as upgraded:
        assert upgraded.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert schema_of(upgraded) == expected_schema()
