"""The lineage test of one record, recomputed from its signed manifest."""

from __future__ import annotations

import math
from functools import lru_cache

from .reading import Wrong
from .tails import (
    SLACK,
    binomial_tail,
    close,
    fisher,
    hypergeometric_tail,
    label_tail,
    soft_tail,
    total_of,
)

LABEL_SHARE, SOFT_SHARE = 0.8, 0.2  # of a family's share of alpha, where soft outputs are tested too
NEARER = (0.5, 0.75)  # of the way from the strangers to the copies; the first in results that do not say
POWER_NEEDED = 0.95  # against every listed copy that works, before `unrelated` is said


class Lineage:
    """Tests at one level. `alpha`: the level; `n`: references that calibrated; `label_only`: no soft outputs."""

    simulated_power = False

    def __init__(self, manifest, kind, n, alpha, label_only, nearer=0.5):
        self.nearer = nearer
        if nearer not in NEARER:
            raise Wrong("derived asks for %s of the way to the copies, which no release did" % nearer)
        self.kind, self.alpha, self.label_only = kind, alpha, label_only
        self.exact, self.bound = kind != "fitted", manifest["declared_bound"]
        self.families = {f["name"]: f for f in manifest["families"] if f.get("role", "lineage") == "lineage"}
        self.references, self.outputs = manifest["references"], manifest["outputs"]
        if kind not in ("conformal", "fitted", "declared") or (kind == "declared" and self.bound is None):
            raise Wrong("calibrated in a way that the record does not know: %s" % kind)
        if kind != "declared":
            if len(self.references) > n:
                self.references = [r for r in self.references if r.get("origin") != "made"]
            if len(self.references) != n:
                raise Wrong("calibrated by %d references, and %d are signed" % (n, len(self.references)))
        self.working = [c for c in manifest["copies"] if c["agreement"] is None or c["agreement"] >= 0.5]
        self._tails = {}

    def label(self, name):
        """P(an unrelated model matches >= s of a family's probes), as a function of s that remembers."""
        if name not in self._tails:
            tail = label_tail(self.kind, self.references, name, self.families[name]["count"])
            self._tails[name] = lru_cache(maxsize=None)(tail)
        return self._tails[name]

    def level(self, name, matches, asked):
        """The least level at which the label test rejects."""
        if self.kind == "declared":
            return binomial_tail(matches, asked, self.bound)
        return total_of(self.label(name), self.families[name]["count"], matches, asked)

    def soft(self, found):
        """The tail of soft outputs where they are tested: all probes asked, and some value could reject."""
        family = self.families[found["name"]]
        if self.kind == "declared" or self.label_only or found["correlation"] is None:
            return None
        tail = soft_tail(self.kind, self.references, found["name"]) if found["queries"] == family["count"] else None
        best = self.alpha * family["weight"] * SOFT_SHARE
        return tail if tail is not None and tail(fisher(1.0)) <= best else None

    def between(self, found):
        """P-value of one family between models, as `p_value` of it says; None by a declared bound."""
        if self.kind == "declared" or not found["queries"]:
            return None
        count = self.families[found["name"]]["count"]
        return self.label(found["name"])(found["matches"] * count / found["queries"])  # whole numbers stay whole

    def sound(self, families, name):
        """The counts can be, and the p-value of every family is the one that was stated."""
        for found in families:
            if not 0 <= found["matches"] <= found["queries"] <= self.families[found["name"]]["count"]:
                raise Wrong("%s: counts that can't be" % name)
            mine, stated = self.between(found), found["p_value"]
            if (mine is None) != (stated is None) or (mine is not None and not close(mine, stated, self.exact)):
                raise Wrong("%s: p of %s is %s, stated as %s" % (name, found["name"], mine, stated))

    def total(self, families):
        """The least p-value of all tests over their shares."""
        return min(p for found in families for p, _, _ in self.tests(found))

    def tests(self, found):
        """(p-value over its share of alpha, whether it lies nearer to the copies than to strangers, whether it rejects
        without regard to that) for every test on one family.
        """
        family, soft = self.families[found["name"]], self.soft(found)
        near = found["matches"] >= self.least(found["name"]) * found["queries"] > 0
        share = family["weight"] * (1.0 if soft is None else LABEL_SHARE)
        p = min(1.0, self.level(found["name"], found["matches"], found["queries"]) / share)
        made = [(p, near, p <= self.alpha)]
        if soft is not None:
            p = min(1.0, soft(fisher(found["correlation"])) / (family["weight"] * SOFT_SHARE))
            made.append((p, found["correlation"] >= self.least_correlation(found["name"]), p <= self.alpha))
        return made

    def unclear(self, p):
        """Whether two simulations could fall on different sides of alpha."""
        return not self.exact and 1 - 2 * SLACK < p / self.alpha < 1 + 2 * SLACK

    def conclude(self, verdict, allowed, name):
        """Whether the lineage follows. `allowed`: nothing else takes `derived` away."""
        families, said = verdict["families"], verdict["lineage"]
        tests = [test for found in families for test in self.tests(found)]
        smallest = min(p for p, _, _ in tests)
        clear = not any(near and self.unclear(p) for p, near, _ in tests)
        follows = any(near and rejects for _, near, rejects in tests)
        if clear and (said == "derived") != (follows and allowed):
            raise Wrong("%s: said %s, and p is %.3g at alpha %g" % (name, said, smallest, self.alpha))
        if said != "unrelated":
            return
        power = self.power(families)
        small = smallest <= self.alpha * (1.0 if self.exact else 1 - 2 * SLACK)
        needed = POWER_NEEDED - (0.04 if self.simulated_power else 0.0)
        if power < needed or small or not self.below_copies(families):
            raise Wrong("%s: said unrelated, and the power is %.2f, p %.3g" % (name, power, smallest))

    def figures(self, verdict, settings, name):
        """The error level, the match rate and the score are those that follow."""
        families = verdict["families"]
        queries = sum(f["queries"] for f in families)
        wanted = {
            "error": settings * self.alpha * sum(self.families[f["name"]]["weight"] for f in families),
            "match_rate": sum(f["matches"] for f in families) / queries if queries else 0.0,
        }
        for what, mine in wanted.items():
            if what in verdict and not same(mine, verdict[what]):
                raise Wrong("%s: %s is %.6g, stated as %.6g" % (name, what, mine, verdict[what]))
        asked = [f for f in families if f["queries"]]
        last = list(self.families)[-1]
        old = sum(self.above_usual(f) for f in asked)  # of results of before
        new = sum(self.above_usual(f) if f["name"] == last else self.beyond_highest(f) for f in asked)
        if "score" in verdict and not same(new, verdict["score"]) and not same(old, verdict["score"]):
            raise Wrong("%s: score is %.6g, stated as %.6g" % (name, new, verdict["score"]))

    def authors(self, used, name):
        """The calibration states the references' authors as they are signed."""
        stated = [r["author"] for r in self.references if r["author"] is not None] if self.kind != "declared" else []
        unstated = used["n"] - len(stated) if self.kind != "declared" else 0
        if used["authors"] != len(set(stated)) or used.get("unstated", unstated) != unstated:
            raise Wrong("%s: the references have %d authors, stated as %d" % (name, len(set(stated)), used["authors"]))

    def above_usual(self, found):
        """A family's share of the score: how much more it matches than unrelated models do."""
        usual = self.usual(found["name"])
        return self.families[found["name"]]["weight"] * (found["matches"] / found["queries"] - sum(usual) / len(usual))

    def beyond_highest(self, found):
        """The share of a family that is not the last: what it matches beyond the highest of them, of what is left."""
        highest = max(self.usual(found["name"]))
        beyond = max(0.0, found["matches"] / found["queries"] - highest) / max(1.0 - highest, 1e-9)
        return self.families[found["name"]]["weight"] * beyond

    def usual(self, name):
        """Match rates of the references; of chance, where there are none."""
        count = self.families[name]["count"]
        return [r["families"][name]["matches"] / count for r in self.references] or [1.0 / self.outputs]

    def least(self, name):
        """Match rate that `derived` needs besides its p-value: so much of the way from the strangers to the copies."""
        count = self.families[name]["count"]
        usual = [r["families"][name]["matches"] / count for r in self.references if name in r["families"]]
        highest = max([self.bound or 0.0] if self.kind == "declared" else usual, default=0.0)
        copies = sorted(c["families"][name]["matches"] / count for c in self.working if name in c["families"])
        middle = copies[len(copies) // 2] if copies else 1.0
        return max(highest, highest + self.nearer * (middle - highest))

    def least_correlation(self, name):
        """The same for soft outputs: half of the way."""
        usual = [r["families"][name]["correlation"] for r in self.references if name in r["families"]]
        highest = max([c for c in usual if c is not None], default=0.0)
        copies = [c["families"][name]["correlation"] for c in self.working if name in c["families"]]
        known = sorted(c for c in copies if c is not None)
        return max(highest, 0.5 * (highest + known[len(known) // 2])) if known else highest

    def power(self, families):
        """The lowest chance, over the listed copies, that such a copy would be found; 0 where none is listed."""
        return min((self.power_against(copy, families) for copy in self.working), default=0.0)

    def power_against(self, copy, families):
        """The chance that one copy would be found: by the family that finds it best."""
        best = 0.0
        for found in families:
            needed = self.needed(found) if found["name"] in copy["families"] else None
            if needed is not None:
                hits, count = copy["families"][found["name"]]["matches"], self.families[found["name"]]["count"]
                best = max(best, hypergeometric_tail(needed, count, hits, found["queries"]))
        return best

    def needed(self, found):
        """Fewest matches that the label test accepts; a simulated tail gets its slack."""
        share = self.families[found["name"]]["weight"] * (1.0 if self.soft(found) is None else LABEL_SHARE)
        level = self.alpha * share * (1.0 if self.exact else 1 + 2 * SLACK)
        low, high = math.ceil(self.least(found["name"]) * found["queries"] - 1e-9), found["queries"] + 1
        while low < high:
            middle = (low + high) // 2
            accepted = middle <= found["queries"] and self.level(found["name"], middle, found["queries"]) <= level
            low, high = (low, middle) if accepted else (middle + 1, high)
        return low if low <= found["queries"] else None

    def below_copies(self, families):
        """Whether some family's match is lower than a listed copy would give, at level alpha."""
        for f in families:
            hits = [c["families"][f["name"]]["matches"] for c in self.working if f["name"] in c["families"]]
            count = self.families[f["name"]]["count"]
            if hits and 1.0 - hypergeometric_tail(f["matches"] + 1, count, min(hits), f["queries"]) <= self.alpha:
                return True
        return False


def same(mine, stated):
    """Whether two figures differ by rounding alone."""
    return math.isclose(mine, stated, rel_tol=1e-9, abs_tol=1e-9)
