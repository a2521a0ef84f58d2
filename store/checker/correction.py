"""The correction over all tests of a run (Benjamini and Hochberg, 1995), recomputed from the results."""

from __future__ import annotations

import math

from .reading import Wrong


def tests_of(results):
    """(total p-value, lineage, the suspect's path) of every test."""
    found = []
    for result in results:
        verdict = result["row"].get("verdict")
        if verdict and verdict.get("total_p") is not None:
            found.append((verdict["total_p"], verdict["lineage"], str(result["row"]["suspect"]["path"])[:80]))
    return found


def threshold_of(tests, level):
    """(the largest p-value that stands, how many do)."""
    ordered = sorted(p for p, _, _ in tests)
    last = max((i for i, p in enumerate(ordered, start=1) if p <= level * i / len(ordered)), default=0)
    return (ordered[last - 1] if last else 0.0), last


def compare(signed, tests, level):
    """The correction that was signed is the one that follows."""
    threshold, count = threshold_of(tests, level)
    same = math.isclose(threshold, signed["threshold"], rel_tol=1e-12)
    if signed["level"] != level or signed["discoveries"] != count or not same:
        stated = (signed["discoveries"], signed["threshold"], count, threshold)
        raise Wrong("the correction says that %d findings stand, up to p = %.3g; it is %d, up to %.3g" % stated)
