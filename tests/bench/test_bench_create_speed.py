"""benchmarks/create_speed.py: what it builds, counts and measures. What it measures is no test's business."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from fingerprint.runtimes.devices import VARIABLE

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import create_speed
import speed


def test_the_transformer_is_of_the_size_of_vit_b() -> None:
    with torch.device("meta"):
        net = create_speed.VisionTransformer(create_speed.Size())
    assert sum(p.numel() for p in net.parameters()) == 86_567_656  # ViT-B/16 at 224 pixels and 1000 classes
    assert net(torch.zeros(3, 3, 224, 224, device="meta")).shape == (3, 1000)


def test_the_bare_passes_are_those_of_create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay asks the module for as many images as were counted, with as many backward passes."""
    path = create_speed.make_transformer(tmp_path / "vit.pt2", create_speed.SMALL)
    calls = [(3, True), (2, False), (1, True)]
    assert create_speed.count(calls) == 3 * 2 + 2 + 1 * 2
    seen: list[tuple[int, bool]] = []
    original = torch.autograd.grad

    def graded(output: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append((len(x), True))
        return original(output, x)

    monkeypatch.setattr(torch.autograd, "grad", graded)
    speed.replay(path, calls)()
    assert seen == [(3, True), (1, True)]


def run(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> create_speed.Measured:
    monkeypatch.setenv(VARIABLE, device)  # the script sets it; this gives it back
    light = ["--families", "characteristic:kinds=C,kappa=0.5", "--probes", "3", "--runs", "1", "--out", str(tmp_path)]
    arguments = ["--model", "vit", "--small", "--device", device, *light]
    (found,) = create_speed.main(arguments)
    (written,) = json.loads((tmp_path / "create_speed.json").read_text())
    assert written["model"] == found.model == "vit-small" and written["device"] == device
    assert 0 < found.passes_recorded < found.passes_made and found.ratio > 0
    return found


def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("cpu", tmp_path, monkeypatch)
    assert "| vit-small | 3 |" in capsys.readouterr().out
    assert math.isnan(found.peak_bare_mib) or found.peak_create_mib > 10


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_create_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer, with all passes on the GPU: the memory that they take is there."""
    found = run("cuda", tmp_path, monkeypatch)
    assert found.peak_create_mib > 0 and found.peak_bare_mib > 0
