"""Weights of two files: what is said of copies, and that strangers are never called relatives by chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from fingerprint.decision.attribution import Attribution, by_weights
from fingerprint.decision.weight_pairs import PERMUTATIONS, merge, rank, rearranged
from fingerprint.decision.weights import compare, explained
from fingerprint.runtimes.sketch import WeightSketch, sketch

Weights = dict[str, NDArray[np.float32]]
CLASSES = 10
SHAPES = {
    "conv1.weight": (16, 3, 3, 3), "conv1.bias": (16,), "conv2.weight": (24, 16, 3, 3), "conv3.weight": (24, 24, 3, 3),
    "conv4.weight": (24, 24, 3, 3), "hidden.weight": (48, 96), "fc.weight": (CLASSES, 48), "fc.bias": (CLASSES,),
}  # fmt: skip


def network(seed: int) -> Weights:
    """Weights of a network initialised by itself, with a structure that all networks share: smooth filters."""
    rng = np.random.default_rng(seed)
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    shared = np.random.default_rng(0).standard_normal((1, 1, 3, 3)).astype(np.float32)
    return {name: value + (shared if value.ndim == 4 else 0) for name, value in made.items()}


def edited(weights: Weights, edit: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Weights:
    return {name: edit(value) if value.ndim > 1 else value for name, value in weights.items()}


def seen(weights: Weights) -> WeightSketch:
    return sketch(weights, "safetensors")


def pruned(value: NDArray[np.float32], share: float = 0.5) -> NDArray[np.float32]:
    return np.where(np.abs(value) < np.quantile(np.abs(value), share), np.float32(0), value)


def rounded(value: NDArray[np.float32], bits: int = 8) -> NDArray[np.float32]:
    rows = np.abs(value.reshape(len(value), -1)).max(axis=1).reshape(-1, *[1] * (value.ndim - 1))
    step = rows / (2 ** (bits - 1) - 1)
    return (np.round(value / step) * step).astype(np.float32)


def permuted(weights: Weights, seed: int = 5) -> Weights:
    """The same function: each hidden layer's channels in another order, and the next layer's inputs with them."""
    rng, made, before = np.random.default_rng(seed), dict(weights), None
    for name in ("conv1", "conv2", "conv3", "conv4"):
        value = made[f"{name}.weight"] if before is None else made[f"{name}.weight"][:, before]
        before = rng.permutation(len(value))
        made[f"{name}.weight"] = value[before]
        if f"{name}.bias" in made:
            made[f"{name}.bias"] = made[f"{name}.bias"][before]
    hidden = made["hidden.weight"].reshape(48, 24, 4)[:, before].reshape(48, 96)
    before = rng.permutation(48)
    made["hidden.weight"], made["fc.weight"] = hidden[before], made["fc.weight"][:, before]
    return made


OWNER = network(1)
KNOWN = seen(OWNER)


def test_the_same_file_and_renamed_tensors() -> None:
    same = compare(KNOWN, seen(OWNER), CLASSES)
    assert (same.relation, same.identical, same.tensors, same.complete) == ("identical", 6, 6, True)
    assert same.p_value == pytest.approx(1e-4, abs=2e-4)
    other = {f"model.{i}": value for i, value in enumerate(reversed(OWNER.values()))}
    renamed = compare(KNOWN, seen(other), CLASSES)
    assert (renamed.relation, renamed.renamed, renamed.complete) == ("renamed", 6, True)
    assert "other names" in explained(renamed)


def test_one_changed_bias_is_not_complete() -> None:
    changed = {**OWNER, "fc.bias": OWNER["fc.bias"] + np.float32(1e-3)}
    found = compare(KNOWN, seen(changed), CLASSES)
    assert not found.complete
    assert found.relation == "re-encoded"
    assert found.identical == found.tensors


@pytest.mark.parametrize("name", ["as they are", "int8", "renamed"])
def test_channels_in_another_order_are_found(name: str) -> None:
    made = permuted(OWNER)
    if name == "int8":
        made = edited(made, rounded)
    if name == "renamed":
        made = {f"w{i}": value for i, value in enumerate(made.values())}
    found = compare(KNOWN, seen(made), CLASSES)
    assert found.relation == "reordered", found
    assert found.reordered >= 5
    assert found.missing == 0


@pytest.mark.parametrize(
    ("edit", "kind", "bits"),
    [
        (rounded, "quantized", 8),
        (lambda v: rounded(v, 4), "quantized", 4),
        (pruned, "pruned", None),
        (lambda v: pruned(v, 0.8), "pruned", None),
        (lambda v: rounded(pruned(v, 0.6)), "pruned", 8),
    ],
)
def test_compression_is_told_from_its_marks(
    edit: Callable[[NDArray[np.float32]], NDArray[np.float32]], kind: str, bits: int | None
) -> None:
    found = compare(KNOWN, seen(edited(OWNER, edit)), CLASSES)
    assert (found.relation, found.bits, found.changed) == ("compressed", bits, ()), found
    assert found.p_value is not None
    assert found.p_value < 0.01
    named = by_weights(None, found)
    assert named is not None
    assert (named.kind, named.basis) == (kind, "weights")


def test_a_factor_for_each_channel_and_half_precision_are_conversion() -> None:
    scale = np.random.default_rng(3).uniform(0.2, 4.0, 64).astype(np.float32)
    folded = edited(OWNER, lambda v: v * scale[: len(v)].reshape(-1, *[1] * (v.ndim - 1)))
    for made in (folded, edited(OWNER, lambda v: v.astype(np.float16).astype(np.float32))):
        found = compare(KNOWN, seen(made), CLASSES)
        assert found.relation == "re-encoded", found
        assert found.correlation == pytest.approx(1.0, abs=1e-3)


def test_a_tuned_head_is_named_and_a_tuned_network_is_changed() -> None:
    rng = np.random.default_rng(7)
    head = {**OWNER, "fc.weight": OWNER["fc.weight"] + rng.normal(0, 0.2, (CLASSES, 48)).astype(np.float32)}
    found = compare(KNOWN, seen(head), CLASSES)
    assert (found.relation, found.changed) == ("changed in part", ("fc.weight",))
    whole = edited(OWNER, lambda v: v + 0.3 * rng.standard_normal(v.shape).astype(np.float32))
    found = compare(KNOWN, seen(whole), CLASSES)
    assert found.relation == "changed"
    assert len(found.changed) == 6
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert 0.8 < (found.correlation or 0.0) < 1.0


def test_changed_weights_rule_compression_out_of_attribution() -> None:
    rng = np.random.default_rng(8)
    whole = edited(OWNER, lambda v: v + 0.1 * rng.standard_normal(v.shape).astype(np.float32))
    found = compare(KNOWN, seen(whole), CLASSES)
    answers = Attribution("quantized", {"quantized": 0.6, "pruned": 0.1, "fine-tuned": 0.25, "tampered": 0.05}, 0.7)
    named = by_weights(answers, found)
    assert named is not None
    assert (named.kind, named.probabilities) == ("fine-tuned", {"fine-tuned": 0.8333, "tampered": 0.1667})
    assert by_weights(None, found) is None


def test_matrices_may_lie_the_other_way_round() -> None:
    turned = {n: np.ascontiguousarray(v.T) if v.ndim == 2 else v for n, v in edited(OWNER, rounded).items()}
    found = compare(KNOWN, seen(turned), CLASSES)
    assert (found.relation, found.missing) == ("compressed", 0)


def test_tflite_keeps_its_convolutions_in_another_layout() -> None:
    turned = {n: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v for n, v in OWNER.items()}
    assert compare(KNOWN, sketch(turned, "tflite"), CLASSES).relation == "identical"


def test_strangers_are_unlike_and_their_p_values_valid() -> None:
    found = [compare(KNOWN, seen(network(seed)), CLASSES) for seed in range(100, 116)]
    assert {f.relation for f in found} == {"unlike"}
    p = np.array([f.p_value for f in found])
    assert (p > 0.01).all()
    assert (p <= 0.3).mean() <= 0.6  # Rüger's rule is conservative


def test_constants_that_all_networks_share_make_no_relatives() -> None:
    constant = {"blur.weight": np.full((16, 1, 3, 3), 1 / 9, np.float32)}
    found = compare(seen({**OWNER, **constant}), seen({**network(50), **constant}), CLASSES)
    assert (found.relation, found.identical) == ("unlike", 1)


def test_networks_of_other_shapes_can_not_be_compared() -> None:
    other = {"a": np.random.default_rng(2).standard_normal((7, 5, 3, 3)).astype(np.float32)}
    found = compare(KNOWN, seen(other), CLASSES)
    assert (found.relation, found.p_value, found.extra) == ("unknown", None, 1)
    assert compare(KNOWN, seen({}), CLASSES).relation == "unknown"


def test_the_rank_is_exact_over_all_orders() -> None:
    """Rows in a random order, whatever they look like: P(p <= u) <= u."""
    rng, p = np.random.default_rng(11), []
    base = rng.standard_normal((12, 6))
    for _ in range(100):
        p.append(rank(base @ base[rng.permutation(12)].T / 6))
    ordered = np.sort(p)
    assert (ordered + 0.17 >= np.arange(1, 101) / 100).all()  # Kolmogorov-Smirnov, 1 %
    assert rank(base @ base.T) == pytest.approx(1 / (PERMUTATIONS + 1))


def test_merging() -> None:
    assert merge([]) is None
    assert merge([0.2]) == 0.2
    assert merge([0.01, 0.9]) == pytest.approx(0.02)
    assert merge([0.9, 0.01, 0.02]) == pytest.approx(0.03)
    assert merge([1.0, 1.0]) == 1.0


def test_few_rows_of_strangers_are_found_in_another_order() -> None:
    shares = [
        rearranged(one, other)
        for seed in range(200, 208)
        for one, other in zip(KNOWN.views, seen(network(seed)).views, strict=True)
    ]
    assert max(shares) < 0.3
    assert min(rearranged(view, view) for view in KNOWN.views) == 1.0
