"""Questions asked step by step: a bet against "at most S of all N probes match", valid whenever one looks.

Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement" (NeurIPS 2020). After t probes with s
matches the next one matches with probability at most (S - s) / (N - t) where the hypothesis holds. Whoever stakes on
"it matches" then gains nothing on average, and his wealth reaches 1 / level with probability at most `level` (Ville).
"""

from __future__ import annotations

import math
import random

from .lineage import Lineage
from .reading import Wrong
from .tails import SLACK

SPLITS = (0.5, 0.6, 0.7, 0.8, 0.9)  # of a level, for the error between models; a split is chosen by the references
ORDERS = 400  # random orders in which a listed copy is asked, to know the power
CAREFUL = {"matches": 4.5, "probes": 5.0, "staked": 0.9}  # on mismatches; in results that name none, on matches too
BETTORS = (CAREFUL, {"matches": 4.9, "probes": 5.0, "staked": 1.0})  # a free choice could be made after the answers
COARSENESS, SMALLEST = 0.8, 1e-12  # levels at which a p-value is looked for


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

    `steps`: what the signed result says of the test (`planned` questions and the `splits`, by family; the `bettor`).
    `paths`: the answers of each family, in order. `bounds`: what each family's verdict states as the bound on matches.
    """

    simulated_power = True

    def __init__(self, manifest, kind, n, alpha, steps, paths, bounds):
        super().__init__(manifest, kind, n, alpha, True)
        self.paths, self.bounds, self.planned = paths, bounds, steps["planned"]
        self.splits, self.bettor = steps["splits"], steps.get("bettor", CAREFUL)
        self._wealth = {}

    def check_splits(self, name):
        """The bettor is a known one, the splits those that the references call for, and the bounds follow from them."""
        if self.bettor not in BETTORS:
            raise Wrong("%s: the bettor %s is none that this test knows" % (name, self.bettor))
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
                self.check_bound(family, count, level * stated, name)

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
        most = self.threshold(family, count, level * split * slack)
        if most is None:
            return None
        line = -math.log(level * (1.0 - split))
        wealth = enumerate(log_wealth([1] * count, count, most, self.bettor))
        return next((t for t, w in wealth if w >= line), count)

    def check_bound(self, family, count, gamma, name):
        """The stated bound is the largest number of matches that gamma allows; a simulated tail gets its slack."""
        stated = self.bounds[family]
        most = None if stated is None else round(stated * count)
        if self.exact:
            holds = most == self.threshold(family, count, gamma)
        elif most is None:
            holds = self.label(family)(count) > gamma * (1 - SLACK)
        else:
            tail = self.label(family)
            holds = tail(most + 1) <= gamma * (1 + SLACK) and (most < 0 or tail(most) > gamma * (1 - SLACK))
        if not holds:
            raise Wrong("%s: the bound on the matches of %s is not %s" % (name, family, stated))

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

    def most(self, family, level):
        """S at a level: at alpha the stated one, which was checked."""
        count = self.families[family]["count"]
        if self.kind == "declared":
            return math.floor((self.bound or 0.0) * count + 1e-9)
        if level == self.alpha * self.families[family]["weight"] and family in self.bounds:
            return None if self.bounds[family] is None else round(self.bounds[family] * count)
        return self.threshold(family, count, level * self.splits[family])

    def within(self, family, level):
        """The share of a level that is left for the bet."""
        return level if self.kind == "declared" else level * (1.0 - self.splits[family])

    def wealth(self, family, most):
        """The wealth on the answers, for S matches."""
        if (family, most) not in self._wealth:
            path, count = self.paths.get(family, []), self.families[family]["count"]
            self._wealth[family, most] = log_wealth(path, count, most, self.bettor)
        return self._wealth[family, most]

    def rejects(self, family, level):
        """Whether the bet is won at a level."""
        most = self.most(family, level)
        return most is not None and reaches(self.wealth(family, most), self.within(family, level))

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
        near = found["matches"] >= self.least(name) * found["queries"] > 0
        return [(min(p, self.alpha) if stands_out else max(p, self.alpha * 1.0001), near, stands_out)]

    def unclear(self, p):
        """Never: the bet at alpha rests on the stated bound, which was checked."""
        return False

    def evidence(self):
        """(answers, log10 of the wealth) of the family that found most."""
        curves = []
        for family in self.families:
            most = self.most(family, self.alpha * self.families[family]["weight"]) if family in self.paths else None
            if most is not None and self.paths[family]:
                curves.append([min(w / math.log(10.0), 99.0) for w in self.wealth(family, most)])
        return max(curves, key=max, default=[])

    def check_evidence(self, stated, name):
        """The curve of evidence is the one that follows from the answers."""
        mine = self.evidence()
        if [i for i, _ in stated] != list(range(1, len(mine) + 1)):
            raise Wrong("%s: evidence after %d answers is stated, and %d count" % (name, len(stated), len(mine)))
        for wealth, (answers, said) in zip(mine, stated):
            if abs(wealth - said) > 1e-4:
                text = "%s: after %d answers the evidence is %.4f, stated as %.4f"
                raise Wrong(text % (name, answers, wealth, said))

    def power_against(self, copy, families):
        """The chance that a copy is found before the questions run out, by simulation."""
        best = 0.0
        for family, planned in self.planned.items():
            if family not in copy["families"] or family not in self.families:
                continue
            count, level = self.families[family]["count"], self.alpha * self.families[family]["weight"]
            most, hits = self.most(family, level), min(count, copy["families"][family]["matches"])
            if most is not None:
                best = max(best, self.found(count, hits, planned, most, self.within(family, level)))
        return best

    def found(self, count, hits, planned, most, level):
        """The share of random orders of a copy with so many matches in which the bet is won."""
        key = (count, hits, planned, most, level)
        if key not in self._wealth:
            rng, whole, won = random.Random(1), [1] * hits + [0] * (count - hits), 0
            for _ in range(ORDERS):
                won += reaches(log_wealth(rng.sample(whole, planned), count, most, self.bettor), level)
            self._wealth[key] = won / ORDERS
        return self._wealth[key]

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
    return bool(wealth) and max(wealth) >= -math.log(level)
