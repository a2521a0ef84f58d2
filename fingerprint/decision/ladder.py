"""A ladder of bets: the more unrelated models may match as many probes, the surer must the bet against it be.

Let u be the p-value, by the references, of the matches M that a suspect would show on all N probes: for unrelated
models P(u <= x) <= x. A test that says `derived` with probability at most h(u), given M, where h never rises, errs with
probability at most the integral of h from 0 to 1. One bet alone takes h = 1 up to gamma and the rest of the level
beyond: the few strangers that match on nearly gamma's S must then be told apart as surely as the many that match on
little. A ladder asks for much where many are (the last rung) and for less where few are (the first, which is the
slowest to win). Each bet is valid at any time (`betting`), and `derived` needs all of them won.

Rung i is a bet against "at most S_i match", S_i being what unrelated models exceed with probability gamma_i = gamma
RATIO^i, at the level b / (gamma_i+1 - gamma_i), the last one at b. So the error is at most gamma + RUNGS b = the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.betting import log_wealth
from fingerprint.decision.null import Null
from fingerprint.frozen import dataclass

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)  # of a level, for gamma
RUNGS, RATIO = 3, 3.0
WIDEST = 0.5  # no rung but the first lies at a larger gamma


@dataclass(frozen=True)
class Rung:
    """most: matches among all probes that the hypothesis allows; level: at which the bet against it must be won."""

    most: int
    level: float


def heights(level: float, share: float) -> list[tuple[float, float]]:
    """(gamma, level of the bet) of each rung, for a level of which `share` is kept for the error between models."""
    gammas = [level * share * RATIO**i for i in range(RUNGS)]
    gammas = [gamma for i, gamma in enumerate(gammas) if i == 0 or gamma <= WIDEST]
    part = level * (1.0 - share) / len(gammas)
    widths = [*(above - gamma for gamma, above in pairwise(gammas)), 1.0]
    return [(gamma, part / width) for gamma, width in zip(gammas, widths, strict=True)]


def rungs(null: Null, count: int, level: float, share: float) -> tuple[Rung, ...]:
    """The ladder for `count` probes; empty where no number of matches stands out at gamma."""
    found: list[Rung] = []
    for gamma, within in heights(level, share):
        threshold = null.threshold(gamma)
        if threshold is None:
            return ()
        found.append(Rung(min(count, math.ceil(threshold) - 1), within))
    return tuple(found)


def lead(matches: NDArray[np.bool_], count: int, ladder: Sequence[Rung]) -> NDArray[np.float64]:
    """How far the hardest rung is won, after each answer, (R, T): the natural logarithm of the largest wealth so far
    over that which it needs. From 0 on all of them are won. -inf where there is no rung.

    Args:
        matches: (R, T) as in `betting.log_wealth`.
        count: all probes of the family.
        ladder: the bets.
    """
    if not ladder or not matches.size:
        return np.full(matches.shape, -np.inf)
    won = [np.maximum.accumulate(log_wealth(matches, count, r.most), axis=1) + math.log(r.level) for r in ladder]
    return np.asarray(np.min(won, axis=0))


def climbed(matches: NDArray[np.bool_], count: int, ladder: Sequence[Rung]) -> NDArray[np.bool_]:
    """(R,) whether all rungs were won at some time."""
    if not matches.shape[1]:
        return np.zeros(len(matches), np.bool_)
    return np.asarray(lead(matches, count, ladder)[:, -1] >= 0.0)


def share_between(null: Null, count: int, level: float) -> float:
    """The share of a level for the error between models: the one that finds a perfect copy in the fewest answers.

    A function of the references alone, fixed before the suspect is asked. For a known law of unrelated models the level
    stays what it is; a rank among the same references is proved valid at 1.43 times the level (docs/statistics.md).

    Args:
        null: of the matches of unrelated models, out of `count` probes.
        count: all probes of the family.
        level: both errors together.
    """
    perfect = np.ones((1, count), np.bool_)
    needed: dict[float, int] = {}
    for share in SHARES:
        if ladder := rungs(null, count, level, share):
            won = np.nonzero(lead(perfect, count, ladder)[0] >= 0.0)[0]
            needed[share] = int(won[0]) if len(won) else count
    return min(needed, key=lambda share: needed[share], default=0.5)
