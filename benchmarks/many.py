"""Many small suspects: in one process over one process each, and the memory of a hundred over that of one.

    python benchmarks/many.py --data DIR [--out .bench] [--suspects 100]

The suspects are copies of the digits CNN of the examples, and of resnet20 (a hundred times the work), pruned to
different shares, so that no two have the same content. Memory is the
largest sum of the proportional set sizes of the process and all that it started, sampled every 10 ms (Linux).

What can be gained is bounded by the work itself: a bare loop (one process, ONNX Runtime opens each suspect and answers
as many inputs as there are probes) is measured too, and the hundred processes over it are the most that any tool
could reach.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import fingerprint
from fingerprint.errors import FingerprintError
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

COMMAND = str(Path(sys.executable).with_name("fingerprint"))
# bytecode is cached, as in any installation: some development machines turn that off for all processes
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
SAMPLE_S = 0.01
PROBES = 100  # of a record, by default
BARE = """
import json, sys, time
import numpy as np, onnxruntime
shape, count, files = json.loads(sys.argv[1])
started, images = time.perf_counter(), np.random.default_rng(0).random((count, *shape), np.float32)
for file in files:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: images})
print(time.perf_counter() - started)
"""
OWNERS = ("digits", "resnet20")
sys.path.append(str(Path(__file__).parents[1] / "examples"))


def proportional_bytes(pid: int) -> int:
    """Memory of a process and its descendants, shared pages divided among those who share them."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, ValueError):  # it ended meanwhile
            continue
    return total


def run(arguments: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Wall time and peak memory of one command."""
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [COMMAND, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(SAMPLE_S):
            peak = max(peak, proportional_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    spent = time.perf_counter() - started
    over.set()
    watcher.join()
    if process.returncode not in (0, 1, 3):
        raise SystemExit(f"{' '.join(arguments[:2])} exited {process.returncode}: {said.decode()}")
    return spent, peak


def bare(files: list[str], shape: tuple[int, int, int]) -> float:
    """Seconds of the bare loop, without the time to start Python and import ONNX Runtime."""
    given = json.dumps([shape, PROBES, files])
    done = subprocess.run([sys.executable, "-c", BARE, given], capture_output=True, text=True, check=True)
    return float(done.stdout)


def owner(data: Path, folder: Path, name: str) -> Path:
    """The owner's .pt2, with its sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "owner.pt2"
    if name == "resnet20":
        shutil.copyfile(data / "cifar10/akamaster_resnet20.pt2", source)
        shutil.copyfile(sidecar_path(data / "cifar10/akamaster_resnet20.pt2"), sidecar_path(source))
    elif not source.exists():
        import digits

        digits.save(digits.train(0), source)
    return source


def suspects(source: Path, count: int) -> list[Path]:
    """Pruned copies as ONNX files."""
    folder = source.parent
    context = DeriveContext(load_spec(sidecar_path(source)))
    plain, made = folder / "owner.onnx", []
    if not plain.exists():
        derive(source, "compile:onnx", plain, context)
    for k in range(count):
        out = folder / f"suspect-{k:03}.onnx"
        if not out.exists():
            derive(plain, f"prune:magnitude:{0.2 + 0.4 * k / count:.4f}", out, context)
        made.append(out)
    return made


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--suspects", type=int, default=100)
    arguments = parser.parse_args()
    print(f"dnn-fingerprint {fingerprint.__version__}\n\n| what | measured | target |\n|---|---|---|")
    results = {
        name: measure(arguments.data, arguments.out / "many" / name, name, arguments.suspects) for name in OWNERS
    }
    (arguments.out / "many.json").write_text(json.dumps(results, indent=1))


def measure(data: Path, folder: Path, name: str, count: int) -> dict[str, float]:
    """One owner's two figures, printed."""
    try:
        source = owner(data, folder, name)
        files = [str(path) for path in suspects(source, count)]
    except FingerprintError as error:
        raise SystemExit(error.diagnosis()) from error
    environment = {**ENVIRONMENT, "FINGERPRINT_HOME": str(folder / "home")}
    shutil.rmtree(folder / "home", ignore_errors=True)
    run(["keygen", "--no-passphrase"], environment)
    create = ["create", str(source), "--name", "owner", "--declare-bound", "0.3", "--seed", "1"]
    run(create, environment)
    common = ["--no-cache", "--calibration", "declared", "-f", "jsonl"]
    run(["verify", files[0], *common], environment)  # caches are warm for all that follows
    together, peak_all = run(["verify", *files, *common], environment)
    singles = [run(["verify", path, *common], environment) for path in files]
    alone = bare(files, load_spec(sidecar_path(source)).shape)
    each, peak_one = sum(spent for spent, _ in singles), max(peak for _, peak in singles)
    results = {
        "suspects": len(files),
        "processes_over_one": each / together,
        "processes_over_bare_loop": each / alone,
        "one_over_bare_loop": together / alone,
        "peak_memory_over_single": peak_all / peak_one,
        "peak_mib_single": peak_one / 2**20,
    }
    print(f"| {name}: {len(files)} processes over one process | {results['processes_over_one']:.1f} | >= 10 |")
    print(f"| {name}: {len(files)} processes over a bare loop | {results['processes_over_bare_loop']:.1f} | the most |")
    print(f"| {name}: one process over a bare loop | {results['one_over_bare_loop']:.2f} | - |")
    print(
        f"| {name}: peak memory of all over that of one | {results['peak_memory_over_single']:.2f} | <= 1.2 |",
        flush=True,
    )
    return results


if __name__ == "__main__":
    main()
