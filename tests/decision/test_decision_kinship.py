"""Kinship: what a public ancestor explains does not count, innocent kin are compared with, and the base is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_records import manifest, match, references

from fingerprint.decision.kinship import KinshipData, kinship, with_kinship
from fingerprint.decision.lineage import LineageTest, Settings
from fingerprint.decision.verdict import Verdict

COUNT, CLASSES = 60, 10
ALPHA = 0.01


def noisy(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A model that repeats `labels` with this probability, and answers at random otherwise."""
    return np.where(rng.random(len(labels)) < share, labels, rng.integers(0, CLASSES, len(labels)))


def world(kin: int = 8, agreed: float = 0.5, seed: int = 0) -> KinshipData:
    """A base that answers some probes as the owner does; kin that repeat the base; strangers that repeat nobody."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, CLASSES, COUNT)
    base = np.where(rng.random(COUNT) < agreed, targets, (targets + 1 + rng.integers(0, 9, COUNT)) % CLASSES)
    relatives = [noisy(noisy(base, 0.8, rng), 0.9, rng) for _ in range(kin)]
    return KinshipData(
        targets=targets,
        answers=targets.copy(),
        names=("base.onnx",),
        ancestors=base[None],
        kin=np.array(relatives, np.int64).reshape(kin, COUNT),
        references=np.stack([noisy(targets, 0.1, rng) for _ in range(12)]),
        authors=tuple(f"author {i}" for i in range(12)),
    )


def derived() -> Verdict:
    test = LineageTest(
        manifest(references=references([{"characteristic": 10 + i % 5} for i in range(12)], 100)), Settings()
    )
    return test.decide({"characteristic": match(100, 100)}, 100)


@pytest.mark.parametrize("seed", range(5))
def test_a_sibling_is_not_accused_and_the_base_is_named(seed: int) -> None:
    data = world(seed=seed)
    sibling = replace(data, answers=noisy(data.ancestors[0], 0.9, np.random.default_rng(100 + seed)))
    found = kinship(sibling, ALPHA)
    verdict = with_kinship(derived(), found, data.names, ALPHA)
    assert verdict.lineage == "inconclusive"
    assert found.shares == ("base.onnx",)
    assert "shares the base base.onnx" in verdict.reason
    assert "Kinship is not theft" in verdict.reason
    assert verdict.total_p is not None
    assert verdict.total_p > ALPHA


@pytest.mark.parametrize("kin", [0, 8])
def test_a_derivative_still_is(kin: int) -> None:
    data = world(kin)
    found = kinship(data, ALPHA)
    assert found.counted == int((data.ancestors[0] != data.targets).sum())
    assert found.matches == found.counted
    assert found.kin == kin
    assert with_kinship(derived(), found, data.names, ALPHA).lineage == "derived"


def test_kin_that_agree_with_the_owner_beyond_the_base_take_the_verdict_away() -> None:
    """Both were trained on the same task: what the base does not explain, the common task does."""
    data = world()
    rng = np.random.default_rng(5)
    alike = np.stack([noisy(data.targets, share, rng) for share in (0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.8, 0.7)])
    suspect = replace(data, answers=noisy(data.targets, 0.8, rng))
    assert kinship(replace(suspect, kin=data.kin), ALPHA).p_value <= ALPHA
    found = kinship(replace(suspect, kin=alike), ALPHA)
    assert found.p_value > ALPHA
    verdict = with_kinship(derived(), found, data.names, ALPHA)
    assert verdict.lineage == "inconclusive"
    assert "8 innocent kin" in verdict.reason


def test_where_everything_is_shared_nothing_is_left_to_say() -> None:
    data = replace(world(), ancestors=world().targets[None])
    found = kinship(data, ALPHA)
    assert (found.counted, found.p_value) == (0, 1.0)
    assert with_kinship(derived(), found, data.names, ALPHA).lineage == "inconclusive"


def test_an_ancestor_never_adds_to_the_evidence() -> None:
    unsure = replace(derived(), lineage="inconclusive", p_value=0.5, total_p=0.5, reason="Too few.")
    data = world()
    verdict = with_kinship(unsure, kinship(data, ALPHA), data.names, ALPHA)
    assert (verdict.lineage, verdict.p_value, verdict.total_p) == ("inconclusive", 0.5, 0.5)
    assert verdict.reason.startswith("Too few.")


def test_without_the_references_answers_only_a_declared_bound_decides() -> None:
    blind = replace(world(kin=0), references=None)
    assert kinship(blind, ALPHA).p_value == 1.0
    assert kinship(blind, ALPHA).shares == ()
    assert kinship(replace(blind, declared=0.2), ALPHA).p_value < 1e-6
    assert kinship(replace(blind, declared=0.99), ALPHA).p_value > ALPHA


def test_a_stranger_shares_no_base() -> None:
    wrong = 0
    for seed in range(40):
        data = world(seed=seed)
        stranger = noisy(data.targets, 0.1, np.random.default_rng(900 + seed))
        wrong += bool(kinship(replace(data, answers=stranger), 0.05).shares)
    assert wrong <= 4
