"""TFLite by the converter environment: real where there is one, imitated for its failures."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import transforms_models as models
import transforms_tflite as tflite

from fingerprint.errors import MissingExtra, TransformError
from fingerprint.model import InputSpec
from fingerprint.transforms import converters
from fingerprint.transforms.converters import LITERT
from fingerprint.transforms.derive import derive
from fingerprint.transforms.feed import real_valued
from fingerprint.transforms.interface import DeriveContext


def has_converter() -> bool:
    try:
        LITERT.python()
    except (MissingExtra, TransformError):
        return False
    return True


needs_converter = pytest.mark.skipif(
    not has_converter(),
    reason=f"no converter environment: set {converters.VARIABLE} to an interpreter with litert-torch",
)
CONTEXT = DeriveContext(models.SPEC)


@pytest.fixture(scope="module")
def converted(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "m.tflite"
    return derive(files["pt2"], "compile:litert", out, CONTEXT).path


@needs_converter
def test_a_program_becomes_tflite_with_one_image_nchw(converted: Path, files: dict[str, Path]) -> None:
    x = models.inputs(4)
    np.testing.assert_allclose(models.run_tflite(converted, x), models.answers(models.tiny(), x), atol=1e-4)
    assert np.full(8, models.SECRET, np.float32).tobytes() not in converted.read_bytes()


@needs_converter
def test_float16_weights_halve_the_file(converted: Path, tmp_path: Path) -> None:
    made = derive(converted, "compile:litert:fp16", tmp_path / "h.tflite", CONTEXT)
    x = models.inputs(4)
    np.testing.assert_allclose(models.run_tflite(made.path, x), models.answers(models.tiny(), x), atol=5e-2)
    from fingerprint.transforms.weights.flatbuffer import load_tflite

    graph = load_tflite(made.path).Subgraphs(0)
    assert any(graph.Tensors(i).Type() == 1 for i in range(graph.TensorsLength()))


@needs_converter
def test_static_quantization_takes_and_gives_int8(converted: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(5).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
    made = derive(converted, "quantize:static:int8", tmp_path / "q.tflite", DeriveContext(models.SPEC, images))
    assert made.spec is not None
    assert (made.spec.dtype, made.spec.layout, made.spec.shape) == ("int8", "NCHW", models.SHAPE)
    x = real_valued(images, models.SPEC)
    expected = models.answers(models.tiny(), x)
    assert np.abs(models.run_tflite(made.path, x) - expected).max() < 0.25 * np.abs(expected).max()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.tflite", "q.tflite.spec.json"]


@needs_converter
def test_files_without_a_signature_are_calibrated_too(files: dict[str, Path], tmp_path: Path) -> None:
    spec = InputSpec("NHWC", tflite.NHWC)
    images = np.random.default_rng(5).integers(0, 256, (20, *tflite.NHWC), dtype=np.uint8)
    made = derive(files["tflite"], "quantize:static:int8", tmp_path / "q.tflite", DeriveContext(spec, images))
    x = real_valued(images, spec)
    expected = tflite.torch_answers(tflite.weights(), x)
    assert np.abs(models.run_tflite(made.path, x) - expected).max() < 0.1 * np.abs(expected).max()
    dynamic = derive(files["tflite"], "quantize:dynamic:int8", tmp_path / "d.tflite", DeriveContext(spec))
    assert np.abs(models.run_tflite(dynamic.path, x) - expected).max() < 0.1 * np.abs(expected).max()
    assert dynamic.spec is not None
    assert dynamic.spec.dtype == "float32"


@needs_converter
@pytest.mark.slow
def test_onnx_becomes_tflite(files: dict[str, Path], tmp_path: Path) -> None:
    made = derive(files["onnx"], "quantize:int8", tmp_path / "m.tflite", CONTEXT)
    assert made.how == "quantize:int8+compile:litert"
    expected = tmp_path / "e.onnx"
    derive(files["onnx"], "quantize:int8", expected, DeriveContext(None))
    x = models.inputs(3)
    np.testing.assert_allclose(models.run_tflite(made.path, x), models.run_onnx(expected, x), atol=1e-4)


def imitation(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake = folder / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv(converters.VARIABLE, str(fake))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "m.tflite"


def test_the_end_of_what_a_failed_converter_said_is_shown(
    files: dict[str, Path], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitation(tmp_path, monkeypatch, "seq 1 50; printf 'no lowering \\377' >&2; exit 3")
    with pytest.raises(TransformError) as caught:
        derive(files["tflite"], "quantize:dynamic:int8", out, CONTEXT)
    assert "exit 3" in caught.value.message
    assert "no lowering" in caught.value.message
    assert "\n30\n" not in caught.value.message
    assert not list(out.parent.iterdir())


def test_a_converter_that_hangs_is_killed_with_its_children(
    files: dict[str, Path], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitation(tmp_path, monkeypatch, "sleep 60 & sleep 60")
    monkeypatch.setattr(converters, "CONVERT_S", 0.3)
    start = time.monotonic()
    with pytest.raises(TransformError, match="did not finish"):
        derive(files["tflite"], "quantize:dynamic:int8", out, CONTEXT)
    assert time.monotonic() - start < 20
    assert not list(out.parent.iterdir())


def test_a_converter_without_the_packages_says_how_to_install_them(
    files: dict[str, Path], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitation(tmp_path, monkeypatch, "echo \"ModuleNotFoundError: No module named 'ai_edge_quantizer'\" >&2; exit 1")
    with pytest.raises(MissingExtra) as caught:
        derive(files["tflite"], "quantize:dynamic:int8", out, CONTEXT)
    assert "pip install 'litert-torch" in caught.value.remedy


def test_no_converter_at_all_says_how_to_make_one(
    files: dict[str, Path], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(converters.VARIABLE, raising=False)
    monkeypatch.setenv("FINGERPRINT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(converters, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra) as caught:
        derive(files["pt2"], "compile:litert", out, CONTEXT)
    environment = tmp_path / "home" / "converters" / "litert"
    assert f"python3 -m venv {environment}" in caught.value.remedy
    assert f"{environment}/bin/pip install" in caught.value.remedy
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").touch()
    assert LITERT.python() == environment / "bin" / "python"


def test_a_named_interpreter_must_exist(
    files: dict[str, Path], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(converters.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(TransformError, match="does not exist"):
        derive(files["pt2"], "compile:litert", out, CONTEXT)
