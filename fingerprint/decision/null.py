"""Models of how strongly an *unrelated* model agrees with a fingerprint: the between-model error.

A `Null` answers one question: how often does an unrelated model reach this value or more? Three kinds, as DESIGN
section 7 names them. Every one is built from calibration references only, never from suspects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.random_effects import CONFIDENCE, TailLimit
from fingerprint.errors import CalibrationError
from fingerprint.frozen import dataclass

MINIMUM_FITTED = 7  # references; below that a fitted tail says nothing


class Null(Protocol):
    """The distribution of a statistic over unrelated models, as an upper limit of its tail."""

    @property
    def confidence(self) -> float | None:
        """Of the upper limit, or None where the tail is exact."""

    def tail(self, value: float) -> float:
        """Upper limit of P(an unrelated model's statistic >= value)."""

    def threshold(self, gamma: float) -> float | None:
        """The smallest value whose tail is at most gamma, or None where no value reaches that level."""


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
        allowed = math.floor(gamma * (len(above) + 1) + 1e-9) - 1  # references that may reach the threshold
        if allowed < 0:
            return None
        if allowed >= len(above):
            return -math.inf
        return math.nextafter(above[len(above) - allowed - 1], math.inf)


class MatchNull:
    """Fitted tail of match counts: a random-effects model of authors and models, with an upper confidence limit.

    Counts S of N probes are put on the variance-stabilising scale of `stabilised`, where binomial noise alone has the
    variance 1 / (4 N) whatever the match rate; see `random_effects` for the limit. A model assumption, and printed as
    one.
    """

    def __init__(self, counts: Sequence[int], probes: int, authors: Sequence[str | None]) -> None:
        _enough(len(counts))
        self.confidence: float | None = CONFIDENCE
        self.probes = probes
        self._limit = TailLimit(stabilised(np.asarray(counts, np.float64), probes), authors, floor=0.25 / probes)
        self._tails: dict[int, float] = {}

    def tail(self, value: float) -> float:
        """See `Null.tail`; `value` is a count of matches out of all probes."""
        count = max(0, math.ceil(value - 1e-9))
        if count > self.probes:
            return 0.0
        if count not in self._tails:
            edge = float(stabilised(np.array([count - 0.5]), self.probes)[0])  # P(S >= s) = P(S > s - 1/2)
            self._tails[count] = 1.0 if count == 0 else self._limit.tail(edge)
        return self._tails[count]

    def threshold(self, gamma: float) -> float | None:
        """See `Null.threshold`."""
        low, high = 0, self.probes + 1  # the tail falls with the count; at N + 1 it is 0
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.tail(middle) <= gamma else (middle + 1, high)
        return float(low) if low <= self.probes else None


def stabilised(counts: NDArray[np.float64], probes: int) -> NDArray[np.float64]:
    """Anscombe's arcsine transform of counts out of `probes`: binomial noise has variance 1 / (4 N) at every rate."""
    return np.asarray(np.arcsin(np.sqrt(np.clip((counts + 0.375) / (probes + 0.75), 0.0, 1.0))))


class NormalNull:
    """Fitted tail of a real-valued statistic that is about normal over models (Fisher z of a correlation)."""

    def __init__(self, values: Sequence[float], authors: Sequence[str | None]) -> None:
        _enough(len(values))
        self.confidence: float | None = CONFIDENCE
        self._limit = TailLimit(np.asarray(values, np.float64), authors, floor=1e-6)
        self._thresholds: dict[float, float | None] = {}  # an audit asks for the same ones with every suspect

    def tail(self, value: float) -> float:
        """See `Null.tail`."""
        return self._limit.tail(value)

    def threshold(self, gamma: float) -> float | None:
        """See `Null.threshold`."""
        if gamma not in self._thresholds:
            self._thresholds[gamma] = self._search(gamma)
        return self._thresholds[gamma]

    def _search(self, gamma: float) -> float | None:
        if self.tail(1e6) > gamma:
            return None
        low, high = -1e6, 1e6
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self.tail(middle) <= gamma else (middle, high)
        return high


def _enough(references: int) -> None:
    if references < MINIMUM_FITTED:
        raise CalibrationError(
            f"{references} references can't carry a fitted tail", remedy=f"Give at least {MINIMUM_FITTED}."
        )
