"""The ledger: what it sees, checkpoints, rebuilding, merging, backups, orphans."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import sqlite_utils
from store_helpers import World, equal, make_fingerprint

from fingerprint.errors import HistoryDiverged, NameTaken, StoreError, Tampered, UntrustedSigner
from store import checkpoints, dsse, ledger, predicates
from store.database import Database
from store.home import Home
from store.rows import ResultRow
from store.schema import compact_json, row_digest


def result(number: int, **changes: object) -> ResultRow:
    row = {"suspect": {"path": f"m{number}"}, "verdict": {"lineage": "unrelated"}, "n": number, "x": 0.1 + number}
    made = ResultRow(f"{number:064x}", f"m{number}", "onnx", "onnx", "b" * 64, "c" * 64, "decided", row)
    return replace(made, **changes)  # type: ignore[arg-type]


def run_of(database: Database, count: int = 3, *signers: object, kind: str = "verify") -> str:
    run = database.start_run(kind, {"alpha": 0.01}, "0.1.0")  # type: ignore[arg-type]
    for i in range(count):
        database.add_results(run, [result(i)], [{"source": f"m{i}", "sha256": f"{i:064x}", "size": 3}])
    database.finish_run(run, signers, {"method": "none"} if kind == "audit" else None)  # type: ignore[arg-type]
    return run


@pytest.fixture
def full(world: World) -> World:
    """Records, a signed and an unsigned run, an exposure, a checkpoint."""
    world.database.add(world.sealed())
    world.database.add(world.sealed(seed=1), replace=True)
    run_of(world.database, 3, world.signer)
    run_of(world.database, 2)
    world.database.expose("ab" * 32, {1, 2}, "https://host:443")
    world.database.checkpoint([world.signer])
    assert world.database.check(world.keys) == []
    return world


def test_what_is_recorded(full: World) -> None:
    kinds = [entry.kind for entry in full.database.entries(100)]
    run = ["start", "results", "results", "results", "verify"]
    assert kinds == ["genesis", "schema", "create", "create", *run, *run[:3], "verify", "expose", "checkpoint"]
    entries = full.database.entries(100)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert all(later.previous == earlier.hash for earlier, later in pairwise(entries))
    intake = next(e for e in entries if e.kind == "results").body["intake"]
    assert intake == [{"source": "m0", "sha256": f"{0:064x}", "size": 3}]


def test_an_entry_by_hand() -> None:
    """The hash as docs/evidence.md describes it, computed with nothing of this tool."""
    import hashlib
    import json

    body = '{"a":1}'
    fields = ["dnn-fingerprint/ledger/1", 7, "verify", "run", "2026-01-01T00:00:00.000Z", body, "0" * 64]
    by_hand = hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest()
    assert ledger.digest(7, "verify", "run", "2026-01-01T00:00:00.000Z", body, "0" * 64) == by_hand


def test_rows_can_not_be_changed_by_accident(full: World) -> None:
    for table in ("ledger", "envelopes", "results", "exposures"):
        for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET rowid = rowid + 1"):
            with pytest.raises(StoreError, match="append-only"):
                full.database._connection.execute(sql)


REWRITES = {
    "a verdict": ("results", "row = replace(row, 'unrelated', 'derived')", "position = 1", "result 1"),
    "a suspect's digest": ("results", "suspect_sha256 = fingerprint_id", "position = 0", "result 0"),
    "a run's parameters": ("runs", "parameters = '{\"alpha\":0.5}'", "1", "run "),
    "a run's end": ("runs", "finished = '2030-01-01T00:00:00.000Z'", "1", "run "),
    "an exposure": ("exposures", "probes = '[1]'", "1", "exposures"),
    "when a record came": ("fingerprints", "added = '2020-01-01T00:00:00Z'", "version = 1", "resnet"),
}


@pytest.mark.parametrize("case", REWRITES)
def test_rows_rewritten_with_their_digests_are_named(full: World, case: str) -> None:
    """Somebody who knows the scheme and recomputes what a row says of itself."""
    table, change, where, name = REWRITES[case]
    full.tamper(f"UPDATE {table} SET {change} WHERE {where}")
    redigest(full, table)
    errors = full.errors()
    assert any(name in error for error in errors), errors


def redigest(world: World, table: str) -> None:
    connection = world.database._connection.raw
    columns = [r[1] for r in connection.execute(f"PRAGMA table_info({table})") if r[1] not in ("number", "row_sha256")]
    for row in connection.execute(f"SELECT rowid AS place, * FROM {table}").fetchall():
        digest = row_digest(table, {c: row[c] for c in columns})
        world.tamper(f"UPDATE {table} SET row_sha256 = ? WHERE rowid = ?", (digest, row["place"]))


def test_swapped_results_are_named(full: World) -> None:
    run = full.database.runs()[0].id
    full.tamper("UPDATE results SET position = position + 10 WHERE run_id = ? AND position < 2", (run,))
    full.tamper("UPDATE results SET position = 11 - position WHERE run_id = ? AND position >= 10", (run,))
    redigest(full, "results")
    errors = full.errors()
    assert {f"result {i} of run {run}" for i in (0, 1)} <= {e.split("subject='")[1].split("'")[0] for e in errors}


def test_rows_that_were_added_or_removed_are_named(full: World) -> None:
    run = full.database.runs()[0].id
    full.tamper("DELETE FROM results WHERE run_id = ? AND position = 2", (run,))
    assert any(f"result 2 of run {run}" in error and "missing" in error for error in full.errors())
    full.tamper("DELETE FROM fingerprints WHERE version = 2")
    assert any("missing from the database" in error and "resnet" in error for error in full.errors())
    full.tamper("DELETE FROM exposures")
    assert any("exposures row" in error and "missing" in error for error in full.errors())
    full.tamper("DELETE FROM envelopes WHERE predicate_type = ?", (predicates.CHECKPOINT,))
    assert any("envelope" in error and "missing" in error for error in full.errors())


def test_versions_that_changed_places(full: World) -> None:
    first, second = full.database.list()
    for row, version in ((first, 12), (second, 1), (first, 2)):
        changed = replace(row, version=version)
        values = (version, row_digest("fingerprints", changed.to_sql()), row.id)
        full.tamper("UPDATE fingerprints SET version = ?, row_sha256 = ? WHERE id = ?", values)
    assert any("by the ledger" in error for error in full.errors())


@pytest.mark.parametrize("column", ["seq", "kind", "subject", "time", "body", "previous", "hash", "chain", "position"])
def test_every_column_of_the_ledger(full: World, column: str) -> None:
    changes = {"seq": "seq + 100", "position": "position + 100", "body": "replace(body, ':', ' :')"}
    full.tamper(f"UPDATE ledger SET {column} = {changes.get(column, f'{column} || 0')} WHERE position = 6")
    assert any("ledger entry" in error for error in full.errors())


def test_entries_that_were_removed(full: World) -> None:
    full.tamper("DELETE FROM ledger WHERE position = 8")
    assert any("removed" in error for error in full.errors())


def test_a_ledger_that_was_removed(full: World) -> None:
    full.tamper("DELETE FROM ledger")
    assert full.errors()


def rewritten(world: World) -> None:
    """Remove the last run and make the chain hold again: what only a signature or a checkpoint can tell."""
    (last,) = [run for run in world.database.runs() if not world.database.run_envelopes(run.id)]
    world.tamper("DELETE FROM results WHERE run_id = ?", (last.id,))
    world.tamper("DELETE FROM runs WHERE id = ?", (last.id,))
    entries = world.database.entries(100)
    world.tamper("DELETE FROM ledger")
    previous, seq, chain = ledger.NOTHING, 0, ""
    for entry in entries:
        if entry.subject == last.id:
            continue
        seq += 1
        body = compact_json(dict(entry.body))
        value = ledger.digest(seq, entry.kind, entry.subject, entry.time, body, previous)
        chain = chain or value
        values = (chain, seq, entry.kind, entry.subject, entry.time, body, previous, value)
        world.tamper("INSERT INTO ledger VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        previous = value


def test_a_chain_that_was_made_anew_contradicts_its_signed_checkpoint(full: World) -> None:
    rewritten(full)
    errors = full.errors()
    assert len(errors) == 1
    assert "the ledger was rewritten" in errors[0]


def exported(world: World, path: Path) -> predicates.Checkpoint:
    path.write_bytes(world.database.checkpoint([world.signer]))
    return checkpoints.read(path, world.keys)


def test_a_checkpoint_goes_on_holding(full: World, tmp_path: Path) -> None:
    kept = exported(full, tmp_path / "kept")
    assert full.database.compare_checkpoint(kept) == 1  # the checkpoint itself
    run_of(full.database)
    assert full.database.compare_checkpoint(kept) == 6
    with pytest.raises(UntrustedSigner):
        checkpoints.read(tmp_path / "kept", {})
    (tmp_path / "other").write_bytes(full.database.read_envelope(full.database.list()[0].id))
    with pytest.raises(Tampered, match="holds no checkpoint"):
        checkpoints.read(tmp_path / "other", full.keys)


def test_a_rollback_is_seen(full: World, tmp_path: Path) -> None:
    full.database.backup(tmp_path / "old.db")
    run_of(full.database)
    kept = exported(full, tmp_path / "kept")
    with Database.open(tmp_path / "old.db", full.home) as old:
        assert not [p for p in old.check(full.keys) if p.kind == "error"]
        with pytest.raises(HistoryDiverged, match="rolled back"):
            old.compare_checkpoint(kept)
        for _ in range(3):
            run_of(old)
        with pytest.raises(HistoryDiverged, match="another history"):
            old.compare_checkpoint(kept)


def test_a_checkpoint_of_another_database(full: World, tmp_path: Path) -> None:
    kept = exported(full, tmp_path / "kept")
    other = Home(tmp_path / "other")
    with Database.open(other.database, other) as database, pytest.raises(HistoryDiverged, match="does not have"):
        database.compare_checkpoint(kept)


# --- signed runs -----------------------------------------------------------------------------------------------------


def test_a_signed_run(full: World) -> None:
    run = next(r for r in full.database.runs() if full.database.run_envelopes(r.id))
    ((sha256, envelope),) = full.database.run_envelopes(run.id).items()
    verified = dsse.verify(envelope, full.keys)
    statement = predicates.parse(verified.payload)
    said = statement.predicate
    assert isinstance(said, predicates.RunStatement)
    assert statement.predicate_type == predicates.VERIFICATION
    assert [r.row for r in said.results] == full.database.results(run.id)
    assert statement.subjects[0] == predicates.Subject(f"run {run.id}", said.run.results_sha256)
    assert {s.sha256 for s in statement.subjects[1:]} == {f"{i:064x}" for i in range(3)}
    assert full.database.read_envelope(sha256) == envelope


def test_a_long_run_is_signed_in_parts(world: World) -> None:
    run = world.database.start_run("audit", {}, "0.1.0")
    world.database.add_results(run, [result(i) for i in range(1201)])
    world.database.finish_run(run, [world.signer], {"method": "bh"})
    assert len(world.database.run_envelopes(run)) == 3
    assert world.database.check(world.keys) == []
    name = next(iter(world.database.run_envelopes(run)))
    world.tamper("DELETE FROM envelopes WHERE sha256 = ?", (name,))
    assert world.errors()


def test_a_run_without_results_can_be_signed(world: World) -> None:
    run = run_of(world.database, 0, world.signer)
    assert len(world.database.run_envelopes(run)) == 1
    assert world.database.check(world.keys) == []


def test_signing_later_and_by_several(full: World) -> None:
    run = next(r for r in full.database.runs() if not full.database.run_envelopes(r.id))
    full.database.sign_run(run.id, [full.signer, full.stranger])
    ((_, envelope),) = full.database.run_envelopes(run.id).items()
    assert len(dsse.verify(envelope, full.keys).signers) == 2
    assert full.database.check(full.keys) == []
    going_on = full.database.start_run("verify", {}, "0")
    with pytest.raises(StoreError, match="not ended"):
        full.database.sign_run(going_on, [full.signer])


def test_a_run_by_a_stranger_is_told(world: World) -> None:
    run_of(world.database, 1, world.stranger)
    assert any("no trusted key" in error for error in world.errors())


# --- rebuild ---------------------------------------------------------------------------------------------------------


def dump(world: World) -> dict[str, list[tuple[object, ...]]]:
    tables = ("fingerprints", "runs", "results", "exposures", "exports")
    with closing(sqlite3.connect(world.database.path)) as connection:
        return {t: connection.execute(f"SELECT * FROM {t} ORDER BY 1").fetchall() for t in tables}


def test_every_index_comes_back_from_the_envelopes(full: World) -> None:
    unsigned = next(r for r in full.database.runs() if not full.database.run_envelopes(r.id))
    before = dump(full)
    full.tamper("DELETE FROM fingerprints")
    full.tamper("DELETE FROM results WHERE run_id <> ?", (unsigned.id,))
    full.tamper("DELETE FROM runs WHERE id <> ?", (unsigned.id,))
    full.tamper("DROP INDEX results_known")
    full.tamper("DROP VIEW verdicts")
    assert full.errors()
    made = full.database.rebuild(full.keys)
    assert (made.fingerprints, made.runs, made.results) == (2, 1, 3)
    assert full.database.check(full.keys) == []
    after = dump(full)
    assert after["fingerprints"] == before["fingerprints"]
    assert after["runs"] == before["runs"]
    assert {r[1:] for r in after["results"]} == {r[1:] for r in before["results"]}
    assert equal(full.database.load(full.database.list()[0], full.keys), make_fingerprint())


def test_changed_rows_come_back_in_their_place(full: World) -> None:
    before = dump(full)
    full.tamper("UPDATE results SET row = '{}' WHERE position = 1")
    full.tamper("UPDATE fingerprints SET name = 'x', version = version + 5")
    full.tamper("UPDATE runs SET parameters = '{}'")
    made = full.database.rebuild(full.keys)
    assert made.results == 1
    left = full.errors()  # the run that nobody signed
    assert left
    assert all("run" in error for error in left)
    first = full.database._connection.rows("SELECT run_id FROM results ORDER BY number LIMIT 1")[0][0]
    signed = [row for row in dump(full)["results"] if row[1] == first]
    assert len(signed) == 3
    assert set(signed) <= set(before["results"])


def test_there_is_no_rebuilding_from_a_broken_ledger_or_envelope(full: World) -> None:
    full.tamper("UPDATE envelopes SET envelope = x'00' WHERE sha256 = ?", (full.database.list()[0].id,))
    before = dump(full)
    with pytest.raises(Tampered):
        full.database.rebuild(full.keys)
    full.tamper("UPDATE ledger SET time = 'x' WHERE position = 4")
    with pytest.raises(Tampered, match="ledger does not hold"):
        full.database.rebuild(full.keys)
    assert dump(full) == before
    with pytest.raises(StoreError, match="append-only"):  # the triggers are still there
        full.database._connection.execute("DELETE FROM results")


# --- merge -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(world: World, tmp_path: Path) -> Iterator[World]:
    """Another machine with the same signers."""
    home = Home(tmp_path / "other")
    home.ensure(home.trusted)
    shutil.copy(world.home.trusted / "me.pub", home.trusted)
    made = World(home, world.signer, world.stranger, Database.open(home.database, home))
    yield made
    made.database.close()


def test_merging_two_histories(full: World, other: World) -> None:
    other.database.add(other.sealed("theirs", seed=7))
    run = run_of(other.database, 2, other.signer, kind="audit")
    other.database.expose("cd" * 32, {3}, "https://b:443")
    other.database.checkpoint([other.signer])
    merged = full.database.merge(other.database.path, full.keys)
    assert (merged.fingerprints, merged.runs, merged.results, merged.parted_at) == (1, 1, 2, None)
    assert full.database.check(full.keys) == []
    assert equal(full.database.load(full.database.find("theirs"), full.keys), make_fingerprint("theirs", seed=7))
    assert full.database.results(run) == other.database.results(run)
    assert full.database.exposed("cd" * 32)
    chains = {entry.chain for entry in full.database.entries(100)}
    assert len(chains) == 2
    assert full.database.merge(other.database.path, full.keys).entries == 0
    run_of(full.database)
    run_of(other.database)
    again = full.database.merge(other.database.path, full.keys)
    assert (again.runs, again.entries) == (1, 5)
    assert full.database.check(full.keys) == []
    assert full.database.rebuild(full.keys)
    assert full.database.check(full.keys) == []


def test_copies_that_parted(full: World, tmp_path: Path) -> None:
    """As `audit --shard` on two machines that began from one database."""
    full.database.backup(tmp_path / "copy.db", include_secrets=True)
    last = full.database.entries(1)[0].seq
    mine = run_of(full.database, 2, full.signer)
    with Database.open(tmp_path / "copy.db", full.home) as copy:
        theirs = run_of(copy, 3, full.signer)
        copy.add(full.sealed("new", seed=5))
        kept = predicates.parse(dsse.verify(copy.checkpoint([full.signer]), full.keys).payload).predicate
    merged = full.database.merge(tmp_path / "copy.db", full.keys)
    assert merged.parted_at == last + 1
    assert (merged.fingerprints, merged.runs, merged.results) == (1, 1, 3)
    assert full.database.check(full.keys) == []
    assert {mine, theirs} <= {run.id for run in full.database.runs()}
    assert isinstance(kept, predicates.Checkpoint)
    assert full.database.compare_checkpoint(kept) == 1  # their history is here too


def test_an_older_copy_catches_up(full: World, tmp_path: Path) -> None:
    full.database.backup(tmp_path / "copy.db")
    run_of(full.database, 2, full.signer)
    with Database.open(tmp_path / "copy.db", full.home) as copy:
        merged = copy.merge(full.database.path, full.keys)
        assert (merged.runs, merged.parted_at) == (1, None)
        assert len({entry.chain for entry in copy.entries(100)}) == 1
        assert copy.check(full.keys) == []
    assert full.database.merge(tmp_path / "copy.db", full.keys).entries == 1  # that of the merge


def test_a_run_that_ends_in_a_copy(world: World, tmp_path: Path) -> None:
    run = world.database.start_run("audit", {}, "0")
    world.database.add_results(run, [result(0)])
    world.database.backup(tmp_path / "copy.db")
    with Database.open(tmp_path / "copy.db", world.home) as copy:
        copy.add_results(run, [result(1)])
        copy.finish_run(run)
    world.database.merge(tmp_path / "copy.db", world.keys)
    assert world.database.run(run).results == 2
    assert world.database.check(world.keys) == []


def test_a_run_that_goes_on_in_both_is_refused(world: World, tmp_path: Path) -> None:
    run = world.database.start_run("audit", {}, "0")
    world.database.backup(tmp_path / "copy.db")
    world.database.add_results(run, [result(0)])
    with Database.open(tmp_path / "copy.db", world.home) as copy:
        copy.add_results(run, [result(1)])
    with pytest.raises(HistoryDiverged, match="went on in both"):
        world.database.merge(tmp_path / "copy.db", world.keys)
    assert world.database.check(world.keys) == []


def test_names_in_both(full: World, other: World) -> None:
    other.database.add(other.sealed("resnet", seed=9))
    with pytest.raises(NameTaken):
        full.database.merge(other.database.path, full.keys)
    assert full.errors() == []
    assert full.database.merge(other.database.path, full.keys, replacing=True).fingerprints == 1
    assert [row.version for row in full.database.list()] == [1, 2, 3]
    assert full.database.check(full.keys) == []


def test_what_does_not_hold_is_not_merged(full: World, other: World) -> None:
    run_of(other.database)
    other.tamper("UPDATE results SET status = 'x'")
    with pytest.raises(Tampered, match="does not hold"):
        full.database.merge(other.database.path, full.keys)
    with pytest.raises(StoreError, match="into itself"):
        full.database.merge(full.database.path, full.keys)
    with pytest.raises(StoreError, match="there is no database"):
        full.database.merge(other.home.path / "absent.db", full.keys)


# --- backup, orphans, upgrade ----------------------------------------------------------------------------------------


def test_a_backup_is_whole(full: World, tmp_path: Path) -> None:
    out = tmp_path / "vault" / "copy.db"
    assert full.database.backup(out, include_secrets=True) == 2
    assert (out.stat().st_mode & 0o777, out.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with pytest.raises(StoreError, match="exists already"):
        full.database.backup(out)
    home = Home(tmp_path / "restored")
    home.ensure(home.path)
    shutil.copytree(f"{out}.secrets", home.secrets)
    with Database.open(out, home) as copy:
        assert copy.check(full.keys) == []
        assert equal(copy.load(copy.list()[0], full.keys), make_fingerprint())


def test_nothing_is_left_of_a_backup_that_failed(full: World, tmp_path: Path) -> None:
    full.tensors(full.sealed(evidential=False))
    for path in Path(f"{full.database.path}.tensors").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(Tampered, match="damaged"):
        full.database.backup(tmp_path / "copy.db")
    assert not [p for p in tmp_path.iterdir() if p.is_file()]


def test_orphans_are_collected_but_not_young_ones(full: World) -> None:
    folder = Path(f"{full.database.path}.tensors")
    old, young = folder / f"{'0' * 64}.bin", folder / f"{'1' * 64}.bin"
    for path in (old, young, full.home.secrets / ".tmp-0"):
        path.write_bytes(b"x")
    for path in (old, *folder.glob("[!1]*")):
        os.utime(path, (1, 1))
    assert full.database.collect() == [old]
    assert young.exists()
    assert not full.errors()


def test_a_database_without_a_ledger_is_put_under_one(tmp_path: Path, world: World) -> None:
    """A database of the second release, with rows of every kind."""
    from store.migrations import MIGRATIONS
    from store.schema import APPLICATION_ID

    sealed = world.sealed()
    run = run_of(world.database, 2)
    world.database.add(sealed)
    world.database.expose("ab" * 32, {1}, "https://a:443")
    path = world.home.path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        MIGRATIONS.apply(
            sqlite_utils.Database(connection, execute_plugins=False, strict=True),
            stop_before="m003_ledger_and_envelopes",
        )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 2")
        connection.execute("ATTACH ? AS new", (str(world.database.path),))
        for table in ("runs", "results", "exposures", "exports"):
            connection.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
        connection.execute(
            "INSERT INTO fingerprints SELECT f.*, e.envelope FROM new.fingerprints f "
            "JOIN new.envelopes e ON e.sha256 = id"
        )
    path.chmod(0o600)
    shutil.copytree(f"{world.database.path}.tensors", f"{path}.tensors")
    with Database.open(path, world.home) as upgraded:
        assert upgraded.check(world.keys) == []
        assert upgraded.results(run) == world.database.results(run)
        assert equal(upgraded.load(upgraded.find("resnet"), world.keys), make_fingerprint())
        assert upgraded.rebuild(world.keys).fingerprints == 1
        assert upgraded.check(world.keys) == []
        kinds = [entry.kind for entry in upgraded.entries(20)]
        assert kinds[:6] == ["genesis", "import", "start", "results", "verify", "expose"]
