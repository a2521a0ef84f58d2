"""The grammar, the plan of a chain, and derive's promises about files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transforms_models as models

from fingerprint.errors import FingerprintError, TransformError
from fingerprint.spec import find_spec
from fingerprint.transforms.compile import Compile
from fingerprint.transforms.derive import derive, grammar, parse_how, spell
from fingerprint.transforms.files import sha256_of
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.plan import plan
from fingerprint.transforms.prune import Prune

CONTEXT = DeriveContext(models.SPEC)
STATIC = "quantize:static:int8"


@pytest.mark.parametrize(
    "text",
    [
        "prune:magnitude:0.5",
        "prune:layer:0.125",
        *(f"quantize:int{bits}" for bits in range(2, 9)),
        "quantize:int4:tensor",
        "quantize:fp16",
        "quantize:bf16",
        STATIC,
        "quantize:dynamic:int8",
        *(f"compile:{target}" for target in ("onnx", "torchscript", "pt2", "safetensors", "litert", "litert:fp16")),
        *(f"compile:{target}" for target in ("openvino", "ncnn:fp16", "mnn", "executorch:int8", "tvm", "coreml")),
        "prune:magnitude:0.5+quantize:int8+compile:litert",
    ],
)
def test_canonical_text_is_read_back(text: str) -> None:
    assert spell(parse_how(text)) == text
    assert parse_how(spell(parse_how(text))) == parse_how(text)


def test_spaces_and_other_numbers_are_made_canonical() -> None:
    assert spell(parse_how("prune:magnitude:.50 + compile:onnx")) == "prune:magnitude:0.5+compile:onnx"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no transformation ''"),
        ("prune:magnitude:0.5+", "no transformation ''"),
        ("shrink:0.5", "no transformation 'shrink'"),
        ("prune", "prune can't be told ''"),
        ("prune:random:0.5", "prune can't be told 'random:0.5'"),
        ("prune:magnitude:1", "no share between 0 and 1"),
        ("prune:magnitude:nan", "no share between 0 and 1"),
        ("prune:layer:half", "no share between 0 and 1"),
        ("quantize:int9", "quantize can't be told 'int9'"),
        ("quantize:int1", "quantize can't be told 'int1'"),
        ("quantize:int8:row", "quantize can't be told 'int8:row'"),
        ("quantize:static:int4", "quantize can't be told 'static:int4'"),
        ("compile:stone", "compile can't be told 'stone'"),
        ("compile:onnx:fp16", "compile can't be told 'onnx:fp16'"),
    ],
)
def test_errors_list_the_grammar(text: str, says: str) -> None:
    with pytest.raises(TransformError) as caught:
        parse_how(text)
    assert says in caught.value.message
    name = text.split(":", maxsplit=1)[0]
    expected = name if name in ("prune", "quantize", "compile") and not text.endswith("+") else "prune:magnitude:F"
    assert expected in caught.value.remedy


def test_the_grammar_names_every_transformation() -> None:
    assert all(word in grammar() for word in ("prune:layer", "quantize:static:int8", "compile:litert"))


@pytest.mark.parametrize(
    ("kind", "how", "out", "steps"),
    [
        ("pt2", "prune:layer:0.5", "m.pt2", "prune:layer:0.5"),
        ("pt2", "prune:layer:0.5", "m.onnx", "prune:layer:0.5+compile:onnx"),
        ("pt2", "prune:layer:0.5", "m.ts.pt", "prune:layer:0.5+compile:torchscript"),
        ("state-dict", "prune:layer:0.5", "m.pt", "prune:layer:0.5"),
        ("safetensors", "prune:layer:0.5", "m.tflite", "prune:layer:0.5+compile:litert"),
        ("onnx", "compile:litert", "m.onnx", None),
        ("pt2", STATIC, "m.onnx", f"compile:onnx+{STATIC}"),
        ("pt2", STATIC, "m.tflite", f"compile:litert+{STATIC}"),
        ("onnx", STATIC, "m.tflite", f"compile:litert+{STATIC}"),
        ("onnx", STATIC, "m.onnx", STATIC),
        ("pt2", f"{STATIC}+compile:litert", "m.tflite", f"compile:litert+{STATIC}"),
        ("pt2", f"prune:layer:0.5+{STATIC}+compile:onnx", "m.onnx", f"prune:layer:0.5+compile:onnx+{STATIC}"),
        ("pt2", f"{STATIC}+compile:onnx", "m.pt2", None),
        ("pt2", f"{STATIC}+compile:litert:fp16", "m.tflite", None),
        ("pt2", STATIC, "m.pt2", None),
        ("pt2", STATIC, "m.xml", f"compile:openvino+{STATIC}"),
        ("pt2", STATIC, "m.pte", None),
        ("pt2", "prune:layer:0.5", "m.mnn", "prune:layer:0.5+compile:mnn"),
        ("pt2", "compile:aotinductor", "m.pt2", "compile:aotinductor"),
        ("onnx", "compile:ncnn:fp16", "m.param", "compile:ncnn:fp16"),
        ("tflite", "compile:openvino", "m.xml", "compile:openvino"),
        ("tflite", "compile:ncnn", "m.param", None),
        ("tflite", "compile:litert", "m.tflite", "compile:litert"),
        ("tflite", "quantize:int8", "m.tflite", "quantize:int8"),
        ("tflite", "quantize:int8", "m.onnx", None),
        ("tflite", "compile:pt2", "m.pt2", None),
        ("pt2", "prune:layer:0.5", "m.bin", None),
    ],
)
def test_plans(files: dict[str, Path], kind: str, how: str, out: str, steps: str | None) -> None:
    if steps is None:
        with pytest.raises(TransformError) as caught:
            plan(files[kind], parse_how(how), Path(out))
        assert caught.value.remedy
    else:
        assert spell([step.transform for step in plan(files[kind], parse_how(how), Path(out))]) == steps


def test_derive_writes_the_model_and_its_sidecar(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "derived.safetensors"
    made = derive(files["pt2"], "prune:magnitude:0.5 + quantize:int8", out, CONTEXT)
    assert made.path == out
    assert made.how == "prune:magnitude:0.5+quantize:int8+compile:safetensors"
    assert made.sha256 == sha256_of(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name, out.name + ".spec.json"]
    found = find_spec(out, None)
    assert found is not None
    assert found.spec == made.spec == models.SPEC
    assert out.stat().st_mode & 0o111 == 0


def test_without_a_spec_no_sidecar_is_written(files: dict[str, Path], tmp_path: Path) -> None:
    made = derive(files["onnx"], "quantize:int8", tmp_path / "m.onnx", DeriveContext(None))
    assert made.spec is None
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_nothing_is_overwritten_unless_told(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(TransformError, match="exists already"):
        derive(files["onnx"], "quantize:int8", out, CONTEXT)
    assert out.read_bytes() == b"mine"
    derive(files["onnx"], "quantize:int8", out, CONTEXT, overwrite=True)
    assert out.read_bytes() != b"mine"
    out.unlink()
    with pytest.raises(TransformError, match=r"spec\.json exists already"):
        derive(files["onnx"], "quantize:int8", out, CONTEXT)


def test_the_source_is_never_replaced(files: dict[str, Path], tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(files["onnx"])
    for out in (files["onnx"], link):
        with pytest.raises(TransformError, match="can't replace its source"):
            derive(files["onnx"], "quantize:int8", out, CONTEXT, overwrite=True)


def test_a_missing_folder_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TransformError, match="is no folder"):
        derive(files["onnx"], "quantize:int8", tmp_path / "none" / "m.onnx", CONTEXT)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, TransformError("no")])
@pytest.mark.parametrize("how", ["prune:layer:0.5", "compile:pt2+prune:layer:0.5"])
def test_failure_leaves_nothing(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], how: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Prune, "edit", fail)
    with pytest.raises((FingerprintError, KeyboardInterrupt)):
        derive(files["pt2"], how, tmp_path / "m.pt2", CONTEXT)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_between_sidecar_and_model_leaves_neither(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if target == tmp_path / "m.onnx":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        derive(files["onnx"], "quantize:int8", tmp_path / "m.onnx", CONTEXT)
    assert not list(tmp_path.iterdir())


def test_needs_are_checked_before_anything_runs(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Compile, "apply", lambda *_: pytest.fail("ran"))
    with pytest.raises(TransformError, match="clean images") as caught:
        derive(files["pt2"], STATIC, tmp_path / "m.onnx", CONTEXT)
    assert "--data" in caught.value.remedy
    images = np.zeros((2, 12, 12, 3), np.uint8)
    with pytest.raises(TransformError, match="how to feed") as caught:
        derive(files["pt2"], STATIC, tmp_path / "m.onnx", DeriveContext(None, images))
    assert "--spec" in caught.value.remedy


def test_a_broken_plug_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    points = EntryPoints([EntryPoint("melt", "no_such_module:Melt", "fingerprint.transforms")])
    monkeypatch.setattr("fingerprint.transforms.derive.entry_points", points.select)
    with pytest.raises(TransformError, match=r"melt \(no_such_module:Melt\) can't be loaded"):
        parse_how("melt:1")
    assert "melt" in grammar()


def test_the_sidecar_holds_the_documented_fields(files: dict[str, Path], tmp_path: Path) -> None:
    derive(files["tflite"], "quantize:int8", tmp_path / "m.tflite", CONTEXT)
    fields = json.loads((tmp_path / "m.tflite.spec.json").read_text())
    assert fields["layout"] == "NCHW"
    assert fields["dtype"] == "float32"
    assert fields["std"] == [0.2, 0.25, 0.3]


def test_reading_a_chain_imports_nothing_heavy() -> None:
    program = (
        "import sys; from fingerprint.transforms.derive import parse_how; "
        "parse_how('prune:magnitude:0.5+quantize:int8+quantize:static:int8+compile:litert'); "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'ai_edge_litert') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
