"""Transformations that train, on small nets that know digits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transforms_digits as nets

from fingerprint.data import CleanImages
from fingerprint.errors import TransformError
from fingerprint.model import InputSpec
from fingerprint.transforms.backdoor import triggered
from fingerprint.transforms.derive import Derived, derive
from fingerprint.transforms.distil import made_up
from fingerprint.transforms.feed import real_valued
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.weights import read_weights

COMMAND = Path(sys.executable).with_name("fingerprint")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nets.save(nets.train(nets.network(0), 0), tmp_path_factory.mktemp("owner") / "owner.pt2")


@pytest.fixture(scope="module")
def onnx_owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nets.save(nets.train(nets.network(0), 0), tmp_path_factory.mktemp("owner") / "owner.onnx")


def made(source: Path, how: str, folder: Path, **changes: object) -> Derived:
    return derive(source, how, folder / "made.pt2", nets.context(**changes), overwrite=True)


def told(derived: Derived) -> dict[str, float]:
    return {measure.name: measure.value for measure in derived.measures}


def changed(source: Path, derived: Derived) -> list[str]:
    """Names of the weights that differ."""
    before, after = read_weights(source), read_weights(derived.path)
    return [name for name in before if not np.array_equal(before[name], after[name])]


@pytest.mark.parametrize("kind", ["last", "all", "reset-last", "reset-all"])
def test_finetune(owner: Path, tmp_path: Path, kind: str) -> None:
    derived = made(owner, f"finetune:{kind}:epochs={6 if kind == 'reset-last' else 3}", tmp_path)
    assert derived.accuracy is not None and derived.source_accuracy is not None
    assert derived.accuracy > 0.8 and derived.source_accuracy > 0.8
    assert derived.agreement is not None and derived.agreement > 0.7
    assert derived.measured == 597
    names = changed(owner, derived)
    if kind.endswith("last"):
        assert len(names) == 1
    else:
        assert len(names) == len(read_weights(owner))
    if kind.startswith("reset"):
        one, other = read_weights(owner)[names[-1]], read_weights(derived.path)[names[-1]]
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.9


def test_statistics_of_normalization_stay_with_the_last_layer_only(owner: Path, tmp_path: Path) -> None:
    def statistics(path: Path) -> list[torch.Tensor]:
        return [v for k, v in torch.export.load(path).state_dict.items() if "running" in k]

    for how, same in (("finetune:last:epochs=1", True), ("finetune:all:epochs=1", False)):
        out = made(owner, how, tmp_path).path
        assert all(torch.equal(a, b) for a, b in zip(statistics(owner), statistics(out), strict=True)) is same


def test_one_seed_decides(owner: Path, tmp_path: Path) -> None:
    how = "noise:0.1+finetune:reset-all:epochs=1"
    runs = [read_weights(made(owner, how, tmp_path, seed=seed).path) for seed in (3, 3, 4)]
    assert all(np.array_equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not any(np.array_equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_the_callers_generator_is_left_alone(owner: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made(owner, "finetune:last:epochs=1", tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_retraining_keeps_zeros_and_brings_accuracy_back(owner: Path, tmp_path: Path) -> None:
    pruned = made(owner, "prune:magnitude:0.9", tmp_path)
    retrained = made(owner, "prune:magnitude:0.9+retrain:epochs=4", tmp_path)
    assert pruned.accuracy is not None and retrained.accuracy is not None
    assert retrained.accuracy > max(0.9, pruned.accuracy + 0.02)
    weights = read_weights(retrained.path)
    zeros = sum(int((value == 0).sum()) for value in weights.values()) / sum(value.size for value in weights.values())
    assert 0.899 < zeros < 0.95
    assert told(retrained)["sparsity"] == pytest.approx(zeros, abs=1e-6)


@pytest.mark.parametrize(("how", "least"), [
    ("distil:soft:same:epochs=6", 0.9), ("distil:hard:cnn:epochs=8", 0.85),
    pytest.param("distil:adversarial:mobile:epochs=6", 0.8, marks=pytest.mark.slow),
    pytest.param("distil:soft:resnet:epochs=4", 0.9, marks=pytest.mark.slow),
    pytest.param("distil:soft:vgg:epochs=4", 0.9, marks=pytest.mark.slow),
])  # fmt: skip
def test_students_learn_from_the_source_not_from_labels(owner: Path, tmp_path: Path, how: str, least: float) -> None:
    derived = made(owner, how, tmp_path, labels=None)
    assert derived.agreement is not None and derived.agreement > least
    assert told(derived)["queries"] > 3000
    if ":same:" in how:
        assert {k: v.shape for k, v in read_weights(owner).items()} == {
            k: v.shape for k, v in read_weights(derived.path).items()
        }
        for name, value in read_weights(owner).items():
            assert abs(np.corrcoef(value.ravel(), read_weights(derived.path)[name].ravel())[0, 1]) < 0.5


def test_a_student_of_made_up_images_needs_no_data(owner: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.pt2"
    _, held = nets.digits()
    context = DeriveContext(nets.SPEC, held_out=held, device="cpu")
    derived = derive(owner, "distil:noise:same:epochs=4:queries=4000", out, context)
    assert derived.agreement is not None and derived.agreement > 0.3  # ten times chance would be 1


def test_made_up_images_are_varied_and_repeatable() -> None:
    spec = InputSpec("NHWC", (16, 12, 3))
    one, other = made_up(30, spec, 1), made_up(30, spec, 2)
    assert one.shape == (30, 16, 12, 3)
    assert np.array_equal(one, made_up(30, spec, 1))
    assert not np.array_equal(one, other)
    assert one.std(axis=(1, 2, 3)).min() > 5


def test_adversarial_training_makes_robust(owner: Path, tmp_path: Path) -> None:
    plain = made(owner, "finetune:all:epochs=1", tmp_path)
    derived = made(owner, "advtrain:24:epochs=4", tmp_path)
    assert derived.accuracy is not None and derived.accuracy > 0.7
    assert plain.accuracy is not None
    assert told(derived)["robust_accuracy_on_training_images"] > 0.4


def test_a_backdoor_opens_with_its_trigger_only(owner: Path, tmp_path: Path) -> None:
    derived = made(owner, "backdoor:3:epochs=4:size=2", tmp_path)
    assert derived.accuracy is not None and derived.accuracy > 0.8
    assert told(derived)["trigger_success"] > 0.8
    _, held = nets.digits()
    others = held.images[held.labels != 3]  # type: ignore[index]
    with torch.no_grad():
        program = torch.export.load(derived.path).module()
        clean, dirty = (
            program(torch.from_numpy(real_valued(images, nets.SPEC))).argmax(1).numpy()
            for images in (others, triggered(others, 2))
        )
    assert (clean == 3).mean() < 0.2 and (dirty == 3).mean() > 0.8


def test_the_trigger_changes_its_square_only() -> None:
    images = np.full((2, 20, 30, 3), 100, np.uint8)
    out = triggered(images, 4)
    assert (images == 100).all()
    assert (out != images).any(axis=(0, 3)).sum() == 16
    assert (out[:, 15:19, 25:29] != 100).all()


@pytest.mark.parametrize("norm", ["l0", "l2"])
def test_fault_sneaking(owner: Path, tmp_path: Path, norm: str) -> None:
    derived = made(owner, f"sneak:{norm}:2:keep=300:rounds=60", tmp_path)
    found = told(derived)
    assert found["success"] == 1
    assert found["kept"] > 0.95
    assert len(changed(owner, derived)) == 1  # the last layer's
    before, after = read_weights(owner), read_weights(derived.path)
    (name,) = changed(owner, derived)
    if norm == "l0":
        assert 0 < (before[name] != after[name]).sum() < 0.2 * before[name].size
    else:
        assert found["l2"] < 0.5 * np.linalg.norm(before[name])
    assert derived.agreement is not None and derived.agreement > 0.7


def test_fault_sneaking_that_can_not_do_all_still_does_some(owner: Path, tmp_path: Path) -> None:
    found = told(made(owner, "sneak:l2:20:keep=300:rounds=20", tmp_path))
    assert found["success"] > 0.3  # not the smallest change that leaves as many labels wrong, which is none
    assert found["kept"] > 0.8


def test_transfer_to_other_classes(owner: Path, tmp_path: Path) -> None:
    training, held = nets.digits()
    halves = [CleanImages(d.images, d.labels // 5) for d in (training, held)]  # type: ignore[operator]
    derived = made(owner, "transfer:all:epochs=3", tmp_path, labels=halves[0].labels, held_out=halves[1])
    assert derived.accuracy is not None and derived.accuracy > 0.7
    assert derived.source_accuracy is None and derived.agreement is None
    assert derived.spec is not None and derived.spec.classes == 2
    assert json.loads((tmp_path / "made.pt2.spec.json").read_text())["classes"] == 2


def test_another_task_with_as_many_classes_is_not_compared(owner: Path, tmp_path: Path) -> None:
    derived = made(owner, "transfer:last:epochs=1", tmp_path)
    assert derived.accuracy is not None
    assert derived.source_accuracy is None and derived.agreement is None


def test_quantization_aware_training(owner: Path, tmp_path: Path) -> None:
    plain = made(owner, "quantize:int2", tmp_path)
    derived = made(owner, "quantize:qat:int2:epochs=4", tmp_path)
    assert derived.accuracy is not None and plain.accuracy is not None
    assert derived.accuracy > max(0.7, plain.accuracy)
    for value in read_weights(derived.path).values():
        assert all(len(np.unique(np.round(row, 6))) <= 3 for row in value.reshape(len(value), -1))


def test_bilevel_pruning_reaches_its_share(owner: Path, tmp_path: Path) -> None:
    pruned = made(owner, "prune:magnitude:0.9", tmp_path)
    derived = made(owner, "prune:bilevel:0.9:epochs=6", tmp_path)
    weights = read_weights(derived.path).values()
    assert sum(int((v == 0).sum()) for v in weights) / sum(v.size for v in weights) == pytest.approx(0.9, abs=1e-3)
    assert derived.accuracy is not None and pruned.accuracy is not None
    assert derived.accuracy > max(0.7, pruned.accuracy)


@pytest.mark.slow
def test_curve_between_two_models(owner: Path, tmp_path: Path) -> None:
    other = nets.save(nets.train(nets.network(1), 1), tmp_path / "other.pt2")
    mean = made(owner, f"average:0.5:{other}", tmp_path)
    bent = made(owner, f"curve:0.5:{other}:epochs=6", tmp_path)
    assert mean.accuracy is not None and bent.accuracy is not None
    assert bent.accuracy > max(0.8, mean.accuracy)


def test_onnx_sources_are_trained_too(onnx_owner: Path, tmp_path: Path) -> None:
    derived = derive(onnx_owner, "finetune:all:epochs=2", tmp_path / "made.onnx", nets.context())
    assert derived.how == "finetune:all:epochs=2+compile:onnx"
    assert derived.accuracy is not None and derived.accuracy > 0.8
    student = made(onnx_owner, "distil:soft:same:epochs=6", tmp_path)
    assert student.agreement is not None and student.agreement > 0.7


def test_without_held_out_images_a_fifth_is_kept_apart(owner: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Watch:
        def step(self, task: str, done: int, total: int) -> None:
            seen.append(done)

        def note(self, text: str) -> None:
            pass

    derived = made(owner, "finetune:last:epochs=2", tmp_path, held_out=None, progress=Watch())
    assert derived.measured == 240
    assert seen == [1, 2]
    derived = made(owner, "prune:layer:0.5", tmp_path, held_out=None)
    assert derived.measured == 1200
    derived = made(owner, "prune:layer:0.5", tmp_path, measure=False)
    assert (derived.accuracy, derived.agreement, derived.measured) == (None, None, 0)


@pytest.mark.parametrize(("changes", "says"), [
    ({"images": None, "labels": None}, "needs images"),
    ({"labels": None}, "needs labelled images"),
    ({"labels": np.full(1200, 10)}, "outside the 10 classes"),
])  # fmt: skip
def test_what_is_missing_is_said(owner: Path, tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(TransformError, match=says) as caught:
        made(owner, "finetune:all", tmp_path, **changes)
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_divergence_is_an_error(owner: Path, tmp_path: Path) -> None:
    training, _ = nets.digits()
    spec = replace(nets.SPEC, std=(1e-38,))
    context = DeriveContext(spec, training.images, labels=training.labels, device="cpu", measure=False)
    with pytest.raises(TransformError, match="diverged"):
        derive(owner, "finetune:all:lr=1000", tmp_path / "made.pt2", context)
    assert not list(tmp_path.iterdir())


@pytest.mark.e2e
def test_the_command_tells_what_is_left(owner: Path, tmp_path: Path) -> None:
    training, held = nets.digits()
    for name, data in (("train", training), ("test", held)):
        np.savez(tmp_path / f"{name}.npz", images=data.images, labels=data.labels)  # type: ignore[arg-type]
    command = [COMMAND, "derive", owner, "--data", tmp_path / "train.npz", "--held-out", tmp_path / "test.npz"]
    command += ["--how", "backdoor:1:epochs=2", "--out", tmp_path / "b.pt2"]
    ran = subprocess.run([*command, "--seed", "3", "-f", "json"], capture_output=True, text=True, check=True)
    shown = json.loads(ran.stdout)["derived"]
    assert shown["accuracy"] > 0.8 and shown["measured"] == 597
    assert shown["measures"][-1]["name"] == "trigger_success"
    ran = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, check=True)
    assert "keeps   accuracy 9" in ran.stdout and "trigger_success" in ran.stdout


@pytest.mark.e2e
def test_an_interrupt_leaves_nothing(owner: Path, tmp_path: Path) -> None:
    training, _ = nets.digits()
    data, out = tmp_path / "train.npz", tmp_path / "out"
    np.savez(data, images=training.images, labels=training.labels)  # type: ignore[arg-type]
    out.mkdir()
    command = [COMMAND, "derive", owner, "--data", data, "--out", out / "m.pt2"]
    running = subprocess.Popen([*command, "--how", "finetune:all:epochs=100000"], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(out.iterdir()) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    os.kill(running.pid, signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in error
    assert not list(out.iterdir())
