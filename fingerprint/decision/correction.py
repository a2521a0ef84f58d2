"""Many suspects x many fingerprints: false discovery rate over all tests of an audit."""

from __future__ import annotations

from collections.abc import Sequence

from fingerprint.frozen import dataclass


@dataclass(frozen=True)
class Correction:
    """What was controlled. `threshold`: the largest total p-value that still counts; 0 where none does."""

    method: str
    level: float
    tests: int
    discoveries: int
    threshold: float


def benjamini_hochberg(p_values: Sequence[float], level: float) -> Correction:
    """Benjamini and Hochberg (1995). Controls the FDR for independent or positively dependent p-values.

    Conformal p-values that share references are positively dependent (Bates et al., 2023).
    """
    ordered = sorted(p_values)
    count = len(ordered)
    passing = [i for i, p in enumerate(ordered, start=1) if p <= level * i / count]
    last = passing[-1] if passing else 0
    threshold = ordered[last - 1] if last else 0.0
    return Correction("benjamini-hochberg", level, count, last, threshold)
