"""From scores to figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fingerprint.bench.judge import Scored, Trial, score
from fingerprint.bench.methods import Method
from fingerprint.bench.metrics import (
    Cell,
    Interval,
    aruc,
    auc,
    auc_interval,
    hits,
    proportion,
    roc,
    uniqueness,
    upper_limit,
)
from fingerprint.bench.plan import Plan, Row
from fingerprint.bench.results import Curve, FamilyFigures, GroupFigures, MethodFigures, RowFigures
from fingerprint.bench.rows import COMPRESSION

SEPARATES = 0.99  # AUC that counts as separated where the queries needed are told


def method_figures(
    trials: Sequence[Trial], method: Method, queries: int, draws: int, plan: Plan
) -> MethodFigures | None:
    """One method with so many queries: every row, every group, and all together. None where it could not be run."""
    scored = list(score(trials, method, queries, draws, plan))
    made = {m.row for t in trials for m in t.members if m.base == t.owner.name and m.row}
    rows = [row for row in plan.rows if row.name in made]
    if not scored or not rows:
        return None
    per_row = tuple(_row(scored, row, plan.seed) for row in rows)
    cells = [s.cell() for s in scored]
    one = _of_one_draw(scored)
    negatives = sum(len(c.negatives) for c in one)
    strangers = sum(len(set(c.negative_groups)) for c in one)
    return MethodFigures(
        method=method.name,
        families=method.families,
        queries=queries,
        soft=method.soft,
        owners=tuple(dict.fromkeys(s.trial.owner.name for s in scored)),
        rows=per_row,
        groups=tuple(_group(scored, rows, group) for group in dict.fromkeys(row.group for row in rows)),
        auc=auc_interval(cells, plan.seed),
        mean_auc=float(np.mean([r.auc.value for r in per_row])),
        tpr_at_0=_rate(cells, 0.0, one),
        tpr_at_1_percent=_rate(cells, 0.01, one),
        negatives=negatives,
        fpr_limit=upper_limit(0, negatives),
        strangers=strangers,
        strangers_limit=upper_limit(0, strangers),
    )


def _row(scored: Sequence[Scored], row: Row, seed: int) -> RowFigures:
    cells = [s.cell([row.name]) for s in scored]
    twins = [s.cell([row.name], matched=True) for s in scored]
    return RowFigures(
        row=row.name,
        group=row.group,
        auc=auc_interval(cells, seed),
        matched_auc=auc(twins),
        tpr_at_0=_share(cells),
        tpr_at_1_percent=_rate(cells, 0.01, _of_one_draw(scored, [row.name])),
        positives=len({g for c in cells for g in c.positive_groups}),
        matched_negatives=len({g for c in twins for g in c.negative_groups}),
    )


def _group(scored: Sequence[Scored], rows: Sequence[Row], group: str) -> GroupFigures:
    cells = [s.cell([row.name for row in rows if row.group == group]) for s in scored]
    gaps = [float(c.positives.min() - c.negatives.max()) for c in cells if len(c.positives) and len(c.negatives)]
    return GroupFigures(group, auc(cells), _share(cells), min(gaps, default=math.nan))


def _share(cells: Sequence[Cell]) -> float:
    found, total = hits(cells, 0.0)
    return found / total if total else math.nan


def _of_one_draw(scored: Sequence[Scored], rows: Sequence[str] | None = None) -> list[Cell]:
    """Cells of the first draw only, of these rows (None: all): what intervals count as independent."""
    first: dict[tuple[str, int], Cell] = {}
    for item in scored:
        first.setdefault((item.trial.owner.name, item.fold), item.cell(rows))
    return list(first.values())


def _rate(cells: Sequence[Cell], rate: float, one: Sequence[Cell]) -> Interval:
    found, total = hits(cells, rate)
    count = len({group for cell in one for group in cell.positive_groups})  # each is judged in two folds
    return proportion(found * count / total, count) if total else proportion(0, 0)


def family_figures(trial: Trial, name: str, plan: Plan) -> FamilyFigures:
    """What one family's plain match rates say, and what it cost."""
    panel, made, members, mine = trial.panels[name], trial.made[name], trial.members, trial.mine
    rates = panel.matches.mean(axis=1)
    groups = {row.name: row.group for row in plan.rows}
    others = np.concatenate([trial.strangers(plan, 0), trial.strangers(plan, 1)])
    bases = np.array([i for i in others.tolist() if members[i].row == ""], np.int64)
    compressed = np.array([i for i in mine.tolist() if groups.get(members[i].row) == COMPRESSION], np.int64)
    return FamilyFigures(
        owner=trial.owner.name,
        family=name,
        probes=len(made.probes),
        passes=made.passes,
        seconds=made.seconds,
        uniqueness=uniqueness(rates[compressed], rates[bases]),
        aruc=aruc(rates[mine], rates[others]),
        transferability=float(rates[bases].mean()) if len(bases) else math.nan,
        robustness={members[i].row: float(rates[i]) for i in mine},
        strangers={members[i].name: float(rates[i]) for i in others},
    )


def curve(trials: Sequence[Trial], method: Method, queries: int, plan: Plan) -> Curve:
    """The ROC curve of a method over everything."""
    fpr, tpr = roc([s.cell() for s in score(trials, method, queries, 1, plan)])
    return Curve(method.name, queries, tuple(fpr.tolist()), tuple(tpr.tolist()))


def queries_needed(figures: Sequence[MethodFigures], method: str) -> dict[str, int | None]:
    """Per row, the fewest queries of those tried from which on the AUC is at least 0.99."""
    needed: dict[str, int | None] = {}
    for found in sorted((f for f in figures if f.method == method), key=lambda f: f.queries):
        for row in found.rows:
            if row.auc.value < SEPARATES:
                needed[row.row] = None
            elif needed.get(row.row) is None:
                needed[row.row] = found.queries
    return needed
