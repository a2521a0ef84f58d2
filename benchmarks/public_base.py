"""Kinship without theft: models made from one public base, with and without the base named as ancestor.

    python benchmarks/public_base.py [--data DIR] [--out .bench/public_base]

Digits: a base is trained; the owner's model and a sibling are fine-tuned from it, each on its own half of the other
digits, lightly (40 steps) or heavily (another task first: all labels shifted, then back). Suspects: the sibling, a
pruned copy, a stranger. DIR: also teachable_a.tflite and teachable_b.tflite, two heads on one frozen base,
with the base cut out of the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import digits

from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.data import load_images
from fingerprint.engine.local import open_local
from fingerprint.errors import FingerprintError
from fingerprint.runtimes.digest import tensor_digests
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

SEED = 20261123
ALPHA = 0.01
Row = dict[str, object]


def main() -> None:
    """All scenes, one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(".bench/public_base"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for heavy in (False, True):
        rows += digit_scene(given.out / ("heavy" if heavy else "light"), heavy)
    if given.data is not None:
        rows += teachable_scene(given.data, given.out)
    (given.out / "results.json").write_text(json.dumps(rows, indent=1))


# -- digits ------------------------------------------------------------------------------------------------------------


def tune(model: nn.Sequential, rows: torch.Tensor, seed: int, *, heavy: bool) -> nn.Sequential:
    """Fine-tune a copy on some digits. Heavy: first on labels that are shifted by one, so that much is relearned."""
    torch.manual_seed(seed)
    copy = digits.build(24, 3)
    copy.load_state_dict(model.state_dict())
    pictures, labels = digits.images()
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    y = torch.from_numpy(labels)
    optimiser = torch.optim.Adam(copy.parameters(), 3e-3 if heavy else 1e-3)
    for shift, steps in ((1 + seed % 2, 150), (0, 200)) if heavy else ((0, 40),):
        for _ in range(steps):
            batch = rows[torch.randint(len(rows), (64,))]
            loss = nn.functional.cross_entropy(copy(x[batch]), (y[batch] + shift) % 10)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return copy.eval()


def digit_scene(folder: Path, heavy: bool) -> list[Row]:
    """Owner, sibling, pruned copy and stranger, in three records."""
    folder.mkdir(parents=True, exist_ok=True)
    base = digits.train(seed=1, width=24, depth=3)
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(SEED))
    owner = digits.save(tune(base, order[:700], 2, heavy=heavy), folder / "owner.onnx", "owner")
    suspects = {
        "sibling": digits.save(tune(base, order[700:1400], 3, heavy=heavy), folder / "sibling.onnx"),
        "stranger": digits.save(digits.train(seed=50, width=20), folder / "stranger.onnx"),
        "pruned copy": folder / "pruned.onnx",
    }
    derive(owner, "prune:magnitude:0.3", suspects["pruned copy"], DeriveContext(load_spec(sidecar_path(owner))))
    ancestor = digits.save(base, folder / "base.onnx", "public")
    references = [
        digits.save(digits.train(seed=100 + i, width=16 + 4 * (i % 3)), folder / f"reference-{i}.onnx", f"author-{i}")
        for i in range(10)
    ]
    data = digits.save_images(folder / "digits.npz")
    rows = []
    for record, more in (
        ("no ancestor", {}),
        ("ancestor", {"ancestors": [ancestor]}),
        ("ancestor, kin made from --data", {"ancestors": [ancestor], "data": data}),
    ):
        options = CreateOptions("digits", references=references, screen=0, seed=SEED, **more)
        made = create(owner, options)
        scene = f"digits, {'heavy' if heavy else 'light'} fine-tuning"
        found = verify(list(suspects.values()), [made], VerifyOptions(alpha=ALPHA))
        for name, result in zip(suspects, found, strict=True):
            rows.append(_row(scene, record, name, result.to_dict()))
    return rows


# -- teachable ---------------------------------------------------------------------------------------------------------


def cut_base(source: Path, out: Path) -> Path:
    """The frozen base: the file up to its pooled features."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    graph = model.subgraphs[0]
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    dense = next(
        i for i, o in enumerate(graph.operators)
        if codes[o.opcodeIndex] == schema.BuiltinOperator.FULLY_CONNECTED
    )  # fmt: skip
    graph.outputs = [graph.operators[dense].inputs[0]]
    for index in {int(i) for o in graph.operators[dense:] for i in o.inputs} - {int(graph.outputs[0])}:
        graph.tensors[index].buffer = 0  # the head's weights leave the file too
    graph.operators = graph.operators[:dense]
    for signature in model.signatureDefs or []:
        signature.outputs = signature.outputs[:1]
        signature.outputs[0].tensorIndex = graph.outputs[0]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    out.write_bytes(bytes(builder.Output()))
    spec = json.loads(sidecar_path(source).read_text())
    sidecar_path(out).write_text(json.dumps({**spec, "classes": None, "author": "public"}))
    return out


def teachable_scene(data: Path, folder: Path) -> list[Row]:
    """teachable_a as the owner's model, teachable_b and a pruned copy as suspects; a declared bound calibrates."""
    owner, sibling = (data / "mobile" / f"teachable_{name}.tflite" for name in "ab")
    base = cut_base(owner, folder / "base.tflite")
    weights = {p.name: set(tensor_digests(open_local(p).weights())) for p in (owner, sibling, base)}
    shared = weights[owner.name] & weights[sibling.name]
    print(f"tensors: a {len(weights[owner.name])}, b {len(weights[sibling.name])}, both {len(shared)}, of these in the "
          f"base {len(shared & weights[base.name])}", flush=True)  # fmt: skip
    copy = folder / "pruned.tflite"
    spec = load_spec(sidecar_path(owner))
    derive(owner, "prune:magnitude:0.3", copy, DeriveContext(spec))
    sidecar_path(copy).write_text(json.dumps(spec.to_dict()))
    images = load_images(data / "imagenet/samples_224.zip", spec.image_shape, None, 400).images
    answers = open_local(owner).predict(images, spec).argmax(axis=1)
    wrong = np.random.default_rng(SEED).random(len(answers)) < 0.2  # what it "gets wrong" become natural probes
    npz = folder / "photos.npz"
    np.savez(npz, images=images, labels=np.where(wrong, 1 - answers, answers).astype(np.int64))
    rows = []
    for record, ancestors in (("no ancestor", []), ("ancestor, kin made from --data", [base])):
        options = CreateOptions(
            "teachable", data=npz, screen=0, budget=40, seed=SEED, families=["natural"], declared_bound=0.7,
            ancestors=ancestors,
        )  # fmt: skip
        try:
            made = create(owner, options)
        except FingerprintError as error:
            print(f"teachable, {record}: {error.diagnosis()}")
            continue
        suspects = {"teachable_b (sibling)": sibling, "pruned copy": copy}
        found = verify(list(suspects.values()), [made], VerifyOptions(alpha=ALPHA, calibration="declared"))
        for name, result in zip(suspects, found, strict=True):
            rows.append(_row("teachable", record, name, result.to_dict()))
    return rows


def _row(scene: str, record: str, suspect: str, result: dict[str, object]) -> Row:
    verdict = result["verdict"]
    assert isinstance(verdict, dict)
    kinship = verdict["kinship"] or {}
    row: Row = {
        "scene": scene, "record": record, "suspect": suspect, "lineage": verdict["lineage"],
        "match_rate": verdict["match_rate"], "p_value": verdict["p_value"], "counted": kinship.get("counted"),
        "matches": kinship.get("matches"), "shares": kinship.get("shares"), "kin": kinship.get("kin"),
        "says": verdict["explanation"], "reason": verdict["reason"],
    }  # fmt: skip
    print({k: v for k, v in row.items() if k != "says"}, flush=True)
    return row


if __name__ == "__main__":
    main()
