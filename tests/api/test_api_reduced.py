"""Suspects whose labels are permuted, fewer or merged: learned on clean images, calibrated in their own label space."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import digit_models as make
import numpy as np
import pytest
import torch
from api_world import World
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fingerprint.api import settling
from fingerprint.api.reduced import answered, order_of, reduced
from fingerprint.api.results import Result
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.engine.labels import LabelMap, learn
from fingerprint.engine.session import WorkerPool
from fingerprint.engine.settle import Setting, Settled
from fingerprint.errors import Tampered
from fingerprint.record import Fingerprint, Payload

PERMUTED = (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)


def with_rows(net: nn.Sequential, rows: list[int]) -> nn.Sequential:
    """The same net with output j what was output rows[j]."""
    changed = copy.deepcopy(net)
    last: nn.Linear = net[-1]  # type: ignore[assignment]
    head = nn.Linear(last.in_features, len(rows))
    with torch.no_grad():
        head.weight.copy_(last.weight[rows])
        head.bias.copy_(last.bias[rows])
    changed[-1] = head
    return changed.eval()


def run(
    record: Fingerprint, pool: WorkerPool, path: Path, data: Path | None, alpha: float = 0.05, calibration: str = "auto"
) -> Result:
    settings = VerifyOptions(alpha=alpha, data=data, calibration=calibration)
    (result,) = verify([path], [record], settings, pool=pool)
    return result


def reason_of(result: Result) -> str:
    assert result.verdict is not None
    return result.verdict.reason


def test_permuted_labels(world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path) -> None:
    rows = [PERMUTED.index(j) for j in range(10)]  # output PERMUTED[c] is common class c
    path = make.save_onnx(with_rows(make.pruned(world.net, 0.3), rows), tmp_path / "permuted.onnx")
    result = run(record, pool, path, world.data_npz)
    assert result.lineage == "derived"
    assert result.adaptation is not None
    assert result.adaptation["labels"] == "permuted"
    assert result.verdict is not None
    assert result.verdict.match_rate > 0.9
    assert 0 < result.adaptation["settling_error"] <= 0.01  # type: ignore[operator]


def test_without_enough_clean_images_permuted_labels_are_no_accusation_and_no_acquittal(
    world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path
) -> None:
    path = make.save_onnx(with_rows(world.net, list(PERMUTED)), tmp_path / "permuted.onnx")
    assert run(record, pool, path, None).lineage == "inconclusive"


@pytest.mark.parametrize(("relabelled", "said"), [(False, "unrelated"), (True, "inconclusive")])
def test_labels_that_seem_to_mean_something_else_are_no_acquittal(
    world: World,
    record: Fingerprint,
    pool: WorkerPool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    relabelled: bool,
    said: str,
) -> None:
    settled = Settled((Setting(make.SPEC),), 0.5, 64, 64, relabelled=relabelled)
    monkeypatch.setattr(settling, "settle", lambda *_: settled)
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(world.stranger_onnx.read_bytes())
    result = run(record, pool, bare, world.data_npz)
    assert result.lineage == said
    assert ("mean something else" in reason_of(result)) is relabelled


@pytest.mark.parametrize("sidecar", [True, False])
def test_fewer_labels(world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path, sidecar: bool) -> None:
    path = make.save_onnx(with_rows(make.pruned(world.net, 0.3), list(range(6))), tmp_path / "six.onnx")
    if sidecar:
        make.sidecar(path, classes=6)
    # Eight references reach 0.01 to 0.08 here, by how they turn out.
    result = run(record, pool, path, None if sidecar else world.data_npz, alpha=0.2, calibration="fitted")
    assert result.lineage == "derived", (reason_of(result), result.adaptation, result.verdict)
    verdict = result.verdict
    assert verdict is not None
    left = int((record.payload.targets < 6).sum())
    assert sum(f.queries for f in verdict.families) == left
    assert verdict.queries >= 60
    assert verdict.calibration is not None
    assert (verdict.calibration.kind, verdict.calibration.n) == ("fitted", 8)


def test_a_stranger_with_fewer_labels_is_not_accused(
    world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path
) -> None:
    scrambled = make.train(make.network(70), 70, scrambled=True, epochs=3)
    path = make.sidecar(make.save_onnx(with_rows(scrambled, [0, 1, 2]), tmp_path / "three.onnx"), classes=3)
    result = run(record, pool, path, None)
    assert result.lineage == "inconclusive"  # what a copy would match there is not known
    assert "label space" in reason_of(result)


def test_a_record_without_orders_does_not_decide_there(
    world: World, record: Fingerprint, pool: WorkerPool, tmp_path: Path
) -> None:
    path = make.sidecar(make.save_onnx(with_rows(world.net, list(range(6))), tmp_path / "six.onnx"), classes=6)
    old = replace(record, payload=replace(record.payload, reference_orders=None))
    result = run(old, pool, path, None)
    assert result.lineage == "inconclusive"
    assert "can't calibrate" in reason_of(result)


# -- the parts -------------------------------------------------------------------------------------------------------


def test_the_whole_label_space_changes_nothing(record: Fingerprint) -> None:
    found = reduced(record, LabelMap.shifted(10, 10, 0))
    assert found is not None
    for ours, theirs in zip(found.references, record.manifest.references, strict=True):
        assert {n: (m.matches, m.queries) for n, m in ours.families.items()} == {
            n: (m.matches, m.queries) for n, m in theirs.families.items()
        }
    assert [f.count for f in found.families] == [f.count for f in record.manifest.families]
    assert (found.copies, found.declared_bound) == ((), None)


def test_references_choose_among_what_is_left(record: Fingerprint) -> None:
    labels = LabelMap((0, -1, 1, -1, 2, -1, -1, -1, -1, -1), 3)
    found = reduced(record, labels)
    assert found is not None
    orders = record.payload.reference_orders
    assert orders is not None
    kept = np.isin(record.payload.targets, [0, 2, 4])
    assert sum(f.count for f in found.families) == kept.sum()
    for reference, order in zip(found.references, orders, strict=True):
        expected = 0
        for row in np.nonzero(kept)[0]:
            first = next(c for c in order[row] if c in (0, 2, 4))
            expected += first == record.payload.targets[row]
        assert sum(m.matches for m in reference.families.values()) == expected


def test_no_probe_is_left(record: Fingerprint) -> None:
    assert reduced(record, LabelMap((-1,) * 10, 2)) is None


@given(st.integers(2, 6), st.integers(1, 8), st.integers(0, 1000))
def test_an_order_answers_as_the_outputs_do(classes: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(count, classes)).astype(np.float32)
    to_suspect = rng.integers(-1, classes, classes)
    to_suspect[rng.integers(classes)] = 0
    labels = LabelMap(tuple(int(i) for i in to_suspect), classes)
    assert answered(order_of(outputs, classes), labels).tolist() == labels.of_outputs(outputs).tolist()


def test_a_class_is_mapped_only_by_a_significant_majority() -> None:
    truth = np.repeat(np.arange(3), 40)
    answers = np.concatenate([np.full(40, 2), np.tile([0, 1], 20), np.full(40, 0)])
    answers[80:84] = 1
    assert learn(answers, truth, 3, 3).to_suspect == (2, -1, 0)
    assert learn(answers[:5], truth[:5], 3, 3).to_suspect == (-1, -1, -1)


def test_a_class_often_taken_for_another_is_mapped_where_its_output_is_its_own() -> None:
    truth = np.repeat(np.arange(3), 40)
    answers = np.concatenate([np.full(40, 2), np.repeat([1, 0], [22, 18]), np.full(40, 0)])
    assert learn(answers, truth, 3, 3).to_suspect == (2, 1, 0)
    answers[80:88] = 1  # another class gives that answer nearly as often
    assert learn(answers, truth, 3, 3).to_suspect == (2, -1, 0)


def test_a_frequent_class_does_not_take_the_output_of_a_rare_one() -> None:
    truth = np.repeat(np.arange(3), [400, 20, 400])
    answers = np.concatenate([np.repeat([1, 0], [210, 190]), np.repeat([1, 2], [11, 9]), np.full(400, 2)])
    assert learn(answers, truth, 3, 3).to_suspect == (-1, -1, 2)


@pytest.mark.parametrize("sizes", [(100,) * 5, (300, 100, 100, 40, 20)])
def test_a_map_is_rarely_wrong(sizes: tuple[int, ...]) -> None:
    """Suspects that are right as often as wrong: of 400, at most a few have any class mapped to another one."""
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(5), sizes)
    mistaken = mapped = 0
    for _ in range(400):
        share = 0.36 * np.eye(5) + 0.64 * rng.dirichlet(np.full(5, 0.8), 5) * (1 - np.eye(5))
        share /= share.sum(axis=1, keepdims=True)
        for c in range(5):  # the truth is the largest of its row and column, or there would be none
            share[c, c] = 1.2 * max(share[c].max(), share[:, c].max())
        share /= share.sum(axis=1, keepdims=True)
        order = rng.permutation(5)
        answers = order[[rng.choice(5, p=share[c]) for c in truth]]
        found = np.array(learn(answers, truth, 5, 5).to_suspect)
        mistaken += bool((found[found >= 0] != order[found >= 0]).any())
        mapped += int((found >= 0).sum())
    assert mapped > 300
    assert mistaken <= 12  # 4 are allowed on average


@pytest.mark.parametrize(
    ("to_suspect", "width", "kind"),
    [
        ((0, 1), 2, "same"),
        ((1, 2), 3, "offset"),
        ((1, 0), 2, "permuted"),
        ((0, -1), 1, "reduced"),
        ((0, 0), 1, "reduced"),
    ],
)
def test_kinds(to_suspect: tuple[int, ...], width: int, kind: str) -> None:
    assert LabelMap(to_suspect, width).kind == kind


def test_orders_that_do_not_fit_are_refused(record: Fingerprint) -> None:
    payload, orders = record.payload, record.payload.reference_orders
    assert orders is not None
    assert Payload.from_bytes(payload.to_bytes()).to_bytes() == payload.to_bytes()
    for wrong in (orders[:, :-1], orders.astype(np.int32), np.full_like(orders, 10), orders[:, :, :9]):
        with pytest.raises(Tampered):
            replace(payload, reference_orders=wrong).validate()
    with pytest.raises(Tampered, match="references"):
        replace(record, payload=replace(payload, reference_orders=orders[:-1])).check()
