"""A whole registry: found, killed and resumed, compared with the bare loop, its memory, and audited again unchanged.

    python benchmarks/registry.py [--out .bench] [--models 2000] [--workers 2] [--ray] [--again] [--data DIR]

The registry is made of small digits models: derivatives of 5 owners, 20 unrelated models, one archive for every 40
models with two derivatives inside (one of them nested), and one corrupt file for every 20. Calibration uses references
that are none of these. `--data DIR` adds the same loop for resnet20, whose load and batch take longer.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from many import COMMAND, ENVIRONMENT, run

import fingerprint
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

sys.path.append(str(Path(__file__).parents[1] / "examples"))
OWNERS, UNRELATED, REFERENCES = 5, 20, 12
HOWS = ("prune:magnitude:{share:.4f}", "prune:magnitude:{share:.4f}+quantize:int8")
KILLS = 3
FDR = 0.01
REPEATS = 3
LARGE_BUDGET, LARGE_FILES = 300, 48  # probes and suspects of resnet20: a load and a batch take more than 100 ms


class Registry:
    """The models of one size, made once and kept."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.models, self.home = folder / "models", folder / "home"

    def make(self) -> None:
        """Everything: nets, fingerprints, derivatives, archives, corrupt files."""
        marker = self.folder / f"made-{self.count}"
        if marker.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.models.mkdir(parents=True)
        owners = [self._net("owners", i, i) for i in range(OWNERS)]
        for i in range(REFERENCES):
            self._net("references", i, 1000 + i)
        for i in range(UNRELATED):
            self._net("models", i, 100 + i, f"unrelated-{i:02}.onnx")
        call(self.home, "keygen", "--no-passphrase")
        for i, owner in enumerate(owners):
            references = str(self.folder / "references")
            call(self.home, "create", str(owner), "--name", f"owner-{i}", "--reference", references, "--seed", "1")
        corrupt, archives = max(1, self.count // 20), max(1, self.count // 40)
        derived = [self._derivative(owners, k) for k in range(self.count - UNRELATED - corrupt - archives)]
        for k in range(archives):
            self._archive(owners, k)
        for k in range(corrupt):
            (self.models / f"corrupt-{k:03}.onnx").write_bytes(damaged(derived[k % len(derived)].read_bytes(), k))
        marker.touch()

    def _net(self, kind: str, number: int, seed: int, name: str = "") -> Path:
        """One net: owners learn the digits, the others digits whose pixels are in an order of their own."""
        import digits
        import torch
        from torch import nn

        pictures, labels = digits.images()
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        order = np.random.default_rng(seed).permutation(64)
        shuffled = pictures.reshape(len(pictures), 64)[:, order].reshape(pictures.shape)
        x = (torch.from_numpy(shuffled).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        y = torch.from_numpy(labels)
        model = digits.build(12 + 4 * (seed % 3), 2 + seed % 2)
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(150):
            batch = torch.randint(len(y), (128,))
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        path = self.folder / kind / (name or f"net-{number}.onnx")
        return digits.save(model.eval(), path, f"{kind}-{number}")

    def _derivative(self, owners: Sequence[Path], number: int, folder: Path | None = None) -> Path:
        """A derivative of an owner, in a folder of its team; every fifth is called something else than .onnx."""
        owner = owners[number % OWNERS]
        how = HOWS[number // OWNERS % len(HOWS)].format(share=0.05 + 0.4 * number / self.count)
        team = folder or self.models / f"team-{number % 17:02}"
        team.mkdir(parents=True, exist_ok=True)
        path = team / f"derived-{number:05}.onnx"
        derive(owner, how, path, DeriveContext(load_spec(sidecar_path(owner))))
        if number % 5 == 4 and folder is None:
            renamed = path.with_suffix(".bin")
            sidecar_path(path).rename(sidecar_path(renamed))
            path = path.rename(renamed)
        return path

    def _archive(self, owners: Sequence[Path], number: int) -> None:
        scratch = self.folder / "scratch"
        first, second = (self._derivative(owners, 7 * number + i, scratch) for i in (0, 3))
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as nested:
            nested.write(second, "assets/m")
            nested.write(sidecar_path(second), "assets/m.spec.json")
        with zipfile.ZipFile(self.models / f"app-{number:03}.apk", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(first, "assets/model.onnx")
            archive.write(sidecar_path(first), "assets/model.onnx.spec.json")
            archive.writestr("base/split.zip", inner.getvalue())
        shutil.rmtree(scratch)

    def copy_of_home(self, name: str) -> Path:
        """A home of the same fingerprints that has audited nothing."""
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.home, target)
        return target


def damaged(data: bytes, number: int) -> bytes:
    """Cut, empty, text, noise, or changed in the middle of its structure."""
    rng = random.Random(number)
    kinds = (
        data[: len(data) // 2],
        b"",
        b"this is no model\n" * 50,
        rng.randbytes(5000),
        data[:40] + rng.randbytes(40) + data[80:],
    )
    return kinds[number % len(kinds)]


def environment(home: Path) -> dict[str, str]:
    """For the command with a home of its own."""
    return {**ENVIRONMENT, "FINGERPRINT_HOME": str(home)}


def call(home: Path, *arguments: str) -> str:
    """Run the command to its end."""
    done = subprocess.run([COMMAND, *arguments], env=environment(home), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"{' '.join(arguments[:2])} exited {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def audit_arguments(place: Path, workers: int) -> list[str]:
    """Of every audit here."""
    return ["audit", str(place), "--workers", str(workers), "--alpha", str(FDR), "-q"]


def audited(home: Path, place: Path, workers: int, *more: str) -> list[dict[str, Any]]:
    """The rows of one audit."""
    text = call(home, *audit_arguments(place, workers), "-f", "json", *more)
    rows: list[dict[str, Any]] = json.loads(text)["results"]
    return rows


def whole(registry: Registry, home: Path, workers: int) -> tuple[list[dict[str, Any]], float, int]:
    """Rows, wall seconds and peak memory of the audit of everything; rows are written as they come."""
    target = registry.folder / "rows.jsonl"
    arguments = [*audit_arguments(registry.models, workers), "-f", "csv", "-o", f"jsonl={target}"]
    seconds, peak = run(arguments, environment(home))
    lines = (json.loads(line) for line in target.read_text().splitlines())
    rows = [row for row in lines if row.get("provisional") is False]
    for row in rows:
        del row["provisional"], row["schema_version"]
    return rows, seconds, peak


def findings(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What was found, by suspect: reported (derived of the best fingerprint), accused, typed."""
    best: dict[str, set[str]] = {}
    status: dict[str, str] = {}
    for row in rows:
        path = row["suspect"]["path"]
        best.setdefault(path, set()).add((row["verdict"] or {}).get("lineage", ""))
        status[path] = row["status"]
    derived = {p for p in best if "derived-" in p or ".apk!" in p}
    unrelated = {p for p in best if "unrelated-" in p}
    corrupt = {p for p in best if "corrupt-" in p}
    return {
        "derivatives": len(derived),
        "reported": sum("derived" in best[p] for p in derived) / max(1, len(derived)),
        "unrelated": len(unrelated),
        "accused": sum("derived" in best[p] for p in unrelated),
        "corrupt": len(corrupt),
        "typed": sum(status[p] in ("unreadable", "unsupported", "opaque", "degenerate", "crashed") for p in corrupt),
    }


def killed(home: Path, place: Path, workers: int, rows: int) -> list[dict[str, Any]]:
    """Audit with three kill -9 on the way, evenly over `rows`; the rows of the run that ended."""
    for part in range(1, KILLS + 1):
        process = subprocess.Popen(
            [COMMAND, *audit_arguments(place, workers), "-f", "jsonl"],
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        for _ in range(rows * part // (KILLS + 1)):
            process.stdout.readline()
        time.sleep(1.0)  # until some of it is written
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return audited(home, place, workers)


def bare_seconds(files: Sequence[Path], inputs: int, shape: Sequence[int]) -> float:
    """Load every file and answer one batch, in one process and one thread: nothing less can be done."""
    script = (
        "import sys, time, numpy as np, onnxruntime as ort\n"
        "o = ort.SessionOptions(); o.intra_op_num_threads = 1; o.inter_op_num_threads = 1; o.log_severity_level = 4\n"
        f"x = np.zeros(({inputs}, {', '.join(map(str, shape))}), np.float32); started = time.perf_counter()\n"
        "for path in sys.stdin.read().split('\\n'):\n"
        "    s = ort.InferenceSession(path, o, providers=['CPUExecutionProvider'])\n"
        "    s.run(None, {s.get_inputs()[0].name: x})\n"
        "print(time.perf_counter() - started)"
    )
    text = "\n".join(map(str, files))
    done = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True, text=True, check=True)
    return float(done.stdout)


def many_files(registry: Registry) -> list[Path]:
    """The plain derivatives."""
    return sorted(p for p in registry.models.rglob("derived-*") if p.suffix in (".onnx", ".bin"))


def queries(home: Path) -> int:
    """Probes of all fingerprints."""
    listed = json.loads(call(home, "store", "list", "-f", "json"))["fingerprints"]
    return sum(int(one["probes"]) for one in listed)


def throughput(registry: Registry, workers: int) -> dict[str, float]:
    """Models per second and core over the bare loop, side by side, median of several rounds."""
    files = many_files(registry)[:200]
    place = registry.folder / "plain"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in files:
        shutil.copy(path, place / path.name)
        shutil.copy(sidecar_path(path), sidecar_path(place / path.name))
    home = registry.copy_of_home("home-throughput")
    start = statistics.median(timed(home, "audit", "--help") for _ in range(REPEATS))
    ratios, times = [], []
    for _ in range(REPEATS):
        bare = bare_seconds(files, queries(home), (1, 8, 8))
        spent, _ = run([*audit_arguments(place, workers), "--no-cache", "-f", "jsonl"], environment(home))
        cores = min(workers, os.cpu_count() or 1)
        ratios.append(bare / ((spent - start) * cores))
        times.append(1000 * bare / len(files))
    return {"share_of_bare": statistics.median(ratios), "bare_ms": statistics.median(times)}


def timed(home: Path, *arguments: str) -> float:
    """Wall seconds of one command."""
    started = time.perf_counter()
    call(home, *arguments)
    return time.perf_counter() - started


def memory(registry: Registry, workers: int, every: int) -> dict[str, float]:
    """Peak memory of the audit of everything (`every` bytes) over that of one of 100 files."""
    place = registry.folder / "hundred"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in many_files(registry)[:100]:
        shutil.copy(path, place / path.name)
        shutil.copy(sidecar_path(path), sidecar_path(place / path.name))
    arguments = [*audit_arguments(place, workers), "-f", "csv", "-o", f"jsonl={registry.folder / 'few.jsonl'}"]
    few = run(arguments, environment(registry.copy_of_home("home-few")))[1]
    return {"peak_mib_100": few / 2**20, "peak_over_100": every / few}


def skipping(registry: Registry, workers: int) -> dict[str, float]:
    """What it saves not to open models of text (two inputs of 64-bit numbers, 40 MB of weights): seconds per file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    place, count = registry.folder / "text", 20
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"]) for name in ("ids", "mask")]
    for k in range(count):
        table = np.random.default_rng(k).normal(size=(20_000, 512)).astype(np.float32)
        nodes = [helper.make_node("Gather", ["table", "ids"], ["g"]), helper.make_node("ReduceMean", ["g"], ["y"])]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "text", inputs, [output], [numpy_helper.from_array(table, "table")])
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
        onnx.save(model, str(place / f"text-{k:02}.onnx"))
    home, found = registry.copy_of_home("home-text"), {}
    start = statistics.median(timed(home, "audit", "--help") for _ in range(REPEATS))
    for name, more in (("skipped", ()), ("opened", ("--open-all",))):
        arguments = [*audit_arguments(place, workers), "--no-cache", "-f", "csv", *more]
        found[name] = statistics.median(timed(home, *arguments) for _ in range(REPEATS)) - start
    shutil.rmtree(place)
    return {"skipped_ms": 1000 * found["skipped"] / count, "opened_over_skipped": found["opened"] / found["skipped"]}


def again(registry: Registry, home: Path, workers: int) -> dict[str, float]:
    """Files per second, and per second of processor time, of an audit in which nothing has changed, less the start.

    The first with one fingerprint asks, and is not counted. grown: bytes that the database gained with a run.
    """
    files = sum(1 for p in registry.models.rglob("*") if p.is_file() and not p.name.endswith(".spec.json"))
    start = repeated(home, "audit", "--help")
    arguments = [*audit_arguments(registry.models, workers), "-f", "csv"]
    database, found = home / "fingerprint.db", dict[str, float]()
    before = database.stat().st_size
    for name, more in (("", ()), ("_one_fingerprint", ("--against", "owner-0"))):
        timed(home, *arguments, *more)
        wall, cpu = repeated(home, *arguments, *more)
        found[f"files_per_s{name}"] = files / max(1e-9, wall - start[0])
        found[f"files_per_cpu_s{name}"] = files / max(1e-9, cpu - start[1])
        found.setdefault("grown", (database.stat().st_size - before) / (REPEATS + 1))
    rows = audited(home, registry.models, workers)
    return {**found, "recalled": sum(row["cached"] for row in rows) / len(rows)}


def repeated(home: Path, *arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of a command: medians of several runs."""
    walls, cpus = [], []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(timed(home, *arguments))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(walls), statistics.median(cpus)


def on_ray(registry: Registry, workers: int, local: list[dict[str, Any]]) -> dict[str, float]:
    """Ray against the local pool: the same verdicts, and its speed, with the time to start Ray and without it.

    What starting takes is the time of an audit of one model.
    """
    one = registry.folder / "one"
    one.mkdir(exist_ok=True)
    for path in (many_files(registry)[0], sidecar_path(many_files(registry)[0])):
        shutil.copy(path, one / path.name)
    spent, starts = dict[str, float](), dict[str, float]()
    for name, more in (("local", ()), ("ray", ("--executor", "ray"))):
        home = registry.copy_of_home(f"home-{name}")
        starts[name] = timed(home, *audit_arguments(one, workers), *more)
        started = time.perf_counter()
        rows = audited(home, registry.models, workers, *more)
        spent[name] = time.perf_counter() - started
    return {
        "same": float(outcomes(rows) == outcomes(local)),
        "ray_over_local": spent["local"] / spent["ray"],
        "ray_over_local_started": (spent["local"] - starts["local"]) / (spent["ray"] - starts["ray"]),
        "start_s": starts["ray"],
    }


def outcomes(rows: Sequence[dict[str, Any]]) -> Counter[tuple[str, str, str, str | None]]:
    """What must be the same in two audits."""
    return Counter(
        (r["suspect"]["path"], r["fingerprint"]["name"], r["status"], (r["verdict"] or {}).get("lineage")) for r in rows
    )


def same_rows(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> bool:
    """Whether two audits say the same, row by row and field by field."""
    return bool(rounded(list(first)) == rounded(list(second)))


def rounded(value: Any) -> Any:  # noqa: ANN401
    """The same with floats of five digits: a batch of another size, chosen by its time, may change the last ones."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def large(data: Path, folder: Path, workers: int) -> dict[str, float]:
    """The loop for resnet20, by the makings of many.py."""
    import many

    place = folder / "resnet20"
    files = many.suspects(many.owner(data, place, "resnet20"), LARGE_FILES)
    home = place / "home"
    shutil.rmtree(home, ignore_errors=True)
    call(home, "keygen", "--no-passphrase")
    made = ("--name", "owner", "--declare-bound", "0.3", "--seed", "1", "--budget", str(LARGE_BUDGET))
    call(home, "create", str(place / "owner.pt2"), *made)
    arguments = ["audit", *map(str, files), "--calibration", "declared", "--no-cache", "-q", "-f", "jsonl"]
    start = timed(home, "audit", "--help")
    found: dict[str, list[float]] = {"share_of_bare": [], "second_worker": []}
    for _ in range(REPEATS):
        bare = bare_seconds(files, queries(home), (3, 32, 32))
        one, _ = run([*arguments, "--workers", "1", "--threads", "1"], environment(home))
        two, _ = run([*arguments, "--workers", str(workers)], environment(home))
        found["share_of_bare"].append(bare / ((two - start) * min(workers, os.cpu_count() or 1)))
        found["second_worker"].append((one - start) / (two - start))
    return {name: statistics.median(values) for name, values in found.items()} | {"bare_ms": 1000 * bare / len(files)}


def main() -> None:
    """Parse, make, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--again", action="store_true", help="only as far as memory and the audit of what is unchanged")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    registry = Registry(arguments.out.absolute() / "registry", arguments.models)
    registry.make()
    print(f"dnn-fingerprint {fingerprint.__version__}; {arguments.models} models\n")
    print("| what | measured | target |\n|---|---|---|")
    results: dict[str, Any] = {"models": arguments.models}
    try:
        measure(registry, arguments, results)
    finally:
        (arguments.out / "registry.json").write_text(json.dumps(results, indent=1))


def measure(registry: Registry, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """Everything, into `results`, and a row of the table for each."""
    workers = arguments.workers
    home = registry.copy_of_home("home-whole")
    rows, seconds, peak = whole(registry, home, workers)
    results["found"] = found = findings(rows)
    show(f"{found['derivatives']} derivatives reported", f"{found['reported']:.1%}", "all")
    show(f"of {found['unrelated']} unrelated models accused", f"{found['accused']}", "0")
    show(f"of {found['corrupt']} corrupt files typed", f"{found['typed']}", "all")
    results["seconds"] = seconds
    show("seconds in all", f"{seconds:.0f}", "-")
    results["memory"] = memory(registry, workers, peak)
    show("peak memory over that at 100 models", f"{results['memory']['peak_over_100']:.2f}", "<= 1.2")
    results["again"] = again(registry, home, workers)
    told_again = results["again"]
    show("unchanged, audited again: files per second", f"{told_again['files_per_s']:.0f}", ">= 2000")
    show("of processor time", f"{told_again['files_per_cpu_s']:.0f}", "-")
    show("the same with one fingerprint", f"{told_again['files_per_s_one_fingerprint']:.0f}", ">= 2000")
    show("of processor time", f"{told_again['files_per_cpu_s_one_fingerprint']:.0f}", "-")
    show("KiB that the database grows by", f"{told_again['grown'] / 1024:.0f}", "-")
    show("of its rows recalled", f"{told_again['recalled']:.1%}", "all that are lasting")
    if arguments.again:
        return
    disturbed = killed(registry.copy_of_home("home-killed"), registry.models, workers, len(rows))
    results["identical_after_kills"] = same_rows(rows, disturbed)
    show("three kill -9 on the way: rows identical", str(results["identical_after_kills"]), "True")
    results["skipping"] = skipping(registry, workers)
    told = f"{results['skipping']['opened_over_skipped']:.1f}"
    show("models of text: time to open all over that to skip by the header", told, "reported")
    results["throughput"] = told_by = throughput(registry, workers)
    what = f"models per second and core over bare ({told_by['bare_ms']:.1f} ms each)"
    show(what, f"{told_by['share_of_bare']:.2f}", "reported")
    if arguments.data is not None:
        results["resnet20"] = by = large(arguments.data, registry.folder, workers)
        show(f"resnet20: the same ({by['bare_ms']:.0f} ms each)", f"{by['share_of_bare']:.2f}", ">= 0.85 from 100 ms")
        show("resnet20: two workers over one", f"{by['second_worker']:.2f}", "-")
    if arguments.ray:
        results["ray"] = on_ray(registry, workers, rows)
        show("Ray: the same verdicts", str(bool(results["ray"]["same"])), "True")
        show("Ray: throughput over the local pool", f"{results['ray']['ray_over_local_started']:.2f}", ">= 0.8")
        what = f"the same with Ray's start ({results['ray']['start_s']:.0f} s)"
        show(what, f"{results['ray']['ray_over_local']:.2f}", "reported")


def show(what: str, measured: str, target: str) -> None:
    """One row of the table."""
    print(f"| {what} | {measured} | {target} |", flush=True)


if __name__ == "__main__":
    main()
