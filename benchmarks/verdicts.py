"""Do verdicts keep the error that they state, and how many queries do they need?

    python benchmarks/verdicts.py [--data DIR] [--out .bench] [--suspects 1000000] [--only PART]...

1. Simulated: unrelated suspects and reference models from one population, clustered by author; light, heavy and skewed
   tails; label match of all probes, and step by step with a look after every answer. The unit is the set of references.
2. Simulated audits of the same populations: strangers, ten of an author, and copies together, Benjamini-Hochberg.
3. Real (with --data): every unrelated CIFAR-10 model, leave-one-author-out; the unit is the model.
4. Queries (with --data): compressed and compiled variants, step by step, ten orders each.

Writes verdicts.json and prints Markdown. Nothing here sets a threshold.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from benchmarks_common import Entry, stage
from effectiveness import CIFAR_DERIVATIVES, make_derivatives
from numpy.typing import NDArray

from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.verify import VerifyOptions, verify
from fingerprint.decision.correction import benjamini_hochberg
from fingerprint.decision.ladder import climbed, rungs, share_between
from fingerprint.decision.lineage import NEARER, LineageTest, Settings
from fingerprint.decision.null import MatchNull
from fingerprint.engine.allocator import keep_freed_memory
from fingerprint.engine.environment import spin_briefly
from fingerprint.record import Fingerprint

ALPHAS = (0.05, 0.01, 0.001)
PROBES = 100
EACH = 100  # suspects for one set of references, all by new authors
COPIES = 90  # probes that the owner's middle copy matches
SEED = 20261123
PARTS = ("simulated", "audits", "real", "queries")
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
Row = dict[str, object]

EFFECTS: dict[str, Draw] = {  # of an author, and of a model: mean 0, variance 1
    "normal": lambda rng, n: rng.standard_normal(n),
    "Laplace": lambda rng, n: rng.laplace(size=n) / math.sqrt(2.0),
    "Student t3": lambda rng, n: rng.standard_t(3, n) / math.sqrt(3.0),
    "exponential (skewed)": lambda rng, n: rng.exponential(size=n) - 1.0,
    "one author in ten is of another kind": lambda rng, n: np.where(rng.random(n) < 0.1, 3.0, -1 / 3),
}
AUTHORS: dict[str, list[int]] = {  # references by author
    "4+2+1": [4, 2, 1],
    "10+1+1": [10, 1, 1],
    "8 authors": [1] * 8,
    "6 x 3": [3] * 6,
    "30 authors": [1] * 30,
}


class Population:
    """Match rates of unrelated models: logit(rate) = centre + author + model."""

    def __init__(self, effect: Draw, rng: np.random.Generator) -> None:
        self._effect, self._rng = effect, rng
        self._centre, self._between, self._within = -1.8, 0.4, 0.4

    def counts(self, authors: Sequence[int]) -> NDArray[np.int64]:
        """Matches of PROBES for the models of some authors."""
        shared = np.repeat(self._effect(self._rng, len(authors)), authors) * self._between
        logit = self._centre + shared + self._effect(self._rng, int(sum(authors))) * self._within
        return self._rng.binomial(PROBES, 1.0 / (1.0 + np.exp(-logit)))


def simulated(suspects: int) -> list[Row]:
    """False `derived` by population and structure, of all probes and step by step.

    "tail" is the test alone, on all probes; "steps" the same step by step. `derived` needs more: a match rate that is
    nearer to the owner's copies, which match on COPIES here, than to the highest reference, by `NEARER` ("all").
    """
    rows: list[Row] = []
    sets = max(2, suspects // EACH // (len(EFFECTS) * len(AUTHORS)))
    for name, effect in EFFECTS.items():
        for label, sizes in AUTHORS.items():
            rng = np.random.default_rng(SEED)
            population = Population(effect, rng)
            authors = [f"author {i}" for i, size in enumerate(sizes) for _ in range(size)]
            tail, steps, whole = (np.zeros((sets, len(ALPHAS))) for _ in range(3))
            for k in range(sets):
                references = population.counts(sizes)
                null = MatchNull(references.tolist(), PROBES, authors)
                found = population.counts([1] * EACH)
                orders = rng.permuted(np.arange(PROBES)[None, :] < found[:, None], axis=1)
                tails = np.array([null.tail(s) for s in range(PROBES + 1)])
                top = int(references.max())
                near = found >= max(top, top + NEARER * (COPIES - top))
                for j, alpha in enumerate(ALPHAS):
                    tail[k, j] = (tails[found] <= alpha).mean()
                    whole[k, j] = ((tails[found] <= alpha) & near).mean()
                    ladder = rungs(null, PROBES, alpha, share_between(null, PROBES, alpha))
                    steps[k, j] = climbed(orders, PROBES, ladder).mean()
            row: Row = {"population": name, "references": label, "suspects": sets * EACH}
            for what, values in (("tail", tail), ("steps", steps), ("all", whole)):
                row |= {f"{what} {alpha}": _interval(values[:, j], EACH) for j, alpha in enumerate(ALPHAS)}
            rows.append(row)
            print_row(row, header=len(rows) == 1)
    return rows


def _interval(values: NDArray[np.float64], each: int = 1) -> tuple[float, float]:
    """Mean over sets of references, and the upper end of its 95 % interval: where none was seen, 3 of all suspects."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean + 1.645 * error if mean > 0.0 else 3.0 / (len(values) * each)


def audits(runs: int = 1000, strangers: int = 200, each: int = 10, copies: int = 20) -> list[Row]:
    """False discovery rate of audits of strangers, `each` of one author, and copies of the owner, after correction.

    "tail" is the test alone; "all" what is `derived`: nearer to the copies, too. power: copies that are derived.
    """
    rows: list[Row] = []
    for name, effect in EFFECTS.items():
        for label in ("8 authors", "6 x 3", "30 authors"):
            rng = np.random.default_rng(SEED)
            population, sizes = Population(effect, rng), AUTHORS[label]
            authors = [f"author {i}" for i, size in enumerate(sizes) for _ in range(size)]
            tail, whole, power = (np.zeros((runs, len(ALPHAS))) for _ in range(3))
            for k in range(runs):
                references = population.counts(sizes)
                null = MatchNull(references.tolist(), PROBES, authors)
                counts = np.concatenate(
                    [population.counts([each] * (strangers // each)), rng.binomial(PROBES, 0.97, copies)]
                )
                p = np.array([null.tail(s) for s in range(PROBES + 1)])[counts]
                top = int(references.max())
                near = counts >= max(top, top + NEARER * (COPIES - top))
                for j, level in enumerate(ALPHAS):
                    found = p <= benjamini_hochberg(p.tolist(), level).threshold
                    for rates, said in ((tail, found), (whole, found & near)):
                        rates[k, j] = said[:strangers].sum() / max(1, int(said.sum()))
                    power[k, j] = (found & near)[strangers:].mean()
            row: Row = {"population": name, "references": label}
            for what, values in (("tail", tail), ("all", whole)):
                row |= {f"{what} {level}": _interval(values[:, j]) for j, level in enumerate(ALPHAS)}
            row |= {f"power {level}": float(power[:, j].mean()) for j, level in enumerate(ALPHAS)}
            rows.append(row)
            print_row(row, header=len(rows) == 1)
    return rows


def real(records: dict[str, Fingerprint]) -> list[Row]:
    """Every unrelated model against references by all other authors."""
    rows: list[Row] = []
    for name, record in records.items():
        references = record.manifest.references
        for alpha in ALPHAS:
            accused, reached, models = 0, 0, 0
            for author in sorted({r.author or "" for r in references}):
                rest = tuple(r for r in references if r.author != author)
                test = LineageTest(record.manifest.model_copy(update={"references": rest}), Settings(alpha, "fitted"))
                for model in (r for r in references if r.author == author):
                    verdict = test.decide(model.families, PROBES)
                    models += 1
                    accused += verdict.lineage == "derived"
                    reached += verdict.calibration is not None and verdict.calibration.bound is not None
            row: Row = {"owner": name, "alpha": alpha, "models": models, "accused": accused, "bound reached": reached}
            rows.append(row)
            print_row(row, header=len(rows) == 1)
    return rows


def queries(records: dict[str, Fingerprint], entries: dict[str, Entry], data: Path, folder: Path) -> list[Row]:
    """Queries until a variant is found, ten orders each."""
    rows: list[Row] = []
    options = VerifyOptions(alpha=0.01, label_only=True, allow_code=True, sequential=True)
    for name, record in records.items():
        made = make_derivatives(entries[f"{name}.pt2"], CIFAR_DERIVATIVES, data / "cifar10/test.zip", folder)
        for variant, path in made.items():
            if isinstance(path, str):
                continue
            found = [next(iter(verify([path], [record], options))).verdict for _ in range(10)]
            verdicts = [v for v in found if v is not None]
            row: Row = {
                "owner": name,
                "variant": variant,
                "derived": sum(v.lineage == "derived" for v in verdicts),
                "median queries": float(np.median([v.queries for v in verdicts])),
                "most": max(v.queries for v in verdicts),
            }
            rows.append(row)
            print_row(row, header=len(rows) == 1)
    medians = [row["median queries"] for row in rows]
    print(f"\nMedian over all variants: {np.median(np.array(medians, float)):.0f} queries")
    return rows


def owners(entries: dict[str, Entry], data: Path) -> dict[str, Fingerprint]:
    """Records of two owners with every unrelated model as reference (the code leaves authors out afterwards)."""
    records = {}
    for name in ("akamaster_resnet20", "akamaster_resnet56"):
        strangers = [
            e.path
            for n, e in entries.items()
            if n.endswith((".onnx", "resnet8_float.tflite")) and e.path.parent.name in ("cifar10", "mobile")
            if n != f"{name}.onnx"
        ]
        options = CreateOptions(name, references=strangers, data=data / "cifar10/train.zip", seed=SEED)
        records[name] = create(entries[f"{name}.pt2"].path, options)
    return records


def print_row(row: Row, *, header: bool) -> None:
    """One line of a Markdown table."""
    if header:
        print("\n| " + " | ".join(row) + " |\n|" + "---|" * len(row))
    print("| " + " | ".join(_cell(value) for value in row.values()) + " |", flush=True)


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.5f} (< {value[1]:.5f})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Parse, run, write."""
    keep_freed_memory()
    spin_briefly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    parser.add_argument("--suspects", type=int, default=1_000_000)
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; repeatable")
    arguments = parser.parse_args()
    wanted = arguments.only or PARTS
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Row]] = {}
    if "simulated" in wanted:
        found["simulated"] = simulated(arguments.suspects)
    if "audits" in wanted:
        found["audits"] = audits()
    if arguments.data is not None and {"real", "queries"} & set(wanted):
        entries = stage(arguments.data, arguments.out)
        records = owners(entries, arguments.data)
        if "real" in wanted:
            found["real"] = real(records)
        if "queries" in wanted:
            found["queries"] = queries(records, entries, arguments.data, arguments.out)
    (arguments.out / "verdicts.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
