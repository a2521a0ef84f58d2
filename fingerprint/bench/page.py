"""The results as a Markdown page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fingerprint.bench.metrics import Interval
from fingerprint.bench.results import FamilyFigures, MemberFigures, MethodFigures, Results

COMBINED = "combined"
TPR = ("TPR, no FP", "TPR, FPR 1 %")


def page(results: Results) -> str:
    """All tables of one run."""
    main = [m for m in results.methods if m.queries == results.main_queries]
    parts = [
        f"# Benchmark {results.plan}\n",
        _intro(results),
        f"## Methods at {results.main_queries} queries\n",
        _methods(main),
        "## The combination, row by row\n",
        _rows(results),
        "## AUC by method and row\n",
        _grid(main),
        "## Families, by plain match rate\n",
        _families(results.families),
        "## Models\n",
        _members(results.members),
    ]
    if results.not_made:
        parts += ["## Not made\n", _table(("model", "reason"), [(n.name, n.reason) for n in results.not_made])]
    failed = [(owner, name, why) for owner, found in results.failed.items() for name, why in found.items()]
    if failed:
        parts += ["## Failed\n", _table(("owner", "what", "reason"), failed)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _intro(results: Results) -> str:
    derived = sum(bool(m.row) and m.base in results.owners for m in results.members)
    others = [m for m in results.members if m.base not in results.owners]
    released = sum(not m.row for m in others)
    images = results.images
    also = ", and for each owner the others with what was derived of them" if len(results.owners) > 1 else ""
    return (
        f"Version {results.version}, {results.created}, seed {results.seed}. Owners: {', '.join(results.owners)}. "
        f"{derived} derivatives of owners. Unrelated: {released} strangers and {len(others) - released} derivatives of "
        f"strangers (matched negatives){also}. Images, disjoint by content: {images.training} to train and steal with, "
        f"{images.probes} of the owner, {images.evaluation} for evaluation. Two folds: the authors of one half "
        "calibrate while those of the other are judged. Intervals: 95 %, of AUC by bootstrap over models in clusters, "
        "of rates by Clopper-Pearson.\n"
    )


def _methods(main: Sequence[MethodFigures]) -> str:
    head = (
        "method",
        "mean of rows' AUC",
        "AUC, all",
        *TPR,
        "negatives (strangers)",
        "FPR below (95 %)",
    )
    lines = [
        (
            m.method,
            _number(m.mean_auc),
            _with(m.auc),
            _with(m.tpr_at_0),
            _with(m.tpr_at_1_percent),
            f"{m.negatives} ({m.strangers})",
            f"{m.fpr_limit:.3f} ({m.strangers_limit:.3f})",
        )
        for m in sorted(main, key=lambda m: -m.mean_auc)
    ]
    return _table(head, lines)


def _rows(results: Results) -> str:
    found = sorted((m for m in results.methods if m.method == COMBINED), key=lambda m: m.queries)
    if not found:
        return "It could not be run.\n"
    needed = results.queries_needed[COMBINED]
    main = next((m for m in found if m.queries == results.main_queries), found[-1])
    head = ("row", *(f"AUC at {m.queries}" for m in found), "interval", "matched only", *TPR, "needed")
    lines = []
    for i, row in enumerate(main.rows):
        fewest = needed.get(row.row)
        lines.append(
            (
                row.row,
                *(_number(m.rows[i].auc.value) for m in found),
                f"{row.auc.low:.2f} to {row.auc.high:.2f}",
                f"{_number(row.matched_auc)} ({row.matched_negatives})",
                _number(row.tpr_at_0),
                _with(row.tpr_at_1_percent),
                "-" if fewest is None else str(fewest),
            )
        )
    rest = [""] * (len(head) - 1 - len(found))
    lines.append(("mean", *(_number(m.mean_auc) for m in found), *rest))
    lines.append((TPR[0], *(_number(m.tpr_at_0.value) for m in found), *rest))
    lines.append((TPR[1], *(_number(m.tpr_at_1_percent.value) for m in found), *rest))
    return (
        _table(head, lines)
        + f"\nInterval, matched and TPR: at {main.queries} queries. Matched only: AUC against strangers that went "
        "through the same, and their number. Needed: fewest queries of those tried from which on the AUC is >= 0.99.\n"
    )


def _grid(main: Sequence[MethodFigures]) -> str:
    names = list(dict.fromkeys(row.row for m in main for row in m.rows))
    lines = [
        (name, *(next((_number(r.auc.value) for r in m.rows if r.row == name), "-") for m in main)) for name in names
    ]
    return _table(("row", *(m.method for m in main)), lines)


def _families(families: Sequence[FamilyFigures]) -> str:
    head = (
        "owner",
        "family",
        "probes",
        "passes",
        "Uniqueness Score",
        "ARUC",
        "transfer",
        "highest stranger",
        "lowest derivative",
    )
    lines = []
    for f in families:
        low = min(f.robustness.items(), key=lambda item: item[1], default=("-", math.nan))
        lines.append(
            (
                f.owner,
                f.family,
                str(f.probes),
                str(f.passes),
                _number(f.uniqueness),
                _number(f.aruc),
                _number(f.transferability),
                f"{f.highest_stranger[1]:.2f} ({f.highest_stranger[0]})",
                f"{low[1]:.2f} ({low[0]})",
            )
        )
    return _table(head, lines)


def _members(members: Sequence[MemberFigures]) -> str:
    return _table(("model", "author", "accuracy"), [(m.name, m.author, f"{m.accuracy:.3f}") for m in members])


def _table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    text += ["| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in line) + " |" for line in lines]
    return "\n".join(text) + "\n"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _with(value: Interval) -> str:
    return "-" if math.isnan(value.value) else f"{value.value:.3f} ({value.low:.2f} to {value.high:.2f})"
