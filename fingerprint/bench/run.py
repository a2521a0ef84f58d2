"""The benchmark from end to end: images, zoo, fingerprints, answers, scores, results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import fingerprint
from fingerprint.bench.asking import Asker
from fingerprint.bench.judge import Trial, trial
from fingerprint.bench.making import Maker
from fingerprint.bench.methods import Method, bare, methods
from fingerprint.bench.page import page
from fingerprint.bench.plan import Plan
from fingerprint.bench.plots import draw
from fingerprint.bench.results import SCHEMA_VERSION, ImageFigures, MemberFigures, Results
from fingerprint.bench.splits import Splits
from fingerprint.bench.tables import curve, family_figures, method_figures, queries_needed
from fingerprint.bench.zoo import Member, NotMade, Zoo
from fingerprint.errors import DataError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.probes.registry import family as family_named
from fingerprint.progress import Progress

DRAWS = 5  # choices of the probes where more are stored than asked
MAIN = 100  # queries that the main tables are of, where so many are among the budgets


@dataclass(frozen=True)
class Options:
    """families: each judged by itself. combination: those that are combined; alternatives: others to combine.

    queries: budgets. probes: how many of each family are made (0: as many as the largest budget); a family is not
    judged at a budget far above that. screens: nets trained on the owner's images to screen candidates. build: make
    what the zoo lacks; else judge what there is. shard: see `Zoo`.
    """

    families: Sequence[str]
    combination: Sequence[str]
    queries: Sequence[int] = (20, 50, 100, 200)
    screens: int = 3
    build: bool = True
    threads: int = 1
    shard: tuple[int, int] = (0, 1)
    probes: int = 0
    alternatives: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        for family in (*self.families, *self.combination, *chain.from_iterable(self.alternatives)):
            family_named(bare(family))
        if not self.families or not self.combination or not self.queries:
            raise UsageError("the benchmark needs at least one family, one to combine, and one budget of queries")
        if min(self.queries) < len(self.combination):
            raise UsageError(f"{min(self.queries)} queries can't hold {len(self.combination)} families")

    @property
    def main_queries(self) -> int:
        """The budget of the main tables: 100, or the largest below, or the smallest."""
        return max((q for q in self.queries if q <= MAIN), default=min(self.queries))


def run(plan: Plan, splits: Splits, folder: Path, options: Options, progress: Progress) -> Results:
    """Build the zoo below `folder` (or find it there), make the owners' fingerprints, ask everybody, score.

    Raises:
        DataError: no owner could be opened.
    """
    tried = methods(options.families, options.combination, options.alternatives)
    with Asker(folder / "answers", options.threads) as asker:
        zoo = Zoo(folder / "models", plan, splits, asker, progress, build=options.build, shard=options.shard)
        members, missing = _members(zoo)
        owners = [m for m in members if not m.row and m.base in {o.name for o in plan.owners}]
        if not owners:
            raise DataError("no owner of the benchmark could be opened: " + "; ".join(n.reason for n in missing))
        needed = list(dict.fromkeys(family for method in tried for family in method.families))
        maker = Maker(
            folder / "fingerprints",
            splits,
            options.probes or max(options.queries),
            plan.seed,
            options.screens,
            progress,
        )
        twins = {base.name: zoo.twins(base) for base in plan.owners}
        trials = [trial(owner, members, needed, maker, asker, twins[owner.base]) for owner in owners]
    return _results(plan, splits, options, tried, trials, members, missing, progress)


def build(
    plan: Plan, splits: Splits, folder: Path, options: Options, progress: Progress
) -> tuple[list[Member], list[NotMade]]:
    """Build the zoo below `folder` and nothing else: who there is, and who could not be made."""
    with Asker(folder / "answers", options.threads) as asker:
        return _members(Zoo(folder / "models", plan, splits, asker, progress, shard=options.shard))


def _members(zoo: Zoo) -> tuple[list[Member], list[NotMade]]:
    members: list[Member] = []
    missing: list[NotMade] = []
    for found in zoo.members():
        if isinstance(found, Member):
            members.append(found)
        else:
            missing.append(found)
    return members, missing


def _results(
    plan: Plan,
    splits: Splits,
    options: Options,
    tried: Sequence[Method],
    trials: Sequence[Trial],
    members: Sequence[Member],
    missing: Sequence[NotMade],
    progress: Progress,
) -> Results:
    figures = []
    for number, method in enumerate(tried):
        found = (method_figures(trials, method, queries, DRAWS, plan) for queries in options.queries)
        figures += [f for f in found if f is not None]
        progress.step("scoring", number + 1, len(tried))
    return Results(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=fingerprint.__version__,
        plan=plan.name,
        seed=plan.seed,
        images=ImageFigures(len(splits.training), len(splits.probes), len(splits.evaluation), splits.digest),
        owners=tuple(t.owner.name for t in trials),
        halves=tuple(tuple(sorted(half)) for half in plan.halves),
        rows=plan.rows,
        members=tuple(
            MemberFigures(m.name, m.base, m.author, m.row, m.sha256, round(m.accuracy, 4), m.seconds) for m in members
        ),
        not_made=tuple(missing),
        failed={t.owner.name: t.failed for t in trials},
        families=tuple(family_figures(t, name, plan) for t in trials for name in t.panels),
        main_queries=options.main_queries,
        methods=tuple(figures),
        queries_needed={m.name: queries_needed(figures, m.name) for m in tried},
        curves=tuple(curve(trials, m, options.main_queries, plan) for m in tried if not m.soft),
    )


def write(results: Results, out: Path) -> list[Path]:
    """results.json, results.md, and the plots, into `out`.

    Raises:
        MissingExtra: matplotlib is not installed (the other two are written all the same).
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(results.to_json())
    (out / "results.md").write_text(page(results))
    return [out / "results.json", out / "results.md", *draw(results, out)]
