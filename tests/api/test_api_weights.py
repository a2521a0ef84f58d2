"""What verify says of a suspect's weights, read in the isolated worker."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import digit_models as make
import numpy as np
import pytest
import torch
from api_world import World
from torch import nn

from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.api.weights import weighed
from fingerprint.decision.integrity import IntegrityEvidence
from fingerprint.decision.verdict import Verdict
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import UnreadableModel
from fingerprint.record import Fingerprint, Payload
from fingerprint.runtimes.sketch import WeightSketch


def judge(world: World, pool: WorkerPool, record: Fingerprint, name: str, **rest: object) -> Verdict:
    options = VerifyOptions(weights=True, **rest)  # type: ignore[arg-type]
    (result,) = verify([world.folder / name], [record], options, pool=pool)
    assert result.verdict is not None, result.reason
    return result.verdict


def written(world: World, net: nn.Sequential, name: str) -> str:
    make.sidecar(make.save_onnx(net, world.folder / name))
    return name


def edited(net: nn.Sequential, edit: Callable[[int, torch.Tensor], torch.Tensor]) -> nn.Sequential:
    """A copy with other weight matrices; `edit` gets the number of each and its values."""
    changed = copy.deepcopy(net)
    with torch.no_grad():
        for number, weight in enumerate(p for p in changed.parameters() if p.ndim > 1):
            weight.copy_(edit(number, weight))
    return changed


def permuted(net: nn.Sequential) -> nn.Sequential:
    """The same function with the channels of both convolutions and the hidden layer in another order."""
    changed = copy.deepcopy(net)
    first, second, dense, last = (layer for layer in changed if isinstance(layer, nn.Conv2d | nn.Linear))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer, after in ((first, second), (second, dense), (dense, last)):
            order = torch.randperm(len(layer.weight), generator=generator)
            layer.weight.copy_(layer.weight[order].clone())
            layer.bias.copy_(layer.bias[order].clone())  # type: ignore[union-attr]
            inputs = after.weight.reshape(len(after.weight), len(order), -1)[:, order]
            after.weight.copy_(inputs.reshape(after.weight.shape).clone())
    return changed


def rounded(_: int, weight: torch.Tensor) -> torch.Tensor:
    step = weight.abs().max() / 127
    return (weight / step).round() * step


def test_the_record_keeps_a_summary_of_the_owners_weights(record: Fingerprint) -> None:
    known = record.payload.weight_sketch
    assert known is not None
    assert len(WeightSketch.from_bytes(known.tobytes()).views) >= 4
    again = Payload.from_bytes(record.payload.to_bytes())
    assert again.weight_sketch is not None
    assert (again.weight_sketch == known).all()


def test_a_renamed_copy_is_intact_without_integrity_probes(world: World, pool: WorkerPool, record: Fingerprint) -> None:
    found = judge(world, pool, record, "softmax.onnx")
    assert found.weights is not None
    assert (found.weights.relation, found.weights.renamed, found.weights.complete) == ("renamed", 4, True)
    assert (found.lineage, found.integrity) == ("derived", "intact")
    assert found.attribution is not None
    assert (found.attribution.kind, found.attribution.basis) == ("re-encoded", "weights")
    assert "other names" in found.to_dict()["explanation"]  # type: ignore[operator]


def test_a_state_dict_is_compared_too(
    world: World, pool: WorkerPool, record: Fingerprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)  # where the worker finds the factory
    found = judge(world, pool, record, "owner.safetensors", factory=make.FACTORY)
    assert found.weights is not None
    assert found.weights.relation in ("identical", "renamed")
    assert found.integrity == "intact"


def test_permuted_channels_are_found(world: World, pool: WorkerPool, record: Fingerprint) -> None:
    found = judge(world, pool, record, written(world, permuted(world.net), "w-permuted.onnx"))
    assert found.lineage == "derived"
    assert found.weights is not None
    assert (found.weights.relation, found.weights.reordered, found.weights.missing) == ("reordered", 4, 0)


def test_pruned_and_quantized_copies(world: World, pool: WorkerPool, record: Fingerprint) -> None:
    pruned = judge(world, pool, record, "pruned.onnx")
    assert pruned.weights is not None
    assert (pruned.weights.relation, pruned.integrity) == ("compressed", "unknown")
    assert pruned.weights.zeros == pytest.approx(0.5, abs=0.1)
    assert pruned.attribution is not None
    assert pruned.attribution.kind == "pruned"
    quantized = judge(world, pool, record, written(world, edited(world.net, rounded), "w-int8.onnx"))
    assert quantized.weights is not None
    assert (quantized.weights.relation, quantized.weights.bits) == ("compressed", 8)
    assert quantized.attribution is not None
    assert quantized.attribution.kind == "quantized"


def test_a_tuned_head_is_named(world: World, pool: WorkerPool, record: Fingerprint) -> None:
    generator = torch.Generator().manual_seed(1)

    def tune(number: int, weight: torch.Tensor) -> torch.Tensor:
        return weight + (0.1 * weight.std() * torch.randn(weight.shape, generator=generator) if number == 3 else 0.0)

    found = judge(world, pool, record, written(world, edited(world.net, tune), "w-head.onnx"))
    assert found.weights is not None
    assert (found.weights.relation, found.weights.changed) == ("changed in part", ("w8",))
    assert found.integrity == "unknown"
    assert "w8" in found.to_dict()["explanation"]  # type: ignore[operator]


def test_a_stranger_is_unlike_and_stays_what_its_answers_made_it(
    world: World, pool: WorkerPool, record: Fingerprint
) -> None:
    found = judge(world, pool, record, "stranger.onnx")
    assert found.weights is not None
    assert found.weights.relation == "unlike"
    assert found.lineage != "derived"
    assert (found.integrity, found.attribution) == ("unknown", None)


class Sketched:
    """An open suspect with some weights."""

    def __init__(self, sketch: WeightSketch) -> None:
        self.sketch = sketch

    def weight_sketch(self) -> WeightSketch:
        return self.sketch


def owners(record: Fingerprint) -> Sketched:
    assert record.payload.weight_sketch is not None
    return Sketched(WeightSketch.from_bytes(record.payload.weight_sketch.tobytes()))


def test_weights_accuse_nobody(world: World, pool: WorkerPool, record: Fingerprint) -> None:
    (result,) = verify([world.folder / "stranger.onnx"], [record], VerifyOptions(), pool=pool)
    assert result.verdict is not None
    for lineage in ("unrelated", "inconclusive"):
        given = replace(result, verdict=replace(result.verdict, lineage=lineage))
        found = weighed(given, record, owners(record)).verdict
        assert found is not None
        assert found.weights is not None
        assert (found.weights.relation, found.lineage, found.integrity) == ("identical", "inconclusive", "unknown")
    assert (found.total_p, found.score) == (result.verdict.total_p, result.verdict.score)


def test_the_owners_weights_are_not_unrelated(world: World, pool: WorkerPool, record: Fingerprint) -> None:
    """Another head changes what it answers, and the layers below are bit for bit the owner's."""
    (result,) = verify([world.folder / "stranger.onnx"], [record], VerifyOptions(), pool=pool)
    assert result.verdict is not None
    given = replace(result, verdict=replace(result.verdict, lineage="unrelated"))
    generator = torch.Generator().manual_seed(2)
    head = edited(world.net, lambda n, w: torch.randn(w.shape, generator=generator) if n == 3 else w)
    with SealedFile.of(world.folder / written(world, head, "w-new-head.onnx")) as sealed, pool.open(sealed) as session:
        found = weighed(given, record, session).verdict
    assert found is not None
    assert found.weights is not None
    assert (found.weights.relation, found.lineage) == ("changed in part", "inconclusive")
    assert "weights come from the owner's" in found.reason
    with SealedFile.of(world.folder / "stranger.onnx") as sealed, pool.open(sealed) as session:
        other = weighed(given, record, session).verdict
    assert other is not None
    assert other.lineage == "unrelated"


@pytest.mark.parametrize(
    ("allowed", "integrity"),
    [((), "unknown"), (("prune:magnitude:0.5",), "unknown"), (("retrain",), "intact"), (("circulant:4",), "intact")],
)
def test_changed_weights_are_not_intact(
    world: World, pool: WorkerPool, record: Fingerprint, allowed: tuple[str, ...], integrity: str
) -> None:
    """Of the probes none may see a small change; the weights show it."""
    (result,) = verify([world.folder / "softmax.onnx"], [record], VerifyOptions(), pool=pool)
    assert result.verdict is not None
    evidence = IntegrityEvidence("labels", 0.0, 1.0, 1.0, None, 0.01, 138, 40, 0, "", allowed)
    given = replace(result, verdict=replace(result.verdict, integrity="intact", integrity_evidence=evidence))
    generator = torch.Generator().manual_seed(3)
    noise = edited(world.net, lambda _, w: w + 0.02 * w.std() * torch.randn(w.shape, generator=generator))
    with SealedFile.of(world.folder / written(world, noise, "w-noise.onnx")) as sealed, pool.open(sealed) as session:
        found = weighed(given, record, session).verdict
    assert found is not None
    assert found.weights is not None
    assert (found.weights.relation, found.lineage, found.integrity) == ("changed", "derived", integrity)
    rounds = edited(world.net, rounded)
    with SealedFile.of(world.folder / written(world, rounds, "w-rounded.onnx")) as sealed, pool.open(sealed) as session:
        compressed = weighed(given, record, session).verdict
    assert compressed is not None
    assert compressed.integrity == "intact"


def test_no_weights_no_statement(world: World, pool: WorkerPool, record: Fingerprint) -> None:
    (result,) = verify([world.folder / "softmax.onnx"], [record], VerifyOptions(), pool=pool)
    assert result.verdict is not None
    assert result.verdict.weights is None  # not asked for
    older = replace(record, payload=replace(record.payload, weight_sketch=None))
    assert judge(world, pool, older, "softmax.onnx").weights is None

    class Broken:
        def weight_sketch(self) -> WeightSketch:
            raise UnreadableModel("damaged")

    assert weighed(result, record, Broken()) == result
    assert weighed(result, record, object()) == result


def test_identical_weights_with_other_answers_are_not_intact(
    record: Fingerprint, world: World, pool: WorkerPool
) -> None:
    """Weights are not the function: a graph around them may answer otherwise."""
    (result,) = verify([world.folder / "softmax.onnx"], [record], VerifyOptions(), pool=pool)
    assert result.verdict is not None
    differs = replace(result, verdict=replace(result.verdict, match_rate=0.97))

    class Same:
        def weight_sketch(self) -> WeightSketch:
            assert record.payload.weight_sketch is not None
            return WeightSketch.from_bytes(record.payload.weight_sketch.tobytes())

    found = weighed(differs, record, Same()).verdict
    assert found is not None
    assert found.integrity == "unknown"
    assert np.isclose(found.match_rate, 0.97)
