"""Tiny model files for the tests of the transformations; made once, never written to."""

from __future__ import annotations

from pathlib import Path

import pytest
import transforms_models as models
from transforms_tflite import save_tflite


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind by a short name."""
    import torch
    from safetensors.torch import save_file

    folder, module = tmp_path_factory.mktemp("files"), models.tiny()
    state = module.state_dict()
    save_file(state, folder / "m.safetensors", {"note": "kept"})
    torch.save({"state_dict": state, "epoch": 3}, folder / "m.pth")
    return {
        "pt2": models.save_pt2(module, folder / "m.pt2"),
        "torchscript": models.save_torchscript(module, folder / "m.ts.pt"),
        "frozen": models.save_torchscript(module, folder / "frozen.ts.pt", frozen=True),
        "safetensors": folder / "m.safetensors",
        "state-dict": folder / "m.pth",
        "onnx": models.save_onnx(folder / "m.onnx"),
        "onnx-half": models.save_onnx(folder / "half.onnx", half=True),
        "tflite": save_tflite(folder / "m.tflite"),
        "tflite-half": save_tflite(folder / "half.tflite", half=True),
    }


@pytest.fixture(autouse=True)
def untouched(files: dict[str, Path]):
    """No test may change the source files."""
    before = {path: path.read_bytes() for path in files.values()}
    yield
    assert {path: path.read_bytes() for path in files.values()} == before
