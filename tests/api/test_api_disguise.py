"""Cover queries: copies are still found, hosts that tell probes apart are reported, strangers are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from api_world import World
from test_api_blackbox import FAST, function

from fingerprint.api.questioning import MOST
from fingerprint.api.results import Result
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import UsageError
from fingerprint.record import Fingerprint

Answer = Callable[[np.ndarray], np.ndarray]


def run(record: Fingerprint, pool: WorkerPool, place: str, **options: object) -> Result:
    settings = VerifyOptions(**{"alpha": 0.05, "remote": FAST, "cover": 1.0, **options})  # type: ignore[arg-type]
    (result,) = verify([place], [record], settings, pool=pool)
    return result


def looks_like_a_probe(record: Fingerprint) -> Answer:
    """What a host could learn: probes are far from every clean image, whatever small noise is on them."""
    probes = record.payload.probes.reshape(len(record.payload.probes), -1).astype(np.int64)

    def tell(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1).astype(np.int64)
        return np.abs(flat[:, None] - probes[None]).max(axis=2).min(axis=1) <= 8

    return tell


def test_a_copy_is_found_among_cover_queries(record: Fingerprint, pool: WorkerPool, owner_function: Answer) -> None:
    seen: list[int] = []

    def counted(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return owner_function(images)

    with function("mine", counted):
        result = run(record, pool, "mine:answer")
    assert result.lineage == "derived", result.reason
    assert result.verdict is not None
    assert result.verdict.queries == sum(seen)
    assert 0 < len(result.verdict.evidence) < result.verdict.queries  # as many clean images as probes
    assert max(seen) <= 2 * MOST  # step by step: with as many clean images


def test_a_host_that_answers_probes_at_random_is_evasive(
    record: Fingerprint, pool: WorkerPool, owner_function: Answer
) -> None:
    rng, is_probe = np.random.default_rng(0), looks_like_a_probe(record)

    def evade(images: np.ndarray) -> np.ndarray:
        scores = owner_function(images)
        hidden = is_probe(images)
        scores[hidden] = rng.normal(size=scores[hidden].shape)
        return scores

    with function("host", evade):
        result = run(record, pool, "host:answer")
    assert result.status == "evasive"
    assert result.verdict is None
    assert "asked again" in result.reason


def test_a_host_with_one_answer_for_all_probes_is_evasive(
    record: Fingerprint, pool: WorkerPool, owner_function: Answer
) -> None:
    """References that spread their answers: with some that don't, one answer for all would be nothing unusual."""
    is_probe, orders = looks_like_a_probe(record), record.payload.reference_orders
    assert orders is not None
    spread = np.random.default_rng(1).permuted(np.broadcast_to(np.arange(10, dtype=orders.dtype), orders.shape), axis=2)
    varied = replace(record, payload=replace(record.payload, reference_orders=spread))

    def evade(images: np.ndarray) -> np.ndarray:
        scores = owner_function(images)
        scores[is_probe(images)] = np.eye(scores.shape[1])[3] * 9
        return scores

    with function("host", evade):
        result = run(varied, pool, "host:answer", sequential=False)
    assert result.status == "evasive", result.reason
    assert "one label 3" in result.reason


def test_a_stranger_with_two_classes_is_not_evasive(record: Fingerprint, pool: WorkerPool) -> None:
    """It gives one label to half of the probes and more: so would the references, if these two were all classes."""
    rng = np.random.default_rng(2)
    orders = record.payload.reference_orders
    assert orders is not None
    spread = rng.permuted(np.broadcast_to(np.arange(10, dtype=orders.dtype), orders.shape), axis=2)
    varied = replace(record, payload=replace(record.payload, reference_orders=spread))

    def two(images: np.ndarray) -> np.ndarray:
        first = images.reshape(len(images), -1).sum(axis=1).astype(np.int64) % 2
        return np.asarray(np.eye(2, dtype=np.float32)[first] * 9)

    with function("two", two):
        result = run(varied, pool, "two:answer", jitter=0)
    assert result.status != "evasive", result.reason


def test_strangers_are_not_evasive(record: Fingerprint, pool: WorkerPool, world: World) -> None:
    (result,) = verify([world.stranger_onnx], [record], VerifyOptions(alpha=0.05, cover=1.0), pool=pool)
    assert result.status == "decided", result.reason
    assert result.lineage != "derived"


def test_a_budget_holds_for_cover_queries_too(record: Fingerprint, pool: WorkerPool, world: World) -> None:
    settings = VerifyOptions(alpha=0.05, cover=2.0, budget=120)
    (result,) = verify([world.stranger_onnx], [record], settings, pool=pool)
    assert result.verdict is not None, result.reason
    assert result.verdict.queries <= 120


@pytest.mark.parametrize("options", [{"cover": -1.0}, {"cover": 1.0, "jitter": 9}])
def test_what_makes_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="cover"):
        VerifyOptions(**options)  # type: ignore[arg-type]
