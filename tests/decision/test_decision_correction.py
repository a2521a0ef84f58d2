"""Benjamini-Hochberg against its definition, and its promise by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.decision.correction import Correction, benjamini_hochberg

P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.05, 0.5, 1.0])), max_size=40)
LEVELS = st.floats(0.001, 0.5)


def by_definition(p_values: list[float], level: float) -> set[int]:
    """Indices that are rejected: the largest set of k smallest p-values that are all at most level * k / m."""
    count = len(p_values)
    for k in range(count, 0, -1):
        chosen = {i for i, p in enumerate(p_values) if p <= level * k / count}
        if len(chosen) >= k:
            return chosen
    return set()


@given(P_VALUES, LEVELS)
def test_the_definition(p_values: list[float], level: float) -> None:
    found = benjamini_hochberg(p_values, level)
    rejected = by_definition(p_values, level)
    assert found.discoveries == len(rejected)
    assert found.tests == len(p_values)
    assert found.level == level
    if rejected:
        assert {i for i, p in enumerate(p_values) if p <= found.threshold} == rejected
    else:
        assert found.threshold == 0.0


@given(P_VALUES, LEVELS)
def test_order_does_not_matter_and_more_is_stricter(p_values: list[float], level: float) -> None:
    found = benjamini_hochberg(p_values, level)
    assert benjamini_hochberg(p_values[::-1], level) == found
    assert benjamini_hochberg([*p_values, 1.0], level).discoveries <= found.discoveries
    assert benjamini_hochberg(p_values, level / 2).discoveries <= found.discoveries


def test_worked_example() -> None:
    """The example of Benjamini and Hochberg (1995), section 4: 15 p-values, 4 discoveries at 5 %."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]  # fmt: skip  # noqa: E501
    assert benjamini_hochberg(p, 0.05) == Correction("benjamini-hochberg", 0.05, 15, 4, 0.0095)


def test_nothing_to_correct() -> None:
    assert benjamini_hochberg([], 0.01) == Correction("benjamini-hochberg", 0.01, 0, 0, 0.0)


@pytest.mark.parametrize("shared", [False, True])
def test_false_discovery_rate(shared: bool) -> None:
    """80 unrelated and 20 derived suspects. `shared`: conformal p-values that all use the same references."""
    rng = np.random.default_rng(7)
    level, shares = 0.1, []
    for _ in range(400):
        if shared:
            reference = np.sort(rng.normal(size=199))
            scores = np.concatenate([rng.normal(size=80), rng.normal(4, 1, 20)])
            p = (1 + 199 - np.searchsorted(reference, scores)) / 200
        else:
            p = np.concatenate([rng.random(80), rng.random(20) ** 8])
        threshold = benjamini_hochberg(p.tolist(), level).threshold
        chosen = p <= threshold
        shares.append(chosen[:80].sum() / max(1, chosen.sum()))
    assert np.mean(shares) <= level * 0.8 + 3 * np.std(shares) / math.sqrt(len(shares))
    assert np.mean(shares) > 0.02  # it does discover
