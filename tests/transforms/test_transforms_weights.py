"""Editing weights in files of every format, and in modules."""

from __future__ import annotations

import itertools
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import transforms_models as models
import transforms_tflite as tflite

from fingerprint.errors import FingerprintError, MissingExtra, TransformError
from fingerprint.transforms.derive import parse_how
from fingerprint.transforms.interface import DeriveContext, WeightTransform
from fingerprint.transforms.weights import edit_module, open_weights, read_weights, write_weights

TORCH = {
    "pt2": models.run_pt2,
    "torchscript": models.run_torchscript,
    "frozen": models.run_torchscript,
    "safetensors": models.run_state,
    "state-dict": models.run_state,
}
FORMATS = [*TORCH, "onnx", "onnx-half", "tflite", "tflite-half"]
EDITS = ["prune:magnitude:0.5", "prune:layer:0.25", "quantize:int4", "quantize:int4:tensor", "quantize:bf16"]


def weight_transform(how: str) -> WeightTransform:
    (transform,) = parse_how(how)
    assert isinstance(transform, WeightTransform)
    return transform


def edited(files: dict[str, Path], kind: str, how: str, folder: Path) -> Path:
    out = folder / files[kind].name
    weight_transform(how).apply(files[kind], out, DeriveContext(None))
    return out


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_of_two_or_more_dimensions_are_read_as_float32(files: dict[str, Path], kind: str) -> None:
    weights = read_weights(files[kind])
    assert len(weights) == {"onnx": 2, "onnx-half": 2, "tflite": 3, "tflite-half": 3}.get(kind, 5)
    assert all(value.ndim >= 2 and value.dtype == np.float32 for value in weights.values())


@pytest.mark.parametrize("kind", FORMATS)
def test_writing_back_what_was_read_changes_nothing(files: dict[str, Path], kind: str, tmp_path: Path) -> None:
    out = tmp_path / files[kind].name
    weights = read_weights(files[kind])
    write_weights(files[kind], out, weights)
    again = read_weights(out)
    assert list(again) == list(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(again[name], value)
    if kind.startswith("tflite") or kind == "safetensors":
        assert out.read_bytes() == files[kind].read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
def test_one_value_can_be_changed_and_nothing_else_changes(files: dict[str, Path], kind: str, tmp_path: Path) -> None:
    out = tmp_path / files[kind].name
    before = read_weights(files[kind])
    name = list(before)[1]
    new = before[name].copy()
    new.flat[0] = 42.0
    write_weights(files[kind], out, {name: new})
    after = read_weights(out)
    assert after[name].flat[0] == 42.0
    assert sum(int((after[n] != before[n]).sum()) for n in before) == 1


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (kind, how)
        for kind, how in itertools.product(TORCH, EDITS)
        # a state dict does not say which layer is a transposed convolution; frozen: see below
        if kind != "frozen" and not (kind in ("safetensors", "state-dict") and how == "quantize:int4")
    ],
)
def test_torch_files_answer_like_the_edited_module(files: dict[str, Path], kind: str, how: str, tmp_path: Path) -> None:
    out = edited(files, kind, how, tmp_path)
    module = edit_module(models.tiny(), weight_transform(how))
    x = models.inputs(3)
    np.testing.assert_allclose(TORCH[kind](out, x), models.answers(module, x), atol=1e-6)
    assert not np.allclose(models.answers(module, x), models.answers(models.tiny(), x), atol=1e-3)


def test_frozen_torchscript_is_edited_in_its_constants(files: dict[str, Path], tmp_path: Path) -> None:
    import torch

    out = edited(files, "frozen", "prune:layer:0.5", tmp_path)
    weights = read_weights(out)
    assert sum((v == 0).sum() for v in weights.values()) >= sum(v.size // 2 for v in weights.values())
    module = edit_module(torch.jit.load(files["frozen"]), weight_transform("prune:layer:0.5"))
    x = models.inputs(2)
    np.testing.assert_allclose(models.run_torchscript(out, x), models.answers(module, x), atol=1e-6)
    assert not np.allclose(models.run_torchscript(out, x), models.run_torchscript(files["frozen"], x), atol=1e-3)


@pytest.mark.parametrize("how", EDITS)
@pytest.mark.parametrize("kind", ["onnx", "onnx-half"])
def test_onnx_files_answer_like_the_edited_converted_module(
    files: dict[str, Path], kind: str, how: str, tmp_path: Path
) -> None:
    import onnx2fx

    out = edited(files, kind, how, tmp_path)
    module = edit_module(onnx2fx.convert(str(files[kind])).eval(), weight_transform(how))
    x = models.inputs(3)
    np.testing.assert_allclose(models.run_onnx(out, x), models.answers(module, x), atol=2e-5)
    assert not np.allclose(models.run_onnx(out, x), models.run_onnx(files[kind], x), atol=1e-3)


def test_onnx_types_biases_and_constants_are_kept(files: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    out = edited(files, "onnx-half", "prune:magnitude:0.5", tmp_path)
    old, new = onnx.load(files["onnx-half"]), onnx.load(out)
    assert [n.op_type for n in new.graph.node] == [n.op_type for n in old.graph.node]
    assert new.graph.node[0].attribute[0].t.data_type == onnx.TensorProto.FLOAT16
    kept = {t.name: (t.data_type, t.raw_data) for t in new.graph.initializer}
    assert kept["kernel"][0] == onnx.TensorProto.FLOAT16
    assert kept["bias"] == next((t.data_type, t.raw_data) for t in old.graph.initializer if t.name == "bias")


@pytest.mark.parametrize("how", EDITS)
@pytest.mark.parametrize("kind", ["tflite", "tflite-half"])
def test_tflite_files_answer_like_the_edited_function(
    files: dict[str, Path], kind: str, how: str, tmp_path: Path
) -> None:
    out = edited(files, kind, how, tmp_path)
    values = tflite.weights()
    names = ("conv", "depthwise", "dense")
    half = kind.endswith("half")
    matrices = {n: values[n].astype(np.float16).astype(np.float32) if half else values[n] for n in names}
    new = weight_transform(how).edit(matrices, {"depthwise": 3})
    new = {n: v.astype(np.float16).astype(np.float32) if half else v for n, v in new.items()}
    x = models.inputs(3, tflite.NHWC)
    np.testing.assert_allclose(models.run_tflite(out, x), tflite.torch_answers({**values, **new}, x), atol=1e-4)
    assert len(out.read_bytes()) == len(files[kind].read_bytes())


def test_output_axes(files: dict[str, Path]) -> None:
    for kind in ("pt2", "torchscript"):
        assert {n: a for n, a in open_weights(files[kind]).axes.items() if a} == {"6.weight": 1}
    assert open_weights(files["tflite"]).axes == {"depthwise": 3}
    assert open_weights(files["tflite-half"]).axes == {"depthwise": 3}
    for kind in ("onnx", "onnx-half"):
        axes = open_weights(files[kind]).axes
        assert axes["matrix"] % 2 == 1
        assert axes.get("kernel", 0) == 0


def test_axes_of_products_are_read_through_transpositions() -> None:
    import torch

    from fingerprint.transforms.weights.axes import module_axes

    class Products(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names = ("plain", "turned", "swapped", "moved", "cast")
            for name in self.names:
                setattr(self, name, torch.nn.Parameter(torch.randn(4, 4)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x @ self.plain @ self.turned.t() @ self.swapped.transpose(0, 1)
            return torch.matmul(x @ self.moved.permute(1, 0), self.cast.to(torch.float32))

    program = torch.export.export(Products(), (torch.zeros(2, 4),))
    axes = {name: axis % 2 for name, axis in module_axes(program.module()).items()}
    assert axes == {"plain": 1, "turned": 0, "swapped": 0, "moved": 0, "cast": 1}


def test_example_inputs_do_not_survive(files: dict[str, Path], tmp_path: Path) -> None:
    pattern = np.full(8, models.SECRET, np.float32).tobytes()
    assert pattern in files["pt2"].read_bytes()
    assert pattern not in edited(files, "pt2", "prune:magnitude:0.5", tmp_path).read_bytes()


def test_what_a_container_carries_along_is_kept(files: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    with zipfile.ZipFile(edited(files, "torchscript", "quantize:int8", tmp_path)) as archive:
        assert [archive.read(n) for n in archive.namelist() if n.endswith("extra/note.txt")] == [b"kept"]
    with safe_open(edited(files, "safetensors", "quantize:int8", tmp_path), "np") as file:
        assert file.metadata() == {"note": "kept"}
    assert torch.load(edited(files, "state-dict", "quantize:int8", tmp_path), weights_only=True)["epoch"] == 3


def test_safetensors_of_every_float_type(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    types = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    tensors = {str(t): torch.randn(4, 3).to(t) for t in types} | {"ids": torch.arange(6).reshape(2, 3)}
    save_file(tensors, tmp_path / "m.safetensors")
    weight_transform("prune:layer:0.5").apply(
        tmp_path / "m.safetensors", tmp_path / "o.safetensors", DeriveContext(None)
    )
    for name, tensor in load_file(tmp_path / "o.safetensors").items():
        assert tensor.dtype == tensors[name].dtype
        kept = tensor != 0 if name != "ids" else torch.ones(2, 3, dtype=torch.bool)
        assert torch.equal(tensor[kept], tensors[name][kept])
        assert name == "ids" or int((tensor == 0).sum()) == 6


def test_a_module_is_copied_and_its_tied_weights_stay_tied() -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    module[1].weight = module[0].weight
    module.register_buffer("scale", torch.rand(4, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    copy = edit_module(module, weight_transform("prune:magnitude:0.5"))
    assert copy[1].weight is copy[0].weight  # type: ignore[index]
    assert int((copy[0].weight == 0).sum() + (copy.scale == 0).sum()) == 16  # type: ignore[index,union-attr]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("kind", ["torchscript", "frozen"])
def test_a_script_inside_a_module_is_edited_and_the_original_is_not(files: dict[str, Path], kind: str) -> None:
    import torch

    inner = torch.jit.load(files[kind])
    module = torch.nn.Sequential(torch.nn.Identity(), inner)
    x = models.inputs(2)
    before = models.answers(module, x)
    copy = edit_module(module, weight_transform("quantize:int3"))
    expected = models.answers(edit_module(inner, weight_transform("quantize:int3")), x)
    np.testing.assert_allclose(models.answers(copy, x), expected, atol=1e-6)
    np.testing.assert_array_equal(models.answers(module, x), before)
    assert not np.allclose(expected, before, atol=1e-3)


def test_a_module_without_weights_is_refused() -> None:
    import torch

    with pytest.raises(TransformError, match="no float weights"):
        edit_module(torch.nn.ReLU(), weight_transform("quantize:int8"))


def test_wrong_names_and_shapes_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    with pytest.raises(TransformError, match="no weight tensor named 'other'"):
        write_weights(files["onnx"], out, {"other": np.zeros((2, 2), np.float32)})
    with pytest.raises(TransformError, match="can't replace"):
        write_weights(files["onnx"], out, {"matrix": np.zeros((2, 2), np.float32)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pt2", "torchscript", "safetensors", "state-dict", "onnx", "tflite"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_cut_files_give_an_error_of_ours_and_leave_nothing(
    files: dict[str, Path], kind: str, share: float, tmp_path: Path
) -> None:
    data = files[kind].read_bytes()
    cut = tmp_path / files[kind].name
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FingerprintError):
        weight_transform("prune:magnitude:0.5").apply(cut, tmp_path / f"out-{cut.name}", DeriveContext(None))
    assert list(tmp_path.iterdir()) == [cut]


def test_files_without_float_weights_are_explained(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros((3, 3), np.int8)}, tmp_path / "q.safetensors")
    with pytest.raises(TransformError, match="no float weights") as caught:
        read_weights(tmp_path / "q.safetensors")
    assert "quantized already" in caught.value.remedy
    (tmp_path / "x.bin").write_bytes(b"no model")
    with pytest.raises(TransformError, match="known format"):
        read_weights(tmp_path / "x.bin")
    with pytest.raises(TransformError, match="no such model file"):
        read_weights(tmp_path / "none.onnx")


def test_a_missing_package_names_its_extra(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtra) as caught:
        read_weights(files["onnx"])
    assert caught.value.extra == "onnx"


@pytest.mark.slow  # imports torch in a process of its own
def test_a_full_disk_is_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    """Torch's writer would end the process, with a traceback of its own in C++."""
    sources = [str(files[kind]) for kind in ("pt2", "torchscript")]
    code = f"""
import resource
from pathlib import Path
from fingerprint.errors import FingerprintError
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
for source in map(Path, {sources!r}):
    try:
        derive(source, "prune:magnitude:0.5", Path({str(tmp_path)!r}) / source.name, DeriveContext(None))
    except FingerprintError as error:
        print(error.diagnosis())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("File too large") == 2
    assert list(tmp_path.iterdir()) == []
