"""From scores to figures: true-positive rates row by row, by hand-made scores of many strangers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fingerprint.bench.judge import Trial
from fingerprint.bench.methods import Method
from fingerprint.bench.metrics import proportion
from fingerprint.bench.page import page
from fingerprint.bench.panel import Panel
from fingerprint.bench.plan import Base, Plan, Row
from fingerprint.bench.results import SCHEMA_VERSION, ImageFigures, MethodFigures, Results
from fingerprint.bench.tables import method_figures
from fingerprint.bench.zoo import Member
from fingerprint.model import InputSpec

SPEC = InputSpec("NCHW", (1, 8, 8))
STRANGERS = 200  # in each half; they score 0, 2 .. 398 in the first and 2000, 2002 .. 2398 in the second
NAMES = [[f"{half}-{i}" for i in range(STRANGERS)] for half in (0, 1)]
OWNERS = ("one", "two")
ROWS = (Row("near", "a", "x"), Row("middling", "a", "x"), Row("far", "b", "x"))
SCORES = {
    "one": (9000, 2397, 393),  # above all; below one of the second half; below three of the first half
    "two": (9000, 395, -1),  # above all; below two of the first half and all of the second; below all
}


def member(name: str, base: str, row: str = "") -> Member:
    return Member(name, base, base, row, Path("x"), SPEC, name, 0.9)


def trial(owner: str) -> Trial:
    """Every model's label on the only probe is its score."""
    strangers = [member(name, name) for half in NAMES for name in half]
    scores = [2000 * half + 2 * i for half in (0, 1) for i in range(STRANGERS)]
    mine = [member(f"{owner} {row.name}", owner, row.name) for row in ROWS]
    labels = np.array([*scores, *SCORES[owner]])[:, None]
    panel = Panel("f", np.zeros(1, np.int64), np.zeros((1, 2), np.float32), labels, None, np.full(1, -1))
    return Trial(member(owner, owner), (*strangers, *mine), {}, {"f": panel}, {})


@pytest.fixture(scope="module")
def plan() -> Plan:
    bases = tuple(Base(name, name, path=Path("x")) for half in NAMES for name in half)
    owners = tuple(Base(name, name, path=Path("x")) for name in OWNERS)
    return Plan("p", SPEC, 2, owners, bases, (), ROWS, (frozenset([*NAMES[0], *OWNERS]), frozenset(NAMES[1])), 0)


@pytest.fixture(scope="module")
def figures(plan: Plan) -> MethodFigures:
    score = Method("combined", ("f",), lambda panels, cohort: panels[0].labels[:, 0].astype(np.float64))
    found = method_figures([trial(owner) for owner in OWNERS], score, 1, 1, plan)
    assert found is not None
    return found


def test_rates_of_a_row_at_one_percent(figures: MethodFigures) -> None:
    """Each derivative is judged twice, by the strangers of either half, of which two may score higher."""
    rows = {row.row: row for row in figures.rows}
    assert {name: row.tpr_at_0 for name, row in rows.items()} == {"near": 1.0, "middling": 0.25, "far": 0.0}
    shares = {name: row.tpr_at_1_percent.value for name, row in rows.items()}
    assert shares == pytest.approx({"near": 1.0, "middling": 0.75, "far": 0.0})
    for name, found in (("near", 2), ("middling", 1.5), ("far", 0)):  # of two derivatives
        assert rows[name].tpr_at_1_percent == proportion(found, 2)
    assert rows["near"].tpr_at_1_percent.low == pytest.approx(0.025**0.5, rel=1e-6)  # of two, not of four


def test_rates_of_all_rows_are_not_rounded(figures: MethodFigures) -> None:
    assert figures.tpr_at_0 == proportion(2.5, 6) and figures.tpr_at_0.value == pytest.approx(5 / 12)
    assert figures.tpr_at_1_percent == proportion(3.5, 6) and figures.tpr_at_1_percent.value == pytest.approx(7 / 12)


def test_the_page_and_the_json_tell_them(figures: MethodFigures, plan: Plan) -> None:
    results = Results(
        SCHEMA_VERSION, "today", "0", "p", 0, ImageFigures(1, 1, 1, "x"), OWNERS, ((), ()), plan.rows, (), (), {}, (),
        1, (figures,), {"combined": {}}, (),
    )  # fmt: skip
    read = json.loads(results.to_json())
    assert read["schema_version"] == 1
    middling = next(row for row in read["methods"][0]["rows"] if row["row"] == "middling")
    interval = proportion(1.5, 2)
    assert middling["tpr_at_1_percent"] == {"value": 0.75, "low": interval.low, "high": interval.high}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page(results).splitlines() if "|" in line]
    head = next(line for line in lines if line[:2] == ["row", "AUC at 1"])
    row, pooled = next(line for line in lines if line[0] == "middling"), next(x for x in lines if x[0] == head[5])
    assert head[4:6] == ["TPR, no FP", "TPR, FPR 1 %"] and len(row) == len(head) == len(pooled)
    assert row[4:6] == ["0.250", f"0.750 ({interval.low:.2f} to {interval.high:.2f})"]
    assert pooled[1] == "0.583"
