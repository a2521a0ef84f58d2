"""The lineage test keeps the error that it states, by simulation and by definition."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import manifest, match, references
from numpy.typing import NDArray
from test_decision_lineage import STRONG, C, one

from fingerprint.decision.distributions import hypergeometric_tail
from fingerprint.decision.lineage import LineageTest, Settings

PROBES = 60
Strangers = Callable[[np.random.Generator, int], NDArray[np.int64]]


def beta_binomial(mean: float, over: float) -> Strangers:
    total = 1 / over - 1

    def draw(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        return rng.binomial(PROBES, rng.beta(mean * total, (1 - mean) * total, size))

    return draw


def simulate(
    strangers: Strangers, n: int, settings: Settings, asked: int, draws: int, suspects: int = 300
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Strangers against a record whose references are strangers too, over many draws of the references.

    Returns:
        share of `derived` per draw (D,), total p-values (D, suspects), and the error that the verdicts state.
    """
    rng = np.random.default_rng([n, asked, round(1 / settings.alpha)])
    derived, totals, stated = [], [], 0.0
    for _ in range(draws):
        record = manifest(count=PROBES, references=references([{C: int(m)} for m in strangers(rng, n)], PROBES))
        test = LineageTest(record, settings)
        decide = cache(lambda m, test=test: test.decide({C: match(m, asked)}, asked))
        all_matches = strangers(rng, suspects)
        seen = rng.hypergeometric(all_matches, PROBES - all_matches, asked)
        verdicts = [decide(int(m)) for m in seen]
        derived.append(np.mean([v.lineage == "derived" for v in verdicts]))
        totals.append([v.total_p for v in verdicts])
        stated = verdicts[0].error
    return np.array(derived), np.array(totals), stated


def at_most(rates: NDArray[np.float64], bound: float) -> None:
    """The mean over independent draws is at most the bound, but for three standard errors."""
    assert rates.mean() <= bound + 3 * rates.std() / math.sqrt(len(rates)), rates.mean()


CASES = [
    pytest.param(39, Settings(0.05, "conformal"), PROBES, 250, id="conformal-5%-all"),
    pytest.param(39, Settings(0.05, "conformal"), 30, 80, id="conformal-5%-half"),
    pytest.param(199, Settings(0.01, "conformal"), PROBES, 100, id="conformal-1%-all"),
    pytest.param(199, Settings(0.01, "conformal"), 45, 30, id="conformal-1%-three-quarters"),
    pytest.param(9, Settings(0.05, "fitted"), PROBES, 60, id="fitted-5%-all"),
    pytest.param(20, Settings(0.05, "fitted"), 30, 40, id="fitted-5%-half"),
    pytest.param(20, Settings(0.01, "fitted"), PROBES, 60, id="fitted-1%-all"),
]


@pytest.mark.parametrize(("n", "settings", "asked", "draws"), CASES)
def test_strangers_are_derived_no_more_often_than_stated(n: int, settings: Settings, asked: int, draws: int) -> None:
    derived, totals, stated = simulate(beta_binomial(0.25, 0.06), n, settings, asked, draws)
    assert stated <= settings.alpha
    at_most(derived, stated)
    for level in (0.01, 0.05, 0.1, 0.3):  # total_p is a valid p-value at every level
        at_most((totals <= level).mean(axis=1), level)


def test_the_conformal_error_is_used_and_not_wasted() -> None:
    """With all probes answered, all of alpha is for between models, and the rank takes about all of it."""
    derived, _, stated = simulate(beta_binomial(0.5, 0.3), 39, Settings(0.05, "conformal"), PROBES, 250)
    assert stated == pytest.approx(0.05)
    assert derived.mean() > 0.15 * stated  # ties cost a part, and so does that a suspect must be nearer to the copies


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=3, max_size=25), st.integers(1, 39), st.floats(0, 1))
def test_the_total_p_of_some_probes_by_definition(matches: list[int], asked: int, rate: float) -> None:
    """The smallest level at which both halves hold: a stranger's rank, and the draw given the most it may match."""
    n, seen = len(matches), round(rate * asked)
    record = manifest(count=40, references=references([{C: m} for m in matches], 40))
    found = LineageTest(record, Settings(0.05, "conformal")).decide({C: match(seen, asked)}, asked).total_p
    levels = [1.0]
    for allowed in range(1, (n + 1) // 2 + 1):  # references, with the suspect, that may reach the threshold
        most = max((m for m in range(-1, 41) if 1 + sum(r >= m for r in matches) > allowed), default=-1)
        ways = (
            sum(math.comb(most, x) * math.comb(40 - most, asked - x) for x in range(seen, asked + 1))
            if most >= 0
            else 0
        )
        tail = ways / math.comb(40, asked) if most >= 0 else float(seen == 0)
        levels.append(max(2 * allowed / (n + 1), 2 * tail))
    assert found == pytest.approx(min(levels), rel=1e-6)


@pytest.mark.parametrize("dependent", [False, True])
def test_families_and_soft_outputs_together_keep_the_error(dependent: bool) -> None:
    """Two families, each with a label and a soft test; at the worst all four statistics are one."""
    rng = np.random.default_rng(11)
    names, alpha, rates = ("natural", C), 0.05, []

    def models(size: int) -> tuple[list[dict[str, int]], list[dict[str, float]]]:
        base = rng.normal(size=(size, 4))
        z = np.repeat(base[:, :1], 4, axis=1) if dependent else base
        counts = [{f: int(np.clip(round(15 + 4 * row[i]), 0, PROBES)) for i, f in enumerate(names)} for row in z]
        return counts, [{f: math.tanh(0.3 + 0.1 * row[i + 2]) for i, f in enumerate(names)} for row in z]

    for _ in range(25):
        counts, soft = models(15)
        record = manifest(families=dict.fromkeys(names, 0.5), count=PROBES, references=references(counts, PROBES, soft))
        test = LineageTest(record, Settings(alpha))
        counts, soft = models(50)
        verdicts = [
            test.decide({f: match(c[f], PROBES, s[f]) for f in names}, 120) for c, s in zip(counts, soft, strict=True)
        ]
        assert len({v.error for v in verdicts}) == 1
        rates.append(np.mean([v.lineage == "derived" for v in verdicts]))
    at_most(np.array(rates), verdicts[0].error)


@pytest.mark.parametrize(("asked", "bound"), [(100, 0.3), (50, 0.3), (20, 0.1), (7, 0.5)])
def test_declared_bound_holds_exactly(asked: int, bound: float) -> None:
    """A stranger that matches exactly as much as the owner declared, in expectation over the probes drawn."""
    alpha = 0.01
    test = LineageTest(manifest(declared_bound=bound), Settings(alpha, "declared"))
    verdicts = [test.decide(one(k, asked), asked) for k in range(asked + 1)]
    fewest = min((k for k, v in enumerate(verdicts) if v.lineage == "derived"), default=asked + 1)
    assert hypergeometric_tail(fewest, 100, round(100 * bound), asked) <= alpha
    assert all((v.lineage == "derived") == (k >= fewest) for k, v in enumerate(verdicts))
    assert verdicts[0].error == pytest.approx(alpha)  # and not half as much again
    assert verdicts[0].p_value is None
    assert verdicts[0].calibration is not None
    assert verdicts[0].calibration.bound == bound


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["auto", "conformal", "fitted", "declared"]),
    st.floats(0.001, 0.2),
    st.integers(0, 25),
    st.integers(1, 100),
    st.booleans(),
    st.floats(0, 1),
)
def test_the_stated_error_never_exceeds_alpha(
    kind: str, alpha: float, n: int, asked: int, label_only: bool, rate: float
) -> None:
    soft = [{C: 0.1 + 0.01 * (i % 7)} for i in range(n)]
    record = manifest(
        references=references([{C: 10 + i % 9} for i in range(n)], 100, soft), declared_bound=0.4, copies=STRONG
    )
    verdict = LineageTest(record, Settings(alpha, kind, label_only)).decide(  # type: ignore[arg-type]
        one(round(rate * asked), asked, rate), asked
    )
    assert 0.0 < verdict.error <= alpha * (1 + 1e-12)
    assert verdict.lineage != "derived" or (verdict.total_p is not None and verdict.total_p <= alpha * (1 + 1e-9))
    assert verdict.total_p is None or 0.0 <= verdict.total_p <= 1.0
    json.dumps(verdict.to_dict(), allow_nan=False)
