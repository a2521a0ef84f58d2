"""Asks the whole zoo and scores it: owners x families x models, cross-fitted by author.

For each owner there are two folds. In each, the strangers of one half of the authors (with what was derived of them)
are the references, and those of the other half are judged together with the owner's derivatives. Nobody judged in a
fold calibrates in it, and screening nets, which `create` trains by itself, are in neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fingerprint.bench.asking import Asker, Question
from fingerprint.bench.combine import Cohort
from fingerprint.bench.making import Made, Maker, Screening
from fingerprint.bench.methods import TWINNED, UNSCREENED, Method, bare
from fingerprint.bench.metrics import Cell
from fingerprint.bench.panel import Index, Panel
from fingerprint.bench.plan import Plan
from fingerprint.bench.rows import COMPRESSION
from fingerprint.bench.zoo import Member
from fingerprint.errors import ModelError, WorkerError
from fingerprint.frozen import dataclass
from fingerprint.model import Floats
from fingerprint.progress import Progress

LEAST = 20  # probes of one family: with fewer it decides nothing by itself, and takes them from one that does
ENOUGH = 0.8  # share of the queries that the stored probes must cover for a method to be judged


@dataclass(frozen=True)
class Trial:
    """One owner, everybody's answers to its fingerprints, and who is whose.

    members: all models but the owner itself, as rows of the panels. mine (M,): derived from the owner.
    """

    owner: Member
    members: tuple[Member, ...]
    made: dict[str, Made]
    panels: dict[str, Panel]
    failed: dict[str, str]

    @property
    def mine(self) -> Index:
        """Rows of the owner's derivatives."""
        return np.array([i for i, m in enumerate(self.members) if m.base == self.owner.name], np.int64)

    def strangers(self, plan: Plan, half: int) -> Index:
        """Rows of the unrelated models of one half of the authors."""
        rows = [i for i, m in enumerate(self.members) if m.base != self.owner.name and plan.half(m.author) == half]
        return np.array(rows, np.int64)


def trial(
    owner: Member,
    members: Sequence[Member],
    families: Sequence[str],
    maker: Maker,
    asker: Asker,
    twins: Sequence[Path] = (),
) -> Trial:
    """Make the owner's fingerprints and ask everybody, the owner first. `twins`: screen the families `TWINNED`."""
    tried: dict[str, Made | str] = {}
    ways = {UNSCREENED: Screening(0), TWINNED: Screening(0, tuple(twins)) if twins else None, "": None}
    for prefix, screening in ways.items():
        named = [name for name in families if name not in tried and name.startswith(prefix)]
        made_so = maker.make(owner, [bare(name) for name in named], screening) if named else {}
        tried |= {prefix + name: found for name, found in made_so.items()}
    failed = {name: found for name, found in tried.items() if isinstance(found, str)}
    for name, why in failed.items():
        maker.progress.note(f"{owner.name}: no {name} probes: {why}")
    made = {name: found for name, found in tried.items() if isinstance(found, Made)}
    questions = [Question.of(m.probes) for m in made.values()]
    own = asker.ask(owner.path, owner.sha256, owner.spec, questions)
    asked: list[Member] = []
    answers: list[list[Floats]] = []
    others = [m for m in members if m.sha256 != owner.sha256]
    for number, member in enumerate(others, start=1):
        try:
            answers.append(asker.ask(member.path, member.sha256, member.spec, questions))
            asked.append(member)
        except (ModelError, WorkerError) as error:
            failed[member.name] = error.message
            maker.progress.note(f"{member.name} could not be asked: {error.message}")
        maker.progress.step(f"asking for {owner.name}", number, len(others))
    panels = {}
    for row, (name, kept) in enumerate(made.items()):
        classes = own[row].shape[1]
        outputs = np.stack([found[row][:, :classes] for found in answers])
        panels[name] = Panel(name, kept.targets, own[row], outputs.argmax(axis=2), outputs, kept.groups)
    return Trial(owner, tuple(asked), made, panels, failed)


@dataclass(frozen=True)
class Scored:
    """What one method gave in one fold of one trial, with one draw of the probes."""

    trial: Trial
    fold: int
    scores: np.ndarray[tuple[int], np.dtype[np.float64]]
    negatives: Index

    def cell(self, rows: Sequence[str] | None = None, *, matched: bool = False) -> Cell:
        """Positives of these rows (None: all) against the judged strangers, or those of the same rows only."""
        members = self.trial.members
        positives = [i for i in self.trial.mine.tolist() if rows is None or members[i].row in rows]
        negatives = [i for i in self.negatives.tolist() if not matched or (rows is not None and members[i].row in rows)]
        return Cell(
            self.scores[positives],
            self.scores[negatives],
            tuple(f"{members[i].base}/{members[i].row}" for i in positives),
            tuple(f"{members[i].author}/{members[i].base}" for i in negatives),
        )


def score(trials: Sequence[Trial], method: Method, queries: int, draws: int, plan: Plan) -> Iterator[Scored]:
    """Score everybody by one method with `queries` probes in all; `draws` choices of them where more are stored."""
    for found in trials:
        if not all(name in found.panels for name in method.families):
            continue
        shares = shared(queries, [len(found.panels[name].targets) for name in method.families])
        panels = [found.panels[name] for name in method.families[: len(shares)]]
        if sum(len(panel.targets) for panel in panels) < ENOUGH * queries:
            continue
        groups = {row.name: row.group for row in plan.rows}
        authors = np.array([m.author for m in found.members])
        clusters = np.array([f"{m.base}/{groups.get(m.row, COMPRESSION)}" for m in found.members])
        exact = all(len(p.targets) <= s for p, s in zip(panels, shares, strict=True))
        for draw in range(1 if exact else draws):
            rng = np.random.default_rng([plan.seed, draw])
            chosen = [p.some(share, rng) for p, share in zip(panels, shares, strict=True)]
            chosen = chosen if method.soft else [p.hard() for p in chosen]
            for fold in (0, 1):
                references, judged = found.strangers(plan, fold), found.strangers(plan, 1 - fold)
                if len(references) > 1 and len(judged):
                    scores = method.statistic(chosen, Cohort(references, authors, clusters))
                    yield Scored(found, fold, np.asarray(scores, np.float64), judged)


def shared(queries: int, stored: Sequence[int]) -> list[int]:
    """`queries` among the first families, as many of these as get `LEAST`, one at least; all that is left to the last.

    A family that is made to be inherited whole is sure with few, and the last is asked what needs many.

    Args:
        queries: in all.
        stored: by family, how many probes there are; what the last lacks goes to those before it.
    """
    asked = max(1, min(len(stored), queries // LEAST))
    shares = [*[LEAST] * (asked - 1), queries - LEAST * (asked - 1)]
    for i in range(asked - 1, 0, -1):
        over = max(0, shares[i] - stored[i])
        shares[i], shares[i - 1] = shares[i] - over, shares[i - 1] + over
    return shares


__all__ = ["Progress", "Scored", "Trial", "score", "shared", "trial"]
