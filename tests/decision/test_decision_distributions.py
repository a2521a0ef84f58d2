"""Distribution functions against exact rational arithmetic and published tables."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.decision.distributions import (
    beta_cdf,
    binomial_tail,
    hypergeometric_tail,
    normal_tail,
)

PROBABILITIES = st.fractions(0, 1, max_denominator=1000)
POSITIVE = st.floats(0.05, 500.0)
UNIT = st.floats(0.0, 1.0)

NORMAL_TABLE = [
    (0.0, 0.5), (1.0, 0.15865525), (1.644853627, 0.05), (1.959963985, 0.025), (2.326347874, 0.01),
    (3.090232306, 0.001), (6.0, 9.865876e-10), (-1.0, 0.84134475),
]  # fmt: skip


def exact_binomial_tail(k: int, n: int, p: Fraction) -> Fraction:
    """P(X >= k) without rounding."""
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(max(k, 0), n + 1)), Fraction(0))


def exact_hypergeometric_tail(k: int, population: int, successes: int, draws: int) -> Fraction:
    """P(X >= k) without rounding."""
    ways = sum(
        math.comb(successes, x) * math.comb(population - successes, draws - x) for x in range(max(k, 0), draws + 1)
    )
    return Fraction(ways, math.comb(population, draws))


@given(st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(-1, n + 1), st.just(n))), PROBABILITIES)
def test_binomial_tail_is_exact(kn: tuple[int, int], p: Fraction) -> None:
    k, n = kn
    assert binomial_tail(k, n, float(p)) == pytest.approx(float(exact_binomial_tail(k, n, p)), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize(("k", "n", "p"), [(300, 1000, "1/4"), (2, 500, "1/1000"), (150, 200, "1/2"), (99, 100, "1/5")])
def test_binomial_tail_of_many_trials(k: int, n: int, p: str) -> None:
    expected = exact_binomial_tail(k, n, Fraction(p))
    assert binomial_tail(k, n, float(Fraction(p))) == pytest.approx(float(expected), rel=1e-8)


@st.composite
def urns(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(k, population, successes, draws)."""
    population = draw(st.integers(1, 120))
    successes, draws = draw(st.integers(0, population)), draw(st.integers(0, population))
    return draw(st.integers(-1, draws + 1)), population, successes, draws


@given(urns())
def test_hypergeometric_tail_is_exact(urn: tuple[int, int, int, int]) -> None:
    assert hypergeometric_tail(*urn) == pytest.approx(float(exact_hypergeometric_tail(*urn)), rel=1e-9, abs=1e-14)


def test_hypergeometric_tail_of_a_large_urn() -> None:
    expected = float(exact_hypergeometric_tail(60, 10_000, 2_000, 200))
    assert hypergeometric_tail(60, 10_000, 2_000, 200) == pytest.approx(expected, rel=1e-7)


@given(urns())
def test_hypergeometric_tail_is_symmetric_monotone_and_ends_at_one(urn: tuple[int, int, int, int]) -> None:
    k, population, successes, draws = urn
    value = hypergeometric_tail(k, population, successes, draws)
    assert value == pytest.approx(hypergeometric_tail(k, population, draws, successes), rel=1e-9, abs=1e-14)
    assert 0.0 <= hypergeometric_tail(k + 1, population, successes, draws) <= value + 1e-12 <= 1.0 + 1e-12
    if successes < population:
        assert hypergeometric_tail(k, population, successes + 1, draws) >= value - 1e-12
    assert hypergeometric_tail(0, population, successes, draws) == 1.0
    assert hypergeometric_tail(min(successes, draws) + 1, population, successes, draws) == 0.0


def test_no_successes_at_all_in_the_urn() -> None:
    """`lineage` asks this of a model that may match nothing (bound -1)."""
    assert hypergeometric_tail(0, 100, -1, 20) == 1.0
    assert hypergeometric_tail(1, 100, -1, 20) == 0.0


@given(st.integers(1, 40), st.integers(1, 40), PROBABILITIES)
def test_beta_of_whole_numbers_is_a_binomial_tail(a: int, b: int, x: Fraction) -> None:
    expected = float(exact_binomial_tail(a, a + b - 1, x))
    assert beta_cdf(float(x), a, b) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@given(UNIT, POSITIVE)
def test_beta_in_closed_form(x: float, a: float) -> None:
    assert beta_cdf(x, a, 1.0) == pytest.approx(x**a, rel=1e-9, abs=1e-14)
    assert beta_cdf(x, 1.0, a) == pytest.approx(-math.expm1(a * math.log1p(-x)) if x < 1 else 1.0, rel=1e-9, abs=1e-13)
    inner = 0.99 * x  # the arcsine is ill-conditioned at 1
    assert beta_cdf(inner, 0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(math.sqrt(inner)), abs=1e-11)


@given(UNIT, UNIT, POSITIVE, POSITIVE)
def test_beta_is_monotone_and_symmetric(x: float, y: float, a: float, b: float) -> None:
    low, high = sorted((x, y))
    assert 0.0 <= beta_cdf(low, a, b) <= beta_cdf(high, a, b) + 1e-11 <= 1.0 + 1e-9
    if 1.0 - (1.0 - x) == x:  # else the mirrored point is another one
        assert beta_cdf(x, a, b) == pytest.approx(1.0 - beta_cdf(1.0 - x, b, a), abs=1e-9)


@pytest.mark.parametrize(("z", "tail"), NORMAL_TABLE)
def test_normal_tail_as_published(z: float, tail: float) -> None:
    assert normal_tail(z) == pytest.approx(tail, rel=1e-6)


@given(st.floats(-8, 8))
def test_normal_tail_is_symmetric(z: float) -> None:
    assert normal_tail(z) + normal_tail(-z) == pytest.approx(1.0, abs=1e-14)
