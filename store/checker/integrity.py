"""Integrity: are a suspect's answers those of a compressed copy of the owner, or was its function altered?

score = min over copies c of d(suspect, c) / (epsilon + min(local(c), d(suspect, owner))), ranked among the scores of
the compressed copies, each with itself left out. d counts other labels, or is the root mean square difference of log
margins; local(c) is how far the nearest other compressed copy is from c. What the owner and its copies answered lies in
copies/, under the digest that the signed result names.
"""

from __future__ import annotations

import hashlib
import math
import struct

from .answers import raw
from .compression import compresses, covers, kind_of, scheme, steps_of, within
from .reading import Wrong, decode64, strict_json

DEVIATION = "local"  # how results name the unit of distances that is computed here
EPSILON = {"labels": 4.0, "soft margins": 0.1}
FEWEST_COPIES, FEWEST_PROBES, FEWEST_ALIKE, FEWEST_DECLARED = 19, 20, 10, 19
SAME = ("identical", "renamed", "reordered")  # weights
CHANGED = ("changed in part", "changed")


class Copies:
    """What the owner (the first) and its copies answered to some probes; `hows`: how each was made."""

    def __init__(self, data, manifest, sha256):
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Wrong("copies/%s.json is not the file of that digest" % sha256[:16])
        document = strict_json(data, "copies/%s.json" % sha256[:16])
        self.probes, self.labels = document["probes"], document["labels"]
        self.hows = [""] + [trial["transform"] for trial in manifest["trials"]]
        count, packed = len(self.probes), decode64(document["margins"], "margins of copies")
        if len(self.labels) != len(self.hows) or len(packed) != 4 * count * len(self.hows):
            raise Wrong("not as many copies as the fingerprint lists")
        values = struct.unpack("<%df" % (count * len(self.hows)), packed)
        self.margins = [list(values[i : i + count]) for i in range(0, len(values), count)]
        self.count = count
        self._among: dict[str, list[list[float]]] = {}
        self._between: dict[str, tuple[list[list[float]], list[dict[int, float]], list[tuple[object, ...]]]] = {}

    def answers(self, statistic):
        """One row for the owner, and one for each copy."""
        return self.labels if statistic == "labels" else self.margins

    def neighbours(self, statistic):
        """(distances between all, of each the distances to the other compressed copies but its twins)."""
        if statistic not in self._between:
            pruned = [tuple(s for s in steps_of(h) if s[0] == "prune") or (h, i) for i, h in enumerate(self.hows)]
            rows, known = self.answers(statistic), [compresses(how) for how in self.hows]
            between = [[0.0] * len(rows) for _ in rows]
            for i, row in enumerate(rows):
                for j in range(i):
                    between[i][j] = between[j][i] = distance(row, rows[j], statistic)
            near = [
                {j: far for j, far in enumerate(between[i]) if known[j] and pruned[j] != pruned[i]}
                for i in range(len(rows))
            ]
            self._between[statistic] = between, near, pruned
        return self._between[statistic]

    def ratios(self, answers, statistic):
        """Of some answers to the owner and to each copy: their distance, in units of how near its neighbours are."""
        _, near, _ = self.neighbours(statistic)
        rows = self.answers(statistic)
        own = distance(answers, rows[0], statistic)
        units = [min(own, min(around.values(), default=math.inf)) for around in near]
        return [distance(answers, row, statistic) / (EPSILON[statistic] + unit) for row, unit in zip(rows, units)]

    def among(self, statistic):
        """The same of each copy, with itself and those pruned to the same share left out: these are infinite."""
        if statistic not in self._among:
            between, near, pruned = self.neighbours(statistic)
            nearest_first = [sorted((far, k) for k, far in around.items()) for around in near]
            found = []
            for i, row in enumerate(between):
                ratios = []
                for j, far in enumerate(row):
                    around = next((d for d, k in nearest_first[j] if pruned[k] != pruned[i]), math.inf)
                    twins = pruned[i] == pruned[j]
                    ratios.append(math.inf if twins else far / (EPSILON[statistic] + min(around, row[0])))
                found.append(ratios)
            self._among[statistic] = found
        return self._among[statistic]


def distance(one, other, statistic):
    """Other labels, or the root mean square difference of margins."""
    if statistic == "labels":
        return sum(a != b for a, b in zip(one, other))
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(one, other)) / len(one))


def rank(null, score):
    """p: how many of the copies score as much; a hair of rounding is no difference."""
    return (1 + sum(value >= score - 1e-9 for value in null)) / (len(null) + 1)


class Concluded:
    """What follows from a suspect's answers: the figures of `integrity_evidence`, and `integrity`."""

    def __init__(self, copies, labels, margins, allowed, alpha):
        statistic = "labels" if margins is None else "soft margins"
        hows, among = copies.hows, copies.among(statistic)
        found = copies.ratios(labels if margins is None else margins, statistic)
        self.sort(hows, allowed, alpha)
        null = {part: [nearest(among[i], self.compressed) for i in rows] for part, rows in self.strata.items()}
        scores = nearest(found, self.declared), nearest(found, self.compressed)
        excess = None
        if len(self.ranking) >= FEWEST_DECLARED:
            gaps = [nearest(among[i], self.declared) - nearest(among[i], self.compressed) for i in self.ranking]
            excess = rank(gaps, scores[0] - scores[1])
        self.figures = {
            "statistic": statistic,
            "score": min(scores[1], 1e6),
            "p_declared": self.p_declared(null, scores[0]),
            "p_compressed": max((rank(part, scores[1]) for part in null.values()), default=1.0),
            "p_excess": excess,
            "error": self.level + (0.0 if excess is None else 1.0 / (len(self.ranking) + 1)),
            "copies": len(self.calibrating),
            "queries": len(labels),
            "differing": sum(a != b for a, b in zip(labels, copies.labels[0])),
            "detected": self.detected(hows, among, null),
        }
        closest = min(found)
        self.nearest = {hows[i] or "the released model" for i, far in enumerate(found) if far <= closest + 1e-9}
        self.integrity = self.conclude(hows, allowed, len(labels))

    def sort(self, hows, allowed, alpha):
        """Which copies are compressed, which of them declared, and which calibrate: of schemes of which there are
        enough, pruned less than another; those with rounded activations apart from the others.
        """
        self.compressed = [i for i, how in enumerate(hows) if compresses(how)]
        self.declared = [i for i in self.compressed if within(hows[i], allowed)]
        schemes = [scheme(hows[i]) for i in self.compressed]
        alike = [i for i, s in zip(self.compressed, schemes) if not s or schemes.count(s) >= FEWEST_ALIKE]
        pruned = {step for i in self.compressed for step in pruning(hows[i])}
        self.calibrating = [i for i in alike if all(exceeded(step, pruned) for step in pruning(hows[i]))]
        self.ranking = [i for i in self.declared if i in self.calibrating]
        parts = {part: [i for i in self.calibrating if rounds(hows[i]) == part] for part in (False, True)}
        self.strata = {part: rows for part, rows in parts.items() if len(rows) >= FEWEST_ALIKE}
        declared = {rounds(hows[i]) for i in self.declared}
        self.declared_strata = [part for part in self.strata if part in declared] or list(self.strata)
        sizes = [len(rows) for rows in self.strata.values()] or [0]
        self.level = max(alpha, 1.0 / (min(sizes) + 1), 2.0 / (max(sizes) + 1))

    def p_declared(self, null, score):
        """The largest p among the parts of the copies that hold declared ones."""
        return max((rank(null[part], score) for part in self.declared_strata), default=1.0)

    def detected(self, hows, among, null):
        """By kind, how many of the tampered copies would not be called intact, and of how many."""
        found: dict[str, list[int]] = {}
        for i, how in enumerate(hows):
            if i not in self.compressed:
                caught, total = found.get(kind_of(how), [0, 0])
                p = self.p_declared(null, nearest(among[i], self.declared))
                found[kind_of(how)] = [caught + (p <= self.level), total + 1]
        return found

    def conclude(self, hows, allowed, queries):
        """Intact, altered or unknown."""
        figures, excess = self.figures, self.figures["p_excess"]
        if len(self.calibrating) < FEWEST_COPIES or queries < FEWEST_PROBES:
            return "unknown"
        if figures["p_declared"] > self.level and (excess is None or excess > 1.0 / (len(self.ranking) + 1)):
            return "intact"
        known = True in self.strata and all(self.reached(limit, hows) for limit in allowed)
        return "altered" if figures["p_compressed"] <= self.level and known else "unknown"

    def reached(self, limit, hows):
        """Whether a copy is as strong as a declared limit; that of pruning and of rounded activations calibrates."""
        steps = steps_of(limit)
        calibrate = any(step[0] == "prune" for step in steps) or rounds(limit)
        known = self.calibrating if calibrate else self.compressed
        return not steps or any(within(limit, [hows[i]]) for i in known)


def pruning(how):
    """The steps that prune."""
    return [step for step in steps_of(how) if step[0] == "prune"]


def exceeded(step, known):
    """Whether something is pruned more in the same scope: the last one of a scope has one neighbour only."""
    return any(other != step and covers(other, step) for other in known)


def rounds(how):
    """Whether activations are rounded, too."""
    return any(step[1:2] in (("static",), ("dynamic",)) for step in steps_of(how))


def nearest(row, among):
    """The smallest of some ratios."""
    return min((row[i] for i in among), default=math.inf)


def compare(concluded, verdict, name):
    """The stated figures and the stated conclusion are those that follow."""
    stated = verdict["integrity_evidence"]
    for what, mine in concluded.figures.items():
        theirs = stated[what]
        same = (
            math.isclose(mine, theirs, rel_tol=1e-6, abs_tol=1e-9)
            if number(mine) and number(theirs)
            else mine == theirs
        )
        if not same:
            raise Wrong("%s: %s of its integrity is %s, stated as %s" % (name, what, mine, theirs))
    if stated["nearest"] not in concluded.nearest:
        raise Wrong("%s: the nearest copy is not %s" % (name, stated["nearest"]))
    stands = by_weights(verdict) or (concluded.integrity == "intact" and doubted(verdict))
    if verdict["integrity"] != concluded.integrity and not stands:
        text = "%s: its integrity is %s, stated as %s"
        raise Wrong(text % (name, concluded.integrity, verdict["integrity"]))


def by_weights(verdict):
    """Whether `intact` rests on weights that are bit for bit the owner's, with every probe answered as it does."""
    weights, evidence = verdict.get("weights"), verdict.get("integrity_evidence")
    same = bool(weights) and weights["complete"] and weights["relation"] in SAME
    answered = verdict["match_rate"] == 1.0 and (evidence is None or not evidence["differing"])
    return verdict["integrity"] == "intact" and verdict["lineage"] == "derived" and same and answered


def doubted(verdict):
    """Whether `intact` was taken back, for weights that were changed beyond rounding and pruning."""
    weights = verdict.get("weights")
    return verdict["integrity"] == "unknown" and bool(weights) and weights["relation"] in CHANGED


def number(value):
    """Whether it is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def suspect_labels(copies, row, labels):
    """The suspect's label on each probe of the copies, in common classes; None where that can't be told."""
    given = dict(zip(row["answers"]["probes"], row["answers"]["labels"]))
    if labels is None:
        return [given[i] for i in copies.probes]
    common = {index: c for c, index in enumerate(labels["to_suspect"])}
    found = [common.get(raw(given[i], row)) for i in copies.probes]
    return None if None in found else found


def check_margins(copies, labels, margins, classes, name):
    """A log margin is positive where the label is the owner's, and negative where it is another class."""
    if margins is None:
        return
    if len(margins) != copies.count:
        raise Wrong("%s: not one log margin to each integrity probe" % name)
    for margin, label, target in zip(margins, labels, copies.labels[0]):
        if 0 <= label < classes and abs(margin) > 1e-4 and (margin > 0) != (label == target):
            raise Wrong("%s: a log margin contradicts the answer" % name)
