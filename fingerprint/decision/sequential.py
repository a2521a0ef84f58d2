"""Lineage, one probe after another: stop as soon as the answer is clear, at the same error level.

The two errors of `lineage` stay apart and share a family's level: between models, gamma fixes how many of all N probes
an unrelated model may match; within the fingerprint, `betting` tests that number on the probes asked so far, valid at
any time (METHODS section 6, "Together"). A second bet, on mismatches, is against "it matches as often as the weakest
copy that the record lists, and as `derived` needs": it ends the questions where the suspect does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.betting import CAREFUL, NEARNESS, log_wealth, reaches
from fingerprint.decision.ladder import Rung, climbed, lead, rungs, share_between
from fingerprint.decision.lineage import LineageTest, Test
from fingerprint.record import Family, FamilyMatch

Paths = NDArray[np.bool_]  # (R, T) whether each answer matched, in R orders
ORDERS = 400  # random orders in which a listed copy is asked, to know the power
COARSENESS = 0.8  # ratio of the levels at which a p-value is looked for
SMALLEST_P = 1e-12


class SequentialTest(LineageTest):
    """A `LineageTest` on answers that come one by one, in an order that the verifier drew.

    Args:
        base: the fitted test; shared, not changed.
        asked: by family, how many of its probes may be asked at most.
    """

    def __init__(self, base: LineageTest, asked: Mapping[str, int]) -> None:
        self.__dict__.update(base.__dict__)
        self._soft = {}  # soft outputs are calibrated for all probes together
        self._asked = dict(asked)
        self._paths: dict[str, list[bool]] = {name: [] for name in asked}
        self._powers: dict[tuple[str, int, float], float] = {}
        self._between: dict[str, float] = {}
        self._ladders: dict[tuple[str, float], tuple[Rung, ...]] = {}

    def add(self, family: str, match: bool) -> None:
        """One more answer."""
        self._paths[family].append(match)

    @property
    def clear(self) -> bool:
        """Whether no further answer is needed."""
        if self.kind is None:
            return False  # nothing can be decided: all answers are shown
        return self.derived or self._below_copies({})

    @property
    def derived(self) -> bool:
        """Whether the bet is won."""
        asked = (f for f in self.manifest.families if f.name in self._paths)
        return any(
            self._rejects_at(f.name, f.count, self._level(f.weight)) and self._near_so_far(f.name, f.count)
            for f in asked
        )

    def _near_so_far(self, name: str, count: int) -> bool:
        near = self._nearness(name, count, self._path(name))
        return bool(near.size) and bool(near[0, -1])

    def _far(self, name: str, count: int) -> int:
        """The most matches, of all probes, with which a suspect is nearer to the references than to the copies."""
        return max((m for m in range(count + 1) if m < self.least(name) * count), default=-1)

    def _nearness(self, name: str, count: int, paths: Paths) -> Paths:
        """(R, T) whether, after each answer of (R, T), it is nearer to the copies than to the references.

        The rate so far is, and a bet against "of all probes no more match than such a model's" is won at `NEARNESS`.
        """
        near = paths.cumsum(axis=1) >= self.least(name) * np.arange(1, paths.shape[1] + 1)
        won = log_wealth(paths, count, self._far(name, count))
        return np.asarray(near & (np.maximum.accumulate(won, axis=1) >= -math.log(NEARNESS)))

    def soonest(self, ahead: Sequence[str]) -> int:
        """How many of the next answers there must be at least before it can be clear: no look before that is of use.

        Args:
            ahead: families of the probes to come, in the order drawn.

        Returns:
            1 to `len(ahead)`.
        """
        soonest = len(ahead)
        for family in self.manifest.families if self.kind is not None else ():
            left = family.count - len(self._paths.get(family.name, ()))  # of classes that the suspect has
            places = [i + 1 for i, name in enumerate(ahead) if name == family.name][:left]
            if family.name in self._paths and places:
                found = (self._next_derived(family, len(places)), self._next_below(family, len(places)))
                soonest = min([soonest, *(places[k] for k in found if k is not None)])
        return soonest

    def _next_derived(self, family: Family, more: int) -> int | None:
        """Which of `more` further answers, from 0, is the first with which it can be derived."""
        ladder = self._ladder(family.name, family.count, self._level(family.weight))
        path = np.append(self._path(family.name), np.ones((1, more), np.bool_), axis=1)
        near = self._nearness(family.name, family.count, path)[0]
        return _first(near & (lead(path, family.count, ladder)[0] >= 0.0), more)

    def _next_below(self, family: Family, more: int) -> int | None:
        """Which of `more` further answers, from 0, is the first with which it can be told from copies."""
        most = self._mismatches(family)
        if most is None:
            return None
        path = np.append(~self._path(family.name), np.ones((1, more), np.bool_), axis=1)
        wealth = np.maximum.accumulate(log_wealth(path, family.count, most, CAREFUL)[0])
        return _first(wealth >= -math.log(self.settings.alpha), more)

    def splits(self) -> dict[str, float]:
        """By family, the share of a level that is kept for the error between models. Empty where it is all of it."""
        return {f.name: self._share_between(f.name, f.count) for f in self._fitted()}

    def allowed(self) -> dict[str, list[int]]:
        """By family, the matches that each rung of its ladder allows. Empty where a bound is declared."""
        ladders = {f.name: self._ladder(f.name, f.count, self._level(f.weight)) for f in self._fitted()}
        return {name: [rung.most for rung in ladder] for name, ladder in ladders.items()}

    def _fitted(self) -> list[Family]:
        return [f for f in self.manifest.families if f.name in self._paths and f.name in self._label]

    def evidence(self) -> tuple[tuple[int, float], ...]:
        """(answers, log10 of the evidence) of the family that found most, after each of its answers.

        The largest wealth so far of the bet that is farthest from won, in the unit in which 1 / level wins.
        """
        curves = []
        for family in self.manifest.families:
            path, level = self._path(family.name), self._level(family.weight)
            ladder = self._ladder(family.name, family.count, level)
            if ladder and path.shape[1]:
                curves.append((lead(path, family.count, ladder)[0] - math.log(level)) / math.log(10.0))
        best = max(curves, key=lambda c: float(c.max()), default=np.zeros(0))
        return tuple((i + 1, round(min(float(w), 99.0), 4)) for i, w in enumerate(best))

    def _level(self, weight: float) -> float:
        return self.settings.alpha * weight

    def _path(self, family: str) -> Paths:
        return np.array([self._paths.get(family, [])], np.bool_).reshape(1, -1)

    def _ladder(self, name: str, count: int, level: float) -> tuple[Rung, ...]:
        """The bets that must be won; the first is against what unrelated models exceed with a share of the level."""
        if level <= 0.0:
            return ()
        if self.kind == "declared":
            return (Rung(math.floor((self.manifest.declared_bound or 0.0) * count + 1e-9), level),)
        if name not in self._label:
            return ()
        if (name, level) not in self._ladders:
            share = self._share_between(name, count)
            self._ladders[name, level] = rungs(self._label[name], count, level, share)
        return self._ladders[name, level]

    def _share_between(self, name: str, count: int) -> float:
        if name not in self._between:
            level = self._level(next(f.weight for f in self.manifest.families if f.name == name))
            self._between[name] = share_between(self._label[name], count, level)
        return self._between[name]

    def _rejects_at(self, name: str, count: int, level: float) -> bool:
        return bool(climbed(self._path(name), count, self._ladder(name, count, level))[0])

    def _label_test(self, name: str, count: int, found: FamilyMatch, share: float) -> Test:
        """See `LineageTest`: the p-value is valid at any stopping time."""
        level = p = 1.0
        while level > SMALLEST_P and self._rejects_at(name, count, level):
            p, level = level, level * COARSENESS
        null, alpha = self._label.get(name), self.settings.alpha * share
        ladder = self._ladder(name, count, alpha)
        stands_out = self._rejects_at(name, count, alpha)
        p_total = min(1.0, p / share)
        return Test(
            family=name,
            statistic="label-match",
            share=share,
            p_between=null.tail(found.matches * count / found.queries) if null and found.queries else None,
            p_total=min(p_total, self.settings.alpha) if stands_out else max(p_total, self.settings.alpha * 1.0001),
            rejects=stands_out and self._near_so_far(name, count),
            bound=ladder[0].most / count if ladder else None,
        )

    def _power_against(self, copy: dict[str, FamilyMatch], measured: dict[str, FamilyMatch]) -> float:
        """The chance that such a copy is found derived before the questions run out."""
        best = 0.0
        for family in self.manifest.families:
            if family.name in copy and family.name in self._asked:
                matches = min(family.count, copy[family.name].matches)
                best = max(best, self._power_of(family.name, family.count, matches, self._level(family.weight)))
        return best

    def _power_of(self, name: str, count: int, matches: int, level: float) -> float:
        """The share of random orders in which the bets are won while enough match (`least`) to be near the copies."""
        key = (name, matches, level)
        if key not in self._powers:
            rng = np.random.default_rng(20_201_012)
            whole = np.arange(count)[None, :].repeat(ORDERS, axis=0) < matches
            orders = rng.permuted(whole, axis=1)[:, : self._asked[name]]
            near = self._nearness(name, count, orders)
            won = lead(orders, count, self._ladder(name, count, level)) >= 0.0
            self._powers[key] = float((near & won).any(axis=1).mean())
        return self._powers[key]

    def _below_copies(self, measured: dict[str, FamilyMatch]) -> bool:
        """Whether some family's answers tell it, at level alpha, from all listed copies and all that can be derived."""
        for family in self.manifest.families:
            path, most = self._path(family.name), self._mismatches(family)
            if most is not None and bool(reaches(~path, family.count, most, self.settings.alpha, CAREFUL)[0]):
                return True
        return False

    def _mismatches(self, family: Family) -> int | None:
        """Of all probes of a family, how many a suspect may miss that is as the weakest listed copy, or can be derived.

        Listed copies often match on all probes. One mismatch tells a suspect from those, and says little of one that
        was tuned: it may match on as many as `derived` needs (`least`), and questions go on until that is excluded.
        """
        rates = [c.families[family.name].matches for c in self._working_copies() if family.name in c.families]
        if not rates:
            return None
        return family.count - min(*rates, self._far(family.name, family.count) + 1, family.count)


def _first(holds: np.ndarray[tuple[int], np.dtype[np.bool_]], last: int) -> int | None:
    """The first of the `last` places at the end where it holds, from 0."""
    places = np.nonzero(holds[len(holds) - last :])[0]
    return int(places[0]) if len(places) else None
