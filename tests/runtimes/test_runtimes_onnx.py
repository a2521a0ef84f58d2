"""onnx: dtypes, batches, refusals, gradients."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import engine_models
import numpy as np
import onnx
import pytest
import torch
from engine_models import IMAGES, SHARED, expected, write_onnx
from onnx import TensorProto

from fingerprint.errors import NoGradients, UnreadableModel, UnsupportedModel
from fingerprint.model import Signature
from fingerprint.runtimes import onnx as subject
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.registry import runtime_named

RUNTIME = runtime_named("onnx")
BATCH = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2), np.float32) / 255


def load(path: Path, threads: int = 1) -> subject.OnnxModel:
    loaded = RUNTIME.load(path, "onnx", LoadOptions(threads=threads))
    assert isinstance(loaded, subject.OnnxModel)
    return loaded


def test_answers_and_signature(files: dict[str, Path]) -> None:
    loaded = load(files["onnx"])
    assert loaded.signature == Signature((None, 1, 8, 8), "float32", output_shape=(None, 10), classes=10)
    np.testing.assert_allclose(loaded.predict(BATCH), expected(), atol=1e-5)
    np.testing.assert_allclose(np.concatenate([loaded.predict(b[None]) for b in BATCH]), expected(), atol=1e-5)


def test_fixed_batch(tmp_path: Path) -> None:
    loaded = load(write_onnx(tmp_path / "m.onnx", batch=4))
    assert loaded.signature.batch == 4
    np.testing.assert_allclose(loaded.predict(BATCH[:4]), expected()[:4], atol=1e-5)
    with pytest.raises(UnsupportedModel, match="batch of shape"):
        loaded.predict(BATCH[:3])


@pytest.mark.parametrize(
    ("dtype", "name"), [(TensorProto.UINT8, "uint8"), (TensorProto.FLOAT16, "float16"), (TensorProto.DOUBLE, "float64")]
)
def test_input_dtypes(tmp_path: Path, dtype: int, name: str) -> None:
    scale = 1 / 255 if name == "uint8" else 1.0
    loaded = load(write_onnx(tmp_path / "m.onnx", dtype=dtype, scale=scale))
    assert loaded.signature.dtype == name and loaded.signature.scale is None
    batch = (BATCH * 255 if name == "uint8" else BATCH).astype(name)
    assert loaded.predict(batch).dtype == np.float32
    np.testing.assert_allclose(loaded.predict(batch), expected(), atol=2e-2 if name == "float16" else 1e-4)


def test_half_output_becomes_float32(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(tmp_path / "m.onnx"))
    model.graph.node[-1].op_type = "Cast"
    model.graph.node[-1].attribute.append(onnx.helper.make_attribute("to", TensorProto.FLOAT16))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, tmp_path / "half.onnx")
    answers = load(tmp_path / "half.onnx").predict(BATCH)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, expected(), atol=2e-2)


def test_refusals_say_why(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="2 inputs"):
        load(write_onnx(tmp_path / "two.onnx", inputs=2))
    with pytest.raises(UnsupportedModel, match="NoSuchOperator"):
        load(write_onnx(tmp_path / "op.onnx", tail="unknown"))
    model = onnx.load(write_onnx(tmp_path / "m.onnx"))
    model.opset_import[0].version = 9999
    onnx.save(model, tmp_path / "new.onnx")
    with pytest.raises(UnsupportedModel, match="opset"):
        load(tmp_path / "new.onnx")


def test_external_data(tmp_path: Path) -> None:
    model = onnx.load(write_onnx(tmp_path / "m.onnx"))
    folder = tmp_path / "split"
    folder.mkdir()
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    np.testing.assert_allclose(load(folder / "m.onnx").predict(BATCH), expected(), atol=1e-5)  # the owner's own folder
    (folder / "m.data").unlink()
    with pytest.raises(UnsupportedModel, match="another file"):
        load(folder / "m.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated(files: dict[str, Path], tmp_path: Path, share: float) -> None:
    whole = files["onnx"].read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableModel):
        load(tmp_path / "cut.onnx")


def test_weights(files: dict[str, Path]) -> None:
    weights = RUNTIME.weights(files["onnx"], "onnx")
    reference = engine_models.network().state_dict()
    assert all((weights[k] == v.numpy()).all() for k, v in reference.items())
    assert not any(np.issubdtype(v.dtype, np.integer) for v in weights.values())


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_weights_in_every_encoding(tmp_path: Path, kind: type[np.floating]) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(kind)
    dtype = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    numbers = onnx.helper.make_tensor("numbers", dtype, values.shape, values.ravel().tolist())
    raw = onnx.numpy_helper.from_array(values, "raw")
    constant = onnx.helper.make_node("Constant", [], ["constant"], value=onnx.numpy_helper.from_array(values + 1))
    out = onnx.helper.make_tensor_value_info("constant", dtype, values.shape)
    graph = onnx.helper.make_graph([constant], "g", [], [out], [numbers, raw])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    found = RUNTIME.weights(tmp_path / "m.onnx", "onnx")
    assert {k: v.dtype for k, v in found.items()} == dict.fromkeys(("numbers", "raw", "constant"), values.dtype)
    assert (found["numbers"] == values).all() and (found["raw"] == values).all()
    assert (found["constant"] == values + 1).all()


def test_weights_of_damaged_files(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["onnx"].read_bytes()
    chance = random.Random(1)
    for cut in (len(whole) // 3, len(whole) - 5):
        (tmp_path / "m").write_bytes(whole[:cut])
        with pytest.raises(UnreadableModel):
            RUNTIME.weights(tmp_path / "m", "onnx")
    for _ in range(200):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (tmp_path / "m").write_bytes(data)
        try:
            RUNTIME.weights(tmp_path / "m", "onnx")
        except UnreadableModel:
            continue


def test_gradients(files: dict[str, Path]) -> None:
    module = load(files["onnx"]).differentiable()
    images = torch.from_numpy(BATCH).requires_grad_(True)
    answers = module(images)
    np.testing.assert_allclose(answers.detach().numpy(), expected(), atol=1e-4)
    answers.square().sum().backward()
    assert images.grad is not None and float(images.grad.abs().sum()) > 0


def test_no_gradients(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoGradients, match="not floats"):
        load(write_onnx(tmp_path / "m.onnx", dtype=TensorProto.UINT8)).differentiable()
    monkeypatch.setattr(subject, "_convert", lambda path: torch.nn.Flatten())
    with pytest.raises(NoGradients, match="answers differently"):
        load(files["onnx"]).differentiable()
    monkeypatch.setattr(subject, "_convert", lambda path: torch.nn.Linear(3, 3))
    with pytest.raises(NoGradients, match="does not run"):
        load(files["onnx"]).differentiable()
    loaded = load(files["onnx"])
    loaded.signature = replace(loaded.signature, shape=(None, 3, None, None))
    with pytest.raises(NoGradients, match="one size"):
        loaded.differentiable()


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_every_shared_classifier_has_gradients() -> None:
    for path in sorted((SHARED / "cifar10").glob("*.onnx"))[::3]:
        assert load(path).differentiable() is not None


@pytest.mark.parametrize("home", ["HOME", "XDG_CACHE_HOME"])
def test_no_telemetry(files: dict[str, Path], tmp_path: Path, home: str) -> None:
    code = (
        "import os; from pathlib import Path; from fingerprint.engine.local import open_local;"
        f"open_local({str(files['onnx'])!r}); print(len(os.listdir('/proc/self/task')))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {home: str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=Path(__file__).parents[2])
    assert not list(tmp_path.iterdir())
