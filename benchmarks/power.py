"""What verdicts say of every transformation, and of every unrelated model, of the benchmark's zoo.

    python benchmarks/zoo.py --data DIR --only build
    python benchmarks/power.py --data DIR [--out .bench/zoo] [--alpha 0.01]

Two records of each owner, label only, calibrated (`fitted`) on the unrelated files of --data: the default one, and the
one that is the default beside screen models (the owner's twins), each of 100 probes. Judged are the owner's
derivatives, and models that calibrate nothing: the nets that the benchmark trained, what was derived of them, and what
was derived of the other owner. Printed: for each transformation how many of the owners' copies are `derived`, and after
how many queries step by step (median of ten orders, of those found); how many unrelated models are accused, at once and
step by step; and in how many orders a model would be that matches so many of the probes.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import zoo
from benchmarks_common import stage

from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.bench.asking import Asker, Question
from fingerprint.bench.splits import load_splits
from fingerprint.bench.zoo import Member, Zoo
from fingerprint.decision.lineage import LineageTest, Settings
from fingerprint.decision.sequential import SequentialTest
from fingerprint.engine.allocator import keep_freed_memory
from fingerprint.record import FamilyMatch, Fingerprint

ORDERS, SEED = 10, 20_261_128
RIVALS, ORDERS_OF_RIVALS = (85, 81, 75, 70, 60), 200  # matches, of all probes, of models that could be taken for copies


class Judge:
    """The two decisions on what one model answered to one record's probes."""

    def __init__(self, record: Fingerprint, alpha: float) -> None:
        self.record, self.test = record, LineageTest(record.manifest, Settings(alpha, "fitted", label_only=True))
        self.names = np.array([family.name for family in record.manifest.families])[record.payload.family]

    def at_once(self, matches: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str:
        """Lineage, with all probes answered."""
        counts = {n: (int(matches[self.names == n].sum()), int((self.names == n).sum())) for n in set(self.names)}
        families = {name: FamilyMatch(matches=hits, queries=asked) for name, (hits, asked) in counts.items()}
        return self.test.decide(families, len(matches)).lineage

    def queries(self, matches: np.ndarray[tuple[int], np.dtype[np.bool_]], seed: int) -> int | None:
        """Answers until it is derived, in a random order; None where it never is."""
        test = SequentialTest(self.test, Counter(self.names.tolist()))
        order = np.random.default_rng([SEED, seed]).permutation(len(matches))
        for asked, index in enumerate(order.tolist(), start=1):
            test.add(str(self.names[index]), bool(matches[index]))
            if test.clear:
                return asked if test.derived else None
        return None

    def accused(self, hits: int) -> int:
        """In how many random orders a model that matches so many of all probes is derived, step by step."""
        matches = np.arange(len(self.names)) < hits
        return sum(self.queries(matches, 1000 + seed) is not None for seed in range(ORDERS_OF_RIVALS))


def records(owner: Member, references: Sequence[Path], data: Path, twins: Sequence[Path]) -> dict[str, Fingerprint]:
    """The default record, and the one beside screen models."""
    common = CreateOptions(owner.name, spec=owner.spec, references=references, data=data, seed=1)
    found = {"default": create(owner.path, common)}
    if twins:
        beside = CreateOptions(
            owner.name, spec=owner.spec, references=references, data=data, seed=1, screen_models=twins
        )  # fmt: skip
        found["beside screen models"] = create(owner.path, beside)
    return found


def main() -> None:
    """Make, ask, judge, print."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench/zoo"))
    parser.add_argument("--alpha", type=float, default=0.01)
    arguments = parser.parse_args()
    plan, log = zoo.plan(arguments.data, "small"), zoo.Log()
    folder, cifar = arguments.out / plan.name, arguments.data / "cifar10"
    splits = load_splits([cifar / "train.zip"], [cifar / "test.zip"], (32, 32, 3), 10)
    images = folder / "power-images.npz"
    np.savez(images, images=splits.probes.images, labels=np.asarray(splits.probes.labels))
    entries = stage(arguments.data, folder / "staged")
    files = {base.name: base.path for base in plan.strangers if base.path is not None}
    rows: list[dict[str, object]] = []
    rivals: dict[str, dict[int, int]] = {}
    with Asker(folder / "answers") as asker:
        built = Zoo(folder / "models", plan, splits, asker, log, build=False)
        members = [found for found in built.members() if isinstance(found, Member)]
        for base in plan.owners:
            owner = next(member for member in members if member.name == base.name)
            references = [entries[path.name].path for path in files.values()]
            for kind, record in records(owner, references, images, built.twins(base)).items():
                judge, question = Judge(record, arguments.alpha), Question.of(record.payload.probes)
                for member in members:
                    if member.base in files or member is owner:
                        continue  # a reference, or derived of one
                    (outputs,) = asker.ask(member.path, member.sha256, member.spec, [question])
                    matches = outputs.argmax(axis=1) == record.payload.targets
                    asked = [judge.queries(matches, seed) for seed in range(ORDERS)]
                    rows.append({
                        "owner": base.name, "record": kind, "model": member.name, "row": member.row,
                        "mine": member.base == base.name, "lineage": judge.at_once(matches), "queries": asked,
                        "rates": {str(n): float(matches[judge.names == n].mean()) for n in dict.fromkeys(judge.names)},
                    })  # fmt: skip
                if kind == "default":
                    rivals[base.name] = {m: judge.accused(m) for m in RIVALS}
    found = {"alpha": arguments.alpha, "rows": rows, "rivals": rivals}
    (folder / "power.json").write_text(json.dumps(found, indent=1))
    show(rows)
    for name, accused in rivals.items():
        text = ", ".join(f"{hits} of 100 probes: {n} of {ORDERS_OF_RIVALS}" for hits, n in accused.items())
        print(f"\n{name}, default, step by step, orders in which a model is accused that matches {text}")


def show(rows: Sequence[Mapping[str, object]]) -> None:
    """The tables."""
    kinds = list(dict.fromkeys(str(row["record"]) for row in rows))
    print("\n| transformation | " + " | ".join(f"{kind}: derived, queries" for kind in kinds) + " |")
    print("|---|" + "---|" * len(kinds))
    for name in dict.fromkeys(row["row"] for row in rows if row["mine"]):
        cells = []
        for kind in kinds:
            found = [row for row in rows if row["mine"] and row["row"] == name and row["record"] == kind]
            asked = [q for row in found for q in row["queries"] if q is not None]  # type: ignore[attr-defined]
            derived = sum(row["lineage"] == "derived" for row in found)
            cells.append(
                f"{derived} of {len(found)}, {np.median(asked):.0f}" if asked else f"{derived} of {len(found)}, -"
            )
        print(f"| {name} | " + " | ".join(cells) + " |")
    for kind in kinds:
        unrelated = [row for row in rows if not row["mine"] and row["record"] == kind]
        counts = Counter(str(row["lineage"]) for row in unrelated)
        print(f"\n{kind}: {len(unrelated)} unrelated models: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
        orders = [q is not None for row in unrelated for q in row["queries"]]  # type: ignore[attr-defined]
        print(f"step by step: accused in {sum(orders)} of {len(orders)} orders")


if __name__ == "__main__":
    main()
