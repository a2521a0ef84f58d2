"""create over its bare passes, and its peak memory, on mobilenet_v2, resnet20 and a ViT-B-sized transformer.

    python benchmarks/create_speed.py --data DIR [--device cpu|cuda] [--model mobilenet_v2]... [--probes 100] [--small]

The ratio is that of `speed.py`: a whole `create` (characteristic probes, default effort, with copies and confirmation)
over a replay, with the bare module on the same device, of the forward and backward passes that it made, in the same
batches. Medians of interleaved runs; one run of each first does not count. Peak memory is that of torch's allocator on
CUDA, and else the process's high-water mark (VmHWM), each reset before it is measured.

The transformer is made here: plain torch, seeded random weights, 12 layers of width 768 with 12 heads, patches of 16,
224x224, 1000 classes. `--small` makes all of that small, to try the script on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from speed import Calls, passes_of, ratio, replay
from torch import nn

import fingerprint
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.engine.allocator import keep_freed_memory
from fingerprint.probes.registry import split_families
from fingerprint.runtimes.devices import VARIABLE, wanted
from fingerprint.spec import sidecar_path

MODELS = {"resnet20": "cifar10/akamaster_resnet20.pt2", "mobilenet_v2": "imagenet/mobilenet_v2.pt2"}
MIB = 1024**2
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Size:
    """A vision transformer (Dosovitskiy et al., ICLR 2021); `side` and `patch` in pixels."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    patch: int = 16
    side: int = 224
    classes: int = 1000


SMALL = Size(layers=2, width=32, heads=2, patch=8, side=32, classes=10)


class Block(nn.Module):
    """Attention, then two linear layers, each after a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.projected = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, tokens, width) -> the same shape."""
        parts = self.mixed(self.before(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        x = x + self.projected(seen.transpose(1, 2).flatten(2))
        fed: torch.Tensor = self.feed(self.between(x))
        return x + fed


class VisionTransformer(nn.Module):
    """Images (N, 3, side, side) -> logits (N, classes)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, size.width, size.patch, size.patch)
        self.first = nn.Parameter(torch.randn(1, 1, size.width))
        self.places = nn.Parameter(torch.randn(1, (size.side // size.patch) ** 2 + 1, size.width))
        self.blocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.layers)))
        self.head = nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, size.classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        first = self.first.expand(tokens.shape[0], -1, -1)
        logits: torch.Tensor = self.head(self.blocks(torch.cat([first, tokens], 1) + self.places)[:, 0])
        return logits


def make_transformer(path: Path, size: Size, seed: int = 0) -> Path:
    """Write a transformer of seeded random weights as a .pt2 with its sidecar."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = VisionTransformer(size).eval()
    example = (torch.zeros(2, 3, size.side, size.side),)
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.export.save(torch.export.export(net, example, dynamic_shapes=({0: batch},)), path)
    fields = {"layout": "NCHW", "shape": [3, size.side, size.side], "mean": [0.5] * 3, "std": [0.5] * 3}
    sidecar_path(path).write_text(json.dumps({**fields, "channels": "RGB", "classes": size.classes}))
    return path


@dataclass(frozen=True)
class Measured:
    """One model's figures. passes: example-passes as recorded, and as counted (with copies and confirmation)."""

    model: str
    device: str
    probes: int
    passes_recorded: int
    passes_made: int
    ratio: float
    peak_create_mib: float
    peak_bare_mib: float


def count(calls: Calls) -> int:
    """Example-passes: one forward or one backward of one image is 1."""
    return sum(size * (1 + backward) for size, backward in calls)


def peak_mib(device: str, work: Callable[[], object]) -> float:
    """Highest memory in use while `work` runs, in MiB; NaN where the system does not tell."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / MIB
    try:
        RESET.write_text("5")  # the high-water mark starts again from what is in use now
    except OSError:
        work()
        return float("nan")
    work()
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(path: Path, device: str, families: Sequence[str], probes: int, runs: int) -> Measured:
    """create against its bare passes on a device."""
    os.environ[VARIABLE] = device
    recorded = 0

    def make() -> None:
        nonlocal recorded
        made = create(path, CreateOptions("speed", budget=probes, families=families, seed=1))
        recorded = sum(family.passes for family in made.manifest.families)

    calls = passes_of(make)
    bare = replay(path, calls)
    found = ratio(make, bare, runs)
    peaks = peak_mib(device, bare), peak_mib(device, make)
    return Measured(path.stem, device, probes, recorded, count(calls), found, peaks[1], peaks[0])


def stage(name: str, data: Path | None, out: Path, small: bool) -> Path:
    """A model's file with its sidecar, below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    if name == "vit":
        return make_transformer(out / ("vit-small.pt2" if small else "vit.pt2"), SMALL if small else Size())
    if data is None:
        raise SystemExit(f"{name} needs --data DIR")
    source, target = data / MODELS[name], out / f"{name}.pt2"
    shutil.copyfile(source, target)
    shutil.copyfile(sidecar_path(source), sidecar_path(target))
    return target


def main(arguments: Sequence[str] | None = None) -> list[Measured]:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", action="append", choices=[*MODELS, "vit"], help="default: mobilenet_v2 and vit")
    parser.add_argument("--probes", type=int, default=100)
    parser.add_argument("--families", default="characteristic", help="with settings, as for create")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args(arguments)
    keep_freed_memory()
    device = wanted(asked.device)
    print(f"dnn-fingerprint {fingerprint.__version__}, torch {torch.__version__}, {device}")
    if device.startswith("cuda"):
        print(torch.cuda.get_device_name())
    print("\n| model | probes | passes recorded | passes made | create / bare | peak MiB, create | peak MiB, bare |")
    print("|---|---|---|---|---|---|---|")
    found = []
    for name in asked.model or ["mobilenet_v2", "vit"]:
        path = stage(name, asked.data, asked.out / "create_speed", asked.small)
        one = measure(path, device, split_families(asked.families), asked.probes, asked.runs)
        print(
            f"| {one.model} | {one.probes} | {one.passes_recorded} | {one.passes_made} | {one.ratio:.2f} (<= 1.15) | "
            f"{one.peak_create_mib:.0f} | {one.peak_bare_mib:.0f} |",
            flush=True,
        )
        found.append(one)
    (asked.out / "create_speed.json").write_text(json.dumps([asdict(one) for one in found], indent=1))
    return found


if __name__ == "__main__":
    main()
