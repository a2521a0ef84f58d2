"""Compilation between torch formats and ONNX, and quantization of ONNX files."""

from __future__ import annotations

import itertools
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import transforms_models as models

from fingerprint.errors import MissingExtra, SpecError, TransformError, UsageError
from fingerprint.transforms.derive import derive
from fingerprint.transforms.feed import real_valued
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.prune import Prune
from fingerprint.transforms.weights import edit_module

CONTEXT = DeriveContext(models.SPEC, factory="transforms_models:tiny")
RUN = {
    ".pt2": models.run_pt2,
    ".onnx": models.run_onnx,
    ".pt": models.run_torchscript,
    ".safetensors": models.run_state,
}


@pytest.mark.parametrize(
    ("kind", "out"),
    [
        *itertools.product(["pt2", "torchscript"], ["m.pt2", "m.onnx", "m.ts.pt", "m.safetensors"]),
        *itertools.product(["safetensors", "state-dict"], ["m.pt2", "m.ts.pt", "m.safetensors"]),
    ],
)
def test_the_function_is_kept_at_any_batch(
    files: dict[str, Path], kind: str, out: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / out
    target = {".pt": "torchscript"}.get(path.suffix, path.suffix[1:])
    capfd.readouterr()
    derive(files[kind], f"compile:{target}", path, CONTEXT)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    for batch in (1, 3):
        x = models.inputs(batch)
        np.testing.assert_allclose(RUN[path.suffix](path, x), models.answers(models.tiny(), x), atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == [out, f"{out}.spec.json"]


@pytest.mark.parametrize("out", ["m.pt2", "m.onnx", "m.ts.pt"])
@pytest.mark.parametrize("kind", ["onnx", "onnx-half"])
def test_onnx_can_be_turned_into_torch_and_back(files: dict[str, Path], kind: str, out: str, tmp_path: Path) -> None:
    path = tmp_path / out
    derive(
        files[kind], "compile:pt2+compile:" + {".pt": "torchscript"}.get(path.suffix, path.suffix[1:]), path, CONTEXT
    )
    for batch in (1, 3):
        x = models.inputs(batch)
        np.testing.assert_allclose(RUN[path.suffix](path, x), models.run_onnx(files[kind], x), atol=1e-4)


def test_names_of_weights_survive_the_way_through_onnx(files: dict[str, Path], tmp_path: Path) -> None:
    import torch

    derive(files["onnx"], "compile:pt2", tmp_path / "m.pt2", DeriveContext(None))
    assert {"kernel", "bias", "matrix"} <= set(torch.export.load(tmp_path / "m.pt2").state_dict)
    derive(files["torchscript"], "compile:pt2", tmp_path / "s.pt2", CONTEXT)
    assert set(models.tiny().state_dict()) >= set(torch.export.load(tmp_path / "s.pt2").state_dict) > {"0.weight"}


@pytest.mark.parametrize("out", ["m.pt2", "m.ts.pt", "m.onnx"])
def test_no_example_input_and_no_source_path_is_left(files: dict[str, Path], out: str, tmp_path: Path) -> None:
    path = tmp_path / out
    derive(files["pt2"], "prune:layer:0.1", path, CONTEXT)
    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            data = b"".join(archive.read(name) for name in archive.namelist())
            assert not any(archive.read(name) for name in archive.namelist() if "sample_inputs" in name)
    assert np.full(8, models.SECRET, np.float32).tobytes() not in data
    if out == "m.onnx":
        assert b"transforms_models" not in data


def test_chains_apply_their_steps_in_order(files: dict[str, Path], tmp_path: Path) -> None:
    made = derive(files["pt2"], "prune:magnitude:0.5", tmp_path / "m.onnx", CONTEXT)
    assert made.how == "prune:magnitude:0.5+compile:onnx"
    x = models.inputs(4)
    expected = models.answers(edit_module(models.tiny(), Prune("magnitude", 0.5)), x)
    np.testing.assert_allclose(models.run_onnx(made.path, x), expected, atol=1e-5)


def test_onnx_has_an_open_batch_and_one_file(files: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    derive(files["pt2"], "compile:onnx", tmp_path / "m.onnx", CONTEXT)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not any(t.HasField("data_location") and t.data_location for t in model.graph.initializer)
    onnx.checker.check_model(model)


def test_a_program_with_a_fixed_batch_keeps_it(tmp_path: Path) -> None:
    import torch

    program = torch.export.export(models.tiny(), (torch.zeros(2, *models.SHAPE),))
    torch.export.save(program, tmp_path / "fixed.pt2")
    derive(tmp_path / "fixed.pt2", "compile:torchscript", tmp_path / "m.ts.pt", CONTEXT)
    derive(tmp_path / "fixed.pt2", "compile:onnx", tmp_path / "m.onnx", CONTEXT)
    x = models.inputs(2)
    np.testing.assert_allclose(models.run_onnx(tmp_path / "m.onnx", x), models.answers(models.tiny(), x), atol=1e-5)


def test_a_script_that_folds_its_batch_is_exported_for_one_image(tmp_path: Path) -> None:
    import torch

    class Folded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(432, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dense(x.view(1, -1))

    module = Folded().eval()
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, *models.SHAPE)), tmp_path / "m.ts.pt")
    derive(tmp_path / "m.ts.pt", "compile:pt2", tmp_path / "m.pt2", CONTEXT)
    x = models.inputs(1)
    np.testing.assert_allclose(models.run_pt2(tmp_path / "m.pt2", x), models.answers(module, x), atol=1e-6)


def images(count: int = 48) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("how", ["quantize:static:int8", "quantize:dynamic:int8"])
def test_quantized_onnx_stays_close(
    files: dict[str, Path], how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx

    made = derive(files["onnx"], how, tmp_path / "q.onnx", DeriveContext(models.SPEC, images()))
    assert capfd.readouterr() == ("", "")
    assert made.spec == models.SPEC
    x = real_valued(images(), models.SPEC)
    expected = models.run_onnx(files["onnx"], x)
    assert np.abs(models.run_onnx(made.path, x) - expected).max() < 0.15 * np.abs(expected).max()
    types = {t.data_type for t in onnx.load(made.path).graph.initializer}
    assert types & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.onnx", "q.onnx.spec.json"]


def test_a_file_with_the_exporters_own_names_is_exported_again(tmp_path: Path) -> None:
    """`val_0` and so on: a constant that the exporter makes would have the name of one that is there."""
    import onnx
    from onnx import TensorProto, helper

    constants = [
        helper.make_tensor(f"val_{i}", TensorProto.FLOAT, [], [6.0 + i // 2 if i % 2 else 0.0]) for i in range(20)
    ]
    clips = [
        helper.make_node("Clip", [f"value_{i}", f"val_{2 * i}", f"val_{2 * i + 1}"], [f"value_{i + 1}"])
        for i in range(10)
    ]
    nodes = [
        helper.make_node("Conv", ["input", "weight"], ["value_0"]),
        *clips,
        helper.make_node("GlobalAveragePool", ["value_10"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["output"]),
    ]
    weight = np.random.default_rng(0).standard_normal((10, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 10])],
        [*constants, onnx.numpy_helper.from_array(weight, "weight")],
    )
    source = tmp_path / "source.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), source)
    derive(source, "compile:onnx", tmp_path / "m.onnx", CONTEXT)
    x = models.inputs(5)
    np.testing.assert_allclose(models.run_onnx(tmp_path / "m.onnx", x), models.run_onnx(source, x), atol=1e-5)


def test_a_quantized_file_that_its_runtime_refuses_is_not_kept(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    from fingerprint.transforms import onnx_quantize

    def refused(source: Path, out: Path, inputs: np.ndarray) -> None:
        model = onnx.load(source)
        model.graph.node[0].op_type = "NoSuchOperation"
        onnx.save(model, out)

    monkeypatch.setattr(onnx_quantize, "quantize_static", refused)
    context = DeriveContext(models.SPEC, images(), measure=False)
    with pytest.raises(TransformError, match=r"can't be opened.*NoSuchOperation"):
        derive(files["onnx"], "quantize:static:int8", tmp_path / "q.onnx", context)
    assert not list(tmp_path.iterdir())


def test_static_quantization_compiles_a_program_first(files: dict[str, Path], tmp_path: Path) -> None:
    made = derive(files["pt2"], "quantize:static:int8", tmp_path / "q.onnx", DeriveContext(models.SPEC, images()))
    assert made.how == "compile:onnx+quantize:static:int8"
    x = real_valued(images(), models.SPEC)
    expected = models.answers(models.tiny(), x)
    assert np.abs(models.run_onnx(made.path, x) - expected).max() < 0.15 * np.abs(expected).max()


def test_images_are_fed_as_the_spec_says() -> None:
    from fingerprint.model import InputSpec

    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 1] = (255, 51, 0)
    spec = InputSpec("NCHW", (3, 2, 2), range=(-1.0, 1.0), mean=(0.5, 0, 0), std=(1, 1, 2), channels="BGR")
    fed = real_valued(image, spec)
    assert fed.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(fed[0, :, 0, 1], [-1.5, -0.6, 0.5], atol=1e-6)
    nhwc = real_valued(image, InputSpec("NHWC", (4, 4, 3)))
    assert nhwc.shape == (1, 4, 4, 3)


def test_what_a_source_lacks_is_asked_for(files: dict[str, Path], tmp_path: Path) -> None:
    bare = DeriveContext(None)
    with pytest.raises((TransformError, SpecError), match="what input it takes") as caught:
        derive(files["torchscript"], "compile:pt2", tmp_path / "m.pt2", bare)
    assert "--spec" in caught.value.remedy
    with pytest.raises(UsageError, match="holds weights") as usage:
        derive(files["state-dict"], "compile:pt2", tmp_path / "m.pt2", DeriveContext(models.SPEC))
    assert "--factory" in usage.value.remedy
    with pytest.raises(TransformError, match="no_such_module"):
        derive(
            files["state-dict"], "compile:pt2", tmp_path / "m.pt2", DeriveContext(models.SPEC, None, "no_such_module:f")
        )
    assert not list(tmp_path.iterdir())


def test_an_exporter_that_is_not_installed_names_its_extra(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingExtra) as caught:
        derive(files["pt2"], "compile:onnx", tmp_path / "m.onnx", CONTEXT)
    assert caught.value.extra == "compile-onnx"


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    import torch

    class Sum(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    program = torch.export.export(Sum(), (torch.zeros(1, 3), torch.zeros(1, 3)))
    torch.export.save(program, tmp_path / "sum.pt2")
    with pytest.raises(TransformError, match="one input"):
        derive(tmp_path / "sum.pt2", "compile:torchscript", tmp_path / "m.ts.pt", CONTEXT)


DATA = Path(os.environ.get("FINGERPRINT_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.mark.shared_data
@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real models is absent")
def test_real_float16_onnx_keeps_its_types(tmp_path: Path) -> None:
    source = DATA / "imagenet" / "efficientnet_lite0.onnx"
    made = derive(source, "prune:magnitude:0.5", tmp_path / "m.onnx", DeriveContext(None))
    assert abs(made.path.stat().st_size - source.stat().st_size) < 4096
