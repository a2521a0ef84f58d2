"""Make the models of the CLI tests: python make_cli_models.py FOLDER (so that pytest itself loads no torch).

Small CNNs on scikit-learn's digits (8x8 grey): an owner, independent references and strangers, and files that no
verifier should trust.
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn

SPEC = {"layout": "NCHW", "shape": [1, 8, 8], "range": [0, 1], "mean": [0.3], "std": [0.35], "classes": 10}
REFERENCES, STRANGERS = 10, 2


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    width = 8 + 4 * (seed % 3)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * width * 16, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def trained(seed: int, images: torch.Tensor, labels: torch.Tensor, *, scrambled: bool) -> nn.Sequential:
    """A net; `scrambled` gives it a task of its own (pixels in another order), so that it answers probes by itself."""
    model = network(seed)
    if scrambled:
        order = torch.from_numpy(np.random.default_rng(seed).permutation(64))
        images = images.flatten(1)[:, order].reshape(images.shape)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    rng = np.random.default_rng(seed)
    own = rng.permutation(len(images))[: len(images) * 2 // 3]
    for _ in range(6):
        for rows in np.array_split(rng.permutation(own), len(own) // 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


def save_onnx(model: nn.Sequential, path: Path) -> None:
    """Written by hand from the layers: an exporter would take longer than all the training."""
    nodes, constants, current = [], [], "input"
    for i, layer in enumerate(model):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            for name, value in (("w", layer.weight), ("b", layer.bias)):
                constants.append(numpy_helper.from_array(value.detach().numpy(), f"{name}{i}"))
        inputs = [current, f"w{i}", f"b{i}"] if isinstance(layer, nn.Conv2d | nn.Linear) else [current]
        current = "output" if i == len(model) - 1 else f"x{i}"
        if isinstance(layer, nn.Conv2d):
            nodes.append(helper.make_node("Conv", inputs, [current], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        elif isinstance(layer, nn.Linear):
            nodes.append(helper.make_node("Gemm", inputs, [current], transB=1))
        elif isinstance(layer, nn.MaxPool2d):
            nodes.append(helper.make_node("MaxPool", inputs, [current], kernel_shape=[2, 2], strides=[2, 2]))
        else:
            nodes.append(helper.make_node("Relu" if isinstance(layer, nn.ReLU) else "Flatten", inputs, [current]))
    write(path, nodes, constants, (1, 8, 8), 10)


def write(path: Path, nodes: list, constants: list, shape: tuple[int, ...], classes: int) -> None:
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", classes])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    onnx.save(made, str(path))


def sidecar(path: Path, author: str | None = None, **changes: object) -> None:
    spec = {**SPEC, **changes, **({"author": author} if author else {})}
    path.with_name(path.name + ".spec.json").write_text(json.dumps(spec))


class Bomb:
    """Unpickling it makes a file appear."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (exec, (f"open({self.marker!r}, 'w').close()",))


def odd_files(folder: Path, owner: Path) -> None:
    flat = helper.make_node("Flatten", ["input"], ["flat"])
    weight = numpy_helper.from_array(np.zeros((64, 10), np.float32) * np.nan, "w")
    write(folder / "nan.onnx", [flat, helper.make_node("MatMul", ["flat", "w"], ["output"])], [weight], (1, 8, 8), 10)
    none = numpy_helper.from_array(np.zeros((64, 0), np.float32), "w")
    write(folder / "zero.onnx", [flat, helper.make_node("MatMul", ["flat", "w"], ["output"])], [none], (1, 8, 8), 0)
    wide = numpy_helper.from_array(np.ones((256, 10), np.float32), "w")
    write(folder / "wide.onnx", [flat, helper.make_node("MatMul", ["flat", "w"], ["output"])], [wide], (1, 16, 16), 10)
    for name in ("nan", "zero", "wide"):
        sidecar(folder / f"{name}.onnx")
    data = owner.read_bytes()
    (folder / "cut.onnx").write_bytes(data[: len(data) // 2])
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "text.onnx").write_text("this is no model\n" * 20)
    with (folder / "bomb.pth").open("wb") as file:
        pickle.dump(Bomb(folder / "MARKER"), file, protocol=4)
    torch.save({"x": Bomb(folder / "MARKER")}, folder / "bomb-zip.pth")


def slow_file(path: Path) -> None:
    """A model that takes many seconds to answer: products of large matrices that depend on its input."""
    size, products = 2000, 300
    constants = [
        numpy_helper.from_array(np.full((size, size), 1e-3, np.float32), "m"),
        numpy_helper.from_array(np.zeros((64, 10), np.float32), "w"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Add", ["m", "mean"], ["p0"]),
    ]
    for i in range(products):
        nodes += [
            helper.make_node("MatMul", [f"p{i}", "m"], [f"q{i}"]),
            helper.make_node("Tanh", [f"q{i}"], [f"p{i + 1}"]),
        ]
    nodes += [
        helper.make_node("ReduceMean", [f"p{products}"], ["all"], keepdims=0),
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["zeros"]),
        helper.make_node("Add", ["zeros", "all"], ["output"]),
    ]
    write(path, nodes, constants, (1, 8, 8), 10)
    sidecar(path)


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)
    images = ((torch.from_numpy(pixels).float() / 255 - 0.3) / 0.35)[:, None]
    labels = torch.from_numpy(digits.target)
    for name in ("references", "strangers", "odd"):
        (folder / name).mkdir()
    np.savez(folder / "data.npz", images=pixels[..., None], labels=digits.target.astype(np.int64))
    owner = trained(100, images, labels, scrambled=False)
    save_onnx(owner, folder / "owner.onnx")
    sidecar(folder / "owner.onnx", "owner")
    exported = torch.export.export(owner, (images[:2],), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=65536)},))
    torch.export.save(exported, folder / "owner.pt2")
    sidecar(folder / "owner.pt2", "owner")
    for i in range(REFERENCES + STRANGERS):
        kind, number = ("references", i) if i < REFERENCES else ("strangers", i - REFERENCES)
        path = folder / kind / f"net-{number}.onnx"
        save_onnx(trained(i, images, labels, scrambled=True), path)
        sidecar(path, f"author-{i}")
    odd_files(folder / "odd", folder / "owner.onnx")
    slow_file(folder / "slow.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
