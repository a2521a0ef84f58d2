"""Tails of the distributions that a verdict rests on: an implementation apart from the tool's."""

from __future__ import annotations

import math
import random

DRAWS = 20000
SLACK = 0.25  # of a p-value that is simulated; rare tails differ more between two simulations than common ones
SEEN_SKEWED = 6  # authors from which the spread above their mean counts twice where it is the larger half


def binomial_tail(k, n, p):
    """P(X >= k), X ~ Binomial(n, p)."""
    return min(1.0, sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)))


def hypergeometric_tail(k, population, good, drawn):
    """P(X >= k) good ones among `drawn` without replacement."""
    total = math.comb(population, drawn)
    counts = range(max(0, k, drawn - (population - good)), min(good, drawn) + 1)
    return sum(math.comb(good, i) * math.comb(population - good, drawn - i) for i in counts) / total


def heavier(z):
    """The larger tail of a standard normal and of a Student t3 of variance 1."""
    x = abs(z)
    student = 0.5 - (x / (1 + x * x) + math.atan(x)) / math.pi if x <= 1e3 else 2 / (3 * math.pi * x**3)
    normal = 0.5 * math.erfc(x / math.sqrt(2))
    return max(student, normal) if z >= 0 else 1 - min(student, normal)


def fitted(values, authors, floor):
    """The tail of a fitted random-effects law: its 95 % upper limit, by simulation, as a function of a value."""
    groups: dict[object, list[float]] = {}
    for i, (value, author) in enumerate(zip(values, authors)):
        groups.setdefault(author if author is not None else i, []).append(value)
    sets = list(groups.values())
    count, models = len(sets), len(values)
    if count < 2:
        return lambda value: 1.0
    means = [sum(g) / len(g) for g in sets]
    mean = sum(means) / count
    between = sum((m - mean) ** 2 for m in means)
    if count >= SEEN_SKEWED:
        between = max(between, 2 * sum((m - mean) ** 2 for m in means if m > mean))
    within = sum((v - sum(g) / len(g)) ** 2 for g in sets for v in g)
    uneven = sum(1 / len(g) for g in sets) / count
    rng, laws = random.Random(20260101), []
    for _ in range(DRAWS):
        variance = between / rng.gammavariate((count - 1) / 2, 2)
        centre = mean + rng.gauss(0, 1) * math.sqrt(max(variance, floor / models) / count)
        if models > count:
            variance += (1 - uneven) * within / rng.gammavariate((models - count) / 2, 2)
        laws.append((centre, math.sqrt(max(variance, floor))))

    def tail(value):
        ordered = sorted((value - centre) / sd for centre, sd in laws)
        return heavier(ordered[max(0, math.floor(0.05 * DRAWS) - 1)])

    return tail


def label_tail(kind, references, family, probes):
    """P(an unrelated model matches >= s of all probes), as a function of s."""
    counts = [r["families"][family]["matches"] for r in references]
    if kind == "conformal":
        return lambda s: (1 + sum(c >= s for c in counts)) / (len(counts) + 1)

    return match_tail(counts, [r["author"] for r in references], probes)


def match_tail(counts, authors, probes):
    """A fitted tail of match counts: on Anscombe's arcsine scale, where binomial noise is the same at every rate."""

    def stable(s):
        return math.asin(math.sqrt(min(1.0, max(0.0, (s + 0.375) / (probes + 0.75)))))

    limit = fitted([stable(c) for c in counts], authors, 0.25 / probes)
    return lambda s: 1.0 if s <= 0 else 0.0 if s > probes else limit(stable(math.ceil(s - 1e-9) - 0.5))


def soft_tail(kind, references, family):
    """P(an unrelated model's Fisher z >= z), or None where a reference has no soft outputs."""
    found = [r["families"][family].get("correlation") for r in references]
    if not found or any(c is None for c in found):
        return None
    values = [fisher(c) for c in found]
    if kind == "conformal":
        return lambda z: (1 + sum(v >= z for v in values)) / (len(values) + 1)
    return fitted(values, [r["author"] for r in references], 1e-6)


def fisher(c):
    """Fisher's z of a correlation, finite."""
    return math.atanh(max(-0.999999, min(0.999999, c)))


def total_of(tail, probes, matches, asked):
    """The p-value of `matches` among `asked` of all `probes`: half of the level for each of the two errors."""
    if asked == probes:
        return tail(matches)
    best = 1.0
    for most in range(probes + 1):  # the unrelated model matches at most `most` of all probes
        best = min(best, 2 * max(tail(most + 1), hypergeometric_tail(matches, probes, most, asked)))
    return min(1.0, best)


def close(mine, theirs, exact):
    """Whether two p-values agree; simulated ones need not be the same."""
    return math.isclose(mine, theirs, rel_tol=1e-6 if exact else SLACK, abs_tol=1e-9 if exact else 2e-3)
