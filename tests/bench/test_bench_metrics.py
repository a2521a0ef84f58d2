"""What scores say: against hand-made cases, and scipy-free intervals against their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.bench.metrics import Cell, aruc, auc, auc_interval, hits, proportion, roc, tpr, uniqueness, upper_limit
from fingerprint.decision.distributions import binomial_tail

scores = st.lists(st.floats(-5, 5), min_size=1, max_size=12)


def cell(positives: list[float], negatives: list[float]) -> Cell:
    return Cell(
        np.array(positives),
        np.array(negatives),
        tuple(f"p{i}" for i in range(len(positives))),
        tuple(f"n{i}" for i in range(len(negatives))),
    )


def test_auc_counts_pairs_and_halves_ties() -> None:
    assert auc([cell([3, 1], [2, 1])]) == (2 + 0.5) / 4
    assert auc([cell([1], [0])]) == 1.0
    assert math.isnan(auc([cell([], [1])]))


def test_auc_never_compares_across_cells() -> None:
    low, high = cell([1], [0]), cell([101], [100])
    assert auc([low, high]) == 1.0  # pooled, the second cell's negative would beat the first one's positive


@given(scores, scores)
def test_auc_is_symmetric_and_bounded(positives: list[float], negatives: list[float]) -> None:
    there, back = auc([cell(positives, negatives)]), auc([cell(negatives, positives)])
    assert 0 <= there <= 1
    assert math.isclose(there + back, 1.0)


@given(scores, scores)
def test_no_positive_is_a_hit_unless_it_beats_every_negative(positives: list[float], negatives: list[float]) -> None:
    found, total = hits([cell(positives, negatives)], 0.0)
    assert (found, total) == (sum(p > max(negatives) for p in positives), len(positives))


def test_a_rate_lets_that_many_negatives_pass() -> None:
    negatives = list(range(200))
    assert hits([cell([197.5], negatives)], 0.01) == (1, 1)  # 198 and 199 may pass
    assert hits([cell([196.5], negatives)], 0.01) == (0, 1)
    assert hits([cell([197.5], negatives)], 0.0) == (0, 1)


@pytest.mark.parametrize(("found", "total"), [(0, 10), (3, 10), (10, 10), (57, 60)])
def test_clopper_pearson_inverts_the_binomial(found: int, total: int) -> None:
    interval = proportion(found, total)
    assert interval.low <= interval.value <= interval.high
    if found:
        assert math.isclose(binomial_tail(found, total, interval.low), 0.025, rel_tol=1e-4)
    if found < total:
        assert math.isclose(1 - binomial_tail(found + 1, total, interval.high), 0.025, rel_tol=1e-4)


def test_the_interval_of_halves_lies_between_its_neighbours() -> None:
    below, half, above = (proportion(found, 10) for found in (4, 4.5, 5))
    assert half.value == 0.45
    assert below.low < half.low < above.low and below.high < half.high < above.high


def test_the_limit_that_no_false_positive_implies() -> None:
    assert math.isclose(upper_limit(0, 59), 1 - 0.05 ** (1 / 59), rel_tol=1e-6)
    assert upper_limit(5, 5) == 1.0


def test_tpr_of_nothing_is_unknown() -> None:
    assert math.isnan(tpr([], 0.0).value)


def test_the_interval_draws_whole_clusters() -> None:
    """Models that stand and fall together say as much as one."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0.7, 1.0, 40)
    alone = Cell(np.repeat(scores, 4), rng.normal(0, 1, 60), tuple(map(str, range(160))), tuple(map(str, range(60))))
    together = Cell(alone.positives, alone.negatives, tuple(str(i // 4) for i in range(160)), alone.negative_groups)
    narrow, wide = auc_interval([alone], 1), auc_interval([together], 1)
    assert narrow.value == wide.value == auc([alone])
    assert wide.high - wide.low > narrow.high - narrow.low > 0
    assert wide.low < wide.value < wide.high
    assert wide == auc_interval([together], 1)


def test_the_interval_holds_the_true_value_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    true, held = 0.76025, 0  # P(N(1, 1) > N(0, 1))
    for draw in range(200):
        made = cell(rng.normal(1, 1, 40).tolist(), rng.normal(0, 1, 40).tolist())
        found = auc_interval([made], draw, 200)
        held += found.low <= true <= found.high
    assert held / 200 > 0.88


def test_no_pair_has_no_interval() -> None:
    assert math.isnan(auc_interval([cell([], [1])], 1).low)


def test_roc_rises_from_what_beats_every_negative() -> None:
    x, y = roc([cell([3, 0.5], [1, 2])])
    assert (x[0], y[0], y[-1]) == (0.0, 0.5, 1.0)
    assert np.all(np.diff(y) >= 0)


def test_aruc_and_uniqueness() -> None:
    ones, zeros = np.ones(3), np.zeros(4)
    assert math.isclose(aruc(ones, zeros), 1.0)
    assert aruc(zeros, ones) == 0.0
    assert math.isclose(aruc(np.array([0.8]), np.array([0.2])), 0.6, abs_tol=2e-3)
    assert uniqueness(np.array([1.0, 0.9]), np.array([0.2, 0.3])) == pytest.approx(0.7)
    assert math.isnan(uniqueness(np.array([]), zeros))
