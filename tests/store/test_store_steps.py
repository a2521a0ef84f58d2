"""The checker's test step by step agrees with the tool's, on records, levels and answers of all kinds."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from made_records import manifest, match, references

from fingerprint.decision.betting import HOPEFUL, NEARNESS
from fingerprint.decision.lineage import Asked, LineageTest, Settings
from fingerprint.decision.sequential import SequentialTest
from fingerprint.record import Copy, FamilyMatch, Manifest
from store.checker import tails
from store.checker.reading import Wrong
from store.checker.verdicts import Verdicts

Counts = dict[str, int]


class Said:
    """What a `Check` is told."""

    def __init__(self, record: Manifest) -> None:
        self.manifests, self.reveals = {"f": json.loads(record.model_dump_json())}, ()

    def say(self, text: str) -> None:
        """Nothing keeps it."""

    note = say


def record(counts: Counts, strangers: list[Counts], copies: list[Counts], bound: float | None = None) -> Manifest:
    """Families of these numbers of probes, of equal weights."""

    def found(each: Counts) -> dict[str, FamilyMatch]:
        return {name: match(each[name], count) for name, count in counts.items()}

    base = manifest(families=dict.fromkeys(counts, 1 / len(counts)), references=references(strangers, 1))
    return base.model_copy(
        update={
            "families": tuple(f.model_copy(update={"count": counts[f.name]}) for f in base.families),
            "references": tuple(
                r.model_copy(update={"families": found(s)}) for r, s in zip(base.references, strangers, strict=True)
            ),
            "copies": tuple(Copy(transform=f"c:{i}", agreement=None, families=found(c)) for i, c in enumerate(copies)),
            "declared_bound": bound,
        }
    )


def judged(
    made: Manifest, kind: Asked, alpha: float, tests: int, planned: Counts, answers: list[tuple[str, bool]]
) -> dict[str, Any]:
    """The row of a result: answers are taken until it is clear."""
    test = SequentialTest(LineageTest(made, Settings(alpha / tests, kind)), planned)
    names, used = [f.name for f in made.families], 0
    for name, hit in answers:
        test.add(name, hit)
        used += 1
        if test.clear:
            break
    taken = answers[:used]
    asked, hits = Counter(n for n, _ in taken), Counter(n for n, hit in taken if hit)
    found = replace(
        test.decide({n: match(hits[n], asked[n]) for n in names if asked[n]}, used), evidence=test.evidence()
    )
    steps = {"planned": planned, "splits": test.splits(), "allowed": test.allowed()}
    steps |= {"bettor": asdict(HOPEFUL), "nearness": NEARNESS}
    probes = {"family": [names.index(n) for n, _ in taken], "matches": [int(hit) for _, hit in taken]}
    workings = {"alpha": alpha / tests, "tests": tests, "steps": steps, "probes": probes}
    row = {"verdict": asdict(found), "workings": workings, "fingerprint": {"id": "f"}, "suspect": {"path": "s"}}
    return dict(json.loads(json.dumps(row)))


def check(made: Manifest, row: dict[str, Any], alpha: float) -> None:
    said = Said(made)
    Verdicts(said).statistic(row, said.manifests["f"], {"parameters": {"alpha": alpha}}, "s")


@pytest.mark.parametrize("kind", ["conformal", "declared", "fitted"])
def test_honest_results_are_never_refused(kind: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "DRAWS", 4000)
    rng = np.random.default_rng(5)
    said = set()
    for _ in range(4 if kind == "fitted" else 12):
        counts = {name: int(rng.integers(8, 60)) for name in "ab"[: rng.integers(1, 3)]}
        mean, alpha, tests = rng.uniform(0.05, 0.4), float(rng.choice([0.01, 0.05, 0.3])), int(rng.choice([1, 3]))
        rates = rng.beta(mean * 9, (1 - mean) * 9, 12 if kind == "fitted" else int(rng.choice([19, 39, 99])))
        strangers = [{n: int(rng.binomial(c, rate)) for n, c in counts.items()} for rate in rates]
        copies = [{n: round(c * share) for n, c in counts.items()} for share in rng.uniform(0.7, 1.0, 2)]
        made = record(counts, strangers, copies, 0.2 if kind == "declared" else None)
        planned = {n: max(1, round(c * rng.choice([0.4, 1.0]))) for n, c in counts.items()}
        rate = rng.choice([mean, 0.9, 1.0])
        order = rng.permutation([n for n, most in planned.items() for _ in range(most)]).tolist()
        row = judged(made, kind, alpha, tests, planned, [(n, bool(rng.random() < rate)) for n in order])
        check(made, row, alpha)
        said.add(row["verdict"]["lineage"])
    assert "derived" in said


def test_a_level_that_is_a_rank_but_for_rounding() -> None:
    """0.3 / 3 / 2 lies a bit below 1 / 20, which the best of 19 references reaches."""
    made = record({"a": 40}, [{"a": m} for m in range(19)], [])
    row = judged(made, "conformal", 0.3, 3, {"a": 40}, [("a", True)] * 40)
    assert 0.3 / 3 * 0.5 < 1 / 20 and row["workings"]["steps"]["allowed"] == {"a": [18, 16, 10]}
    check(made, row, 0.3)


def test_families_that_found_as_much() -> None:
    """Both bets begin with the same odds, and their curves have the same maximum; the shorter one was stated."""
    made = record({"a": 32, "b": 16}, [], [], 0.25)
    answers = [("b", False), *[("a", False)] * 4]
    for family in "ab":
        row = judged(made, "declared", 0.003, 1, {"a": 32, "b": 16}, answers)
        test = SequentialTest(LineageTest(made, Settings(0.003, "declared")), {"a": 32, "b": 16})
        used = [hit for name, hit in answers[: len(row["workings"]["probes"]["family"])] if name == family]
        for hit in used:
            test.add(family, hit)
        row["verdict"]["evidence"] = [list(pair) for pair in test.evidence()]
        assert len(row["verdict"]["evidence"]) == len(used) > 0
        check(made, row, 0.003)


def test_a_share_of_all_probes_that_is_a_whole_number() -> None:
    """All of 11 match: of 100 probes that is 100, and not a bit more, as some references do."""
    assert 11 * (100 / 11) > 100
    made = record({"a": 100}, [{"a": m} for m in [*range(10, 43), *[100] * 6]], [])
    row = judged(made, "conformal", 0.1, 1, {"a": 100}, [("a", True)] * 11)
    assert row["verdict"]["p_value"] == 7 / 40
    check(made, row, 0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"planned": {}}, "none were planned"),
        ({"allowed": {"a": [0.0, 0, 0]}}, "the rungs of a allow"),
        ({"allowed": {"a": [True, 0, 0]}}, "the rungs of a allow"),
        ({"allowed": {"a": [0, 0, 0]}}, "the bound on the matches of a"),
        ({"allowed": {"a": []}}, "the bound on the matches of a"),
        ({"splits": {"a": 0.55}}, "another split is best"),
        ({"bettor": None}, "none that this test knows"),
    ],
)
def test_made_up_steps(change: dict[str, Any], said: str) -> None:
    """Whoever signs may say anything of the steps: a stranger's answers do not become a copy's."""
    made = record({"a": 40}, [{"a": m % 30} for m in range(199)], [])
    row = judged(made, "conformal", 0.05, 1, {"a": 40}, [("a", i % 3 > 0) for i in range(40)])
    check(made, row, 0.05)
    row["workings"]["steps"].update(change)
    if "allowed" in change:
        row["verdict"]["families"][0]["bound"] = 0.0
    with pytest.raises(Wrong, match=said):
        check(made, row, 0.05)


def test_no_bound_is_made_up() -> None:
    """A result by a declared bound where the owner declared none is nothing: any match would stand out."""
    made = record({"a": 40}, [{"a": 3}] * 20, [], 0.2)
    row = judged(made, "declared", 0.05, 1, {"a": 40}, [("a", True)] * 40)
    check(made, row, 0.05)
    with pytest.raises(Wrong, match="in a way that the record does not know"):
        check(made.model_copy(update={"declared_bound": None}), row, 0.05)
