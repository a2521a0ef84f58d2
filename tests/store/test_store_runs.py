"""Runs and results, and what is known already."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_helpers import World

from fingerprint.errors import NotFound, StoreError, Tampered
from store.rows import ResultRow

SUSPECT, RECORD, SETTINGS = "a" * 64, "b" * 64, "c" * 64


def result(status: str = "decided", **changes: object) -> ResultRow:
    row = ResultRow(
        suspect_sha256=SUSPECT,
        suspect_path="models/x.onnx",
        format="onnx",
        runtime="onnx",
        fingerprint_id=RECORD,
        settings_sha256=SETTINGS,
        status=status,
        row={"status": status, "score": 0.1 + 0.2},
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def stored(world: World, *rows: ResultRow) -> str:
    run = world.database.start_run("audit", {"alpha": 0.01, "paths": ["x"]}, "0.1.0")
    world.database.add_results(run, rows)
    world.database.finish_run(run)
    return run


def test_a_run(world: World) -> None:
    database = world.database
    run = database.start_run("audit", {"alpha": 0.01, "paths": ["x"]}, "0.1.0")
    assert database.run(run).finished is None
    assert database.results(run) == []
    database.add_results(run, [result(), result("crashed")])
    database.add_results(run, iter([result("skipped")]))
    database.finish_run(run)
    database = world.reopen(readonly=True)
    row = database.run(run)
    assert (row.kind, row.tool_version, row.parameters, row.results) == (
        "audit",
        "0.1.0",
        {"alpha": 0.01, "paths": ["x"]},
        3,
    )
    assert row.finished is not None
    assert row.started <= row.finished
    assert database.runs() == [row]
    assert [value["status"] for value in database.results(run)] == ["decided", "crashed", "skipped"]
    assert database.results(run)[0]["score"] == 0.1 + 0.2
    assert world.errors() == []


def test_ids_sort_by_time(world: World) -> None:
    ids = [stored(world) for _ in range(5)]
    assert len(set(ids)) == 5
    assert [run.started for run in world.database.runs()] == sorted(run.started for run in world.database.runs())


def test_unknown_and_ended_runs(world: World) -> None:
    for call in (world.database.run, world.database.results, world.database.finish_run):
        with pytest.raises(NotFound):
            call("absent")
    with pytest.raises(NotFound):
        world.database.add_results("absent", [result()])
    run = stored(world)
    with pytest.raises(StoreError, match="ended"):
        world.database.add_results(run, [result()])
    with pytest.raises(StoreError, match="ended"):
        world.database.finish_run(run)


def test_all_results_or_none(world: World) -> None:
    run = world.database.start_run("verify", {}, "0.1.0")
    for bad in ({"x": float("nan")}, {"x": object()}, {"x": {1, 2}}):
        with pytest.raises(StoreError, match="can't be stored"):
            world.database.add_results(run, [result(), result(row=bad)])
    assert world.database.results(run) == []
    with pytest.raises(StoreError, match="can't be stored"):
        world.database.start_run("verify", {"x": object()}, "0.1.0")


def test_known(world: World) -> None:
    ask = world.database.known
    assert ask(SUSPECT, RECORD, SETTINGS) is None
    stored(world, result(row={"n": 1}), result("crashed", row={"n": 2}))
    assert ask(SUSPECT, RECORD, SETTINGS) == {"n": 1}
    assert ask(SUSPECT, RECORD, SETTINGS, ("crashed",)) == {"n": 2}
    stored(world, result(row={"n": 3}))
    assert ask(SUSPECT, RECORD, SETTINGS) == {"n": 3}
    for question in ((RECORD, RECORD, SETTINGS), (SUSPECT, SUSPECT, SETTINGS), (SUSPECT, RECORD, RECORD)):
        assert ask(*question) is None


def test_known_before_the_run_ends(world: World) -> None:
    """What a killed audit had stored is not lost."""
    run = world.database.start_run("audit", {}, "0.1.0")
    world.database.add_results(run, [result()])
    assert world.reopen().known(SUSPECT, RECORD, SETTINGS) is not None
    assert world.errors() == []


def test_known_in_bulk(world: World) -> None:
    suspects = [f"{i:064x}" for i in range(50)]
    records = [f"{i:064x}" for i in range(100, 104)]
    rows = [
        result(suspect_sha256=s, fingerprint_id=f, row={"pair": [s, f], "n": n})
        for n in range(2)
        for s in suspects[::2]
        for f in records[:3]
    ]
    stored(world, *rows, result(suspect_sha256=suspects[0], fingerprint_id=records[3], status="crashed"))
    found = world.database.known_suspects(suspects, records, SETTINGS)
    assert found.keys() == {(s, f) for s in suspects[::2] for f in records[:3]}
    assert all(value == {"pair": list(pair), "n": 1} for pair, value in found.items())
    assert world.database.known_suspects([], records, SETTINGS) == {}
    assert world.database.known_suspects(suspects, records, "d" * 64) == {}


def test_known_is_looked_up_in_the_index(world: World) -> None:
    from store.runs import _KNOWN

    plan = world.database._connection.rows(f"EXPLAIN QUERY PLAN {_KNOWN}", ("[]", "[]", "", "[]"))
    steps = [row["detail"] for row in plan]
    assert any("SEARCH results USING COVERING INDEX results_known (suspect_sha256=?" in step for step in steps), steps
    assert not any(step.startswith("SCAN results") for step in steps), steps


COLUMNS = {
    "run_id": "run_id",
    "position": "position + 1",
    "suspect_sha256": "settings_sha256",
    "suspect_path": "'other'",
    "format": "NULL",
    "runtime": "'torch'",
    "fingerprint_id": "settings_sha256",
    "settings_sha256": "suspect_sha256",
    "status": "'crashed'",
    "row": """replace(row, '0.3', '0.4')""",
    "row_sha256": "suspect_sha256",
}


@pytest.mark.parametrize("column", [column for column in COLUMNS if column != "run_id"])
def test_every_result_column(world: World, column: str) -> None:
    run = stored(world, result())
    world.tamper(f"UPDATE results SET {column} = {COLUMNS[column]}")
    assert world.errors()
    with pytest.raises(Tampered):
        world.database.results(run)
    if column in ("position", "suspect_path", "format", "runtime", "row", "row_sha256"):
        with pytest.raises(Tampered):
            world.database.known(SUSPECT, RECORD, SETTINGS)
    else:
        assert world.database.known(SUSPECT, RECORD, SETTINGS) is None  # asked again, never believed


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "'verify'"),
        ("started", "'x'"),
        ("finished", "NULL"),
        ("tool_version", "'9'"),
        ("parameters", "'{}'"),
        ("results", "7"),
        ("row_sha256", "'x'"),
    ],
)
def test_every_run_column(world: World, column: str, value: str) -> None:
    run = stored(world, result())
    world.database._connection.execute(f"UPDATE runs SET {column} = {value}")
    assert world.errors()
    for read in (world.database.runs, lambda: world.database.run(run)):
        with pytest.raises(Tampered):
            read()


def test_a_result_that_was_removed_or_moved(world: World) -> None:
    first, second = stored(world, result(), result()), stored(world)
    world.tamper("DELETE FROM results WHERE position = 1")
    assert any(f"result 1 of run {first}" in error and "missing" in error for error in world.errors())
    world.tamper("UPDATE results SET run_id = ?", (second,))
    errors = world.errors()
    assert any(first in error for error in errors)
    assert any(second in error for error in errors)
    with pytest.raises(Tampered):
        world.database.results(second)
    assert world.database.results(first) == []


def test_from_the_json_contract() -> None:
    row = {
        "suspect": {"path": "x.onnx", "sha256": SUSPECT, "format": "onnx", "runtime": None},
        "fingerprint": {"id": RECORD, "name": "resnet"},
        "status": "decided",
    }
    assert ResultRow.of(row, SETTINGS) == ResultRow(SUSPECT, "x.onnx", "onnx", None, RECORD, SETTINGS, "decided", row)
    for part in ("suspect", "fingerprint"):
        with pytest.raises(StoreError):
            ResultRow.of({key: row[key] for key in row if key != part}, SETTINGS)


def test_a_hostile_path(world: World) -> None:
    """File names need not be UTF-8; such a suspect must not stop an audit."""
    path = b"models/\xff\xfe\n.onnx".decode("utf-8", "surrogateescape")
    run = stored(world, result(suspect_path=path, row={"path": path}))
    assert world.database.results(run) == [{"path": "models/\\udcff\\udcfe\n.onnx"}]
    assert world.errors() == []


def test_nothing_but_a_path_is_needed(world: World) -> None:
    bare = result(
        "unreadable", suspect_sha256=None, format=None, runtime=None, fingerprint_id=None, settings_sha256=None
    )
    assert len(world.database.results(stored(world, bare))) == 1
    assert world.errors() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.dictionaries(st.text(), JSON, max_size=4), path=st.text())
def test_any_json_comes_back(world: World, row: dict[str, object], path: str) -> None:
    run = stored(world, result(row=row, suspect_path=path))
    assert json.dumps(world.database.results(run), sort_keys=True) == json.dumps([row], sort_keys=True)


def test_threads_may_share_a_database(world: World) -> None:
    """`audit` asks `known` from the threads of its workers, while the main thread stores."""
    run = world.database.start_run("audit", {}, "0.1.0")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(30):
                digest = f"{number * 1000 + i:064x}"
                assert world.database.known(digest, RECORD, SETTINGS) is None
                world.database.add_results(run, [result(suspect_sha256=digest)])
                assert world.database.known(digest, RECORD, SETTINGS) is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(world.database.results(run)) == 120
    assert world.errors() == []


def test_relative_to_nothing(world: World, tmp_path: Path) -> None:
    """Results need no stored fingerprint: `--against FILE` takes one from a file."""
    assert world.database.list() == []
    stored(world, result())
    assert world.errors() == []
