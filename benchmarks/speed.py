"""Speed, always as a ratio to something run side by side in the same process run.

    python benchmarks/speed.py --data DIR [--out .bench] [--runs 7]

- engine pass (8-bit images in, checked answers out) over the bare runtime fed the same, already prepared inputs in its
  best batch;
- create over the bare forward and backward passes it made, in the same batches;
- a whole `fingerprint verify` process less `fingerprint --version`, over a minimal script with the same runtime;
- `fingerprint --help` over the `--help` of a bare typer program;
- the same seed twice: identical payload and Merkle root.

Medians of interleaved runs. Absolute times mean nothing on a shared machine and are not printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import fingerprint
from fingerprint.data import load_images
from fingerprint.engine.adapt import Adapter
from fingerprint.engine.allocator import keep_freed_memory
from fingerprint.engine.environment import spin_briefly
from fingerprint.engine.local import LocalModel, open_local
from fingerprint.errors import FingerprintError
from fingerprint.model import Floats, Images, InputSpec
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

BATCHES = (1, 4, 8, 16, 32, 64, 100)
PROBES = 100
COMMAND = str(Path(sys.executable).with_name("fingerprint"))

MINIMAL = {
    "onnx": """
import json, sys, numpy as np, onnxruntime as ort
x = np.load(sys.argv[2]); s = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
n = s.get_inputs()[0].name
y = np.concatenate([s.run(None, {n: x[i:i + 32]})[0] for i in range(0, len(x), 32)])
print(json.dumps(y.argmax(1).tolist()))
""",
    "tflite": """
import json, sys, numpy as np
from ai_edge_litert.interpreter import Interpreter
x = np.load(sys.argv[2]); m = Interpreter(model_path=sys.argv[1], num_threads=2)
i, o = m.get_input_details()[0], m.get_output_details()[0]; y = []
m.allocate_tensors()
for row in x:
    m.set_tensor(i["index"], row[None]); m.invoke(); y.append(int(m.get_tensor(o["index"])[0].argmax()))
print(json.dumps(y))
""",
}
BARE_TYPER = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str): print(name)
@app.command()
def bye(name: str): print(name)
app()
"""


# bytecode is cached, as in any installation: some development machines turn that off for all processes
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(ours: Callable[[], object], bare: Callable[[], object], runs: int) -> float:
    """Median of ours over median of bare, interleaved; one run of each first, not counted."""
    ours(), bare()
    pairs = [(seconds(ours), seconds(bare)) for _ in range(runs)]
    return statistics.median(p[0] for p in pairs) / statistics.median(p[1] for p in pairs)


def engine(path: Path, spec: InputSpec, images: np.ndarray, runs: int) -> tuple[float, int]:
    """Engine over bare runtime, and the bare runtime's best batch."""
    model = open_local(path)
    prepared = Adapter(spec, model.signature)(images)
    model.predict(images, spec)  # settles the batch size, as the first pass of any suspect does

    def bare(batch: int) -> None:
        for start in range(0, len(prepared), batch):
            part = prepared[start : start + batch]
            model.loaded.predict(part if len(part) == batch else prepared[-batch:])

    fixed = model.signature.batch
    sizes = (fixed,) if fixed else BATCHES
    best = min(sizes, key=lambda b: min(seconds(partial(bare, b)) for _ in range(3)))
    return ratio(lambda: model.predict(images, spec), lambda: bare(best), runs), best


Calls = list[tuple[int, bool]]  # images in a batch, and whether a backward pass followed


def passes_of(work: Callable[[], object]) -> Calls:
    """The model passes, in order, that creations in `work` make: gradients, copies, confirmation in the own runtime."""
    import torch

    from fingerprint.probes import gradient

    calls: Calls = []
    original, original_predict = gradient.DifferentiableOwner.logits, LocalModel.predict

    def logged(self: gradient.DifferentiableOwner, images: torch.Tensor) -> torch.Tensor:
        calls.append((len(images), images.requires_grad))
        return original(self, images)

    def logged_predict(self: LocalModel, images: Images, spec: InputSpec) -> Floats:
        calls.append((len(images), False))  # confirmation in the owner's own runtime
        return original_predict(self, images, spec)

    gradient.DifferentiableOwner.logits = logged  # type: ignore[method-assign]
    LocalModel.predict = logged_predict  # type: ignore[method-assign]
    try:
        work()
    finally:
        gradient.DifferentiableOwner.logits = original  # type: ignore[method-assign]
        LocalModel.predict = original_predict  # type: ignore[method-assign]
    return calls


def replay(path: Path, calls: Calls) -> Callable[[], None]:
    """What makes the same passes with the bare module, on the device that `FINGERPRINT_DEVICE` names."""
    import torch

    module, spec = open_local(path).loaded.differentiable(), load_spec(sidecar_path(path))
    device = next(module.parameters()).device

    def again() -> None:
        for size, backward in calls:
            x = torch.rand(size, *spec.shape, device=device, requires_grad=backward)
            if backward:
                torch.autograd.grad(module(x).sum(), x)
            else:
                with torch.inference_mode():
                    module(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return again


def creation(path: Path, budget: int, runs: int) -> float:
    """create over a replay of the model passes it made."""
    from fingerprint.api.create import create
    from fingerprint.api.create_options import CreateOptions

    def make() -> None:
        create(path, CreateOptions("speed", budget=budget, seed=1))

    return ratio(make, replay(path, passes_of(make)), runs)


def process(command: list[str], environment: dict[str, str]) -> None:
    """Run a process; its exit code must be one that the tool documents."""
    done = subprocess.run(
        command, check=False, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}: {done.stderr}")


def verify_process(model: Path, images: np.ndarray, spec: InputSpec, home: Path, name: str, runs: int) -> float:
    """(fingerprint verify - fingerprint --version) over a minimal script."""
    environment = {**ENVIRONMENT, "FINGERPRINT_HOME": str(home)}
    kind = model.suffix[1:]
    with tempfile.TemporaryDirectory() as folder:
        inputs, script = Path(folder) / "x.npy", Path(folder) / "minimal.py"
        np.save(inputs, Adapter(spec, open_local(model).signature)(images))
        script.write_text(MINIMAL[kind])
        verify = [
            COMMAND,
            "verify",
            str(model),
            "--against",
            name,
            "-f",
            "json",
            "--no-cache",
            "--calibration",
            "declared",
        ]
        minimal = [sys.executable, str(script), str(model), str(inputs)]
        times = {"verify": [], "version": [], "minimal": []}  # type: dict[str, list[float]]
        for run in range(runs + 1):
            for key, command in (("verify", verify), ("version", [COMMAND, "--version"]), ("minimal", minimal)):
                spent = seconds(partial(process, command, environment))
                if run:
                    times[key].append(spent)
    middle = {k: statistics.median(v) for k, v in times.items()}
    return (middle["verify"] - middle["version"]) / middle["minimal"]


def help_ratio(runs: int) -> float:
    """fingerprint --help over a bare typer program's --help."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(BARE_TYPER)
        environment = ENVIRONMENT
        return ratio(
            lambda: process([COMMAND, "--help"], environment),
            lambda: process([sys.executable, str(script), "--help"], environment),
            runs,
        )


def same_seed(path: Path) -> bool:
    """Whether one seed gives an identical payload and Merkle root twice."""
    from fingerprint.api.create import create
    from fingerprint.api.create_options import CreateOptions

    records = [create(path, CreateOptions("seed", budget=30, seed=7)) for _ in range(2)]
    digests = {hashlib.sha256(r.payload.to_bytes()).hexdigest() for r in records}
    return len(digests) == 1 and len({r.manifest.probes.merkle_root for r in records}) == 1


def prepare(data: Path, out: Path) -> dict[str, tuple[Path, InputSpec, np.ndarray]]:
    """resnet20 and mobilenet_v2 as .pt2, .onnx and .tflite, with 100 real images each."""
    found = {}
    for name, folder, pictures in (
        ("resnet20", "cifar10/akamaster_resnet20.pt2", "cifar10/test.zip"),
        ("mobilenet_v2", "imagenet/mobilenet_v2.pt2", "imagenet/samples_224.zip"),
    ):
        source = out / "speed" / Path(folder).name
        source.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / folder, source)
        shutil.copyfile(sidecar_path(data / folder), sidecar_path(source))
        spec = load_spec(sidecar_path(source))
        images = load_images(data / pictures, spec.image_shape, spec.classes, PROBES).images
        found[f"{name} torch"] = (source, spec, images)
        for runtime, how, suffix in (("onnx", "compile:onnx", ".onnx"), ("litert", "compile:litert", ".tflite")):
            made = source.with_suffix(suffix)
            try:
                if not made.exists():
                    derive(source, how, made, DeriveContext(spec))
            except FingerprintError as error:
                print(f"{name} {runtime}: not made: {error.message}")
                continue
            found[f"{name} {runtime}"] = (made, load_spec(sidecar_path(made)), images)
    return found


def main() -> None:
    """Parse, run, write."""
    keep_freed_memory()
    spin_briefly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    models = prepare(arguments.data, arguments.out)
    results: dict[str, float | bool | int] = {}

    def show(name: str, value: float | bool, target: str) -> None:
        results[name] = value
        print(f"| {name} | {value if isinstance(value, bool) else format(value, '.2f')} | {target} |", flush=True)

    print(f"dnn-fingerprint {fingerprint.__version__}\n\n| what | measured | target |\n|---|---|---|")
    for name, (path, spec, images) in models.items():
        value, batch = engine(path, spec, images, arguments.runs)
        show(f"engine / bare, {name} (bare batch {batch})", value, "<= 1.10")
    show("create / bare passes, resnet20", creation(models["resnet20 torch"][0], 100, 3), "<= 1.15")
    show("same seed, same payload and Merkle root", same_seed(models["resnet20 torch"][0]), "true")
    show("--help / bare typer --help", help_ratio(arguments.runs), "<= 3")
    home = arguments.out / "speed" / "home"
    environment = {**ENVIRONMENT, "FINGERPRINT_HOME": str(home)}
    shutil.rmtree(home, ignore_errors=True)
    process([COMMAND, "keygen", "--no-passphrase"], environment)
    for name in ("resnet20", "mobilenet_v2"):
        owner = str(models[f"{name} torch"][0])
        process([COMMAND, "create", owner, "--name", name, "--declare-bound", "0.3", "--seed", "1"], environment)
        for runtime in ("onnx", "litert"):
            if f"{name} {runtime}" in models:
                path, spec, images = models[f"{name} {runtime}"]
                value = verify_process(path, images, spec, home, name, arguments.runs)
                show(f"(verify - version) / minimal script, {name} {runtime}", value, "<= 1.3")
    (arguments.out / "speed.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
