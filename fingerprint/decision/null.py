"""Models of how strongly an *unrelated* model agrees with a fingerprint: the between-model error.

A `Null` answers one question: how often does an unrelated model reach this value or more? Three kinds, as DESIGN
section 7 names them. Every one is built from calibration references only, never from suspects.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.distributions import student_t_quantile
from fingerprint.errors import CalibrationError

MINIMUM_FITTED = 7  # references; below that a fitted tail says nothing
CONFIDENCE = 0.95  # of the upper limit on a fitted tail
PRIOR_CORRELATION = 0.5  # between two models of one author, before any is seen
PRIOR_AUTHORS = 3  # how many authors that assumption is worth
GRID = (40, 40)  # logit means x overdispersions at which a fitted tail is looked at
ZOOMS = 3  # times that the grid is laid, closer round the confidence region each time


class Null(Protocol):
    """The distribution of a statistic over unrelated models, as an upper limit of its tail."""

    @property
    def confidence(self) -> float | None:
        """Of the upper limit, or None where the tail is exact."""

    def tail(self, value: float) -> float:
        """Upper limit of P(an unrelated model's statistic >= value)."""

    def threshold(self, gamma: float) -> float | None:
        """The smallest value whose tail is at most gamma, or None where no value reaches that level."""


def author_weights(rates: Sequence[float], authors: Sequence[str | None]) -> NDArray[np.float64]:
    """Weight (n,) of each reference: m models of one author count as m / (1 + (m - 1) * r) independent ones.

    The unit is the model, clustered by author (Kish's design effect). r is `author_correlation`. A reference without a
    stated author stands for itself.
    """
    sizes = Counter(a for a in authors if a is not None)
    r = author_correlation(rates, authors)
    return np.array([1.0 if a is None else 1.0 / (1.0 + (sizes[a] - 1) * r) for a in authors])


def author_correlation(rates: Sequence[float], authors: Sequence[str | None]) -> float:
    """Intra-author correlation of a statistic: the ANOVA estimate, shrunk towards `PRIOR_CORRELATION`.

    Few authors can't show that their models are independent, so the prior counts as much as `PRIOR_AUTHORS` of them.
    """
    groups: dict[object, list[float]] = {}
    for i, (rate, author) in enumerate(zip(rates, authors, strict=True)):
        groups.setdefault(author if author is not None else i, []).append(rate)
    count, models = len(groups), len(rates)
    if count < 2 or models == count:
        return PRIOR_CORRELATION
    sizes = np.array([len(g) for g in groups.values()], np.float64)
    means = np.array([np.mean(g) for g in groups.values()])
    centre = float(np.mean(rates))
    between = float(sizes @ (means - centre) ** 2) / (count - 1)
    within = sum(float(((np.array(g) - np.mean(g)) ** 2).sum()) for g in groups.values()) / (models - count)
    typical = (models - float((sizes**2).sum()) / models) / (count - 1)
    total = between + (typical - 1.0) * within
    estimate = min(1.0, max(0.0, (between - within) / total)) if total > 0 else PRIOR_CORRELATION
    return (count * estimate + PRIOR_AUTHORS * PRIOR_CORRELATION) / (count + PRIOR_AUTHORS)


def likelihood_drop(units: float) -> float:
    """How far the log-likelihood may fall below its maximum inside the confidence region of one tail probability.

    The profile-likelihood limit with its small-sample (Student t) form instead of the chi-square one; two-sided at
    `CONFIDENCE`, so that the one-sided limit is somewhat conservative. Checked by simulation in tests/decision.
    """
    freedom = units - 2.0  # two fitted parameters
    if freedom <= 0.05:
        return math.inf
    t = student_t_quantile(0.5 + CONFIDENCE / 2.0, freedom)
    return 0.5 * units * math.log1p(t * t / freedom)


@dataclass(frozen=True)
class ConformalNull:
    """Rank among n exchangeable references: P <= (1 + #{reference >= value}) / (n + 1). Distribution-free."""

    values: tuple[float, ...]
    confidence: float | None = None

    def tail(self, value: float) -> float:
        """See `Null.tail`."""
        return (1 + sum(v >= value for v in self.values)) / (len(self.values) + 1)

    def threshold(self, gamma: float) -> float | None:
        """See `Null.threshold`."""
        above = sorted(self.values)
        if 1.0 / (len(above) + 1) > gamma:
            return None
        allowed = math.floor(gamma * (len(above) + 1) + 1e-9) - 1  # references that may reach the threshold
        if allowed >= len(above):
            return -math.inf
        return math.nextafter(above[len(above) - allowed - 1], math.inf)


class BetaBinomialNull:
    """Fitted tail of match counts: beta-binomial over models, with an upper confidence limit on every tail.

    Each reference's count S_i of N probes is one draw; its log-likelihood is weighted by `author_weights`. The upper
    limit is the largest tail over all (mean, overdispersion) whose log-likelihood is within `likelihood_drop` of the
    best. A model assumption, and printed as one.
    """

    def __init__(self, counts: Sequence[int], probes: int, authors: Sequence[str | None]) -> None:
        if len(counts) < MINIMUM_FITTED:
            raise CalibrationError(
                f"{len(counts)} references can't carry a fitted tail", remedy=f"Give at least {MINIMUM_FITTED}."
            )
        self.confidence: float | None = CONFIDENCE
        self.probes = probes
        weights = author_weights([math.asin(math.sqrt(c / probes)) for c in counts], authors)
        allowed = likelihood_drop(float(weights.sum()))
        least = 0.1 / probes  # smaller overdispersions are hardly told apart: the grid is even in log(over + least)
        logit = np.linspace(-9.0, 5.0, GRID[0])
        log_over = np.linspace(math.log(least + 1e-6), math.log(least + 0.95), GRID[1])
        for _ in range(ZOOMS):  # the region of many references is narrower than a cell of the first grid
            log_pmf = _beta_binomial_log_pmf(probes, logit, np.exp(log_over) - least)  # (G, N + 1)
            fit = log_pmf[:, np.asarray(counts)] @ weights  # (G,)
            region = fit >= fit.max() - allowed
            cells = region.reshape(len(log_over), len(logit))
            logit, log_over = _closer(logit, cells.any(axis=0)), _closer(log_over, cells.any(axis=1))
        pmf = np.exp(log_pmf[region])
        tails = np.cumsum(pmf[:, ::-1], axis=1)[:, ::-1]  # (R, N + 1): P(S >= s)
        self._tails = np.minimum(1.0, tails.max(axis=0))

    def tail(self, value: float) -> float:
        """See `Null.tail`; `value` is a count of matches out of all probes."""
        count = math.ceil(value - 1e-9)
        return 0.0 if count > self.probes else float(self._tails[max(0, count)])

    def threshold(self, gamma: float) -> float | None:
        """See `Null.threshold`."""
        enough = np.nonzero(self._tails <= gamma)[0]
        return float(enough[0]) if len(enough) else None


def _closer(axis: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """As many values round the part of an axis that is inside, two cells beyond it on either side."""
    found = np.nonzero(inside)[0]
    return np.linspace(axis[max(0, found[0] - 2)], axis[min(len(axis) - 1, found[-1] + 2)], len(axis))


def _beta_binomial_log_pmf(probes: int, logit: NDArray[np.float64], over: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log probabilities (G, N + 1) on a grid of logit means and overdispersions 1 / (a + b + 1)."""
    grid_mean, grid_over = (g.ravel() for g in np.meshgrid(1.0 / (1.0 + np.exp(-logit)), over))
    total = 1.0 / grid_over - 1.0
    a, b = grid_mean * total, (1.0 - grid_mean) * total
    steps = np.arange(probes)
    rise_a = _cumulative_log(a, steps)  # log of a (a + 1) ... (a + s - 1), s = 0..N
    rise_b = _cumulative_log(b, steps)[:, ::-1]
    rise_total = np.log(total[:, None] + steps).sum(axis=1)
    choose = np.array(
        [math.lgamma(probes + 1) - math.lgamma(s + 1) - math.lgamma(probes - s + 1) for s in range(probes + 1)]
    )
    return np.asarray(choose + rise_a + rise_b - rise_total[:, None])


def _cumulative_log(start: NDArray[np.float64], steps: NDArray[np.int64]) -> NDArray[np.float64]:
    logs = np.log(start[:, None] + steps)
    return np.concatenate([np.zeros((len(start), 1)), np.cumsum(logs, axis=1)], axis=1)


class NormalNull:
    """Fitted tail of a real-valued statistic that is about normal over models (Fisher z of a correlation).

    The same construction as `BetaBinomialNull` with a normal law.
    """

    def __init__(self, values: Sequence[float], authors: Sequence[str | None]) -> None:
        if len(values) < MINIMUM_FITTED:
            raise CalibrationError(
                f"{len(values)} references can't carry a fitted tail", remedy=f"Give at least {MINIMUM_FITTED}."
            )
        self.confidence: float | None = CONFIDENCE
        weights = author_weights(values, authors)
        units = float(weights.sum())
        sample = np.asarray(values, np.float64)
        centre = float(weights @ sample / units)
        spread = max(math.sqrt(float(weights @ (sample - centre) ** 2 / units)), 1e-3)
        self._mean, self._sd = _normal_region(centre, spread, units)

    def tail(self, value: float) -> float:
        """See `Null.tail`."""
        z = (value - self._mean) / self._sd
        smallest = float(z.min())
        return 0.5 * math.erfc(smallest / math.sqrt(2.0))

    def threshold(self, gamma: float) -> float | None:
        """See `Null.threshold`."""
        if self.tail(1e6) > gamma:
            return None
        low, high = -1e6, 1e6
        for _ in range(200):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self.tail(middle) <= gamma else (middle, high)
        return high


def _normal_region(centre: float, spread: float, units: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and deviations on a grid inside the confidence region."""
    shift, stretch = np.meshgrid(np.linspace(-8.0, 8.0, 161), np.geomspace(0.2, 1e4, 400))
    drop = 0.5 * units * (2.0 * np.log(stretch) + (1.0 + shift**2) / stretch**2 - 1.0)
    inside = drop <= likelihood_drop(units)
    return centre + spread * shift[inside], spread * stretch[inside]
