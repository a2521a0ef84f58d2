"""Effectiveness on real models made by others: who is `derived`, who is not, and how wide the gap is.

    python benchmarks/effectiveness.py --data DIR [--out .bench] [--only cifar10|imagenet|mobile]

DIR holds the folders cifar10, imagenet and mobile of real models and a manifest.json that names their authors. TFLite
rows need a converter (see docs/install.md); without one they are listed as not made. Writes results.json and a
Markdown table, and prints both gaps and every wrong verdict. Nothing here sets a threshold.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks_common import HALVES, Entry, stage

import fingerprint
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.results import Result
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.data import load_images
from fingerprint.engine.allocator import keep_freed_memory
from fingerprint.engine.environment import spin_briefly
from fingerprint.errors import FingerprintError
from fingerprint.record import Fingerprint
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

ALPHA = 0.01
SEED = 20261123
CIFAR_DERIVATIVES = {
    "prune 30 %": ("prune:magnitude:0.3", ".onnx"),
    "prune 50 %": ("prune:magnitude:0.5", ".onnx"),
    "prune 70 %": ("prune:magnitude:0.7", ".onnx"),
    "weights int8": ("quantize:int8", ".onnx"),
    "weights int6": ("quantize:int6", ".onnx"),
    "weights int4": ("quantize:int4", ".onnx"),
    "ONNX fp32": ("compile:onnx", ".onnx"),
    "ONNX static int8": ("quantize:static:int8", ".onnx"),
    "TorchScript": ("compile:torchscript", ".ts.pt"),
    "TFLite fp32": ("compile:litert", ".tflite"),
    "TFLite dynamic int8": ("quantize:dynamic:int8", ".tflite"),
    "TFLite full int8": ("quantize:static:int8", ".tflite"),
}


@dataclass
class Table:
    """Rows of one comparison."""

    owner: str
    fold: str
    note: str = ""
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(self, name: str, truth: str, result: Result | None, why: str = "") -> None:
        """One suspect; result None = could not be made."""
        verdict = result.verdict if result else None
        lineage: str = verdict.lineage if verdict is not None else (result.status if result else "not made")
        self.rows.append(
            {
                "suspect": name,
                "truth": truth,
                "lineage": lineage,
                "match_rate": verdict.match_rate if verdict is not None else None,
                "p_value": verdict.p_value if verdict is not None else None,
                "error": verdict.error if verdict is not None else None,
                "bound": verdict.calibration.bound if verdict is not None and verdict.calibration else None,
                "right": None if result is None else (lineage == "derived") == (truth == "derived"),
                "why": why or (result.reason if result else ""),
            }
        )

    def gap(self) -> float | None:
        """Lowest match of a derivative minus highest match of an unrelated model."""
        derived = [r["match_rate"] for r in self.rows if r["truth"] == "derived" and r["match_rate"] is not None]
        others = [r["match_rate"] for r in self.rows if r["truth"] != "derived" and r["match_rate"] is not None]
        return min(derived) - max(others) if derived and others else None  # type: ignore[type-var,operator]

    def wrong(self) -> int:
        """Rows with a wrong verdict."""
        return sum(r["right"] is False for r in self.rows)


def make_derivatives(
    owner: Entry, plans: dict[str, tuple[str, str]], images: Path, folder: Path
) -> dict[str, Path | str]:
    """Derived files by row name; a text where one could not be made, with the reason."""
    spec = load_spec(sidecar_path(owner.path))
    clean = load_images(images, spec.image_shape, spec.classes, 200).images
    made: dict[str, Path | str] = {}
    for name, (how, suffix) in plans.items():
        out = (
            folder / "derived" / f"{owner.path.name.split('.')[0]}-{name.replace(' ', '_').replace('%', 'pct')}{suffix}"
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not out.exists():
                derive(owner.path, how, out, DeriveContext(spec, clean))
            made[name] = out
        except FingerprintError as error:
            made[name] = error.message
    return made


def judge(table: Table, record: Fingerprint, truth: str, suspects: dict[str, Path | str], calibration: str) -> None:
    """Verify suspects, label only, and add their rows."""
    options = VerifyOptions(alpha=ALPHA, label_only=True, allow_code=True, calibration=calibration)  # type: ignore[arg-type]
    paths = {name: path for name, path in suspects.items() if isinstance(path, Path)}
    found = dict(zip(paths, verify(list(paths.values()), [record], options), strict=True))
    for name, path in suspects.items():
        table.add(name, truth, found.get(name), path if isinstance(path, str) else "")


def cifar10(entries: dict[str, Entry], data: Path, folder: Path) -> list[Table]:
    """Two owners, 100 probes, label only, fitted calibration, authors split in two halves and swapped."""
    tables = []
    akamaster = {n: e for n, e in entries.items() if e.author == "akamaster" and n.endswith(".onnx")}
    strangers = [
        e for n, e in entries.items() if n.endswith((".onnx", "resnet8_float.tflite")) and e.author in sum(HALVES, ())
    ]
    for owner in (entries["akamaster_resnet20.pt2"], entries["akamaster_resnet56.pt2"]):
        base = owner.name.removesuffix(".pt2")
        derived = make_derivatives(owner, CIFAR_DERIVATIVES, data / "cifar10/test.zip", folder)
        derived |= {"the author's own .onnx": entries[f"{base}.onnx"].path}
        others = [e for n, e in akamaster.items() if n != f"{base}.onnx"]
        for fold, (calibrate, judged) in enumerate((HALVES, HALVES[::-1]), start=1):
            references = [e.path for e in strangers if e.author in calibrate] + (
                [e.path for e in others] if fold == 2 else []
            )
            suspects = [e for e in strangers if e.author in judged] + (others if fold == 1 else [])
            started = time.monotonic()
            options = CreateOptions(base, references=references, data=data / "cifar10/train.zip", seed=SEED + fold)
            record = create(owner.path, options)
            table = Table(owner.name, f"fold {fold}", _note(record, time.monotonic() - started))
            judge(table, record, "derived", derived, "fitted")
            judge(table, record, "unrelated", {e.name: e.path for e in suspects}, "fitted")
            tables.append(table)
            report(table)
    return tables


def imagenet(entries: dict[str, Entry], data: Path, folder: Path) -> list[Table]:
    """mobilenet_v2 against other ImageNet nets, declared bound (too few strangers to calibrate)."""
    owner = entries["mobilenet_v2.pt2"]
    plans = {"ONNX fp32": ("compile:onnx", ".onnx"), "ONNX static int8": ("quantize:static:int8", ".onnx")}
    images = data / "imagenet/samples_224.zip"
    derived = make_derivatives(owner, plans, images, folder)
    started = time.monotonic()
    record = create(owner.path, CreateOptions("mobilenet_v2", data=images, declared_bound=0.2, seed=SEED))
    table = Table(owner.name, "declared bound 0.2", _note(record, time.monotonic() - started))
    judge(table, record, "derived", derived, "declared")
    names = [n for n in entries if n.startswith(("efficientnet", "mobilenet_v1", "mobilenet_v2_1.0"))]
    judge(table, record, "unrelated", {n: entries[n].path for n in names}, "declared")
    report(table)
    return [table]


def mobile(entries: dict[str, Entry], data: Path, folder: Path) -> list[Table]:
    """A TFLite owner that gives no gradients: natural probes; its authors' own int8 file is the derivative."""
    owner = entries["mlperftiny_resnet8_float.tflite"]
    onnx = [e for n, e in entries.items() if n.endswith(".onnx") and "cifar10" in str(e.path)]
    tables = []
    for fold, half in enumerate((HALVES[0], HALVES[1])):
        judged = [e for e in onnx if e.author in half or (fold == 1 and e.author == "akamaster")]
        references = [e.path for e in onnx if e not in judged]
        started = time.monotonic()
        options = CreateOptions("mlperftiny", references=references, data=data / "cifar10/train.zip", seed=SEED)
        record = create(owner.path, options)
        table = Table(owner.name, f"fold {fold + 1}", _note(record, time.monotonic() - started))
        judge(table, record, "derived", {"its authors' int8": entries["mlperftiny_resnet8_int8.tflite"].path}, "fitted")
        judge(table, record, "unrelated", {e.name: e.path for e in judged}, "fitted")
        tables.append(table)
        report(table)
    return tables


def _note(record: Fingerprint, seconds: float) -> str:
    manifest = record.manifest
    authors = len({r.author for r in manifest.references})
    unique = manifest.uniqueness
    passes = sum(f.passes for f in manifest.families)
    transfer = "not measured" if unique.transferability is None else f"{unique.transferability:.2f}"
    return (
        f"{manifest.probes.count} probes ({', '.join(f.name for f in manifest.families)}), {len(manifest.references)} "
        f"references by {authors} authors, robustness {unique.robustness:.3f}, transferability {transfer}, "
        f"{passes} example-passes, create took {seconds:.0f} s here"
    )


def report(table: Table) -> None:
    """Print one table."""
    gap = table.gap()
    print(
        f"\n### {table.owner}, {table.fold}\n\n{table.note}. Smallest gap: {'-' if gap is None else f'{gap:+.2f}'}. "
        f"Wrong verdicts: {table.wrong()}.\n"
    )
    print("| suspect | truth | verdict | match | p (between) | bound |\n|---|---|---|---|---|---|")
    for row in table.rows:
        cells = [
            row["suspect"],
            row["truth"],
            row["lineage"],
            *(_number(row[k]) for k in ("match_rate", "p_value", "bound")),
        ]
        print(
            "| " + " | ".join(map(str, cells)) + " |" + (f"  {row['why']}" if row["lineage"] == "not made" else ""),
            flush=True,
        )


def _number(value: object) -> str:
    return "-" if not isinstance(value, float) else (f"{value:.2f}" if value >= 0.005 or value == 0 else f"{value:.1e}")


def main() -> None:
    """Parse, run, write."""
    keep_freed_memory()
    spin_briefly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--only", choices=["cifar10", "imagenet", "mobile"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    entries = stage(arguments.data, arguments.out)
    tables: list[Table] = []
    for name, run in {"cifar10": cifar10, "imagenet": imagenet, "mobile": mobile}.items():
        if arguments.only in (None, name):
            tables += run(entries, arguments.data, arguments.out)
    results = [
        {"owner": t.owner, "fold": t.fold, "note": t.note, "gap": t.gap(), "wrong": t.wrong(), "rows": t.rows}
        for t in tables
    ]
    (arguments.out / "effectiveness.json").write_text(
        json.dumps({"version": fingerprint.__version__, "tables": results}, indent=1)
    )
    print(f"\nWrong verdicts: {sum(t.wrong() for t in tables)}. Smallest gap: {min(t.gap() or 0 for t in tables):+.2f}")


if __name__ == "__main__":
    main()
