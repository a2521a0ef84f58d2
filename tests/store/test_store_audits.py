"""What audits remember of files: all asked at once, every row checked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from store_helpers import World
from test_store_runs import result

from fingerprint.canonical import canonical
from fingerprint.errors import Tampered
from store import predicates, signing
from store.audits import Remembered, StoredResult
from store.rows import ResultRow

QUESTION = "q" * 64
NAMES = ("a.onnx", "b\u00e9\U0001f600.onnx", "c\udcff.onnx", 'd".onnx')


def row(path: str, name: str = "net", lineage: str | None = "derived", status: str = "decided") -> ResultRow:
    verdict = (
        None if lineage is None else {"lineage": lineage, "integrity": "unknown", "total_p": 1.1676527608694975e-05}
    )
    value = {"cached": False, "fingerprint": {"id": None, "name": name}, "suspect": {"path": path}, "verdict": verdict}
    return replace(result(status), suspect_path=path, row=value)


def remembered(world: World, names: tuple[str, ...] = NAMES) -> str:
    """A run with two results for each file, and how the files looked."""
    audits, run = world.database.audits, world.database.start_run("audit", {}, "0.1.0")
    audits.remember(Remembered(QUESTION, name, f"look {name!r}", run, 2 * i, 2) for i, name in enumerate(names))
    rows = [row(name, f"net-{k}", lineage) for name in names for k, lineage in enumerate(("derived", None))]
    world.database.add_results(run, rows)
    return run


def looks(names: tuple[str, ...] = NAMES) -> list[tuple[str, str]]:
    return [(name, f"look {name!r}") for name in names]


def test_results_of_many_files(world: World) -> None:
    run = remembered(world)
    asked = [*reversed(looks()), ("a.onnx", "other look"), ("e.onnx", "never seen")]
    found = world.database.audits.recall(QUESTION, asked, None)
    assert [one is None for one in found] == [False] * 4 + [True] * 2
    for (name, _), one in zip(asked[:4], found, strict=False):
        assert one is not None and one.rows.run_id == run
        plain = name.encode("utf-8", "backslashreplace").decode()
        assert [r.suspect_path for r in one.results] == [plain] * 2
        assert [(r.fingerprint_name, r.lineage, r.integrity, r.total_p) for r in one.results] == [
            ("net-0", "derived", "unknown", 1.1676527608694975e-05), ("net-1", None, None, None),
        ]  # fmt: skip
        assert json.loads(one.results[0].text)["suspect"]["path"] == plain
    assert world.database.audits.recall("another question", looks(), None) == [None] * 4
    assert world.database.audits.recall(QUESTION, [], None) == []


def test_what_another_look_could_change_is_of_one_run_only(world: World) -> None:
    audits, run = world.database.audits, world.database.start_run("audit", {}, "0.1.0")
    audits.remember([Remembered(QUESTION, "x", "look", run, 0, 1), Remembered(QUESTION, "y", "look", run, 1, 1)])
    world.database.add_results(run, [row("x", status="crashed"), row("y", lineage=None, status="skipped")])
    asked = [("x", "look"), ("y", "look")]
    assert [one is None for one in audits.recall(QUESTION, asked, None)] == [True, False]
    assert None not in audits.recall(QUESTION, asked, run)


def test_results_that_never_came_or_are_another_files(world: World) -> None:
    audits, run = world.database.audits, world.database.start_run("audit", {}, "0.1.0")
    audits.remember(Remembered(QUESTION, name, "look", run, i, 1) for i, name in enumerate("xyz"))
    world.database.add_results(run, [row("x"), row("another")])
    assert [one is None for one in audits.recall(QUESTION, [(n, "look") for n in "xyz"], run)] == [False, True, True]


@pytest.mark.parametrize("change", ["row = replace(row, 'net-0', 'net-9')", "row = 'no JSON'", "status = 'skipped'"])
def test_a_changed_row_is_never_recalled(world: World, change: str) -> None:
    remembered(world)
    for (sql,) in world.database._connection.raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        world.database._connection.raw.execute(f"DROP TRIGGER {sql}")
    world.database._connection.raw.execute(f"UPDATE results SET {change} WHERE position = 0")
    with pytest.raises(Tampered):
        world.database.audits.recall(QUESTION, looks(), None)


def test_a_text_is_stored_as_it_was(world: World) -> None:
    remembered(world, ("a.onnx",))
    (found,) = world.database.audits.recall(QUESTION, looks(("a.onnx",)), None)
    assert found is not None
    again: list[StoredResult] = list(found.results)
    run = world.database.start_run("audit", {}, "0.1.0")
    world.database.add_results(run, [replace(row("a.onnx"), row=one.text) for one in again])
    assert world.database.results(run) == [json.loads(one.text) for one in again]


def test_a_run_is_signed_from_the_text_of_its_rows(world: World) -> None:
    """The bytes are those that encoding every part anew would give."""
    run = remembered(world)
    world.database.finish_run(run)
    rows, taken = signing._results(world.database._connection, run, 0, 8, [])
    fields = {
        "run": {**vars(world.database.run(run)), "results_sha256": "0" * 64},
        "part": {"index": 0, "of": 1, "first": 0},
        "correction": {"level": 0.01},
        "environment": {"python": "3"},
        "ledger": None,
    }
    subjects = [predicates.Subject("r\u00fcn", "1" * 64)]
    whole = predicates.RunStatement(**fields, results=[r | {"row": json.loads(r["row"])} for r in rows])  # type: ignore[arg-type]
    spliced = predicates.encode_run(predicates.AUDIT, subjects, predicates.RunStatement(**fields, results=()), rows)  # type: ignore[arg-type]
    assert spliced == predicates.encode(predicates.AUDIT, subjects, whole)
    assert spliced == canonical(json.loads(spliced)) and (len(rows), taken) == (8, [])
    assert predicates.parse(spliced).predicate == whole
