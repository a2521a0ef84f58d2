"""Every step of the grammar is read, spelled and read again; keys, paths, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.errors import TransformError
from fingerprint.transforms.average import Average
from fingerprint.transforms.derive import grammar, parse_how, spell
from fingerprint.transforms.distil import ARCHITECTURES, KINDS
from fingerprint.transforms.options import Recipe, read, read_path, written, written_path

STEPS = [
    "prune:nm:2:4", "prune:filter:0.25", "prune:channel:0.25", "prune:pattern:8", "prune:block:4x8:0.5",
    "prune:bilevel:0.9", "prune:bilevel:0.9:epochs=2", "prune:shrink:0.5", "retrain", "retrain:epochs=3:lr=0.5",
    "quantize:qat:int4", "quantize:qat:int2:batch=16", "finetune:last", "finetune:all:epochs=2:flip=0",
    "finetune:reset-last", "finetune:reset-all:shift=0", "transfer:last", "transfer:all:images=100",
    *(f"distil:{kind}:{architecture}" for kind in KINDS for architecture in ARCHITECTURES),
    "distil:soft:same:epochs=3:t=2.0", "distil:adversarial:cnn:eps=4.0", "distil:noise:vgg:queries=10",
    "advtrain:4", "advtrain:2.5:steps=1", "noise:0.1", "average:0.5:other.pt2", "average:0.25:/a/b%3Ac%2Bd%25.pt2",
    "curve:0.5:other.pt2:epochs=2", "ensemble:other.onnx", "dropout:0.3", "circulant:4", "filter:jpeg:75",
    "filter:resize:0.5", "filter:blur:1.0", "filter:bits:4", "fault:flip:100", "fault:flip8:7",
    "fault:stuck:0.01:zero", "fault:stuck:0.01:max", "sneak:l0:4", "sneak:l2:4:keep=100:all=1", "backdoor:0",
    "backdoor:3:share=0.2:size=4", "prune:magnitude:0.9+retrain", "noise:0.1+finetune:all",
]  # fmt: skip


@pytest.mark.parametrize("text", STEPS)
def test_canonical_text_is_read_back(text: str) -> None:
    assert spell(parse_how(text)) == text
    assert parse_how(spell(parse_how(text))) == parse_how(text)


@pytest.mark.parametrize(("text", "canonical"), [
    ("prune:pattern", "prune:pattern:8"), ("finetune:all:epochs=5", "finetune:all"), ("noise:1e-1", "noise:0.1"),
    ("retrain:lr=5e-2", "retrain"), ("advtrain:4.0", "advtrain:4"), ("backdoor:03", "backdoor:3"),
])  # fmt: skip
def test_defaults_are_left_out(text: str, canonical: str) -> None:
    assert spell(parse_how(text)) == canonical


@pytest.mark.parametrize("text", [
    "prune:nm:4:4", "prune:nm:0:4", "prune:nm:2", "prune:filter:1", "prune:pattern:57", "prune:block:4:0.5",
    "prune:block:0x4:0.5", "prune:bilevel", "prune:bilevel:2", "prune:shrink:0", "retrain:0.5", "retrain:speed=3",
    "retrain:epochs=0", "retrain:epochs=2:epochs=3", "retrain:lr=nan", "retrain:lr=-1", "retrain:epochs=1.5",
    "quantize:qat:int9", "quantize:qat", "quantize:qat:int4:fast", "finetune", "finetune:most", "finetune:all:last",
    "finetune:epochs=3", "transfer", "transfer:none", "distil", "distil:soft", "distil:soft:huge",
    "distil:loud:cnn", "distil:soft:cnn:t=0", "advtrain", "advtrain:0", "advtrain:x", "advtrain:4:steps=0", "noise",
    "noise:0", "noise:inf", "average:0.5", "average:0.5:", "average:1:x.pt2", "average:0.5:a:b", "curve:0.5",
    "ensemble", "ensemble:", "dropout:1", "dropout", "circulant:1", "circulant", "filter:jpeg:0", "filter:bits:8",
    "filter:resize:1", "filter:blur:0", "filter:sepia:1", "fault:flip:0", "fault:stuck:0.1", "fault:stuck:0.1:one",
    "fault:melt:1", "sneak:l1:4", "sneak:l0", "sneak:l0:0", "sneak:l0:4:all=2", "sneak:l0:4:rounds=0", "backdoor",
    "backdoor:-1", "backdoor:1:share=1", "backdoor:1:share=0", "backdoor:1:size=0",
])  # fmt: skip
def test_errors_name_the_grammar(text: str) -> None:
    with pytest.raises(TransformError) as caught:
        parse_how(text)
    assert text.split(":", maxsplit=1)[0] in caught.value.remedy


def test_every_step_is_in_the_grammar_and_in_the_docs() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "transformations.md").read_text()
    names = {step.split(":")[0] for step in "+".join(STEPS).split("+")}
    for name in names:
        assert f"  {name}" in grammar()
        assert f"`{name}" in docs


@given(st.builds(
    Recipe, epochs=st.integers(1, 1000), lr=st.floats(0, 1000), batch=st.integers(1, 9999),
    images=st.none() | st.integers(1, 9999), flip=st.none() | st.integers(0, 1), shift=st.none() | st.integers(0, 9),
))  # fmt: skip
def test_keys_are_read_back(recipe: Recipe) -> None:
    keys = written(recipe, Recipe()).split(":")[1:]
    assert read(["all", *keys], Recipe(), "it") == (("all",), recipe)


@given(st.text(min_size=1).map(lambda text: text.replace("\0", "")).filter(bool).map(Path))
def test_paths_are_read_back(path: Path) -> None:
    text = written_path(path)
    assert ":" not in text and "+" not in text
    assert read_path(text, "it") == path


def test_a_path_with_every_sign_goes_through_a_chain() -> None:
    step = Average(0.5, Path("a b/c:d+e%25.pt2"))
    assert parse_how(f"noise:0.1+{step.spell()}")[1] == step


def test_reading_imports_nothing_heavy() -> None:
    program = (
        "import sys; from fingerprint.transforms.derive import parse_how; "
        f"parse_how({'+'.join(STEPS)!r}); "
        "print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
