import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import engine_models


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny model per format that a runtime executes."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "pt2": engine_models.write_pt2(folder / "tiny.pt2"),
        "torchscript": engine_models.write_script(folder / "tiny.ts.pt"),
        "state-dict": engine_models.write_state(folder / "tiny.pth"),
        "safetensors": engine_models.write_safetensors(folder / "tiny.safetensors"),
        "onnx": engine_models.write_onnx(folder / "tiny.onnx"),
        "tflite": engine_models.FIXTURES / "tiny_float.tflite",
    }
