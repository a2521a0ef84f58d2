"""Owners and suspects of benchmarks/integrity.py: made once, asked once, and what they answer is kept in files."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fingerprint.api.copies import CopyMaker
from fingerprint.api.owner import Owner, Predict
from fingerprint.data import CleanImages
from fingerprint.decision.allow import kind_of, within
from fingerprint.decision.statistics import align
from fingerprint.engine.local import open_local
from fingerprint.errors import FingerprintError
from fingerprint.model import Floats, Images
from fingerprint.progress import Silent
from fingerprint.spec import find_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.feed import real_valued
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.onnx_quantize import quantize_static

LIMITS = ("quantize:static:int8", "quantize:int6:tensor", "prune:magnitude:0.5", "prune:layer:0.4")


def suspects(seed: int) -> list[str]:
    """What suspects went through; strengths lie between those of the record."""
    rng = np.random.default_rng(seed)

    def shares(low: float, high: float, count: int) -> list[float]:
        return [round(float(f), 3) for f in rng.uniform(low, high, count)]

    mixed = [f"prune:magnitude:{f}+quantize:int{rng.integers(6, 9)}" for f in shares(0.03, 0.5, 8)]
    mixed += [f"prune:layer:{f}+quantize:int{rng.integers(6, 9)}" for f in shares(0.03, 0.4, 5)]
    declared = [
        "compile:onnx", "compile:litert", "compile:onnx+quantize:static:int8", "compile:onnx+quantize:dynamic:int8",
        *(f"prune:magnitude:{f}" for f in shares(0.03, 0.5, 18)), *(f"prune:layer:{f}" for f in shares(0.03, 0.4, 10)),
        *mixed, *(f"prune:magnitude:{f}+compile:onnx+quantize:static:int8" for f in shares(0.05, 0.5, 3)),
    ]  # fmt: skip
    undeclared = [
        *(f"prune:magnitude:{f}" for f in shares(0.52, 0.85, 8)), *(f"prune:layer:{f}" for f in shares(0.42, 0.7, 6)),
        *(f"prune:magnitude:{f}+quantize:int4" for f in shares(0.03, 0.6, 4)),
    ]  # fmt: skip
    tuned = [
        *(f"finetune:last:epochs={e}:lr={r}" for e, r in ((1, 0.005), (2, 0.02), (4, 0.01), (5, 0.03))),
        *(f"finetune:all:epochs={e}:lr={r}" for e, r in ((1, 0.002), (1, 0.01), (2, 0.005), (3, 0.01))),
        *(f"finetune:reset-last:epochs={e}:lr={r}" for e, r in ((3, 0.05), (3, 0.1))),
        *(f"finetune:reset-all:epochs={e}:lr={r}" for e, r in ((2, 0.02), (4, 0.01))),
        *(f"backdoor:{t}:epochs={e}:lr={r}" for t, e, r in ((1, 1, 0.005), (2, 2, 0.005), (3, 3, 0.02), (4, 2, 0.02))),
        *(f"distil:{k}:same:epochs={e}" for k, e in (("soft", 5), ("soft", 10), ("hard", 6), ("hard", 10))),
    ]  # fmt: skip
    damaged = [f"noise:{s}" for s in shares(0.04, 0.35, 8)]
    damaged += [f"fault:flip8:{n}" for n in (8, 32, 128, 512, 512, 2048, 2048)]
    damaged += [f"fault:flip:{n}" for n in (2, 8, 24, 24, 48, 48)]
    damaged += [f"fault:stuck:{f}:{at}" for f in (0.0005, 0.003, 0.02) for at in ("zero", "max")]
    sneaked = [f"sneak:{norm}:{count}" for norm in ("l0", "l2") for count in (1, 3, 8) for _ in range(3)]
    return declared + undeclared + tuned + damaged + sneaked


# onnxruntime's quantizer in other settings than `derive` uses, on images of its own
OTHER_TOOLS = (
    "compile:onnx+quantize:static:int8 by MinMax, tensor, uint8",
    "compile:onnx+quantize:static:int8 by MinMax, channel, int8",
    "compile:onnx+quantize:static:int8 by Percentile, channel, uint8",
    "compile:onnx+quantize:static:int8 by Entropy, channel, uint8",
    "prune:magnitude:0.27+compile:onnx+quantize:static:int8 by Percentile, tensor, int8",
    "prune:layer:0.17+compile:onnx+quantize:static:int8 by MinMax, tensor, uint8",
)


def group_of(how: str, lost: float) -> str:
    """The row of the table in which a suspect is counted."""
    how = how.split(" by ", maxsplit=1)[0]
    name = how.split(":", maxsplit=1)[0]
    if kind_of(how) in ("re-encoded", "quantized", "pruned"):
        return "declared compression" if within(how, LIMITS) else "undeclared compression"
    if name in ("noise", "fault"):
        return f"{name}, {'1 point or more' if lost >= 0.01 else 'under 1 point'}"
    return ":".join(how.split(":")[: 3 if name == "sneak" else 2 if name == "finetune" else 1])


@dataclass(frozen=True)
class Answered:
    """What one suspect answered to every set of inputs, and its accuracy."""

    how: str
    accuracy: float
    outputs: Mapping[str, Floats]


class Suspects:
    """Makes and asks suspects, each once: `folder` keeps their answers, so that a run that was killed goes on.

    Answers count only for the same inputs: the digest of all sets is part of each file.
    """

    def __init__(self, owner: Owner, thief: CleanImages, test: CleanImages, sets: Mapping[str, Images], folder: Path):
        self._owner, self._thief, self._test, self._sets, self._folder = owner, thief, test, sets, folder
        self._maker = CopyMaker(owner, thief, 77)
        digest = hashlib.sha256()
        for name in sorted(sets):
            digest.update(name.encode() + sets[name].tobytes())
        self._digest = digest.hexdigest()
        folder.mkdir(parents=True, exist_ok=True)

    def answered(self, *, every: int, distilled: bool, ask: bool = True) -> list[Answered]:
        """All suspects, or every so many; those that this installation can't make are left out, with a line.

        They are asked in four rounds through the list, so that a part of them is as mixed as all. Without `ask` only
        those that were asked before.
        """
        numbered = list(enumerate([*suspects(zlib.crc32(b"suspects")), *OTHER_TOOLS]))
        chosen = [pair for pair in numbered if pair[0] % every == 0 and (distilled or not pair[1].startswith("distil"))]
        found = [
            self._one(number, how, ask=ask) for number, how in sorted(chosen, key=lambda pair: (pair[0] % 4, pair[0]))
        ]
        return [one for one in found if one is not None]

    def _one(self, number: int, how: str, *, ask: bool) -> Answered | None:
        file = self._folder / f"{number:03d}.npz"
        if file.is_file():
            with np.load(file) as kept:
                if str(kept["digest"]) == self._digest and str(kept["how"]) == how:
                    return Answered(how, float(kept["accuracy"]), {name: kept[f"set {name}"] for name in self._sets})
        if not ask:
            return None
        begun = time.perf_counter()
        try:
            with self._made(number, how) as predict:
                assert self._test.labels is not None
                accuracy = float((predict(self._test.images).argmax(axis=1) == self._test.labels).mean())
                outputs = {name: predict(images) for name, images in self._sets.items()}
        except FingerprintError as error:
            print(f"{how}: left out ({error.message})", flush=True)
            return None
        kept_outputs = {f"set {name}": values for name, values in outputs.items()}
        partial = file.with_suffix(".part.npz")
        np.savez_compressed(partial, how=how, accuracy=accuracy, digest=self._digest, **kept_outputs)  # type: ignore[arg-type]
        partial.replace(file)
        print(f"{how:56} accuracy {accuracy:.3f}, {time.perf_counter() - begun:.1f} s", flush=True)
        return Answered(how, accuracy, outputs)

    @contextmanager
    def _made(self, number: int, how: str) -> Iterator[Predict]:
        if " by " not in how:
            with self._maker.copy(how, 1000 + number) as predict:
                yield predict
            return
        steps, options = how.split(" by ")
        before = steps.removesuffix("+quantize:static:int8")
        method, granularity, kind = options.split(", ")
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "source.onnx", Path(folder) / "out.onnx"
            spec = self._owner.spec
            images = self._thief.take(192, number)  # whole batches: its histograms need them
            derive(self._owner.path, before, source, DeriveContext(spec, progress=Silent(), measure=False))
            _quantized(source, out, real_valued(images.images, spec), method, granularity, kind)
            model = open_local(out)

            def predict(images: Images) -> Floats:
                aligned = align(model.predict(images, spec), spec.class_offset, self._owner.classes)
                return np.ascontiguousarray(aligned)

            yield predict


def _quantized(source: Path, out: Path, inputs: Floats, method: str, granularity: str, kind: str) -> None:
    """Another quantizer than `derive`'s."""
    from onnxruntime import quantization

    activations = quantization.QuantType.QInt8 if kind == "int8" else quantization.QuantType.QUInt8
    quantize_static(
        source,
        out,
        inputs,
        per_channel=granularity == "channel",
        activation_type=activations,
        calibrate_method=quantization.CalibrationMethod[method],
        extra_options={"ActivationSymmetric": kind == "int8"},
    )


def opened(path: Path) -> Owner:
    owner = Owner(path, None)
    found = find_spec(path, None)
    assert found is not None
    owner.bind(found.spec)
    owner.find_gradients(Silent())
    return owner


def networks() -> dict[str, Callable[[], torch.nn.Sequential]]:
    """Small networks for scikit-learn's digits. Nothing in this tool was developed on the first."""
    nn = torch.nn
    return {
        "digits": lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(384, 48), nn.ReLU(), nn.Linear(48, 10),
        ),
        "digits-wide": lambda: nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(),
            nn.Linear(64, 10),
        ),
        "digits-deep": lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 20, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(20, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        ),
    }  # fmt: skip


def digits(folder: Path, name: str) -> tuple[Path, CleanImages]:
    """A small CNN on scikit-learn's digits, trained on a third of them; kept in `folder` once trained."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = (found.images * 15.9).astype(np.uint8)[..., None], found.target.astype(np.int64)
    path = folder / f"{name}.pt2"
    order = np.random.default_rng(3).permutation(len(images))
    images, labels = images[order], labels[order]
    if path.is_file():
        return path, CleanImages(images, labels)
    torch.manual_seed(11)
    net = networks()[name]()
    inputs, targets = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0, torch.from_numpy(labels)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(25):
        for rows in torch.split(torch.randperm(600), 50):
            optimizer.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(net(inputs[rows]), targets[rows]))
            optimizer.step()
    batch = torch.export.Dim("n", min=1, max=65536)
    torch.export.save(torch.export.export(net.eval(), (inputs[:2],), dynamic_shapes=({0: batch},)), path)
    spec = {"layout": "NCHW", "shape": [1, 8, 8], "dtype": "float32", "range": [0, 1], "mean": [0], "std": [1]}
    sidecar_path(path).write_text(json.dumps({**spec, "channels": "L", "classes": 10}))
    return path, CleanImages(images, labels)
