"""Results that a run takes over from an earlier one: read, signed, checked, rebuilt, merged, packed, upgraded to."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils
from store_helpers import World
from test_store_ledger import result

from fingerprint.canonical import canonical
from fingerprint.errors import HistoryDiverged, Tampered
from store import dsse, predicates, takeovers
from store.bundle import write_bundle
from store.database import Database
from store.home import Home
from store.ledger import digest_rows
from store.schema import compact_json, row_digest
from store.signing import PART
from store.takeovers import Taken, TakenRows, laid_out


def first_of(world: World, *signers: object, count: int = 6) -> str:
    database = world.database
    run = database.start_run("audit", {"alpha": 0.01}, "0.1.0")
    database.add_results(run, [result(i) for i in range(count)])
    database.finish_run(run, signers, {"method": "none"})  # type: ignore[arg-type]
    return run


def later_of(world: World, first: str, *signers: object) -> str:
    """One of its own, two and three of the first, one of its own; in two goes."""
    database = world.database
    run = database.start_run("audit", {"alpha": 0.01}, "0.1.0")
    database.add_results(run, [result(10), TakenRows(first, 3, 2)])
    database.add_results(run, [TakenRows(first, 0, 3), result(11)])
    database.finish_run(run, signers, {"method": "none"})  # type: ignore[arg-type]
    return run


@pytest.fixture
def runs(world: World) -> tuple[str, str]:
    """A signed run, and a signed one that takes five of its results over."""
    first = first_of(world, world.signer)
    return first, later_of(world, first, world.signer)


ORDER = [10, 3, 4, 0, 1, 2, 11]


def test_the_results_of_both_runs_are_one_list(world: World, runs: tuple[str, str]) -> None:
    first, later = runs
    found = world.database.results(later)
    assert [row["n"] for row in found] == ORDER
    assert [row.get("cached") for row in found] == [None, True, True, True, True, True, None]
    columns = world.database.result_columns(later)
    assert [row["position"] for row in columns] == list(range(7)) and {row["run_id"] for row in columns} == {later}
    assert [row.get("taken_from") for row in columns[1:3]] == [{"run": first, "position": k} for k in (3, 4)]
    assert "cached" not in columns[1]["row"], "as the earlier run stored it"  # type: ignore[operator]
    assert world.database.run(later).results == 7
    assert [path for path, _, _ in world.database.audits.pairs(later)] == [f"m{n}" for n in ORDER]
    assert not world.database.audits.has(later, f"{3:064x}", "b" * 64)  # decided by the other
    stored = world.database._connection.rows("SELECT count(*) FROM results")[0][0]
    assert stored == 6 + 2, "nothing is stored twice"
    with closing(sqlite3.connect(world.database.path)) as browsing:
        seen = browsing.execute("SELECT suspect_path FROM verdicts WHERE run_id = ?", (later,)).fetchall()
    assert sorted(row[0] for row in seen) == sorted(f"m{n}" for n in ORDER)
    assert world.database.check(world.keys) == []


def test_a_signed_statement_binds_what_it_takes_over(world: World, runs: tuple[str, str]) -> None:
    first, later = runs
    (envelope,) = world.database.run_envelopes(later).values()
    payload = dsse.verify(envelope, world.keys).payload
    said = predicates.parse(payload).predicate
    assert isinstance(said, predicates.RunStatement) and said.taken is not None
    assert [(t.first, t.count, t.source_run, t.source_first) for t in said.taken] == [
        (1, 2, first, 3),
        (3, 3, first, 0),
    ]
    query = "SELECT row_sha256 FROM results WHERE run_id = ? ORDER BY position LIMIT 3"
    assert said.taken[1].sha256 == digest_rows(row[0] for row in world.database._connection.rows(query, (first,)))
    assert [r.suspect_path for r in said.results] == ["m10", "m11"] and b'"m3"' not in payload
    (envelope,) = world.database.run_envelopes(first).values()
    assert b'"taken"' not in dsse.verify(envelope, world.keys).payload, "the bytes of earlier releases"


def test_parts_hold_so_many_results_or_references(world: World) -> None:
    first = first_of(world, count=2 * PART + 10)
    run = world.database.start_run("audit", {}, "0.1.0")
    rows = [row for i in range(PART) for row in (TakenRows(first, 2 * i, 1), result(3000 + i))]
    world.database.add_results(run, [TakenRows(first, 0, 2 * PART + 10), *rows])
    made = world.database.finish_run(run, [world.signer])
    parts = [
        predicates.parse(dsse.verify(e, world.keys).payload).predicate
        for e in world.database.run_envelopes(run).values()
    ]
    assert [p.part.first for p in parts] == [0, 2 * PART + 10 + PART - 1, 2 * PART + 10 + 2 * PART - 1]  # type: ignore[union-attr]
    held = [len(p.results) + len(p.taken or ()) for p in parts]  # type: ignore[union-attr]
    assert held == [PART, PART, 1] and len(made) == 3
    assert world.database.check(world.keys) == []


def forged(world: World, run: str, position: int) -> None:
    """Another text in a row, with the digest that belongs to it."""
    query = "SELECT * FROM results WHERE run_id = ? AND position = ?"
    (found,) = world.database._connection.rows(query, (run, position))
    values = {key: found[key] for key in found.keys() if key not in ("number", "row_sha256")}  # noqa: SIM118
    values["row"] = compact_json({**json.loads(values["row"]), "verdict": {"lineage": "derived"}})
    change = "UPDATE results SET row = ?, row_sha256 = ? WHERE run_id = ? AND position = ?"
    world.tamper(change, (values["row"], row_digest("results", values), run, position))


@pytest.mark.parametrize("signed", [True, False])
def test_a_changed_or_missing_row_is_a_problem_of_the_runs_that_took_it_over(world: World, signed: bool) -> None:
    signers = [world.signer] if signed else []
    first = first_of(world, *signers)
    later = later_of(world, first, *signers)
    assert world.database.check(world.keys) == []
    forged(world, first, 1)
    assert any(f"results 3 to 5 of run {later}" in error for error in world.errors())
    assert not any(f"results 1 to 2 of run {later}" in error for error in world.errors())
    world.tamper("DELETE FROM results WHERE run_id = ? AND position = 4", (first,))
    assert any(f"results 1 to 2 of run {later}" in error for error in world.errors())
    for refused in (lambda: world.database.sign_run(later, [world.signer]), lambda: world.database.results(later)):
        with pytest.raises(Tampered, match="missing"):
            refused()


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM taken WHERE first = 1",
        "UPDATE taken SET source_first = 1 WHERE first = 1",
        "UPDATE taken SET row_sha256 = 'x' WHERE first = 1",
        "INSERT INTO taken SELECT run_id, 7, 1, source_run, 0, row_sha256 FROM taken WHERE first = 1",
    ],
)
def test_changed_references_are_found_and_come_back(sql: str, world: World, runs: tuple[str, str]) -> None:
    before = world.database.results(runs[1])
    world.tamper(sql)
    assert any("takes over" in error for error in world.errors())
    world.database.rebuild(world.keys)
    assert world.database.check(world.keys) == [] and world.database.results(runs[1]) == before


def test_a_reference_with_the_right_digest_that_was_never_written(world: World, runs: tuple[str, str]) -> None:
    first, later = runs
    values = vars(Taken(later, 1, 2, first, 1))
    world.tamper("UPDATE taken SET source_first = 1, row_sha256 = ? WHERE first = 1", (row_digest("taken", values),))
    assert any("not what the ledger says" in error for error in world.errors())
    assert any("not taken over as it was signed" in error for error in world.errors())


def test_everything_signed_is_rebuilt(world: World, runs: tuple[str, str]) -> None:
    before = world.database.results(runs[1])
    world.tamper("DELETE FROM taken")
    world.tamper("DELETE FROM results")
    made = world.database.rebuild(world.keys)
    assert made.results == 8 and world.database.check(world.keys) == []
    assert world.database.results(runs[1]) == before


def test_nothing_is_taken_over_that_is_not_there(world: World) -> None:
    first = first_of(world)
    run = world.database.start_run("audit", {}, "0.1.0")
    with pytest.raises(Tampered, match="missing"):
        world.database.add_results(run, [result(1), TakenRows(first, 5, 2)])
    assert world.database.results(run) == []
    with pytest.raises(Exception, match="append-only"):
        world.database.add_results(run, [TakenRows(first, 0, 2)])
        world.database._connection.execute("DELETE FROM taken")


def test_merge_and_backup_keep_what_is_taken_over(world: World, runs: tuple[str, str], tmp_path: Path) -> None:
    world.database.backup(tmp_path / "copy.db")
    home = Home(tmp_path / "other")
    home.ensure(home.trusted)
    with Database.open(home.database, home) as other:
        merged = other.merge(tmp_path / "copy.db", world.keys)
        assert (merged.runs, merged.results) == (2, 13)
        assert other.results(runs[1]) == world.database.results(runs[1]) and other.check(world.keys) == []
    third = world.database.start_run("audit", {}, "0.1.0")
    world.database.add_results(third, [TakenRows(runs[0], 0, 2)])
    with Database.open(tmp_path / "copy.db", world.home) as copy:
        assert copy.merge(world.database.path, world.keys).results == 2
        assert copy.check(world.keys) == []
        copy.add_results(third, [TakenRows(runs[0], 2, 2)])
        world.database.add_results(third, [TakenRows(runs[0], 3, 2)])
    with pytest.raises(HistoryDiverged, match="went on in both"):
        world.database.merge(tmp_path / "copy.db", world.keys)


def test_an_evidence_pack_of_what_is_taken_over_checks_by_itself(
    world: World, runs: tuple[str, str], tmp_path: Path
) -> None:
    out, folder = tmp_path / "e.zip", tmp_path / "pack"
    write_bundle(world.database, runs[1], out, html="", markdown="", keys=world.keys)
    with zipfile.ZipFile(out) as archive:
        archive.extractall(folder)

    def checked() -> str:
        program = str(folder / "check_evidence.py")
        code = "import sys; sys.modules['fingerprint'] = sys.modules['store'] = None; import runpy; "
        code += f"sys.argv = ['c', {str(folder)!r}]; runpy.run_path({program!r}, run_name='__main__')"
        return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False).stdout

    said = checked()
    assert f"7 results of run {runs[1]} are what was signed" in said and "5 are rows of earlier runs" in said
    told = json.loads((folder / "run.json").read_text())
    for position, field, value in (
        (3, "row", {"n": 9}),
        (3, "taken_from", {"run": runs[0], "position": 1}),
        (3, "status", "x"),
    ):
        changed = json.loads(json.dumps(told))
        changed["results"][position][field] = value
        (folder / "run.json").write_text(canonical(changed).decode())
        assert "are what was signed" not in checked()


def test_a_database_of_the_release_before_is_upgraded(world: World, tmp_path: Path) -> None:
    """Its runs stay what they were, and are taken over from."""
    from store.adoption import adopt
    from store.migrations import MIGRATIONS, expected_schema, schema_of
    from store.schema import APPLICATION_ID

    path = tmp_path / "old.db"
    connection = sqlite3.connect(path, isolation_level=None)
    MIGRATIONS.apply(
        sqlite_utils.Database(connection, execute_plugins=False, strict=True), stop_before="m005_results_taken_over"
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 4")
    first = first_of(world)
    connection.execute("ATTACH ? AS new", (str(world.database.path),))
    for table, columns in (("runs", "*"), ("results", "*")):
        connection.execute(f"INSERT INTO {table} SELECT {columns} FROM new.{table}")
    connection.execute("DETACH new")
    adopt(connection)
    connection.close()
    path.chmod(0o600)
    with Database.open(path, world.home) as database:
        assert len(database.results(first)) == 6 and database.check(world.keys) == []
        run = database.start_run("audit", {}, "0.1.0")
        database.add_results(run, [TakenRows(first, 0, 6)])
        database.finish_run(run, [world.signer])
        assert database.check(world.keys) == [] and len(database.results(run)) == 6
    with sqlite3.connect(path) as upgraded:
        assert schema_of(upgraded) == expected_schema()


def test_stretches_of_a_part_of_a_run() -> None:
    taken = [Taken("r", 2, 3, "s", 10), Taken("r", 5, 1, "s", 0), Taken("r", 9, 2, "t", 4)]
    found = [(s.first, s.source_run, s.source_first, s.count, s.end) for s in laid_out("r", taken, 3, 10)]
    assert found == [(3, "s", 11, 2, 5), (5, "s", 0, 1, 6), (6, "r", 6, None, 9), (9, "t", 4, 1, 10)]
    assert [s.end for s in laid_out("r", [], 0, 0)] == []
    assert TakenRows("s", 0, 2).followed_by(TakenRows("s", 2, 1)) == TakenRows("s", 0, 3)
    assert TakenRows("s", 0, 2).followed_by(TakenRows("s", 3, 1)) is None
    assert takeovers.read_told("r", None) == []


def test_references_that_contradict_each_other_are_no_results(world: World, runs: tuple[str, str]) -> None:
    """Two for one position, each with its own right digest."""
    first, _ = runs
    third = world.database.start_run("audit", {"alpha": 0.01}, "0.1.0")
    connection = world.database._connection
    with connection.transaction():
        takeovers.insert(connection, [Taken(third, 0, 3, first, 0), Taken(third, 2, 2, first, 4)])
    with pytest.raises(Tampered, match=f"{third} takes over two results at position 2"):
        world.database.results(third)
