"""What an audit takes over from earlier ones: kept as stretches, and known again after a kill."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cli_tool import Tool  # type: ignore[import-not-found]
from hypothesis import given
from hypothesis import strategies as st

from cli.audits.journal import Taken
from fingerprint import __version__
from store.database import Database
from store.home import Home
from store.takeovers import TakenRows

ROWS = st.builds(TakenRows, st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 5))


@given(st.lists(ROWS), ROWS)
def test_stretches_know_what_was_added(added: list[TakenRows], asked: TakenRows) -> None:
    taken, positions = Taken(), set[tuple[str, int]]()
    for one in added:
        taken.add(one)
        positions |= {(one.run_id, p) for p in range(one.first, one.first + one.count)}
    wanted = {(asked.run_id, p) for p in range(asked.first, asked.first + asked.count)}
    assert (asked in taken) == (wanted <= positions)


def test_an_audit_that_was_killed_while_it_took_over_goes_on(copied: Tool, models: Path, tmp_path: Path) -> None:
    """One that had two of three files: it takes the third, and has each once."""
    place = tmp_path / "place"
    place.mkdir()
    for name in ("a.onnx", "b.onnx", "c.onnx"):
        for suffix in ("", ".spec.json"):
            (place / f"{name}{suffix}").write_bytes((models / f"derived.onnx{suffix}").read_bytes())
    first = copied("audit", place, "-f", "json").json
    with Database.open(copied.home / "fingerprint.db", Home(copied.home)) as database:
        killed = database.start_run("audit", database.run(first["run"]).parameters, __version__)
        database.add_results(killed, [TakenRows(first["run"], 0, 2)])
    again = copied("audit", place, "-f", "json")
    assert f"{killed} was cut short" in again.err and again.json["run"] == killed
    assert [row | {"cached": True} for row in first["results"]] == again.json["results"]
    with closing(sqlite3.connect(copied.home / "fingerprint.db")) as connection:
        asked = "SELECT first, count, source_first FROM taken WHERE run_id = ? ORDER BY first"
        found = connection.execute(asked, (killed,)).fetchall()
    assert found == [(0, 2, 0), (2, 1, 2)]
    assert copied("report", killed, "-f", "json").json["results"] == again.json["results"]
    assert copied("store", "check").code == 0
