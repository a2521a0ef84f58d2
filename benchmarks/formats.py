"""Every format that a suspect may come in: does it load, does it answer as the owner does, what does it cost.

    python benchmarks/formats.py --data DIR [--out .bench] [--only resnet20|mobilenet_v2] [--runs 5] [--inputs 100]
                                 [--formats "ncnn,MNN"]

Each owner is converted to every format whose converter is there, and an unrelated model too; unrelated files made by
others are looked at as they are. All are verified in isolated workers, label only, alpha 0.01 (resnet20 `fitted`,
mobilenet_v2 by a declared bound). Agreement is with the owner's labels, on its 100 probes and on 100 clean images.
Throughput is that of the engine (8-bit images in, checked answers out) in a process of its own: over eager PyTorch
(the owner's .pt2) measured next to it, and over the bare runtime in its best batch in the same process. Memory is that
process's peak. Records and files made before are used again.

With FINGERPRINT_DEVICE=cuda the same table for what computes there; `--inputs 10000` for its throughput.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from benchmarks_common import CIFAR_REFERENCES, HALVES, Entry, stage

import fingerprint
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.examination import METHOD_VERSION
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.data import load_images
from fingerprint.engine.adapt import Adapter
from fingerprint.engine.allocator import keep_freed_memory
from fingerprint.engine.environment import spin_briefly
from fingerprint.engine.local import open_local
from fingerprint.engine.sealed import SealedFile
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import FingerprintError
from fingerprint.model import Images, InputSpec, labels_of
from fingerprint.record import Fingerprint, Manifest, Payload
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

ALPHA = 0.01
BATCHES = (1, 4, 8, 16, 25, 32, 50, 64, 100, 128, 256, 512)
WARM = 6  # calls after which the engine has found its batch
FORMATS = {  # row: how it is made from the owner's .pt2, and the file's suffix
    "torch.export .pt2": ("compile:pt2", ".again.pt2"),
    "AOTInductor .pt2": ("compile:aotinductor", ".aoti.pt2"),
    "TorchScript": ("compile:torchscript", ".ts.pt"),
    "ONNX fp32": ("compile:onnx", ".onnx"),
    "ONNX static int8 (QDQ)": ("quantize:static:int8", ".qdq.onnx"),
    "ONNX dynamic int8": ("quantize:dynamic:int8", ".dynamic.onnx"),
    "TFLite fp32": ("compile:litert", ".tflite"),
    "TFLite fp16": ("compile:litert:fp16", ".fp16.tflite"),
    "TFLite dynamic int8": ("quantize:dynamic:int8", ".dynamic.tflite"),
    "TFLite full int8": ("quantize:static:int8", ".int8.tflite"),
    "ExecuTorch fp32": ("compile:executorch", ".pte"),
    "ExecuTorch int8": ("compile:executorch:int8", ".int8.pte"),
    "OpenVINO fp32": ("compile:openvino", ".xml"),
    "OpenVINO fp16": ("compile:openvino:fp16", ".fp16.xml"),
    "OpenVINO int8 (NNCF)": ("quantize:static:int8", ".int8.xml"),
    "ncnn": ("compile:ncnn", ".param"),
    "MNN": ("compile:mnn", ".mnn"),
    "TVM (untuned)": ("compile:tvm", ".so"),
    "Core ML": ("compile:coreml", ".mlpackage"),
}


@dataclass(frozen=True)
class Case:
    """An owner, a stranger in the same task, images, and how the record is calibrated."""

    name: str
    owner: Path
    stranger: Path
    others: tuple[Path, ...]  # unrelated files as their authors made them
    images: Path
    options: CreateOptions
    calibration: str


def cases(data: Path, entries: dict[str, Entry]) -> dict[str, Case]:
    """The two owners."""
    references = [e.path for e in entries.values() if e.author in HALVES[0] and e.path.suffix in CIFAR_REFERENCES]
    return {
        "resnet20": Case(
            "resnet20",
            entries["akamaster_resnet20.pt2"].path,
            entries["benjames03_resnet20.onnx"].path,
            (data / "mobile/mlperftiny_resnet8_float.tflite", data / "mobile/mlperftiny_resnet8_int8.tflite"),
            data / "cifar10/test.zip",
            CreateOptions("resnet20", references=references, data=data / "cifar10/train.zip", seed=1, screen=0),
            "fitted",
        ),
        "mobilenet_v2": Case(
            "mobilenet_v2",
            entries["mobilenet_v2.pt2"].path,
            entries["efficientnet_lite0.onnx"].path,
            (data / "mobile/mobilenet_v2_1.0_224_quant.tflite", data / "mobile/squeezenet_v1.1.param"),
            data / "imagenet/samples_224.zip",
            CreateOptions("mobilenet_v2", declared_bound=0.2, seed=1),
            "declared",
        ),
    }


def record_of(case: Case, out: Path) -> Fingerprint:
    """The owner's fingerprint; kept, for this version of the tool and of its method only."""
    stem = out / f"{case.name}-{fingerprint.__version__}-{METHOD_VERSION}"
    manifest, payload = stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".safetensors")
    if manifest.exists():
        return Fingerprint(
            Manifest.model_validate_json(manifest.read_bytes()), Payload.from_bytes(payload.read_bytes())
        )
    made = create(case.owner, case.options)
    payload.write_bytes(made.payload.to_bytes())
    manifest.write_text(made.manifest.model_dump_json())
    return made


def convert(source: Path, row: str, images: Images, folder: Path) -> Path | str:
    """The file of one format, or why it could not be made."""
    how, suffix = FORMATS[row]
    out = folder / str(list(FORMATS).index(row)) / (source.name.split(".")[0] + suffix)  # two rows may share a name
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if not out.exists():
            derive(source, how, out, DeriveContext(load_spec(sidecar_path(source)), images))
    except FingerprintError as error:
        return error.message.splitlines()[0]
    return out


def agreement(path: Path, inputs: dict[str, Images], owner: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of the owner's labels that the file gives, in an isolated worker."""
    spec = load_spec(sidecar_path(path))
    with WorkerPool() as pool, SealedFile.of(path) as sealed, pool.open(sealed, allow_code=True) as session:
        found = {k: labels_of(session.predict(v, spec), spec.class_offset) for k, v in inputs.items()}
    return {k: float((found[k] == owner[k]).mean()) for k in inputs}


def seconds(work: object) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


def measure(path: Path, images_file: Path, runs: int, inputs: int) -> None:
    """In a process of its own: engine, bare runtime in its best batch, and peak memory; printed as JSON."""
    keep_freed_memory()
    spin_briefly()
    images = np.load(images_file)
    images = np.resize(images, (inputs, *images.shape[1:]))
    model, spec = open_local(path), load_spec(sidecar_path(path))
    prepared = Adapter(spec, model.signature)(images)
    for _ in range(WARM):
        model.predict(images, spec)
    low, high = model.loaded.batch_range
    fixed = model.signature.batch
    sizes = (fixed,) if fixed else tuple(b for b in BATCHES if low <= b <= min(inputs, high or b)) or (low,)

    def bare(batch: int) -> None:
        for start in range(0, len(prepared), batch):
            part = prepared[start : start + batch]
            model.loaded.predict(part if len(part) == batch or not (fixed or len(part) < low) else prepared[-batch:])

    best = min(sizes, key=lambda b: min(seconds(partial(bare, b)) for _ in range(2)))
    pairs = [(seconds(lambda: model.predict(images, spec)), seconds(partial(bare, best))) for _ in range(runs)]
    ours, theirs = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    found = {"engine_s": ours, "ratio": ours / theirs, "batch": best, "peak_mib": round(peak_mib())}
    print(json.dumps(found))


def peak_mib() -> float:
    """Peak resident memory of this process since it was started (Linux; ru_maxrss would count its parent's too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def measured(path: Path, images_file: Path, runs: int, inputs: int) -> dict[str, float]:
    """`measure` of a file, in a process of its own."""
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            "--measure",
            str(path),
            str(images_file),
            "--runs",
            str(runs),
            "--inputs",
            str(inputs),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"measuring {path} failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(
    case: Case, out: Path, runs: int, inputs: int, formats: Sequence[str] = tuple(FORMATS)
) -> Iterator[dict[str, object]]:
    """The table of one owner: its own formats first, then the stranger's, then files made by others."""
    spec: InputSpec = load_spec(sidecar_path(case.owner))
    clean = load_images(case.images, spec.image_shape, spec.classes, 100).images
    images_file = out / f"{case.name}-images.npy"
    np.save(images_file, clean)
    record = record_of(case, out)
    asked = {"probes": record.payload.probes, "clean": clean}
    owner = open_local(case.owner)
    truth = {k: labels_of(owner.predict(v, spec), spec.class_offset) for k, v in asked.items()}
    options = VerifyOptions(
        alpha=ALPHA, label_only=True, allow_code=True, calibration=case.calibration  # type: ignore[arg-type]
    )  # fmt: skip
    for name in formats:
        row: dict[str, object] = {"owner": case.name, "model": "owner", "format": name}
        made = convert(case.owner, name, clean, out / "formats" / case.name)
        if isinstance(made, str):
            yield row | {"why": made}
            continue
        row |= _verdict(made, record, options)
        try:
            row |= agreement(made, asked, truth)
            if runs:
                eager, found = (measured(path, images_file, runs, inputs) for path in (case.owner, made))
                row |= {"over_eager": eager["engine_s"] / found["engine_s"], **found}
        except FingerprintError as error:
            row["why"] = error.message.splitlines()[0]
        yield row
    for name in formats:
        made = convert(case.stranger, name, clean, out / "formats" / f"{case.name}-stranger")
        told: dict[str, object] = {"why": made} if isinstance(made, str) else _verdict(made, record, options)
        yield {"owner": case.name, "model": "stranger", "format": name, **told}
    for path in case.others:
        yield {"owner": case.name, "model": "by others", "format": path.name, **_verdict(path, record, options)}


def _verdict(path: Path, record: Fingerprint, options: VerifyOptions) -> dict[str, object]:
    (result,) = verify([path], [record], options)
    found = result.verdict
    match, p = (found.match_rate, found.p_value) if found is not None else (None, None)
    return {"verdict": str(result.lineage or result.status), "match_rate": match, "p_value": p}


def show(row: dict[str, object]) -> None:
    """One line of the table."""
    numbers = [row.get(k) for k in ("match_rate", "probes", "clean", "over_eager", "ratio", "batch", "peak_mib")]
    cells = ["-" if n is None else f"{n:.2f}" if isinstance(n, float) else str(n) for n in numbers]
    verdict = row.get("verdict", "not made")
    print(f"| {row['model']} | {row['format']} | {verdict} | {' | '.join(cells)} | {row.get('why', '')} |", flush=True)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--only", choices=["resnet20", "mobilenet_v2"])
    parser.add_argument("--runs", type=int, default=5, help="timed runs; 0 leaves speed and memory out")
    parser.add_argument("--inputs", type=int, default=100, help="that are answered in each run")
    parser.add_argument("--formats", default=",".join(FORMATS), help="rows of the table, by commas")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], arguments.measure[1], arguments.runs, arguments.inputs)
        return
    if arguments.data is None:
        parser.error("--data is needed")
    formats = arguments.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        parser.error(f"no format is named {', '.join(sorted(unknown))}")
    keep_freed_memory()
    arguments.out.mkdir(parents=True, exist_ok=True)
    entries = stage(arguments.data, arguments.out)
    rows: list[dict[str, object]] = []
    for name, case in cases(arguments.data, entries).items():
        if arguments.only not in (None, name):
            continue
        print(f"\n### {name}\n")
        print("| model | format | verdict | match | probes | clean | / eager | / bare | batch | peak MiB | |")
        print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
        for row in rows_of(case, arguments.out, arguments.runs, arguments.inputs, formats):
            rows.append(row)
            show(row)
            (arguments.out / "formats.json").write_text(
                json.dumps({"version": fingerprint.__version__, "rows": rows}, indent=1)
            )


if __name__ == "__main__":
    main()
