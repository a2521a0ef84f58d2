"""Betting against "at most S of all N probes match" while probes are asked in random order.

Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement" (NeurIPS 2020), for labels: after t
probes with s matches the next one matches with probability at most m = (S - s) / (N - t) where the hypothesis holds. A
bettor who stakes a share of his wealth on "it matches" then gains nothing on average, however he chose the stake from
what he saw. By Ville's inequality his wealth reaches 1 / level with probability at most `level`, at any time: one may
look after every answer and stop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint.frozen import dataclass


@dataclass(frozen=True)
class Bettor:
    """What decides the stake. Any bettor keeps the level, if he is chosen before the first answer.

    matches, probes: he expects the next one to match with probability (matches + s) / (probes + t).
    staked: at most this share of what a single mismatch could cost him.
    """

    matches: float
    probes: float
    staked: float


HOPEFUL = Bettor(4.9, 5.0, 1.0)  # expects a copy, which matches on nearly all: the fewest answers for one that does
CAREFUL = Bettor(4.5, 5.0, 0.9)  # for what one doesn't know well
NEARNESS = 0.1  # level of the bet that a suspect is nearer to the copies than to the references, whatever alpha is


def log_wealth(matches: NDArray[np.bool_], count: int, most: int, bettor: Bettor = HOPEFUL) -> NDArray[np.float64]:
    """Natural logarithm of the wealth after each answer.

    Args:
        matches: (R, T) whether each answer matched, in the order asked; R independent orders.
        count: N, all probes of the family; T <= N.
        most: S, matches among all N that the hypothesis allows.
        bettor: fixed before the first answer.

    Returns:
        (R, T); +inf from where the hypothesis is impossible.
    """
    asked = np.arange(matches.shape[1])
    seen = matches.cumsum(axis=1) - matches  # before each answer
    mean = np.clip((most - seen) / (count - asked), 0.0, 1.0)
    expected = (bettor.matches + seen) / (bettor.probes + asked)
    with np.errstate(divide="ignore", invalid="ignore"):
        kelly = (expected - mean) / (mean * (1.0 - mean))
        stake = np.clip(np.where(mean < 1.0, kelly, 0.0), 0.0, bettor.staked / mean)
        won = np.where(mean > 0.0, np.log1p(stake * (1.0 - mean)), np.inf)
        lost = np.where(mean > 0.0, np.log1p(-stake * mean), 0.0)
    gains = np.where(matches, won, lost)
    ended = np.isinf(gains)  # the hypothesis is impossible, or all is lost: for good
    wealth = np.where(ended, 0.0, gains).cumsum(axis=1)
    for row in np.nonzero(ended.any(axis=1))[0]:
        first = int(ended[row].argmax())
        wealth[row, first:] = gains[row, first]
    return wealth


def reaches(
    matches: NDArray[np.bool_], count: int, most: int, level: float, bettor: Bettor = HOPEFUL
) -> NDArray[np.bool_]:
    """(R,) whether the wealth reached 1 / level at some time."""
    if not matches.shape[1]:
        return np.zeros(len(matches), np.bool_)
    return np.asarray(log_wealth(matches, count, most, bettor).max(axis=1) >= -np.log(level))
