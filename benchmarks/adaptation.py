"""How well the input and the labels of a suspect are settled on clean images, where its file does not say them.

    python benchmarks/adaptation.py --data DIR [--out .bench] [--images 1000] [--seed 0] [--only MODEL]

From real CIFAR-10 models, ONNX files are made that want their input in another layout, channel order, normalization,
dtype or size, and answer with offset, permuted or fewer labels. Each is settled as `verify` does it: on clean images
only. Counted are: right (the truth, alone), first (the truth comes first, and others that explain the images as well
are tried too, the error being corrected for it), tried (the truth is one of those others), partial (the labels of some
classes are left open, the rest is right; those classes are not compared), unsure (nothing is said), and wrong.

What is known of a variant is kept in adaptation.jsonl: a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fingerprint
from fingerprint.data import CleanImages, load_images
from fingerprint.engine.adapt import Adapter
from fingerprint.engine.labels import LabelMap
from fingerprint.engine.local import open_local
from fingerprint.engine.settle import NORMALIZATIONS, Setting, Settled, candidates, settle
from fingerprint.model import InputSpec, Signature
from fingerprint.spec import load_spec, sidecar_path

MODELS = ("akamaster_resnet20.onnx", "atreides_plainnet20.onnx")
CLASSES = 10
PERMUTATION = (3, 7, 0, 9, 4, 1, 8, 2, 6, 5)  # common class c is output PERMUTATION[c]
OUTCOMES = ("right", "first", "tried", "partial", "unsure", "wrong")
KEPT = 6  # classes of the reduced label space
TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


@dataclass(frozen=True)
class Variant:
    """How one file wants its input and what its labels mean."""

    layout: str
    channels: str
    dtype: str
    normalization: int  # index into NORMALIZATIONS; of no meaning for integer inputs
    size: int
    labels: str  # same, offset, permuted, reduced

    def spec(self) -> InputSpec:
        """The truth."""
        shape = (3, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, 3)
        numbers, mean, std = NORMALIZATIONS[self.normalization]
        if self.dtype != "float32":
            numbers, mean, std = ((0.0, 255.0) if self.dtype == "uint8" else (-128.0, 127.0)), (0.0,), (1.0,)
        mean, std = (v * (3 if len(v) == 1 else 1) for v in (mean, std))
        return InputSpec(self.layout, shape, self.dtype, numbers, mean, std, self.channels)  # type: ignore[arg-type]


def variants() -> list[Variant]:
    """All combinations; integer inputs leave no choice of normalization."""
    found = []
    for layout, channels, size, labels in itertools.product(
        ("NCHW", "NHWC"), ("RGB", "BGR"), (32, 48), ("same", "offset", "permuted", "reduced")
    ):
        found += [Variant(layout, channels, "float32", n, size, labels) for n in range(len(NORMALIZATIONS))]
        found += [Variant(layout, channels, dtype, 0, size, labels) for dtype in ("uint8", "int8")]
    return found


def rewrap(source: Path, spec: InputSpec, variant: Variant, out: Path) -> None:
    """Write `source` behind nodes that turn the variant's input into its own, and its labels into the variant's."""
    model = onnx.load(str(source))
    graph, truth = model.graph, variant.spec()
    inner_in, inner_out = graph.input[0].name, graph.output[0].name
    constants = {}

    def constant(name: str, value: np.ndarray) -> str:
        constants[name] = numpy_helper.from_array(value, name)
        return name

    nodes: list[onnx.NodeProto] = []
    current = "suspect_input"

    def add(kind: str, *inputs: str, **attributes: int | str | list[int]) -> None:
        nonlocal current
        nodes.append(helper.make_node(kind, [current, *inputs], [f"front_{len(nodes)}"], **attributes))  # type: ignore[arg-type]
        current = f"front_{len(nodes) - 1}"

    if variant.dtype != "float32":
        add("Cast", to=TensorProto.FLOAT)
    if variant.layout == "NHWC":
        add("Transpose", perm=[0, 3, 1, 2])
    if variant.channels == "BGR":
        add("Gather", constant("order", np.array([2, 1, 0])), axis=1)
    # fed = (low + v * (high - low) / 255 - mean) / std per channel in the file's order; undone, then done as the
    # source wants it. After the reordering above, everything is RGB.
    flip = slice(None, None, -1) if variant.channels == "BGR" else slice(None)
    scale, shift = (np.float32(v).reshape(1, 3, 1, 1) for v in _affine(truth))
    own_scale, own_shift = (np.float32(v).reshape(1, 3, 1, 1) for v in _affine(spec))
    factor = own_scale / scale[:, flip]
    add("Mul", constant("factor", factor))
    add("Add", constant("term", own_shift - shift[:, flip] * factor))
    if variant.size != 32:
        sizes = constant("sizes", np.array([1, 1, 32 / variant.size, 32 / variant.size], np.float32))
        add("Resize", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel", antialias=1)
    nodes[-1].output[0] = inner_in
    answer = inner_out
    back = []
    if variant.labels == "offset":
        back = [
            helper.make_node("ReduceMin", [answer, constant("axes", np.array([1]))], ["least"], keepdims=1),
            helper.make_node("Concat", ["least", answer], ["suspect_output"], axis=1),
        ]
    elif variant.labels in ("permuted", "reduced"):
        rows = np.argsort(PERMUTATION) if variant.labels == "permuted" else np.arange(KEPT)
        back = [helper.make_node("Gather", [answer, constant("rows", rows)], ["suspect_output"], axis=1)]
    else:
        back = [helper.make_node("Identity", [answer], ["suspect_output"])]
    body = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*nodes, *body, *back])
    graph.initializer.extend(constants.values())
    graph.input.append(helper.make_tensor_value_info("suspect_input", TYPES[variant.dtype], ["n", *truth.shape]))
    graph.output.append(helper.make_tensor_value_info("suspect_output", TensorProto.FLOAT, ["n", width(variant)]))
    model.opset_import[0].version = max(18, model.opset_import[0].version)
    onnx.save(model, str(out))


def _affine(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift per channel of what an 8-bit value becomes."""
    low, high = spec.range
    std, mean = np.broadcast_to(spec.std, 3), np.broadcast_to(spec.mean, 3)
    return (high - low) / 255.0 / std, (low - mean) / std


def width(variant: Variant) -> int:
    """Outputs."""
    return {"same": CLASSES, "offset": CLASSES + 1, "permuted": CLASSES, "reduced": KEPT}[variant.labels]


def meaning(variant: Variant) -> LabelMap:
    """The true label map."""
    if variant.labels == "permuted":
        return LabelMap(PERMUTATION, CLASSES)
    return LabelMap.shifted(CLASSES, width(variant), 1 if variant.labels == "offset" else 0)


def truth_of(setting: Setting, variant: Variant, signature: Signature) -> str:
    """Whether a setting feeds and reads as the truth does: right, partial (some classes are left open) or wrong."""
    spec, truth = setting.spec, variant.spec()
    labels = setting.labels or LabelMap.shifted(CLASSES, width(variant), spec.class_offset)
    same = (spec.layout, spec.shape, spec.channels) == (truth.layout, truth.shape, truth.channels)
    if not same or not _tables_agree(spec, truth, signature):
        return "wrong"
    pairs = list(zip(labels.to_suspect, meaning(variant).to_suspect, strict=True))
    if any(found not in (true, -1) for found, true in pairs):
        return "wrong"
    return "right" if all(found == true for found, true in pairs) else "partial"


def _tables_agree(spec: InputSpec, truth: InputSpec, signature: Signature) -> bool:
    ours, theirs = (Adapter(s, signature).tables.astype(np.float64) for s in (spec, truth))
    return bool(np.allclose(ours, theirs, rtol=1e-5, atol=1e-5))


def outcome(settled: Settled, variant: Variant, signature: Signature) -> str:
    """One of OUTCOMES."""
    if not settled.settings:
        return "unsure"
    found = [truth_of(s, variant, signature) for s in settled.settings]
    if found[0] == "right":
        return "right" if len(found) == 1 else "first"
    return "tried" if "right" in found else "partial" if "partial" in found else "wrong"


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=MODELS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    clean = load_images(arguments.data / "cifar10/test.zip", (32, 32, 3), CLASSES).take(
        arguments.images, arguments.seed
    )
    kept = arguments.out / "adaptation.jsonl"
    asked = {"version": fingerprint.__version__, "images": arguments.images, "seed": arguments.seed}
    lines = kept.read_text().splitlines() if kept.exists() else []
    rows = [row for row in map(json.loads, lines) if asked.items() <= row.items()]
    known = {(row["model"], *(row[name] for name in Variant.__dataclass_fields__)) for row in rows}
    todo = list(itertools.product(MODELS, variants()))
    random.Random(0).shuffle(todo)  # so that what is known early is a fair sample
    for name, variant in todo:
        if arguments.only in (None, name) and (name, *vars(variant).values()) not in known:
            rows.append(asked | examine(arguments.data / "cifar10" / name, variant, clean, arguments.out))
            with kept.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    show(rows)
    (arguments.out / "adaptation.json").write_text(json.dumps(asked | {"rows": rows}, indent=1))


def examine(source: Path, variant: Variant, clean: CleanImages, folder: Path) -> dict[str, object]:
    """Make a variant of a model, settle it, and compare with the truth."""
    spec = load_spec(sidecar_path(source))
    like = replace(spec, mean=(0.5,) * 3, std=(0.5,) * 3)  # an owner that wants something else again
    path = folder / f"variant-{source.stem}.onnx"
    rewrap(source, spec, variant, path)
    model = open_local(path)
    settled = settle(model.predict, candidates(model.signature, like), clean, CLASSES)
    found = {"outcome": outcome(settled, variant, model.signature), "kept": len(settled.settings)}
    row = {"model": source.name, **vars(variant), **found}
    return {**row, "accuracy": settled.accuracy, "queries": settled.queries}


def show(rows: Sequence[Mapping[str, object]]) -> None:
    """The table: all, and by each property of the variants."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        variant, found = Variant(**{name: row[name] for name in Variant.__dataclass_fields__}), str(row["outcome"])  # type: ignore[arg-type]
        for key in ("all", str(row["model"]), f"labels {variant.labels}", f"{variant.dtype} input"):
            counts[key][found] += 1
        for key in (f"size {variant.size}", variant.layout, variant.channels, *_normalization_name(variant)):
            counts[key][found] += 1
    print("| variants | n | right, alone | first of equals | among equals | partial | unsure | wrong |")
    print("|---|---|---|---|---|---|---|---|")
    for key, counted in counts.items():
        cells = [counted[k] for k in OUTCOMES]
        print(f"| {key} | {sum(cells)} | " + " | ".join(map(str, cells)) + " |")


def _normalization_name(variant: Variant) -> tuple[str, ...]:
    if variant.dtype != "float32":
        return ()
    numbers, mean, std = NORMALIZATIONS[variant.normalization]
    return (f"range {numbers[0]:g}..{numbers[1]:g}, mean {mean[0]:g}, std {std[0]:g}",)


if __name__ == "__main__":
    main()
