"""Several bets at once: their levels add up, the error stays below, and copies are found in fewer answers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.decision.betting import log_wealth
from fingerprint.decision.ladder import RATIO, RUNGS, SHARES, Rung, climbed, heights, lead, rungs, share_between
from fingerprint.decision.null import MatchNull

N = 100
STRANGERS = (8, 12, 15, 15, 18, 20, 20, 22, 25, 25, 28, 30, 30, 33, 35, 38, 40, 45, 50, 60)


def null() -> MatchNull:
    return MatchNull(list(STRANGERS), N, [None] * len(STRANGERS))


@given(level=st.floats(1e-6, 1.0), share=st.sampled_from(SHARES))
def test_the_levels_add_up(level: float, share: float) -> None:
    """The integral of what each p-value between models is told apart at: gamma, and each rung over its width."""
    found = heights(level, share)
    gammas = [gamma for gamma, _ in found]
    assert gammas[0] == pytest.approx(level * share)
    assert all(b == pytest.approx(RATIO * a) for a, b in pairwise(gammas)) and max(gammas[1:], default=0.0) <= 0.5
    widths = [b - a for a, b in pairwise([*gammas, gammas[-1] + 1.0])]
    spent = gammas[0] + sum(width * within for width, (_, within) in zip(widths, found, strict=True))
    assert spent == pytest.approx(level)
    assert all(0.0 < within < 1.0 for _, within in found)
    assert all(b < a for (_, a), (_, b) in pairwise(found)), "the more there are, the surer"


@given(level=st.floats(1e-6, 1.0))
def test_the_error_when_the_references_choose_the_share(level: float) -> None:
    """Ranks among the references that choose it: the integral of the largest of all shares bounds the error."""
    ladders = [heights(level, share) for share in SHARES]
    edges = sorted({0.0, 1.0, *(gamma for ladder in ladders for gamma, _ in ladder)})
    middles = [(0.5 * (a + b), b - a) for a, b in pairwise(edges)]

    def told(ladder: list[tuple[float, float]], u: float) -> float:
        return min([within for gamma, within in ladder if u > gamma], default=1.0)

    def error(chosen: list[list[tuple[float, float]]]) -> float:
        return sum(width * max(told(ladder, u) for ladder in chosen) for u, width in middles)

    assert all(error([ladder]) <= level * (1 + 1e-9) for ladder in ladders)
    assert error(ladders) <= 1.43 * level


def test_rungs_allow_less_the_surer_they_are() -> None:
    ladder = rungs(null(), N, 0.01, 0.7)
    assert len(ladder) == RUNGS
    assert all(b.most < a.most and b.level < a.level for a, b in pairwise(ladder))
    assert [r.most for r in ladder] == [math.ceil(null().threshold(g) or 0) - 1 for g, _ in heights(0.01, 0.7)]
    assert rungs(null(), N, 1e-9, 0.5) == (), "nothing stands out"


@pytest.mark.parametrize("place", range(RUNGS))
def test_each_rung_keeps_its_level(place: int) -> None:
    """Who matches on just as many as a rung allows is accused no more often than at its level, looked at always."""
    ladder, rng = rungs(null(), N, 0.05, 0.6), np.random.default_rng(place)
    rung, draws = ladder[place], 6000
    orders = rng.permuted(np.arange(N)[None, :].repeat(draws, axis=0) < rung.most, axis=1)
    error = (rung.level * (1 - rung.level) / draws) ** 0.5
    assert climbed(orders, N, ladder).mean() <= rung.level + 3 * error


def test_all_rungs_must_be_won() -> None:
    path = np.ones((1, 40), np.bool_)
    high, low = Rung(60, 0.05), Rung(30, 1e-9)
    assert climbed(path[:, :9], N, [high])[0] and not climbed(path[:, :9], N, [high, low])[0]
    both = np.minimum(*(log_wealth(path, N, r.most)[0] + math.log(r.level) for r in (high, low)))
    assert lead(path, N, [high, low])[0] == pytest.approx(both)
    missed = np.concatenate([path, ~path], axis=1)
    assert (np.diff(lead(missed, N, [high, low])[0]) >= 0.0).all(), "what was won stays won"
    assert not climbed(path, N, ())[0] and not climbed(path[:, :0], N, [high])[0]


def test_a_copy_is_found_in_fewer_answers_than_with_one_bet() -> None:
    level, perfect = 0.01, np.ones((1, N), np.bool_)
    share = share_between(null(), N, level)
    several = int((lead(perfect, N, rungs(null(), N, level, share))[0] < 0.0).sum())
    thresholds = {s: null().threshold(level * s) for s in SHARES}
    one = min(
        int((lead(perfect, N, [Rung(math.ceil(t) - 1, level * (1 - s))])[0] < 0.0).sum())
        for s, t in thresholds.items() if t is not None
    )  # fmt: skip
    assert several < 0.8 * one
