"""Records made up for tests: a manifest with any references and copies, and a small payload that belongs to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from fingerprint.record import (
    Clean,
    Copy,
    Family,
    FamilyMatch,
    Fingerprint,
    Manifest,
    Owner,
    Payload,
    Probes,
    Reference,
    Seed,
    Spec,
    Tool,
    Uniqueness,
)

Counts = Mapping[str, int]
SHAPE = (4, 5, 3)
OUTPUTS = 6


def digest(text: str) -> str:
    """Some SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def match(matches: int, queries: int, correlation: float | None = None) -> FamilyMatch:
    """What one model answered to one family."""
    return FamilyMatch(matches=matches, queries=queries, correlation=correlation)


def references(
    matches: Sequence[Counts],
    count: int,
    correlations: Sequence[Mapping[str, float]] | None = None,
    authors: Sequence[str | None] | None = None,
) -> tuple[Reference, ...]:
    """References by what they match, per family."""
    soft = correlations or [{}] * len(matches)
    named = authors or [None] * len(matches)
    return tuple(
        Reference.model_construct(
            sha256=digest(f"reference {i}"),
            author=named[i],
            families={name: match(found, count, soft[i].get(name)) for name, found in each.items()},
        )
        for i, each in enumerate(matches)
    )


def manifest(
    *,
    families: Mapping[str, float] | None = None,
    count: int = 100,
    references: Sequence[Reference] = (),
    copies: Sequence[Counts] = (),
    agreements: Sequence[float | None] | None = None,
    declared_bound: float | None = None,
) -> Manifest:
    """A manifest. `families`: name to weight; each has `count` probes."""
    weights = families or {"characteristic": 1.0}
    return Manifest(
        name="made up",
        created="2026-01-01T00:00:00+00:00",
        tool=Tool(name="dnn-fingerprint", version="0"),
        owner=Owner(sha256=digest("owner"), size=10, format="onnx", runtime="onnx"),
        input_spec=Spec(
            layout="NCHW",
            shape=(SHAPE[2], SHAPE[0], SHAPE[1]),
            dtype="float32",
            range=(0.0, 1.0),
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            channels="RGB",
        ),
        outputs=OUTPUTS,
        seed=Seed(commitment=digest("K"), derivation="none", evidential=False),
        families=tuple(
            Family(name=name, count=count, weight=weight, parameters={"a": [1, 0.5, None]}, candidates=count, passes=7)
            for name, weight in weights.items()
        ),
        probes=Probes(count=count * len(weights), shape=SHAPE, merkle_root=digest("root")),
        copies=tuple(
            Copy(
                transform=f"copy:{i}",
                agreement=agreements[i] if agreements else None,
                families={name: match(found, count) for name, found in each.items()},
            )
            for i, each in enumerate(copies)
        ),
        uniqueness=Uniqueness(robustness=0.9, transferability=None, score=None),
        references=tuple(references),
        declared_bound=declared_bound,
    )


def payload(counts: Sequence[int] = (5, 3), clean: int = 2, seed: int = 0) -> Payload:
    """Random tensors of the right shapes: `counts` probes of each family."""
    rng = np.random.default_rng(seed)
    n = sum(counts)
    return Payload(
        probes=rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8),
        targets=rng.integers(0, OUTPUTS, n),
        family=np.repeat(np.arange(len(counts), dtype=np.uint8), counts),
        responses=rng.normal(size=(n, OUTPUTS)).astype(np.float32),
        salts=rng.integers(0, 256, (n, 32), dtype=np.uint8),
        secret=rng.integers(0, 256, 32, dtype=np.uint8),
        clean_images=rng.integers(0, 256, (clean, *SHAPE), dtype=np.uint8),
        clean_labels=rng.integers(-1, OUTPUTS, clean),
        clean_responses=rng.normal(size=(clean, OUTPUTS)).astype(np.float32),
        reference_orders=np.argsort(rng.normal(size=(0, n, OUTPUTS)), axis=2).astype(np.uint16),
        groups=np.where(np.arange(n) % 3 == 2, -1, np.arange(n) // 3),
    )


def fingerprint(counts: Sequence[int] = (5, 3), clean: int = 2, seed: int = 0) -> Fingerprint:
    """A whole record that passes its own check."""
    tensors = payload(counts, clean, seed)
    base = manifest(families={f"family-{i}": 1.0 / len(counts) for i in range(len(counts))})
    updated = base.model_copy(
        update={
            "families": tuple(f.model_copy(update={"count": c}) for f, c in zip(base.families, counts, strict=True)),
            "probes": Probes(count=sum(counts), shape=SHAPE, merkle_root=tensors.merkle_root()),
            "seed": base.seed.model_copy(update={"commitment": hashlib.sha256(tensors.secret.tobytes()).hexdigest()}),
            "clean": Clean(count=clean, labelled=False) if clean else None,
        }
    )
    return Fingerprint(updated, tensors)
