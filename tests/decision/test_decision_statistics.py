"""What is measured on a suspect's answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fingerprint.decision.statistics import align, centred_log_outputs, correlation, fisher_z, is_soft, measure
from fingerprint.model import Floats

LOGITS = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 12), st.integers(2, 8)), elements=st.floats(-4, 4, width=32)
).filter(lambda a: float(np.ptp(a, axis=1).min()) > 0.1)


def softmax(logits: Floats) -> Floats:
    values = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def one_hot(labels: list[int], classes: int) -> Floats:
    return np.eye(classes, dtype=np.float32)[labels]


@given(LOGITS, st.integers(0, 2**32 - 1))
def test_logits_and_their_softmax_correlate_alike(logits: Floats, seed: int) -> None:
    owner = np.random.default_rng(seed).normal(size=logits.shape).astype(np.float32)
    by_logits, by_softmax = correlation(owner, logits), correlation(owner, softmax(logits))
    assert by_logits is not None
    assert by_softmax == pytest.approx(by_logits, abs=1e-3)


@given(LOGITS)
def test_correlation_with_itself_is_one(logits: Floats) -> None:
    assert correlation(logits, logits) == pytest.approx(1.0, abs=1e-9)
    assert correlation(logits, softmax(logits)) == pytest.approx(1.0, abs=1e-4)
    opposed = correlation(logits, -logits)
    assert opposed is not None
    assert opposed < 0


@given(LOGITS, st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_correlation_is_symmetric_bounded_and_blind_to_shifts(logits: Floats, seed: int, shift: float) -> None:
    other = np.random.default_rng(seed).normal(size=logits.shape).astype(np.float32)
    value = correlation(logits, other)
    assert value is not None
    assert -1.0 <= value <= 1.0
    assert correlation(other, logits) == pytest.approx(value, abs=1e-12)
    assert correlation(logits + np.float32(shift), other) == pytest.approx(value, abs=1e-2)


def test_centred_by_hand() -> None:
    values = centred_log_outputs(np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], np.float32))
    half, quarter = math.log(0.5), math.log(0.25)
    mean = (half + 2 * quarter) / 3
    assert values[0] == pytest.approx([half - mean, quarter - mean, quarter - mean])
    floor = math.log(1e-4)  # a quantized zero is no certainty
    assert values[1] == pytest.approx([-2 / 3 * floor, floor / 3, floor / 3])


def test_logits_of_huge_range_are_floored_like_probabilities() -> None:
    values = centred_log_outputs(np.array([[1000.0, 0.0, -1000.0]], np.float32))
    assert np.isfinite(values).all()
    assert values[0, 1] == values[0, 2]


def test_no_correlation_where_undefined() -> None:
    some = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert correlation(some, some[:, :2]) is None
    assert correlation(some, np.zeros((4, 3), np.float32)) is None


def test_what_is_soft() -> None:
    rng = np.random.default_rng(0)
    assert is_soft(rng.normal(size=(100, 10)).astype(np.float32))
    assert is_soft(rng.normal(size=(100, 2)).astype(np.float32))
    assert not is_soft(one_hot([0, 1, 2] * 10, 10))
    assert not is_soft(one_hot([0, 1] * 10, 2) * 0 + 1)
    assert not is_soft(np.arange(9, dtype=np.float32)[:, None])  # one column
    few = one_hot([1] * 20, 10)
    few[:11] = rng.normal(size=(11, 10))
    assert is_soft(few)  # most rows
    few[:11] = one_hot([1] * 11, 10)
    few[:10] = rng.normal(size=(10, 10))
    assert not is_soft(few)  # half of the rows is not most


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_measure_counts_matches_after_the_offset(targets: list[int], offset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 6, len(targets))
    outputs = one_hot((answers + offset).tolist(), 6 + offset)
    responses = rng.normal(size=(len(targets), 6)).astype(np.float32)
    found = measure(np.array(targets), responses, outputs, offset)
    assert found.matches == sum(int(a) == t for a, t in zip(answers, targets, strict=True))
    assert found.queries == len(targets)
    assert found.correlation is None  # one-hot answers are labels, not soft


def test_a_background_class_that_wins_is_no_match() -> None:
    outputs = np.zeros((1, 4), np.float32)
    outputs[0, 0] = 1.0  # label 0 of the file, -1 in common labels
    responses = np.zeros((1, 3), np.float32)
    assert measure(np.array([0]), responses, outputs, 1).matches == 0


def test_soft_outputs_are_aligned_by_the_offset() -> None:
    rng = np.random.default_rng(1)
    responses = rng.normal(size=(20, 5)).astype(np.float32)
    background = np.full((20, 1), -9.0, np.float32)
    outputs = np.concatenate([background, responses], axis=1)
    found = measure(responses.argmax(axis=1), responses, outputs, 1)
    assert found.matches == 20
    assert found.correlation == pytest.approx(1.0)
    assert measure(responses.argmax(axis=1), responses, outputs, 1, label_only=True).correlation is None
    assert (align(outputs, 1, 5) == responses).all()


def test_fewer_classes_give_labels_but_no_correlation() -> None:
    rng = np.random.default_rng(1)
    responses, outputs = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)
    found = measure(outputs.argmax(axis=1), responses, outputs, 0)
    assert (found.matches, found.correlation) == (9, None)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_fisher_z_is_monotone_odd_and_finite(a: float, b: float) -> None:
    assert math.isfinite(fisher_z(a))
    assert fisher_z(-a) == -fisher_z(a)
    assert (fisher_z(a) <= fisher_z(b)) == (max(min(a, 0.999999), -0.999999) <= max(min(b, 0.999999), -0.999999))
    assert math.tanh(fisher_z(a)) == pytest.approx(a, abs=2e-6)
