"""What the benchmark on CIFAR-10 is held against, and what it reached."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fingerprint.bench.results import MethodFigures, Results, RowFigures
from fingerprint.bench.rows import ADVERSARIAL, COMPRESSION, FINE_TUNING, HEAVY

COMBINED = "combined"
Line = tuple[str, str, str, bool]  # what, target, measured, reached


def targets(results: Results) -> str:
    """A Markdown table; rows that could not be measured are listed as such."""
    lines = ["| what | target | measured | reached |", "|---|---|---|---|"]
    for what, target, measured, reached in _lines(results):
        lines.append(f"| {what} | {target} | {measured} | {'yes' if reached else '**no**'} |")
    return "\n".join(lines) + "\n"


def _lines(results: Results) -> Iterable[Line]:
    main = _method(results, COMBINED, results.main_queries)
    few = _method(results, COMBINED, min(m.queries for m in results.methods))
    if main is None or few is None:
        yield ("the combination", "", "not measured", False)
        return
    for found in (main, few):
        for group in (COMPRESSION, FINE_TUNING):
            rows = [row for row in found.rows if row.group == group]
            yield _least(f"AUC {group}, {found.queries} queries, lowest row", rows, 1.0)
    yield _least("AUC prune 90 % with retraining", [r for r in main.rows if r.group == HEAVY], 0.97)
    yield _least("AUC distil, soft labels", [r for r in main.rows if r.row.startswith("distil soft")], 0.98)
    yield _least("AUC distil, hard labels", [r for r in main.rows if r.row.startswith("distil hard")], 0.97)
    adversarial = [r for r in main.rows if r.group == ADVERSARIAL]
    kept = _kept(results, {r.row for r in adversarial})
    yield _least(f"AUC adversarial training (keeps {kept} of the accuracy)", adversarial, 0.95)
    rate = main.tpr_at_0
    yield (
        "TPR without a false positive, pooled",
        ">= 0.95",
        f"{rate.value:.3f} ({rate.low:.2f} to {rate.high:.2f}); FPR < {main.fpr_limit:.3f} by {main.negatives} "
        f"negatives, < {main.strangers_limit:.3f} by {main.strangers} strangers",
        rate.value >= 0.95,
    )
    yield ("mean over rows of AUC", ">= 0.985", f"{main.mean_auc:.3f}", main.mean_auc >= 0.985)
    others = [
        m for m in results.methods if m.queries == main.queries and not m.method.startswith(COMBINED) and not m.soft
    ]
    if others:
        best = max(others, key=lambda m: m.mean_auc)
        yield (
            "mean AUC above every single method, label only",
            f"> {best.mean_auc:.3f} ({best.method})",
            f"{main.mean_auc:.3f}",
            main.mean_auc > best.mean_auc,
        )
    for family in dict.fromkeys(("characteristic", *main.families)):
        yield from _gap(results, family)
    yield from _passes(results, main)
    yield from _unique(results)


def _method(results: Results, name: str, queries: int) -> MethodFigures | None:
    return next((m for m in results.methods if m.method == name and m.queries == queries), None)


def _least(what: str, rows: list[RowFigures], target: float) -> Line:
    values = {row.row: row.auc.value for row in rows if not math.isnan(row.auc.value)}
    if not values:
        return (what, f">= {target:.2f}", "not measured", False)
    name, value = min(values.items(), key=lambda item: item[1])
    return (what, f">= {target:.2f}", f"{value:.3f} ({name}; {len(values)} rows)", value >= target)


def _kept(results: Results, rows: set[str]) -> str:
    """Accuracy of derivatives over that of their owner."""
    owners = {m.base: m.accuracy for m in results.members if not m.row and m.base in results.owners}
    shares = [m.accuracy / owners[m.base] for m in results.members if m.row in rows and m.base in owners]
    return f"{min(shares):.0%} to {max(shares):.0%}" if shares else "-"


def _gap(results: Results, family: str) -> Iterable[Line]:
    groups = {row.name: row.group for row in results.rows}
    for found in results.families:
        if found.family != family:
            continue
        mine = [v for row, v in found.robustness.items() if groups.get(row) in (COMPRESSION, FINE_TUNING)]
        if mine and found.strangers:
            gap = min(mine) - found.highest_stranger[1]
            detail = (
                f"{gap:.2f} ({min(mine):.2f} against {found.highest_stranger[1]:.2f} of {found.highest_stranger[0]})"
            )
            yield (f"gap on {family}, {found.owner}", ">= 0.5", detail, gap >= 0.5)


def _passes(results: Results, combination: MethodFigures) -> Iterable[Line]:
    for owner in results.owners:
        spent = [f.passes for f in results.families if f.owner == owner and f.family in combination.families]
        if spent:
            what = f"example-passes of the combination's families, 100 probes of each, {owner}"
            yield (what, "<= 100,000", f"{sum(spent):,}", sum(spent) <= 100_000)


def _unique(results: Results) -> Iterable[Line]:
    for owner in results.owners:
        found = {f.family: f.uniqueness for f in results.families if f.owner == owner}
        c, ltrc = found.get("characteristic:kinds=C"), found.get("characteristic:kinds=LTRC")
        if c is not None and ltrc is not None:
            yield (f"Uniqueness Score of LTRC over C, {owner}", "reported", f"{ltrc:.3f} over {c:.3f}", True)
