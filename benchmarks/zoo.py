"""The benchmark of fingerprints on CIFAR-10: real models made by others, and nets trained here.

    python benchmarks/zoo.py --data DIR [--scale small|full] [--out .bench/zoo] [--only build|judge]

DIR holds the folders cifar10 and mobile of real models, each with its input spec, and a manifest.json that names their
authors. Every step can be killed and started again: what is built is kept. `--only judge` judges what there is of the
zoo. Results: results.json, results.md, plots.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from fingerprint.bench.asking import Asker
from fingerprint.bench.plan import Base, Plan
from fingerprint.bench.rows import rows
from fingerprint.bench.run import Options, run, write
from fingerprint.bench.scratch import Recipe
from fingerprint.bench.splits import Splits, load_splits
from fingerprint.bench.zoo import Member, Zoo
from fingerprint.engine.allocator import keep_freed_memory
from fingerprint.engine.environment import spin_briefly
from fingerprint.model import InputSpec
from fingerprint.probes.registry import split_families

SEED = 20261123
SPEC = InputSpec("NCHW", (3, 32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616), classes=10)
EPOCHS = {"small": 12, "full": 40}
RATES = {"plain": 0.1, "plain-hidden": 0.05, "vgg": 0.1}
# name: architecture; in the order of their building
TRAINED = {
    "resnet20-a": "resnet20",
    "plain-a": "plain",
    "vgg-a": "vgg",
    "hidden-a": "plain-hidden",
    "resnet20-b": "resnet20",
    "plain-b": "plain",
    "resnet8-a": "resnet8",
}
MATCHED = ("resnet20-a", "plain-a", "vgg-a", "hidden-a")
HALVES = (
    frozenset({"atreides-K", "AdityaAS", "DenisDrobyshev", "bench-owner"})
    | {f"bench-{name}" for name in ("resnet20-a", "vgg-a", "plain-b")},
    frozenset({"benjames03", "ga-tardochisalles", "mlcommons", "akamaster"})
    | {f"bench-{name}" for name in ("plain-a", "hidden-a", "resnet20-b", "resnet8-a")},
)
FAMILIES = ("characteristic", "natural", "robust", "difference", "boundary", "composite", "trajectory", "universal")
COMBINATION = ("characteristic", "natural")


class Log:
    """Progress as lines with the time of day."""

    def step(self, task: str, done: int, total: int) -> None:
        """One line for each tenth."""
        if total < 20 or done == total or done * 10 // total > (done - 1) * 10 // total:
            print(f"{time.strftime('%H:%M:%S')} {task} {done}/{total}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """One line."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def recipe(architecture: str, scale: str, seed: int) -> Recipe:
    """How nets are trained from scratch at this scale."""
    return Recipe(architecture, EPOCHS[scale], seed, rate=RATES.get(architecture, 0.2))


def plan(data: Path, scale: str) -> Plan:
    """Owners, strangers and rows."""
    strangers = []
    for model in json.loads((data / "manifest.json").read_text()):
        file = next((f for f in model["files"] if f.endswith((".onnx", "resnet8_float.tflite"))), None)
        if file is None or model["task"] != "cifar10" or model["name"] == "akamaster_resnet20":
            continue
        author = str(model["source"]).split("/")[0].split(" ")[0]
        strangers.append(Base(Path(file).name.rsplit(".", 1)[0], author, path=data / file))
    trained = [
        Base(name, f"bench-{name}", recipe=recipe(kind, scale, SEED + 10 + number), other=other(kind))
        for number, (name, kind) in enumerate(TRAINED.items())
    ]
    owners = (
        Base("akamaster_resnet20", "akamaster", path=data / "cifar10/akamaster_resnet20.pt2"),
        Base("plain", "bench-owner", recipe=recipe("plain", scale, SEED + 1), other=other("plain")),
    )
    return Plan(f"cifar10-{scale}", SPEC, 10, owners, (*trained, *strangers), MATCHED, rows(scale), HALVES, SEED)


def other(architecture: str) -> str:
    """What a student of another kind is: a plain CNN of a ResNet, a VGG-like net of a plain one."""
    return "cnn" if architecture.startswith("resnet") else "vgg"


def main() -> None:
    """Parse, build, judge, write."""
    keep_freed_memory()
    spin_briefly()
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench/zoo"))
    parser.add_argument("--scale", choices=["small", "full"], default="small")
    parser.add_argument("--only", choices=["build", "judge"])
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--combination", default=",".join(COMBINATION))
    parser.add_argument("--queries", default="20,50,100", help="the largest is how many probes of a family are made")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    made, log = plan(arguments.data, arguments.scale), Log()
    folder = arguments.out / made.name
    cifar = arguments.data / "cifar10"
    splits = load_splits([cifar / "train.zip"], [cifar / "test.zip"], (32, 32, 3), 10)
    if arguments.only == "build":
        build(made, splits, folder, log, arguments.threads)
        return
    options = Options(
        split_families(arguments.families),
        split_families(arguments.combination),
        [int(number) for number in arguments.queries.split(",")],
        build=arguments.only != "judge",
        threads=arguments.threads,
    )
    for path in write(run(made, splits, folder, options, log), folder):
        print(path)


def build(made: Plan, splits: Splits, folder: Path, log: Log, threads: int) -> None:
    """Build the zoo, telling of every member."""
    with Asker(folder / "answers", threads) as asker:
        zoo = Zoo(folder / "models", made, splits, asker, log)
        for found in zoo.members():
            what = f"accuracy {found.accuracy:.3f}" if isinstance(found, Member) else f"not made: {found.reason}"
            log.note(f"{found.name}: {what}")


if __name__ == "__main__":
    main()
