"""From scores to the tables of a results page, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fingerprint.bench.judge import Scored, Trial, score
from fingerprint.bench.methods import Method
from fingerprint.bench.metrics import (
    Cell,
    Interval,
    aruc,
    auc,
    bootstrap,
    hits,
    proportion,
    roc,
    uniqueness,
    upper_limit,
)
from fingerprint.bench.plan import Plan, Row

COMPRESSION = "compression"
SEPARATES = 0.99  # AUC that counts as separated where the queries needed are told
Table = dict[str, object]


def method_table(trials: Sequence[Trial], method: Method, queries: int, draws: int, plan: Plan) -> Table | None:
    """One method with so many queries: every row, every group, and all together. None where it could not be run."""
    scored = list(score(trials, method, queries, draws, plan))
    if not scored:
        return None
    made = {m.row for t in trials for m in t.members if m.base == t.owner.name and m.row}
    rows = [row for row in plan.rows if row.name in made]
    per_row = [_row(scored, row, plan.seed) for row in rows]
    cells = [s.cell() for s in scored]
    found, total = hits(cells, 0.0)
    one = _of_one_draw(scored, draws)
    negatives = sum(len(c.negatives) for c in one)
    return {
        "method": method.name,
        "families": list(method.families),
        "queries": queries,
        "soft": method.soft,
        "owners": [t.owner.name for t in trials if all(f in t.panels for f in method.families)],
        "rows": per_row,
        "groups": [_group(scored, rows, group) for group in dict.fromkeys(row.group for row in rows)],
        "auc": _interval(bootstrap(cells, auc, plan.seed, 300)),
        "mean_auc": float(np.mean([r["auc"]["value"] for r in per_row])),  # type: ignore[index]
        "tpr_at_0": _rate(found, total, one),
        "tpr_at_1_percent": _rate(*hits(cells, 0.01), one),
        "negatives": negatives,
        "fpr_limit": upper_limit(0, negatives),
    }


def _row(scored: Sequence[Scored], row: Row, seed: int) -> Table:
    cells = [s.cell([row.name]) for s in scored]
    twins = [s.cell([row.name], matched=True) for s in scored]
    found, total = hits(cells, 0.0)
    return {
        "row": row.name,
        "group": row.group,
        "auc": _interval(bootstrap(cells, auc, seed, 300)),
        "matched_auc": auc(twins),
        "tpr_at_0": found / total if total else None,
        "positives": len({g for c in cells for g in c.positive_groups}),
        "matched_negatives": len({g for c in twins for g in c.negative_groups}),
    }


def _group(scored: Sequence[Scored], rows: Sequence[Row], group: str) -> Table:
    cells = [s.cell([row.name for row in rows if row.group == group]) for s in scored]
    found, total = hits(cells, 0.0)
    lowest = min((float(c.positives.min() - c.negatives.max()) for c in cells if len(c.positives)), default=None)
    return {"group": group, "auc": auc(cells), "tpr_at_0": found / total if total else None, "gap": lowest}


def _of_one_draw(scored: Sequence[Scored], draws: int) -> list[Cell]:
    """Cells of the first draw only: what intervals count as independent."""
    seen: set[tuple[str, int]] = set()
    cells = []
    for item in scored:
        key = (item.trial.owner.name, item.fold)
        if key not in seen:
            seen.add(key)
            cells.append(item.cell())
    return cells


def _rate(found: int, total: int, one: Sequence[Cell]) -> dict[str, float]:
    count = len({group for cell in one for group in cell.positive_groups})  # each is judged in two folds
    return _interval(proportion(round(found / total * count), count)) if total else _interval(proportion(0, 0))


def _interval(value: Interval) -> dict[str, float]:
    return {"value": value.value, "low": value.low, "high": value.high}


def family_table(trial: Trial, name: str, plan: Plan) -> Table:
    """What one family's plain match rates say: Uniqueness Score, ARUC, the gap, and what it cost."""
    panel, made = trial.panels[name], trial.made[name]
    rates = panel.matches.mean(axis=1)
    groups = {row.name: row.group for row in plan.rows}
    mine = trial.mine
    others = np.concatenate([trial.strangers(plan, 0), trial.strangers(plan, 1)])
    bases = others[[trial.members[i].row == "" for i in others]]
    compressed = mine[[groups.get(trial.members[i].row) == COMPRESSION for i in mine]]
    return {
        "owner": trial.owner.name,
        "family": name,
        "probes": len(made.probes),
        "passes": made.passes,
        "seconds": made.seconds,
        "uniqueness": uniqueness(rates[compressed], rates[bases]),
        "aruc": aruc(rates[mine], rates[others]),
        "robustness": {trial.members[i].row: float(rates[i]) for i in mine},
        "highest_stranger": {trial.members[i].name: float(rates[i]) for i in others[np.argsort(-rates[others])][:3]},
        "transferability": float(rates[bases].mean()) if len(bases) else None,
        "mean_stranger_derivative": float(rates[others].mean()) if len(others) else None,
    }


def curve(trials: Sequence[Trial], method: Method, queries: int, plan: Plan) -> Table:
    """The ROC curve of a method over everything."""
    x, y = roc([s.cell() for s in score(trials, method, queries, 1, plan)])
    return {"method": method.name, "queries": queries, "fpr": x.tolist(), "tpr": y.tolist()}


def queries_needed(tables: Sequence[Table], method: str) -> dict[str, int | None]:
    """Per row, the fewest queries of those tried with which the AUC reached 0.99 and stayed there."""
    mine = sorted((t for t in tables if t["method"] == method), key=lambda t: int(t["queries"]))  # type: ignore[call-overload]
    needed: dict[str, int | None] = {}
    for table in mine:
        for row in table["rows"]:  # type: ignore[attr-defined]
            good = row["auc"]["value"] >= SEPARATES
            if not good:
                needed[row["row"]] = None
            elif needed.get(row["row"]) is None:
                needed[row["row"]] = int(table["queries"])  # type: ignore[call-overload]
    return needed
