"""Activations rounded in memory: on which operations, on which grid, and as far from the owner as a real quantizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fingerprint.engine.local import open_local
from fingerprint.errors import TransformError
from fingerprint.transforms.onnx_quantize import quantize_static
from fingerprint.transforms.simulated import DYNAMIC, STATIC, Int8, Observed, RoundedInputs

PLAIN = Int8(symmetric=False, per_tensor=False)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )
    return net.eval()


def inputs(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def place(value: torch.Tensor, seen: torch.Tensor, symmetric: bool = False) -> torch.Tensor:
    """Independently: 256 levels over the range of what was seen, zero among them."""
    low, high = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
    if symmetric:
        scale = max(-low, high) / 127
        return torch.clamp(torch.round(value / scale), -127, 128) * scale
    scale = (high - low) / 255
    zero = round(low / scale)
    return torch.clamp(torch.round(value / scale), zero, zero + 255) * scale


@pytest.mark.parametrize("symmetric", [False, True])
def test_what_a_runtime_fuses_is_rounded_once(symmetric: bool) -> None:
    net, images, other = network(), inputs(40), inputs(6, 2)
    observed = Observed(net, Int8(symmetric, per_tensor=False))
    with torch.no_grad():
        observed(images)
        seen, value = images, place(other, images, symmetric)
        for block in (net[:3], net[3:5], net[5:]):  # convolution, normalization and rectifier are one operation
            seen, value = block(seen), block(value)
            value = place(value, seen, symmetric)
        assert torch.allclose(observed.rounded()(other), value, atol=1e-5)


def test_the_module_stays_as_it_is_and_small_changes_are_within_the_grid() -> None:
    net, images = network(), inputs(20)
    with torch.no_grad():
        before = net(images)
        observed = Observed(net, PLAIN)
        observed(images)
        rounded = observed.rounded()(images)
        assert torch.equal(net(images), before)
    assert 0.0 < float((rounded - before).abs().max()) < 0.2 * float(before.abs().max())
    assert len(rounded.unique()) <= 256


def test_an_output_that_stays_real_is_not_rounded() -> None:
    net, images = network(), inputs(100)
    with torch.no_grad():
        observed = Observed(net, Int8(symmetric=False, per_tensor=False, real_outputs=True))
        observed(images)
        assert len(observed.rounded()(images).unique()) > 256


def test_scales_may_be_powers_of_two() -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        observed = Observed(net, Int8(symmetric=False, per_tensor=False, rule="powers"))
        observed(torch.tensor([[0.0, 1.0, 2.0, 3.0]]))  # 3 / 255 lies between 2^-7 and 2^-6
        answer = observed.rounded()(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
        placed = torch.round(torch.tensor([[0.1, 0.2, 0.3, 0.4]]) * 64) / 64
        step = 2.0 ** np.ceil(np.log2(float(_range(net(torch.tensor([[0.0, 1.0, 2.0, 3.0]]))) / 255)))
        assert torch.allclose(answer, torch.round(net(placed) / step) * step, atol=1e-6)


def _range(value: torch.Tensor) -> torch.Tensor:
    return value.max().clamp_min(0.0) - value.min().clamp_max(0.0)


def test_probabilities_stay_probabilities() -> None:
    net = nn.Sequential(network(), nn.Softmax(1))
    with torch.no_grad():
        observed = Observed(net, PLAIN)
        observed(inputs(30))
        answer = observed.rounded()(inputs(30, 3))
    assert torch.allclose(answer.sum(1), torch.ones(30), atol=1e-5)
    assert float(answer.min()) >= 0.0


def test_ranges_found_while_it_runs_are_those_of_the_batch() -> None:
    net, images = nn.Sequential(nn.Linear(4, 3)), torch.tensor([[1.0, 2.0, 3.0, 255.0], [0.01, 0.02, 0.03, 2.55]])
    with torch.no_grad():
        alone = RoundedInputs(net, Int8(symmetric=False, per_tensor=False, dynamic=True, batch=1))(images)
        together = RoundedInputs(net, Int8(symmetric=False, per_tensor=False, dynamic=True, batch=8))(images)
        expected = torch.cat([net(place(row, row)) for row in images.split(1)])
        assert torch.allclose(alone, expected, atol=1e-5)
        assert torch.allclose(together, net(place(images, images)), atol=1e-5)


class Restless(nn.Module):
    """Computes more on some batches than on others."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.net(value)
        return answer if len(value) % 2 else answer * 2.0


def test_a_module_that_computes_another_number_of_things_can_not_be_followed() -> None:
    observed = Observed(Restless(), PLAIN)
    with torch.no_grad():
        observed(inputs(4))
        with pytest.raises(TransformError, match="operations instead of"):
            observed.rounded()(inputs(3))
        observed(inputs(3))
        with pytest.raises(TransformError, match="changes from batch to batch"):
            observed.rounded()


def test_the_schemes_all_differ() -> None:
    assert len(set(STATIC)) == len(STATIC) == 32
    assert len(set(DYNAMIC)) == len(DYNAMIC) == 12
    assert all(scheme.dynamic for scheme in DYNAMIC)


def test_the_noise_is_as_large_as_that_of_a_real_quantizer(tmp_path: Path) -> None:
    """Between half and twice: onnxruntime's on images of its own, against each scheme with real outputs or not."""
    pytest.importorskip("onnxruntime")
    net, probes = network(), inputs(60, 5)
    batch = {0: torch.export.Dim("n", min=1, max=1024)}
    program = torch.onnx.export(net, (inputs(2),), dynamo=True, dynamic_shapes=(batch,), verbose=False)
    assert program is not None
    program.save(str(tmp_path / "net.onnx"))
    quantize_static(tmp_path / "net.onnx", tmp_path / "int8.onnx", inputs(64, 6).numpy())
    model = open_local(tmp_path / "int8.onnx")
    real = np.concatenate([model.loaded.predict(part.numpy()) for part in probes.split(20)])
    with torch.no_grad():
        own = net(probes).numpy()
        size = float(np.sqrt(np.square(real - own).mean()))
        for scheme in STATIC[::6]:
            observed = Observed(net, scheme)
            observed(inputs(64, 7))
            noise = float(np.sqrt(np.square(observed.rounded()(probes).numpy() - own).mean()))
            assert 0.4 < noise / size < 3.0, (scheme, noise, size)
