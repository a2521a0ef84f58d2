"""The results as a Markdown page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Table = dict[str, Any]


def page(results: Table) -> str:
    """All tables of one run."""
    main = results["main_queries"]
    parts = [
        f"# Benchmark {results['plan']}\n",
        _intro(results),
        f"## Methods at {main} queries\n",
        _methods([t for t in results["methods"] if t["queries"] == main]),
        "## The combination, row by row\n",
        _rows(results),
        "## Families\n",
        _families(results["families"]),
        "## AUC by family and row\n",
        _grid(results),
        "## Models\n",
        _members(results["members"]),
    ]
    if results["not_made"]:
        parts += ["## Not made\n", _table(("model", "reason"), [(n["name"], n["reason"]) for n in results["not_made"]])]
    return "\n".join(parts) + "\n"


def _intro(results: Table) -> str:
    images = results["images"]
    members = results["members"]
    owners = results["methods"][0]["owners"] if results["methods"] else []
    derived = [m for m in members if m["row"] and m["base"] in owners]
    strangers = [m for m in members if m["base"] not in owners]
    return (
        f"Version {results['version']}, {results['created']}, seed {results['seed']}. Owners: {', '.join(owners)}. "
        f"{len(derived)} derivatives of owners, {sum(not m['row'] for m in strangers)} strangers and "
        f"{sum(bool(m['row']) for m in strangers)} derivatives of strangers; another owner and its derivatives "
        f"are strangers too. Images, disjoint by content: {images['training']} for training and thieves, "
        f"{images['probes']} of the owner, {images['evaluation']} for evaluation. Two folds: the authors of one half "
        "calibrate while those of the other are judged. Intervals: 95 %, AUC by bootstrap over models in clusters, "
        "rates by Clopper-Pearson.\n"
    )


def _methods(tables: list[Table]) -> str:
    head = ("method", "mean of rows' AUC", "AUC, all", "TPR, no FP", "TPR, FPR 1 %", "negatives", "FPR below (95 %)")
    lines = [
        (
            t["method"],
            _number(t["mean_auc"]),
            _with(t["auc"]),
            _with(t["tpr_at_0"]),
            _with(t["tpr_at_1_percent"]),
            str(t["negatives"]),
            _number(t["fpr_limit"]),
        )
        for t in sorted(tables, key=lambda t: -t["mean_auc"])
    ]
    return _table(head, lines)


def _rows(results: Table) -> str:
    found = sorted((t for t in results["methods"] if t["method"] == "combined"), key=lambda t: t["queries"])
    if not found:
        return "It could not be run.\n"
    needed = results["queries_needed"]["combined"]
    head = (
        "row",
        *(f"AUC at {t['queries']}" for t in found),
        "interval",
        "matched negatives only",
        "TPR, no FP",
        "needed",
    )
    main = next((t for t in found if t["queries"] == results["main_queries"]), found[-1])
    lines = []
    for i, row in enumerate(main["rows"]):
        fewest = needed.get(row["row"])
        lines.append(
            (
                row["row"],
                *(_number(t["rows"][i]["auc"]["value"]) for t in found),
                f"{row['auc']['low']:.2f} to {row['auc']['high']:.2f}",
                f"{_number(row['matched_auc'])} ({row['matched_negatives']})",
                _number(row["tpr_at_0"]),
                "-" if fewest is None else str(fewest),
            )
        )
    lines.append(("mean", *(_number(t["mean_auc"]) for t in found), "", "", "", ""))
    lines.append(("TPR, no FP", *(_with(t["tpr_at_0"]) for t in found), "", "", "", ""))
    return _table(head, lines) + '\n"needed": fewest queries of those tried from which on the AUC is at least 0.99.\n'


def _families(tables: list[Table]) -> str:
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
    for t in tables:
        top = next(iter(t["highest_stranger"].items()), ("-", float("nan")))
        low = min(t["robustness"].items(), key=lambda i: i[1], default=("-", float("nan")))
        lines.append(
            (
                t["owner"],
                t["family"],
                str(t["probes"]),
                str(t["passes"]),
                _number(t["uniqueness"]),
                _number(t["aruc"]),
                _number(t["transferability"]),
                f"{top[1]:.2f} ({top[0]})",
                f"{low[1]:.2f} ({low[0]})",
            )
        )
    return _table(head, lines)


def _grid(results: Table) -> str:
    main = [t for t in results["methods"] if t["queries"] == results["main_queries"]]
    if not main:
        return ""
    rows = list(dict.fromkeys(row["row"] for t in main for row in t["rows"]))
    lines = []
    for name in rows:
        cells = [next((_number(r["auc"]["value"]) for r in t["rows"] if r["row"] == name), "-") for t in main]
        lines.append((name, *cells))
    return _table(("row", *(t["method"] for t in main)), lines)


def _members(members: list[Table]) -> str:
    lines = [(m["name"], m["author"], f"{m['accuracy']:.3f}") for m in members]
    return _table(("model", "author", "accuracy"), lines)


def _table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    text += ["| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines]
    return "\n".join(text) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _with(value: Table) -> str:
    return f"{value['value']:.3f} ({value['low']:.2f} to {value['high']:.2f})"
