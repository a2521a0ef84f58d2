"""Files for other runtimes: converted, checked against their source, published whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import transforms_models as models

from fingerprint.errors import FingerprintError, MissingExtra, TransformError
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.runtimes.registry import runtime_for
from fingerprint.spec import find_spec
from fingerprint.transforms import converters
from fingerprint.transforms.converters import CONVERTERS, MAKERS, NNCF, Converter
from fingerprint.transforms.derive import derive
from fingerprint.transforms.files import sha256_of
from fingerprint.transforms.interface import DeriveContext

CONTEXT = DeriveContext(models.SPEC)
IMAGES = np.random.default_rng(5).integers(0, 256, (24, 12, 12, 3), dtype=np.uint8)


def there(converter: Converter) -> bool:
    try:
        converter.python()
    except FingerprintError:
        return False
    return True


def target(name: str, suffix: str, *, slow: bool = False, fp16: bool = False) -> object:
    marks = [pytest.mark.skipif(not there(MAKERS[name]), reason=f"no {MAKERS[name].title}")]
    return pytest.param(name, suffix, fp16, marks=[*marks, *([pytest.mark.slow] if slow else [])])


def answers(path: Path, format: str, x: np.ndarray) -> np.ndarray:
    loaded = runtime_for(format).load(path, format, LoadOptions(threads=1))
    size = loaded.signature.batch or loaded.batch_range[0]
    return np.concatenate([loaded.predict(np.repeat(image[None], size, axis=0))[:1] for image in x])


@pytest.mark.parametrize(
    ("name", "suffix", "fp16"),
    [
        target("openvino", ".xml"),
        target("openvino", ".xml", fp16=True, slow=True),
        target("ncnn", ".param"),
        target("ncnn", ".param", fp16=True, slow=True),
        target("mnn", ".mnn"),
        target("mnn", ".mnn", fp16=True, slow=True),
        target("executorch", ".pte", slow=True),
        target("tvm", ".so", slow=True),
        target("aotinductor", ".pt2", slow=True),
    ],
)
def test_converted_files_answer_like_their_source(
    files: dict[str, Path], tmp_path: Path, name: str, suffix: str, fp16: bool
) -> None:
    out = tmp_path / f"m{suffix}"
    how = f"compile:{name}" + (":fp16" if fp16 else "")
    made = derive(files["pt2"], how, out, CONTEXT)
    assert (made.how, made.sha256, made.spec) == (how, sha256_of(out), models.SPEC)
    assert made.difference is not None and made.difference < (0.05 if fp16 else 1e-3)
    names = {out.name, out.name + ".spec.json"} | ({"m.bin"} if suffix in (".xml", ".param") else set())
    assert {path.name for path in tmp_path.iterdir()} == names
    x = models.inputs(3)
    expected = models.answers(models.tiny(), x)
    np.testing.assert_allclose(answers(out, name, x), expected, atol=0.05 * np.abs(expected).max() if fp16 else 1e-3)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert np.full(8, models.SECRET, np.float32).tobytes() not in content


@pytest.mark.slow
@pytest.mark.skipif(not there(MAKERS["coreml"]), reason="no Core ML converter")
@pytest.mark.parametrize("suffix", [".mlpackage", ".mlmodel"])
def test_core_ml_files_are_made_and_described(files: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    from fingerprint.runtimes.coreml import describe
    from fingerprint.runtimes.parts import main_file

    made = derive(files["pt2"], "compile:coreml", tmp_path / f"m{suffix}", CONTEXT)
    assert made.difference is None and len(made.sha256) == 64
    assert "float32 (1, 3, 12, 12)" in describe(main_file(made.path))
    assert find_spec(made.path, None) is not None


@pytest.mark.slow
@pytest.mark.skipif(not there(MAKERS["executorch"]), reason="no ExecuTorch exporter")
def test_executorch_int8(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TransformError, match="clean images"):
        derive(files["pt2"], "compile:executorch:int8", tmp_path / "m.pte", CONTEXT)
    plain = derive(files["pt2"], "compile:executorch", tmp_path / "p.pte", CONTEXT)
    made = derive(files["pt2"], "compile:executorch:int8", tmp_path / "m.pte", DeriveContext(models.SPEC, IMAGES))
    x = models.inputs(4)
    expected, found = answers(plain.path, "executorch", x), answers(made.path, "executorch", x)
    assert 0 < np.abs(found - expected).max() < 0.5 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.skipif(not there(NNCF), reason="no NNCF")
def test_openvino_int8(files: dict[str, Path], tmp_path: Path) -> None:
    made = derive(files["pt2"], "quantize:static:int8", tmp_path / "m.xml", DeriveContext(models.SPEC, IMAGES))
    assert made.how == "compile:openvino+quantize:static:int8"
    x = models.inputs(4)
    expected = models.answers(models.tiny(), x)
    assert 0 < np.abs(answers(made.path, "openvino", x) - expected).max() < 0.5 * np.abs(expected).max()


SHARED = Path(os.environ.get("FINGERPRINT_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
@pytest.mark.parametrize(
    ("name", "suffix", "fp16"),
    [
        target("openvino", ".xml"),
        target("ncnn", ".param"),
        target("ncnn", ".param", fp16=True),
        target("mnn", ".mnn"),
        target("executorch", ".pte"),
        target("tvm", ".so"),
        target("aotinductor", ".pt2"),
    ],
)
def test_a_real_model_keeps_its_labels(tmp_path: Path, name: str, suffix: str, fp16: bool) -> None:
    source = SHARED / "cifar10" / "akamaster_resnet20.pt2"
    found = find_spec(source, None)
    assert found is not None
    how = f"compile:{name}" + (":fp16" if fp16 else "")
    made = derive(source, how, tmp_path / f"m{suffix}", DeriveContext(found.spec))
    x = np.random.default_rng(0).standard_normal((100, 3, 32, 32)).astype(np.float32)
    expected = answers(source, "pt2", x).argmax(axis=1)
    assert (answers(made.path, name, x).argmax(axis=1) == expected).mean() >= (0.97 if fp16 else 0.99)


def test_a_wrong_conversion_is_found(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("MNN")
    run = Converter.run

    def of_another(self: Converter, folder: Path, *arguments: str | Path) -> None:
        name, _, out = arguments[:3]
        run(self, folder, name, models.save_onnx(folder / "other.onnx"), out)

    monkeypatch.setattr(Converter, "run", of_another)
    with pytest.raises(TransformError, match="answers differently"):
        derive(files["pt2"], "compile:mnn", tmp_path / "m.mnn", CONTEXT)
    assert not list(tmp_path.iterdir())


def test_a_converter_that_writes_nothing(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Converter, "run", lambda *_: None)
    monkeypatch.setattr(Converter, "python", lambda _: Path("python"))
    with pytest.raises(TransformError, match="wrote nothing"):
        derive(files["onnx"], "compile:mnn", tmp_path / "m.mnn", CONTEXT)


def test_weights_of_another_are_not_overwritten(files: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "m.bin").write_bytes(b"mine")
    with pytest.raises(TransformError, match=r"m\.bin exists already"):
        derive(files["onnx"], "compile:openvino", tmp_path / "m.xml", CONTEXT)
    derive(files["onnx"], "compile:openvino", tmp_path / "m.xml", CONTEXT, overwrite=True)
    assert (tmp_path / "m.bin").read_bytes() != b"mine"


def test_a_tflite_becomes_openvino(files: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    made = derive(files["tflite"], "compile:openvino", tmp_path / "m.xml", DeriveContext(None))
    assert made.difference is not None and made.difference < 1e-3


@pytest.mark.parametrize("converter", CONVERTERS, ids=lambda c: c.name)
def test_every_converter_says_how_to_get_it(
    converter: Converter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINGERPRINT_HOME", str(tmp_path))
    monkeypatch.delenv(converter.variable, raising=False)
    monkeypatch.setattr(converters, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra) as caught:
        converter.python()
    folder = tmp_path / "converters" / converter.name
    assert f"python3 -m venv {folder}" in caught.value.remedy and converter.packages[0] in caught.value.remedy
    assert ("Install it here" in caught.value.remedy) is (converter.name != "litert")
    monkeypatch.setenv(converter.variable, shutil.which("sh") or "/bin/sh")
    assert converter.python().name == "sh"
    assert Path(converters.__file__).with_name(converter.script).is_file()
