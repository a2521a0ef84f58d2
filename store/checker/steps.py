"""Questions asked step by step: a bet against "at most S of all N probes match", valid whenever one looks.

There are several such bets, a ladder: the more unrelated models may match as many probes, the surer must it be won.

Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement" (NeurIPS 2020). After t probes with s
matches the next one matches with probability at most (S - s) / (N - t) where the hypothesis holds. Whoever stakes on
"it matches" then gains nothing on average, and his wealth reaches 1 / level with probability at most `level` (Ville).
"""

from __future__ import annotations

import math
import random
from itertools import accumulate

from .lineage import Lineage
from .reading import Wrong
from .tails import SLACK

SPLITS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of a level, for the error between models; a split is chosen by the references
ORDERS = 400  # random orders in which a listed copy is asked, to know the power
CAREFUL = {"matches": 4.5, "probes": 5.0, "staked": 0.9}  # on mismatches; in results that name none, on matches too
HOPEFUL = {
    "matches": 4.9,
    "probes": 5.0,
    "staked": 1.0,
}  # the one named: a free choice could come late
NEARNESS = 0.1  # level of the bet that it is nearer to the copies than to the references; results of before have none
RUNGS, RATIO, WIDEST = 3, 3.0, 0.5  # bets, the ratio of their levels between models, and the largest of those
COARSENESS, SMALLEST = 0.8, 1e-12  # levels at which a p-value is looked for
TIED = 1e-6  # difference in log10 of the evidence below which two families found as much


def log_wealth(path, count, most, bettor):
    """Natural logarithm of a bettor's wealth after each answer of `path` (1: a match), of `count` probes."""
    wealth, current, seen = [], 0.0, 0
    for t, hit in enumerate(path):
        mean = min(1.0, max(0.0, (most - seen) / (count - t)))
        expected = (bettor["matches"] + seen) / (bettor["probes"] + t)  # the chance that the next one matches
        if mean <= 0.0:
            gain = math.inf if hit else 0.0
        elif mean >= 1.0:
            gain = 0.0
        else:
            stake = min(bettor["staked"] / mean, max(0.0, (expected - mean) / (mean * (1.0 - mean))))
            gain = math.log1p(stake * (1.0 - mean)) if hit else math.log1p(-stake * mean)
        current = current if math.isinf(current) else current + gain
        wealth.append(current)
        seen += hit
    return wealth


class Stepwise(Lineage):
    """The same lineage test on answers that came one by one.

    `steps`: what the signed result says of the test (`planned` questions, the `splits`, and what the rungs `allowed`,
    by family; the `bettor`). Results without a bettor have one rung. `paths`: the answers of each family, in order.
    `bounds`: what each family's verdict states as the bound on matches.
    """

    simulated_power = True

    def __init__(self, manifest, kind, n, alpha, steps, paths, bounds, nearer=0.5):
        super().__init__(manifest, kind, n, alpha, True, nearer)
        self.paths, self.bounds, self.planned = paths, bounds, steps["planned"]
        self.splits, self.bettor = steps["splits"], steps.get("bettor", CAREFUL)
        self.allowed, self.ladder = steps.get("allowed", {}), "bettor" in steps
        self.nearness = steps.get("nearness")
        self._wealth = {}

    def check_splits(self, name):
        """The bettor is a known one, the splits those that the references call for, and the bounds follow from them."""
        if self.ladder and self.bettor != HOPEFUL:
            raise Wrong("%s: the bettor %s is none that this test knows" % (name, self.bettor))
        if self.nearness not in (None, NEARNESS) or (self.nearness is None and self.nearer > 0.5):
            raise Wrong("%s: that it is near the copies was bet at %s, which no release did" % (name, self.nearness))
        unplanned = (set(self.paths) | set(self.bounds)) & set(self.families) - set(self.planned)
        if unplanned:
            raise Wrong("%s: probes of %s were asked, and none were planned" % (name, sorted(unplanned)[0]))
        for family, planned in self.planned.items():
            if len(self.paths.get(family, [])) > planned:
                raise Wrong("%s: more %s probes were asked than planned" % (name, family))
            if self.kind == "declared" or family not in self.families:
                continue
            count, level = self.families[family]["count"], self.alpha * self.families[family]["weight"]
            stated = self.splits[family]
            if stated not in self.best_splits(family, count, level):
                raise Wrong("%s: the level of %s is split at %s, another split is best" % (name, family, stated))
            if family in self.bounds:
                self.check_rungs(family, count, self.heights(level, stated), name)

    def check_rungs(self, family, count, heights, name):
        """The bound is what the first rung allows, and each rung allows what its gamma does."""
        stated = self.bounds[family]
        most = [None if stated is None else round(stated * count)]
        if self.ladder:
            found = self.allowed[family]
            if any(type(most) is not int for most in found):
                raise Wrong("%s: the rungs of %s allow %s matches" % (name, family, found))
            if found[:1] != [m for m in most if m is not None] or (found and len(found) != len(heights)):
                raise Wrong("%s: the bound on the matches of %s is not %s" % (name, family, stated))
            most = found or most
        for allowed, (gamma, _) in zip(most, heights):
            self.check_bound(family, count, gamma, allowed, name)

    def best_splits(self, family, count, level):
        """The splits that find a perfect copy in the fewest answers: the first such one where the tail is exact, and
        all that may be it where the tail is simulated, and two simulations differ by their slack.
        """
        if self.exact:
            needed = {split: self.answers_needed(family, count, level, split, 1.0) for split in SPLITS}
            possible = {split: n for split, n in needed.items() if n is not None}
            return [min(possible, key=lambda split: possible[split], default=0.5)]
        sure = [self.answers_needed(family, count, level, split, 1 - SLACK) for split in SPLITS]
        fewest = min((n for n in sure if n is not None), default=count)
        needed = {split: self.answers_needed(family, count, level, split, 1 + SLACK) for split in SPLITS}
        found = [split for split, n in needed.items() if n is not None and n <= fewest]
        return found if any(n is not None for n in sure) else [*found, 0.5]

    def answers_needed(self, family, count, level, split, slack):
        """Answers after which a perfect copy is found, less one; None where no number of matches stands out."""
        needed = []
        for gamma, within in self.heights(level, split):
            most = self.threshold(family, count, gamma * slack)
            if most is None:
                return None
            wealth = enumerate(log_wealth([1] * count, count, most, self.bettor))
            needed.append(next((t for t, w in wealth if w + math.log(within) >= 0.0), count))
        return max(needed)

    def heights(self, level, split):
        """(gamma, level of the bet) of each rung, the highest bound first."""
        gammas = [level * split * RATIO**i for i in range(RUNGS if self.ladder else 1)]
        gammas = gammas[:1] + [gamma for gamma in gammas[1:] if gamma <= WIDEST]
        part, above = level * (1.0 - split) / len(gammas), gammas[1:]
        return [(g, part / (above[i] - g if i < len(above) else 1.0)) for i, g in enumerate(gammas)]

    def check_bound(self, family, count, gamma, most, name):
        """`most` is the largest number of matches that gamma allows; a simulated tail gets its slack."""
        if self.exact:
            holds = most == self.threshold(family, count, gamma)
        elif most is None:
            holds = self.label(family)(count) > gamma * (1 - SLACK)
        else:
            tail = self.label(family)
            holds = tail(most + 1) <= gamma * (1 + SLACK) and (most < 0 or tail(most) > gamma * (1 - SLACK))
        if not holds:
            raise Wrong("%s: the bound on the matches of %s is not %s of %d" % (name, family, most, count))

    def threshold(self, family, count, gamma):
        """Matches among all probes that an unrelated model does not exceed, except with probability gamma."""
        tail, low, high = self.label(family), 0, count + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if tail(middle) <= gamma + 1e-12 else (middle + 1, high)
        if low <= count:
            return low - 1
        beyond = self.kind == "conformal" and 1.0 / (len(self.references) + 1) <= gamma
        return count if beyond else None

    def rungs(self, family, level):
        """(S, level of the bet) of each rung, at alpha with the stated S, which were checked; or none stands out."""
        count = self.families[family]["count"]
        if self.kind == "declared":
            return [(math.floor((self.bound or 0.0) * count + 1e-9), level)]
        heights = self.heights(level, self.splits[family])
        if level == self.alpha * self.families[family]["weight"] and family in self.bounds:
            if self.bounds[family] is None:
                return []
            most = self.allowed[family] if self.ladder else [round(self.bounds[family] * count)]
        else:
            most = [self.threshold(family, count, gamma) for gamma, _ in heights]
        return [] if None in most else [(m, within) for m, (_, within) in zip(most, heights)]

    def wealth(self, family, most):
        """The wealth on the answers, for S matches; with a ladder, the largest so far."""
        if (family, most) not in self._wealth:
            path, count = self.paths.get(family, []), self.families[family]["count"]
            found = log_wealth(path, count, most, self.bettor)
            self._wealth[family, most] = list(accumulate(found, max)) if self.ladder else found
        return self._wealth[family, most]

    def rejects(self, family, level):
        """Whether all bets are won at a level."""
        rungs = self.rungs(family, level)
        return bool(rungs) and all(reaches(self.wealth(family, most), within) for most, within in rungs)

    def soft(self, found):
        """Soft outputs are calibrated for all probes together, and take no part."""
        return None

    def tests(self, found):
        """See `Lineage.tests`: the p-value is valid at any time."""
        name, share = found["name"], self.families[found["name"]]["weight"]
        p = level = 1.0
        while level > SMALLEST and self.rejects(name, level):
            p, level = level, level * COARSENESS
        stands_out, p = self.rejects(name, self.alpha * share), min(1.0, p / share)
        count = self.families[name]["count"]
        near = found["queries"] > 0 and self.near(self.paths.get(name, []), name, count)[-1:] == [True]
        return [(min(p, self.alpha) if stands_out else max(p, self.alpha * 1.0001), near, stands_out)]

    def unclear(self, p):
        """Never: the bet at alpha rests on the stated bound, which was checked."""
        return False

    def evidence(self):
        """log10 of the evidence after each answer of the family that found most; that of the hardest rung.

        All such curves where several families found as much.
        """
        curves: list[list[float]] = []
        for family in self.families:
            level = self.alpha * self.families[family]["weight"]
            rungs = self.rungs(family, level) if family in self.paths and level > 0.0 else []
            if rungs and self.paths[family]:
                leads = [
                    [w + (math.log(within / level) if self.ladder else 0.0) for w in self.wealth(family, most)]
                    for most, within in rungs
                ]
                curves.append([min(min(column) / math.log(10.0), 99.0) for column in zip(*leads)])
        most = max(map(max, curves), default=0.0)
        return [curve for curve in curves if max(curve) >= most - TIED] or [[]]

    def check_evidence(self, stated, name):
        """The curve of evidence is one that follows from the answers."""
        wrong = [differs(curve, stated) for curve in self.evidence()]
        if all(wrong):
            raise Wrong("%s: %s" % (name, next((text for text in wrong if text.startswith("after")), wrong[0])))

    def power_against(self, copy, families):
        """The chance that a copy is found before the questions run out, by simulation."""
        best = 0.0
        for family, planned in self.planned.items():
            if family not in copy["families"] or family not in self.families:
                continue
            count, level = self.families[family]["count"], self.alpha * self.families[family]["weight"]
            hits, rungs = min(count, copy["families"][family]["matches"]), self.rungs(family, level)
            if rungs:
                best = max(best, self.found(family, hits, min(planned, count), tuple(rungs)))
        return best

    def found(self, family, hits, planned, rungs):
        """The share of random orders of a copy with so many matches in which it is found."""
        key = (family, hits, planned, rungs)
        if key not in self._wealth:
            count = self.families[family]["count"]
            rng, whole, won = random.Random(1), [1] * hits + [0] * (count - hits), 0
            for _ in range(ORDERS):
                won += self.finds(rng.sample(whole, planned), family, count, rungs)
            self._wealth[key] = won / ORDERS
        return self._wealth[key]

    def finds(self, path, family, count, rungs):
        """Whether at some time all bets are won, and as many match as `derived` needs (only with a ladder)."""
        near = self.near(path, family, count) if self.ladder else [True] * len(path)
        won = [accumulate(log_wealth(path, count, most, self.bettor), max) for most, _ in rungs]
        lines = [-math.log(within) for _, within in rungs]
        return any(n and all(w >= line for w, line in zip(wealth, lines)) for n, wealth in zip(near, zip(*won)))

    def near(self, path, family, count):
        """After each answer, whether it is nearer to the copies than to the references: so many match so far, and a bet
        against "of all probes no more match than such a model's" was won.
        """
        least, seen = self.least(family), list(accumulate(path))
        near = [hits >= least * (t + 1) for t, hits in enumerate(seen)]
        if self.nearness is None:
            return near
        most = max((m for m in range(count + 1) if m < least * count), default=-1)
        won = accumulate(log_wealth(path, count, most, self.bettor), max)
        return [holds and wealth + math.log(self.nearness) >= 0.0 for holds, wealth in zip(near, won)]

    def below_copies(self, families):
        """Whether a bet on mismatches tells some family's answers from the weakest listed copy."""
        for family, path in self.paths.items():
            hits = [c["families"][family]["matches"] for c in self.working if family in c["families"]]
            if hits:
                count = self.families[family]["count"]
                fewest = min(*hits, count)
                if reaches(log_wealth([1 - hit for hit in path], count, count - fewest, CAREFUL), self.alpha):
                    return True
        return False


def reaches(wealth, level):
    """Whether the wealth reached 1 / level at some time."""
    return bool(wealth) and max(wealth) + math.log(level) >= 0.0


def differs(curve, stated):
    """What contradicts a curve of evidence in what is stated, or None."""
    if [i for i, _ in stated] != list(range(1, len(curve) + 1)):
        return "evidence after %d answers is stated, and %d count" % (len(stated), len(curve))
    for mine, (answers, said) in zip(curve, stated):
        if abs(mine - said) > 1e-4:
            return "after %d answers the evidence is %.4f, stated as %.4f" % (answers, mine, said)
    return None
