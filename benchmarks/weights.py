"""Weights of two open files: how often independent networks are called related, and what is said of copies.

    python benchmarks/weights.py --data DIR [--out .bench]

Strangers: every ordered pair of CIFAR-10 networks in DIR/cifar10 that are not one network in two containers. Copies: of
every network, edited as named; permuted ones with rows and columns of every layer in random orders.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.weight_pairs import rearranged
from fingerprint.decision.weights import WeightEvidence, compare
from fingerprint.runtimes.formats import sniff
from fingerprint.runtimes.registry import runtime_for
from fingerprint.runtimes.sketch import WeightSketch, sketch

CLASSES = 10
Values = NDArray[np.float32]
Edit = Callable[[Values, np.random.Generator], Values]


def permuted(value: Values, rng: np.random.Generator) -> Values:
    return value[rng.permutation(len(value))][:, rng.permutation(value.shape[1])]


def rounded(value: Values, bits: int) -> Values:
    rows = np.abs(value.reshape(len(value), -1)).max(axis=1).reshape(-1, *[1] * (value.ndim - 1))
    step = rows / (2 ** (bits - 1) - 1) + 1e-20
    return np.asarray(np.round(value / step) * step, np.float32)


def pruned(value: Values, share: float) -> Values:
    return np.asarray(np.where(np.abs(value) < np.quantile(np.abs(value), share), np.float32(0), value), np.float32)


def noisy(value: Values, size: float, rng: np.random.Generator) -> Values:
    return np.asarray(value + size * value.std() * rng.standard_normal(value.shape), np.float32)


EDITS: dict[str, tuple[Edit, tuple[str, ...]]] = {  # with what it should be called
    "unchanged": (lambda v, r: v, ("identical",)),
    "permuted": (permuted, ("reordered",)),
    "permuted, int8": (lambda v, r: permuted(rounded(v, 8), r), ("reordered",)),
    "permuted, int6": (lambda v, r: permuted(rounded(v, 6), r), ("reordered",)),
    "permuted, int4": (lambda v, r: permuted(rounded(v, 4), r), ("reordered",)),
    "permuted, pruned by 30 %": (lambda v, r: permuted(pruned(v, 0.3), r), ("reordered",)),
    "fp16": (lambda v, r: v.astype(np.float16).astype(np.float32), ("re-encoded",)),
    "a factor for each channel": (
        lambda v, r: v * r.uniform(0.2, 5.0, (len(v), *[1] * (v.ndim - 1))).astype(np.float32),
        ("re-encoded",),
    ),
    "int8": (lambda v, r: rounded(v, 8), ("compressed",)),
    "int4": (lambda v, r: rounded(v, 4), ("compressed",)),
    "pruned by 50 %": (lambda v, r: pruned(v, 0.5), ("compressed",)),
    "pruned by 90 %": (lambda v, r: pruned(v, 0.9), ("compressed",)),
    "pruned by 50 %, int8": (lambda v, r: rounded(pruned(v, 0.5), 8), ("compressed",)),
    "noise of 1 % of the weights": (lambda v, r: noisy(v, 0.01, r), ("changed",)),
    "noise of 30 % of the weights": (lambda v, r: noisy(v, 0.3, r), ("changed",)),
    "noise as large as the weights": (lambda v, r: noisy(v, 1.0, r), ("changed",)),
}


def weights_of(path: Path) -> tuple[dict[str, NDArray[np.generic]], str]:
    format = sniff(path)
    assert format is not None
    return runtime_for(format).weights(path, str(format)), str(format)


def same_network(one: str, other: str) -> bool:
    """One network in two containers."""
    return one.partition(".")[0] == other.partition(".")[0]


def strangers(known: dict[str, WeightSketch]) -> list[tuple[str, str, WeightEvidence, float]]:
    """Evidence on every pair, and the largest share of a layer's rows found in another order."""
    found = []
    for one, mine in known.items():
        for other, theirs in known.items():
            if same_network(one, other):
                continue
            shares = [rearranged(a, b) for a in mine.views for b in theirs.views if a.shape == b.shape]
            found.append((one, other, compare(mine, theirs, CLASSES), max(shares, default=0.0)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    given = parser.parse_args()
    files = sorted(p for p in (given.data / "cifar10").iterdir() if p.suffix in (".onnx", ".pt2"))
    tensors = {path.name: weights_of(path) for path in files}
    known = {name: sketch(*found) for name, found in tensors.items()}
    pairs = strangers(known)
    ranked = [e.p_value for *_, e, _ in pairs if e.p_value is not None]
    print(f"{len(known)} files, {len(pairs)} pairs of strangers, {len(ranked)} with layers of one shape")
    print(f"relations: {dict(Counter(e.relation for *_, e, _ in pairs))}")
    print(f"smallest p {min(ranked):.3g}; p <= 0.05 in {sum(p <= 0.05 for p in ranked)}")
    print(f"largest share of a layer's rows found in another order: {max(share for *_, share in pairs):.2f}")
    print("\n| copies | n | said | rightly |\n|---|---|---|---|")
    rows = []
    for label, (edit, right) in EDITS.items():
        said = []
        for name, (values, format) in tensors.items():
            rng = np.random.default_rng(7)
            made = {n: edit(v, rng) if v.ndim > 1 else v for n, v in values.items()}  # type: ignore[arg-type]
            said.append(compare(known[name], sketch(made, format), CLASSES).relation)
        rows.append({"copies": label, "said": dict(Counter(said)), "rightly": sum(s in right for s in said)})
        counts = ", ".join(f"{relation} {n}" for relation, n in Counter(said).most_common())
        print(f"| {label} | {len(said)} | {counts} | {rows[-1]['rightly']} |", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    written = [{"owner": a, "suspect": b, "relation": e.relation, "p": e.p_value, "rows": s} for a, b, e, s in pairs]
    (given.out / "weights.json").write_text(json.dumps({"strangers": written, "copies": rows}, indent=1))


if __name__ == "__main__":
    main()
