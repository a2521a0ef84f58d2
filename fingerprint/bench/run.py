"""The benchmark from end to end: images, zoo, fingerprints, answers, scores, results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import fingerprint
from fingerprint.bench.asking import Asker
from fingerprint.bench.judge import Trial, trial
from fingerprint.bench.making import Maker
from fingerprint.bench.methods import methods
from fingerprint.bench.plan import Plan
from fingerprint.bench.splits import Splits
from fingerprint.bench.tables import Table, curve, family_table, method_table, queries_needed
from fingerprint.bench.zoo import Member, NotMade, Zoo
from fingerprint.errors import DataError
from fingerprint.progress import Progress

SCHEMA_VERSION = 1
DRAWS = 5  # choices of the probes where more are stored than asked


@dataclass(frozen=True)
class Options:
    """families: each judged by itself; combination: those that are combined. queries: budgets, the largest is stored.

    build: make what the zoo lacks; else judge what there is.
    """

    families: Sequence[str]
    combination: Sequence[str]
    queries: Sequence[int] = (20, 50, 100, 200)
    screens: int = 3
    build: bool = True
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """All figures (plain JSON values) and the trials that they come from."""

    results: Table
    trials: tuple[Trial, ...]


def run(plan: Plan, splits: Splits, folder: Path, options: Options, progress: Progress) -> Outcome:
    """Build the zoo below `folder` (or find it there), make the owners' fingerprints, ask everybody, score.

    Raises:
        DataError: no owner could be opened.
    """
    with Asker(folder / "answers", options.threads) as asker:
        zoo = Zoo(folder / "models", plan, splits, asker, progress)
        members, missing = _members(zoo, options.build)
        owners = [m for m in members if not m.row and m.base in {o.name for o in plan.owners}]
        if not owners:
            raise DataError("no owner of the benchmark could be opened: " + "; ".join(n.reason for n in missing))
        tried = methods(options.families, options.combination)
        needed = list(dict.fromkeys(family for method in tried for family in method.families))
        maker = Maker(folder / "fingerprints", splits, max(options.queries), plan.seed, options.screens, progress)
        trials = tuple(trial(owner, members, needed, maker, asker) for owner in owners)
    tables: list[Table] = []
    for number, method in enumerate(tried):
        for queries in options.queries:
            table = method_table(trials, method, queries, DRAWS, plan)
            tables += [table] if table else []
        progress.step("scoring", number + 1, len(tried))
    full = max(q for q in options.queries if q <= 100) if min(options.queries) <= 100 else min(options.queries)
    results: Table = {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": fingerprint.__version__,
        "plan": plan.name,
        "seed": plan.seed,
        "images": {
            "training": len(splits.training),
            "probes": len(splits.probes),
            "evaluation": len(splits.evaluation),
            "digest": splits.digest,
        },
        "halves": [sorted(half) for half in plan.halves],
        "rows": [asdict(row) for row in plan.rows],
        "members": [_shown(m) for m in members],
        "not_made": [asdict(n) for n in missing],
        "failed": {t.owner.name: t.failed for t in trials},
        "families": [family_table(t, name, plan) for t in trials for name in t.panels],
        "main_queries": full,
        "methods": tables,
        "queries_needed": {m.name: queries_needed(tables, m.name) for m in tried},
        "roc": [curve(trials, m, full, plan) for m in tried if not m.soft],
    }
    return Outcome(results, trials)


def _members(zoo: Zoo, build: bool) -> tuple[list[Member], list[NotMade]]:
    members: list[Member] = []
    missing: list[NotMade] = []
    for found in (*zoo.bases(), *zoo.derivatives(build=build)):
        if isinstance(found, Member):
            members.append(found)
        else:
            missing.append(found)
    return members, missing


def _shown(member: Member) -> Table:
    return {
        "name": member.name,
        "base": member.base,
        "author": member.author,
        "row": member.row,
        "sha256": member.sha256,
        "accuracy": round(member.accuracy, 4),
        "seconds": member.seconds,
    }


def write(results: Table, out: Path) -> list[Path]:
    """results.json, results.md, and the plots where matplotlib is installed, into `out`."""
    from fingerprint.bench.page import page
    from fingerprint.bench.plots import plots

    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "results.md").write_text(page(results))
    return [out / "results.json", out / "results.md", *plots(results, out)]
