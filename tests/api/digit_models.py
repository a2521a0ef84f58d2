"""Small nets on scikit-learn's digits (8x8 grey), written in several formats."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from fingerprint.model import Images, InputSpec

CLASSES = 10
SPEC = InputSpec("NCHW", (1, 8, 8), mean=(0.3,), std=(0.35,), channels="L", classes=CLASSES)
FACTORY = "digit_models:network"


def digits() -> tuple[Images, NDArray[np.int64]]:
    """Images (1797, 8, 8, 1) and labels."""
    data = load_digits()
    return (data.images * 15.9).astype(np.uint8)[..., None], data.target.astype(np.int64)


def network(seed: int = 0, width: int = 12) -> nn.Sequential:
    """A CNN of two convolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(2 * width * 16, 32), nn.ReLU(), nn.Linear(32, CLASSES),
        )  # fmt: skip


def to_input(images: Images) -> torch.Tensor:
    """What `SPEC` makes of 8-bit images."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.3) / 0.35


def train(module: nn.Sequential, seed: int, *, scrambled: bool = False, epochs: int = 4) -> nn.Sequential:
    """Train in place. `scrambled`: on digits whose pixels are in an order of its own, so that it shares no features."""
    images, labels = digits()
    inputs, targets = to_input(images), torch.from_numpy(labels)
    rng = np.random.default_rng(seed)
    if scrambled:
        inputs = inputs.flatten(1)[:, torch.from_numpy(rng.permutation(64))].reshape(inputs.shape)
    own = rng.permutation(len(images))[:1200]
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(own), len(own) // 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return module.eval()


def sidecar(path: Path, author: str | None = None, **changes: object) -> Path:
    """`MODEL.spec.json` beside a model."""
    fields = {**SPEC.to_dict(), "author": author, **changes}
    path.with_name(path.name + ".spec.json").write_text(json.dumps(fields))
    return path


def save_onnx(module: nn.Sequential, path: Path, tail: str = "") -> Path:
    """Written by hand from the layers: an exporter would take longer than the training. tail: softmax or nan."""
    nodes, constants, current = [], [], "input"
    for i, layer in enumerate(module):
        inputs = [current]
        current = f"x{i}"
        if isinstance(layer, nn.Conv2d | nn.Linear):
            for name, value in (("w", layer.weight), ("b", layer.bias)):
                constants.append(numpy_helper.from_array(value.detach().numpy(), f"{name}{i}"))
            inputs += [f"w{i}", f"b{i}"]
        if isinstance(layer, nn.Conv2d):
            nodes.append(helper.make_node("Conv", inputs, [current], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        elif isinstance(layer, nn.Linear):
            nodes.append(helper.make_node("Gemm", inputs, [current], transB=1))
        elif isinstance(layer, nn.MaxPool2d):
            nodes.append(helper.make_node("MaxPool", inputs, [current], kernel_shape=[2, 2], strides=[2, 2]))
        else:
            nodes.append(helper.make_node("Relu" if isinstance(layer, nn.ReLU) else "Flatten", inputs, [current]))
    if tail == "softmax":
        nodes.append(helper.make_node("Softmax", [current], ["output"], axis=1))
    elif tail == "nan":
        constants.append(numpy_helper.from_array(np.full(1, np.nan, np.float32), "nan"))
        nodes.append(helper.make_node("Mul", [current, "nan"], ["output"]))
    else:
        nodes.append(helper.make_node("Identity", [current], ["output"]))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", CLASSES])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def save_exported_onnx(module: nn.Sequential, path: Path) -> Path:
    """By torch's own exporter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(2, 1, 8, 8),),
            str(path),
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path


def save_pt2(module: nn.Sequential, path: Path) -> Path:
    """A torch.export program with an open batch."""
    dynamic = ({0: torch.export.Dim("n", min=1, max=4096)},)
    torch.export.save(torch.export.export(module, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=dynamic), path)
    return path


def save_safetensors(module: nn.Sequential, path: Path) -> Path:
    """A state dict."""
    save_file(module.state_dict(), path)
    return path


def pruned(module: nn.Sequential, share: float) -> nn.Sequential:
    """A copy whose smallest weights are zero."""
    copy = network(0, module[0].out_channels)  # type: ignore[arg-type]
    copy.load_state_dict(module.state_dict())
    with torch.no_grad():
        weights = [p for p in copy.parameters() if p.ndim >= 2]
        limit = torch.cat([w.abs().flatten() for w in weights]).quantile(share)
        for weight in weights:
            weight[weight.abs() < limit] = 0
    return copy.eval()
