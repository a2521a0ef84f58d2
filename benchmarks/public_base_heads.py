"""Models on one public frozen base: real files of the data folder, and heads of the same classes trained on it.

Part of `public_base.py`. DIR/mobile holds teachable_a.tflite (2 classes) and teachable_b.tflite (10), two heads on one
frozen base. The base is cut out of the first.
  teachable  each is the owner once and the other its suspect. Nobody published images of their classes: --data is real
             photos and crops of them, labelled by the owner's own answers; a declared bound calibrates.
  heads      the same file with other heads, trained on the base as the service that made the files does it (one hidden
             layer of 100) on CIFAR-10: owners on one part of the images, siblings on another. Real CIFAR-10 models by
             other authors calibrate. The owner's twin, another head by the same recipe, screens in the last record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from benchmarks_common import stage
from PIL import Image

from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.data import load_images
from fingerprint.engine.local import open_local
from fingerprint.errors import FingerprintError
from fingerprint.model import Floats, Images, Labels
from fingerprint.runtimes.digest import tensor_digests
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

SEED = 20261123
ALPHA = 0.01
COPIES = ("quantize:fp16", "prune:magnitude:0.1", "quantize:int8")
SIBLINGS = 6
Row = dict[str, object]


def row_of(where: tuple[str, str, str], suspect: str, result: dict[str, object]) -> Row:
    """One verdict; `where`: scene, owner and record. The first word of a suspect's name is its kind."""
    verdict = result["verdict"]
    assert isinstance(verdict, dict)
    kinship = verdict["kinship"] or {}
    row: Row = {
        "scene": where[0], "owner": where[1], "record": where[2], "kind": suspect.split(maxsplit=1)[0],
        "suspect": suspect,
        "lineage": verdict["lineage"], "match_rate": verdict["match_rate"], "p_value": verdict["p_value"],
        "counted": kinship.get("counted"), "matches": kinship.get("matches"), "beyond_p": kinship.get("p_value"),
        "warns": "kinship is not theft" in f"{verdict['does_not_say']} {verdict['explanation']}".lower(),
        "shares": kinship.get("shares"), "kin": kinship.get("kin"), "reason": verdict["reason"],
        "says": verdict["explanation"],
    }  # fmt: skip
    print({k: v for k, v in row.items() if k != "says"}, flush=True)
    return row


# -- files -------------------------------------------------------------------------------------------------------------


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


def with_head(source: Path, hidden: Floats, bias: Floats, last: Floats, out: Path, author: str) -> Path:
    """The file with other values in its two last layers: hidden (100, 1280), bias (100,), last (K, 100)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    graph = model.subgraphs[0]
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    first, second = (
        o for o in graph.operators if codes[o.opcodeIndex] == schema.BuiltinOperator.FULLY_CONNECTED
    )  # fmt: skip
    for tensor, value in ((first.inputs[1], hidden), (first.inputs[2], bias), (second.inputs[1], last)):
        assert list(graph.tensors[tensor].shape) == list(value.shape)
        model.buffers[graph.tensors[tensor].buffer].data = np.frombuffer(value.astype("<f4").tobytes(), np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    out.write_bytes(bytes(builder.Output()))
    spec = json.loads(sidecar_path(source).read_text())
    sidecar_path(out).write_text(json.dumps({**spec, "classes": len(last), "author": author}))
    return out


def copies(owner: Path, folder: Path) -> dict[str, Path]:
    """Compressed copies of a file, with their sidecars."""
    spec = load_spec(sidecar_path(owner))
    made = {}
    for how in COPIES:
        made[f"copy {how}"] = path = folder / f"{owner.stem}-{how.replace(':', '-')}.tflite"
        for old in (path, sidecar_path(path)):
            old.unlink(missing_ok=True)
        derive(owner, how, path, DeriveContext(spec))
        sidecar_path(path).write_text(json.dumps(spec.to_dict()))
    return made


# -- teachable ---------------------------------------------------------------------------------------------------------


def photos(data: Path, shape: tuple[int, int, int]) -> Images:
    """The real photos, and three random crops of each, of half to nine tenths of the side, at their size."""
    whole = load_images(data / "imagenet/samples_224.zip", shape, None, 400).images
    rng, found = np.random.default_rng(SEED), [whole]
    for _ in range(3):
        crops = np.empty_like(whole)
        for i, image in enumerate(whole):
            side = int(shape[0] * rng.uniform(0.5, 0.9))
            top, left = rng.integers(0, shape[0] - side + 1, 2)
            crop = Image.fromarray(image[top : top + side, left : left + side])
            crops[i] = np.asarray(crop.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
        found.append(crops)
    return np.concatenate(found)


def teachable_scene(data: Path, folder: Path) -> list[Row]:
    """Either file as the owner's model, the other and compressed copies as suspects."""
    files = {name: data / "mobile" / f"teachable_{name}.tflite" for name in "ab"}
    base = cut_base(files["a"], folder / "base.tflite")
    weights = {p: set(tensor_digests(open_local(p).weights())) for p in (*files.values(), base)}
    shared = weights[files["a"]] & weights[files["b"]]
    print(f"tensors: a {len(weights[files['a']])}, b {len(weights[files['b']])}, both {len(shared)}, of these in the "
          f"base {len(shared & weights[base])}", flush=True)  # fmt: skip
    rows = []
    for name, bound in (("a", 0.7), ("b", 0.4)):
        owner, sibling = files[name], files["b" if name == "a" else "a"]
        spec = load_spec(sidecar_path(owner))
        images = photos(data, spec.image_shape)
        answers = open_local(owner).predict(images, spec).argmax(axis=1).astype(np.int64)
        print(f"teachable_{name} answers the photos with {np.bincount(answers).tolist()}", flush=True)
        npz = folder / f"photos-{name}.npz"
        np.savez(npz, images=images, labels=answers)
        suspects = {f"sibling {sibling.stem}": sibling, **copies(owner, folder)}
        for record, ancestors in (("no ancestor", []), ("ancestor, kin", [base])):
            options = CreateOptions(
                "teachable", data=npz, screen=0, budget=40, seed=SEED, families=["natural"], declared_bound=bound,
                ancestors=ancestors,
            )  # fmt: skip
            rows += judged(("teachable", owner.stem, record), owner, options, suspects, "declared")
    return rows


def judged(
    where: tuple[str, str, str], owner: Path, options: CreateOptions, suspects: dict[str, Path], calibration: str
) -> list[Row]:
    """The verdicts of one record; what `create` says where it makes none."""
    try:
        made = create(owner, options)
    except FingerprintError as error:
        print(where, error.diagnosis(), flush=True)
        return []
    accuracy = [round(kin.accuracy, 2) for kin in made.manifest.kin]
    print(where, [(f.name, f.count) for f in made.manifest.families], "accuracy of kin", accuracy, flush=True)
    asked = VerifyOptions(alpha=ALPHA, calibration=calibration)  # type: ignore[arg-type]
    found = verify(list(suspects.values()), [made], asked)
    return [row_of(where, name, result.to_dict()) for name, result in zip(suspects, found, strict=True)]


# -- heads -------------------------------------------------------------------------------------------------------------


def trained_head(features: Floats, labels: Labels, seed: int) -> tuple[Floats, Floats, Floats]:
    """Hidden weights (100, F), bias (100,) and last weights (K, 100): 50 epochs of Adam in batches of 16."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    hidden, last = torch.nn.Linear(x.shape[1], 100), torch.nn.Linear(100, 10, bias=False)
    optimiser = torch.optim.Adam([*hidden.parameters(), *last.parameters()], lr=1e-3)
    for _ in range(50):
        for rows in torch.split(torch.randperm(len(x)), 16):
            loss = torch.nn.functional.cross_entropy(last(torch.relu(hidden(x[rows]))), y[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return tuple(t.detach().numpy() for t in (hidden.weight, hidden.bias, last.weight))  # type: ignore[return-value]


def heads_scene(data: Path, folder: Path, owners: int) -> list[Row]:
    """Owners and siblings with heads of the same ten classes, and real models by other authors."""
    source = data / "mobile/teachable_b.tflite"
    base = cut_base(source, folder / "base.tflite")
    spec = load_spec(sidecar_path(base))
    clean = load_images(data / "cifar10/train.zip", spec.image_shape, 10, 4000)
    assert clean.labels is not None
    images, labels = clean.images, clean.labels
    features = open_local(base).predict(images, spec).astype(np.float32)
    order = np.random.default_rng(SEED).permutation(len(labels))
    owned, others, held = order[:1500], order[1500:3000], order[3000:]

    def head(rows: np.ndarray, seed: int, name: str, author: str) -> Path:
        drawn = np.random.default_rng(seed).permutation(rows)[:1000]
        values = trained_head(features[drawn], labels[drawn], seed)
        right = (np.maximum(features[held] @ values[0].T + values[1], 0) @ values[2].T).argmax(1) == labels[held]
        print(f"{name}: accuracy {right.mean():.3f}", flush=True)
        return with_head(source, *values, folder / f"{name}.tflite", author)

    siblings = {f"sibling {i}": head(others, 100 + i, f"head-sibling-{i}", f"maker {i}") for i in range(SIBLINGS)}
    entries = stage(data, folder)
    strangers = [e for e in entries.values() if e.path.parent.name == "cifar10" and e.path.suffix == ".onnx"]
    references = [e.path for e in strangers if not e.name.startswith("akamaster")]
    suspects = siblings | {f"stranger {e.name}": e.path for e in strangers if e.name.startswith("akamaster")}
    npz = folder / "cifar-224.npz"
    np.savez(npz, images=images[np.sort(np.concatenate([owned, held]))],
             labels=labels[np.sort(np.concatenate([owned, held]))])  # fmt: skip
    rows: list[Row] = []
    for number in range(owners):
        owner = head(owned, number, f"head-owner-{number}", "owner")
        twin = head(owned, 50 + number, f"head-twin-{number}", "owner")
        scene = ("heads of ten classes on the base", str(number))
        rows += _records(scene, owner, twin, base, references, npz, {**suspects, **copies(owner, folder)})
    return rows


def _records(
    scene: tuple[str, str],
    owner: Path,
    twin: Path,
    base: Path,
    references: Sequence[Path],
    npz: Path,
    suspects: dict[str, Path],
) -> list[Row]:
    """Records of one owner: without the ancestor, with it and kin, and with a twin that screens."""
    found = []
    for record, more in (
        ("no ancestor", {"families": ["natural"]}),
        ("ancestor, kin", {"families": ["natural"], "ancestors": [base]}),
        ("ancestor, kin, twin screens", {"families": ["difference"], "ancestors": [base], "screen_models": [twin]}),
    ):
        options = CreateOptions("heads", data=npz, references=references, screen=0, seed=SEED, **more)
        found += judged((*scene, record), owner, options, suspects, "auto")
    return found
