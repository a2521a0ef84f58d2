"""Upper confidence limit on the tail of a statistic over unrelated models, which cluster by author.

One-way random effects: value of model j of author i = mu + a_i + e_ij. The limit is the generalized (fiducial) one of
Krishnamoorthy and Mathew, "One-sided tolerance limits in balanced and unbalanced one-way random models based on
generalized confidence intervals", Technometrics 46 (2004): draws of (mean, variance) given the author means and the
two sums of squares; for each draw the tail beyond a value; the limit is the `CONFIDENCE` quantile of these tails. What
a new model *of a new author* gives is bounded, so ten models of one author never stand for ten authors.

The law beyond the variance is the heavier of a normal and a Student t with three degrees of freedom of equal variance,
at every level: unrelated models were seen to have heavier tails than normal ones, and it costs nothing at 0.01.

From `SEEN_SKEWED` authors on, the sum of squares between authors is at least twice that of the authors above the mean:
for a symmetric population the two are equal, and one that is skewed towards high values needs it. With fewer authors
the limit is wide enough without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95  # of the upper limit
SEEN_SKEWED = 6  # authors from which the spread above their mean counts twice where it is the larger half
DRAWS = 20_000  # of (mean, variance); fixed, from one seed, so that a verdict repeats
SEED = 20_041_101
_ROOT_3 = math.sqrt(3.0)


class TailLimit:
    """Upper confidence limit of P(value of a new unrelated model > x).

    Args:
        values: (n,) one for each reference.
        authors: of each; None stands for an author of its own.
        floor: variance that even identical references don't exclude, in squared units of the values.
    """

    def __init__(self, values: NDArray[np.float64], authors: Sequence[str | None], *, floor: float) -> None:
        groups: dict[object, list[float]] = {}
        for i, (value, author) in enumerate(zip(values.tolist(), authors, strict=True)):
            groups.setdefault(author if author is not None else i, []).append(value)
        self._mean, self._sd = _draws([np.array(g) for g in groups.values()], floor)

    def tail(self, value: float) -> float:
        """The limit at `value`, 0 to 1."""
        if not len(self._mean):
            return 1.0  # one author says nothing of another
        z = (value - self._mean) / self._sd
        worst = np.partition(z, _rank(len(z)))[_rank(len(z))]  # the tail falls with z: its quantile is that of z
        return heavier_tail(float(worst))


def heavier_tail(z: float) -> float:
    """The larger of P(Z > z) for a standard normal and for a Student t3 scaled to variance 1."""
    x = abs(z)  # t = z * sqrt(3), so t / sqrt(3) = z
    student = 0.5 - (x / (1.0 + x * x) + math.atan(x)) / math.pi
    if x > 1e3:
        student = 2.0 / (3.0 * math.pi * x**3)  # leading term: the difference above cancels
    normal = 0.5 * math.erfc(x / math.sqrt(2.0))
    return max(student, normal) if z >= 0 else 1.0 - min(student, normal)


def _rank(draws: int) -> int:
    """Index of the z below which 1 - CONFIDENCE of the draws lie."""
    return max(0, math.floor((1.0 - CONFIDENCE) * draws) - 1)


def _draws(groups: list[NDArray[np.float64]], floor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and standard deviations of a new author's model, (DRAWS,) each; empty for fewer than two authors."""
    authors, models = len(groups), sum(len(g) for g in groups)
    if authors < 2:
        return np.zeros(0), np.zeros(0)
    means = np.array([g.mean() for g in groups])
    unevenness = float(np.mean([1.0 / len(g) for g in groups]))
    away = means - means.mean()
    between = float((away**2).sum())
    if authors >= SEEN_SKEWED:
        between = max(between, 2.0 * float((away[away > 0] ** 2).sum()))
    within = sum(float(((g - g.mean()) ** 2).sum()) for g in groups)
    rng = np.random.default_rng(SEED)
    chi_between = rng.chisquare(authors - 1, DRAWS)
    normal = rng.standard_normal(DRAWS)
    variance = between / chi_between
    mean = means.mean() + normal * np.sqrt(np.maximum(variance, floor / models) / authors)
    if models > authors:
        variance = variance + (1.0 - unevenness) * within / rng.chisquare(models - authors, DRAWS)
    return mean, np.sqrt(np.maximum(variance, floor))
