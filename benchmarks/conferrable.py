"""What the plug-in of conferrable probes (plugins/conferrable) finds of the benchmark's own owner, `plain`.

    pip install plugins/conferrable
    python benchmarks/zoo.py --data DIR --only build
    python benchmarks/conferrable.py --data DIR [--out .bench/zoo] [--probes 100] [--family conferrable]

The plug-in trains its students on the owner's probe images; those that are judged are the zoo's: other architectures,
the thief's images. The owner's twins are held off. Printed: for each transformation of the owner the match rate, and
the share of all unrelated models (strangers and what was made of them) that match less, ties half: the AUC of that one
copy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import zoo

from fingerprint.bench.asking import Asker, Question
from fingerprint.bench.making import Maker, Screening
from fingerprint.bench.splits import load_splits
from fingerprint.bench.zoo import Member, Zoo
from fingerprint.errors import CreateError
from fingerprint.probes.registry import split_families

OWNER = "plain"


def below(value: float, others: Sequence[float]) -> float:
    """Share of `others` below `value`, ties half."""
    values = np.array(others)
    return float((values < value).mean() + 0.5 * (values == value).mean())


def main() -> None:
    """Make, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench/zoo"))
    parser.add_argument("--probes", type=int, default=100)
    parser.add_argument("--family", default="conferrable")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    (family,) = split_families(arguments.family)
    plan, log = zoo.plan(arguments.data, "small"), zoo.Log()
    folder = arguments.out / plan.name
    cifar = arguments.data / "cifar10"
    splits = load_splits([cifar / "train.zip"], [cifar / "test.zip"], (32, 32, 3), 10)
    with Asker(folder / "answers") as asker:
        built = Zoo(folder / "models", plan, splits, asker, log, build=False)
        members = [found for found in built.members() if isinstance(found, Member)]
        owner = next(member for member in members if member.name == OWNER)
        twins = built.twins(next(base for base in plan.owners if base.name == OWNER))
        maker = Maker(folder / "fingerprints", splits, arguments.probes, plan.seed, 0, log)
        made = maker.make(owner, [family], Screening(0, tuple(twins)))[family]
        if isinstance(made, str):
            raise CreateError(made)
        rates = {}
        for member in members:
            (outputs,) = asker.ask(member.path, member.sha256, member.spec, [Question.of(made.probes)])
            rates[member] = float((outputs.argmax(axis=1) == made.targets).mean())
    strangers = {m: rate for m, rate in rates.items() if m.base != OWNER}
    print(f"{len(made.probes)} probes, {made.passes} example-passes. {len(strangers)} unrelated models; the highest:")
    for member, rate in sorted(strangers.items(), key=lambda found: -found[1])[:5]:
        print(f"- {member.name}: {rate:.2f}")
    print(f"\n| copy of {OWNER} | match | unrelated models below |\n|---|---|---|")
    for member, rate in rates.items():
        if member.base == OWNER and member.row:
            print(f"| {member.row} | {rate:.2f} | {below(rate, list(strangers.values())):.3f} |")


if __name__ == "__main__":
    main()
