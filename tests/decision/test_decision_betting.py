"""The bet: exact on small urns, valid under optional stopping, quick on derivatives."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.decision.betting import log_wealth, reaches


def orders(count: int, matches: int, draws: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    rng = np.random.default_rng(seed)
    return rng.permuted(np.arange(count)[None, :].repeat(draws, axis=0) < matches, axis=1)


@pytest.mark.parametrize(("count", "most"), [(6, 0), (6, 3), (7, 6), (8, 4)])
def test_the_mean_wealth_is_one_where_the_hypothesis_holds_with_equality(count: int, most: int) -> None:
    """Over all orders of an urn with exactly S matches, as a fair game demands; at most one with fewer."""
    for matches in range(most + 1):
        urn = np.zeros((0, count), np.bool_)
        for places in combinations(range(count), matches):
            row = np.zeros((1, count), np.bool_)
            row[0, list(places)] = True
            urn = np.concatenate([urn, row])
        mean = np.exp(log_wealth(urn, count, most)).mean(axis=0)
        if matches == most:
            assert mean == pytest.approx(np.ones(count))
        else:
            assert (mean <= 1.0 + 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data())
def test_ville(count: int, data: st.DataObject) -> None:
    """Whoever looks after every answer is misled no more often than stated."""
    most = data.draw(st.integers(0, count))
    matches = data.draw(st.integers(0, most))
    level = data.draw(st.sampled_from([0.05, 0.01]))
    draws = 4000
    found = reaches(orders(count, matches, draws, count), count, most, level).mean()
    assert found <= level + 4 * (level * (1 - level) / draws) ** 0.5


def test_more_matches_than_allowed_settle_it() -> None:
    wealth = log_wealth(np.ones((1, 5), np.bool_), 10, 3)
    assert np.isfinite(wealth[0, :3]).all()
    assert np.isinf(wealth[0, 3:]).all()
    assert np.isinf(log_wealth(np.array([[False, True]]), 10, 0)[0, 1])


def test_a_certain_hypothesis_is_never_bet_against() -> None:
    assert log_wealth(np.ones((1, 10), np.bool_), 10, 10).max() == pytest.approx(0.0)


@pytest.mark.parametrize(("bound", "asked"), [(0.3, 7), (0.5, 10), (0.7, 18)])
def test_derivatives_are_found_in_a_few_answers(bound: float, asked: int) -> None:
    wealth = log_wealth(np.ones((1, 100), np.bool_), 100, round(100 * bound))
    assert int(np.argmax(wealth[0] >= np.log(200.0))) + 1 <= asked


def test_a_mismatch_costs_but_does_not_end_it() -> None:
    answers = np.ones((1, 60), np.bool_)
    answers[0, ::10] = False
    assert reaches(answers, 100, 50, 0.005)[0]
