"""A small world: an owner in several formats, references, suspects and data; made once."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import digit_models as make
import numpy as np
import onnxruntime
import pytest
from api_world import REFERENCES, World

from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.engine.session import WorkerPool
from fingerprint.record import Fingerprint


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    images, labels = make.digits()
    np.savez(folder / "data.npz", images=images, labels=labels)
    np.savez(folder / "unlabelled.npz", images=images[:100])
    net = make.train(make.network(0), 0, epochs=5)
    make.sidecar(make.save_pt2(net, folder / "owner.pt2"), "owner")
    make.sidecar(make.save_exported_onnx(net, folder / "owner.onnx"), "owner")
    make.sidecar(make.save_safetensors(net, folder / "owner.safetensors"), "owner")
    make.sidecar(make.save_onnx(make.pruned(net, 0.5), folder / "pruned.onnx"))
    make.sidecar(make.save_onnx(net, folder / "softmax.onnx", "softmax"))
    make.sidecar(make.save_onnx(net, folder / "nan.onnx", "nan"))
    make.save_onnx(make.pruned(net, 0.3), folder / "bare.onnx")  # no sidecar
    stranger = make.train(make.network(50), 50, scrambled=True, epochs=3)
    make.sidecar(make.save_onnx(stranger, folder / "stranger.onnx"), "stranger")
    references = folder / "references"
    (references / "deep" / "er").mkdir(parents=True)
    for i in range(REFERENCES):
        path = (references, references / "deep", references / "deep" / "er")[i % 3] / f"net-{i}.onnx"
        other = make.train(make.network(100 + i, 6 + 2 * (i % 3)), 100 + i, scrambled=True, epochs=3)
        make.sidecar(make.save_onnx(other, path), f"author-{i // 2}" if i < 4 else None)
    _place_other_files(references)
    return World(folder, net)


def _place_other_files(folder: Path) -> None:
    """What lies about in a folder of models."""
    (folder / "README.md").write_text("# models")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "config.json").write_text(json.dumps({"a": 1}))
    np.savez(folder / "images.npz", images=np.zeros((2, 8, 8), np.uint8))
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("0/a.png", b"x")


@pytest.fixture(scope="session")
def record(world: World) -> Fingerprint:
    """Calibrated by references, with both families and clean images kept."""
    options = CreateOptions(
        "digits", references=[world.references], data=world.data_npz, budget=60,
        families=["characteristic", "natural"], seed=1, screen=0,
    )  # fmt: skip
    return create(world.owner_pt2, options)


@pytest.fixture(scope="session")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(threads=1) as workers:
        yield workers


@pytest.fixture(scope="session", autouse=True)
def factory_path() -> Iterator[None]:
    """`digit_models:network` can be imported, here and from the folder that workers start in."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def owner_function(world: World) -> Callable[[np.ndarray], np.ndarray]:
    """Takes 8-bit images, as a function with its own preparation does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(world.pruned_onnx), options, providers=["CPUExecutionProvider"])
    fields = json.loads(Path(f"{world.pruned_onnx}.spec.json").read_text())

    def answer(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8 and images.shape[1:] == (8, 8, 1)
        low, high = fields["range"]
        pixels = (low + images.astype(np.float32) * (high - low) / 255 - fields["mean"][0]) / fields["std"][0]
        found: np.ndarray = session.run(None, {"input": pixels.transpose(0, 3, 1, 2).astype(np.float32)})[0]
        return found

    return answer
