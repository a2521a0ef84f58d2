"""Integrity and attribution: how often declared compression is accepted, tampering detected, a transformation named.

    python benchmarks/integrity.py digits --out out/
    python benchmarks/integrity.py digits-deep --out out/
    python benchmarks/integrity.py FILE.pt2 --data train.zip --test test.zip --out out/

One owner per run. Its record is made as `create --integrity 140` does, from a part of the images; suspects are
made from another part, at strengths and seeds that the record does not hold; accuracy is measured on images that
neither saw. The same suspects answer the same number of competitors' probes: sensitive samples (He, Zhang and Lee, CVPR
2019) and boundary samples of highest entropy over the top classes, both our re-implementation; their published rule is
"any other label is tampering", and beside it stands this tool's statistic on their probes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fingerprint.api.contrast import views_of
from fingerprint.api.copies import COMPRESSED, CopyMaker
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner
from fingerprint.data import CleanImages, load_images
from fingerprint.decision.allow import is_compression, kind_of, within
from fingerprint.decision.attribution_soft import attributor
from fingerprint.decision.contrast import alarmed, nt_xent
from fingerprint.decision.integrity import IntegrityTest, Trials, log_margins
from fingerprint.errors import FingerprintError
from fingerprint.model import Floats, Images, Labels
from fingerprint.probes.gradient import DifferentiableOwner, to_images
from fingerprint.progress import Silent
from fingerprint.record import Fingerprint
from fingerprint.spec import find_spec, sidecar_path

QUERIES = 140
LIMITS = ("quantize:static:int8", "quantize:int6:tensor", "prune:magnitude:0.5", "prune:layer:0.4")
ALPHA = 0.01
EVALUATED = 1000  # images on which accuracy is measured
COMPETITOR_STEPS = 15


def suspects(seed: int) -> list[str]:
    """What suspects went through; strengths lie between those of the record."""
    rng = np.random.default_rng(seed)

    def shares(low: float, high: float, count: int) -> list[float]:
        return [round(float(f), 3) for f in rng.uniform(low, high, count)]

    mixed = [f"prune:magnitude:{f}+quantize:int{rng.integers(6, 9)}" for f in shares(0.03, 0.5, 8)]
    mixed += [f"prune:layer:{f}+quantize:int{rng.integers(6, 9)}" for f in shares(0.03, 0.4, 5)]
    declared = [
        "compile:onnx", "compile:litert", "compile:onnx+quantize:static:int8", "compile:onnx+quantize:dynamic:int8",
        *(f"prune:magnitude:{f}" for f in shares(0.03, 0.5, 18)), *(f"prune:layer:{f}" for f in shares(0.03, 0.4, 10)),
        *mixed, *(f"prune:magnitude:{f}+compile:onnx+quantize:static:int8" for f in shares(0.05, 0.5, 3)),
    ]  # fmt: skip
    undeclared = [
        *(f"prune:magnitude:{f}" for f in shares(0.52, 0.85, 8)), *(f"prune:layer:{f}" for f in shares(0.42, 0.7, 6)),
        *(f"prune:magnitude:{f}+quantize:int4" for f in shares(0.03, 0.6, 4)),
    ]  # fmt: skip
    tuned = [
        *(f"finetune:last:epochs={e}:lr={r}" for e, r in ((1, 0.005), (2, 0.02), (4, 0.01), (5, 0.03))),
        *(f"finetune:all:epochs={e}:lr={r}" for e, r in ((1, 0.002), (1, 0.01), (2, 0.005), (3, 0.01))),
        *(f"finetune:reset-last:epochs={e}:lr={r}" for e, r in ((3, 0.05), (3, 0.1))),
        *(f"finetune:reset-all:epochs={e}:lr={r}" for e, r in ((2, 0.02), (4, 0.01))),
        *(f"backdoor:{t}:epochs={e}:lr={r}" for t, e, r in ((1, 1, 0.005), (2, 2, 0.005), (3, 3, 0.02), (4, 2, 0.02))),
        *(f"distil:{k}:same:epochs={e}" for k, e in (("soft", 5), ("soft", 10), ("hard", 6), ("hard", 10))),
    ]  # fmt: skip
    damaged = [f"noise:{s}" for s in shares(0.04, 0.35, 8)]
    damaged += [f"fault:flip8:{n}" for n in (8, 32, 128, 512, 512, 2048, 2048)]
    damaged += [f"fault:flip:{n}" for n in (2, 8, 24, 24, 48, 48)]
    damaged += [f"fault:stuck:{f}:{at}" for f in (0.0005, 0.003, 0.02) for at in ("zero", "max")]
    sneaked = [f"sneak:{norm}:{count}" for norm in ("l0", "l2") for count in (1, 3, 8) for _ in range(3)]
    return declared + undeclared + tuned + damaged + sneaked


@dataclass(frozen=True)
class Row:
    """One suspect: what it went through, its accuracy, and what each probe set says of it."""

    how: str
    accuracy: float
    group: str
    found: dict[str, str]
    named: dict[str, str | None]
    alarm: float | None
    by_queries: dict[int, str]


def group_of(how: str, lost: float) -> str:
    """The row of the table in which a suspect is counted."""
    name = how.split(":", maxsplit=1)[0]
    if kind_of(how) in ("re-encoded", "quantized", "pruned"):
        return "declared compression" if within(how, LIMITS) else "undeclared compression"
    if name in ("noise", "fault"):
        return f"{name}, {'1 point or more' if lost >= 0.01 else 'under 1 point'}"
    return ":".join(how.split(":")[: 3 if name == "sneak" else 2 if name == "finetune" else 1])


def sensitive_samples(owner: DifferentiableOwner, seeds: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W): gradient ascent on the squared norm of d logits / d weights, over random signs of the logits."""
    weights = [t for t in (*owner.module.parameters(), *owner.module.buffers()) if t.is_floating_point() and t.ndim > 1]
    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        weight.requires_grad_(True)
    images = seeds.clone()
    for _ in range(COMPETITOR_STEPS):
        for rows in torch.split(torch.arange(len(images)), 20):
            part = images[rows].clone().requires_grad_(True)
            logits = owner.logits(part)
            signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1.0
            found = torch.autograd.grad((logits * signs).sum(), weights, create_graph=True)
            (gradient,) = torch.autograd.grad(sum(g.square().sum() for g in found), part)  # type: ignore[arg-type]
            images[rows] = (part + 2.0 * gradient.sign()).clamp(0.0, 255.0).detach()
    for weight in weights:
        weight.requires_grad_(False)
    return images


def boundary_entropy(owner: DifferentiableOwner, seeds: torch.Tensor, top: int = 3) -> torch.Tensor:
    """(N, C, H, W): Adam on the entropy of the softmax over the `top` classes."""
    images = seeds.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([images], 1.0)
    for _ in range(4 * COMPETITOR_STEPS):
        best = owner.logits(images).topk(top, dim=1).values.log_softmax(1)
        (gradient,) = torch.autograd.grad((best.exp() * best).sum(), images)
        images.grad = gradient
        optimizer.step()
        images.data.clamp_(0.0, 255.0)
    return images.detach()


def sets_of(record: Fingerprint, owner: Owner, data: CleanImages) -> dict[str, Images]:
    """All probe sets, of the same size."""
    assert owner.module is not None
    mine = record.payload.family == 1
    differentiable = DifferentiableOwner(owner.module, owner.spec, owner.classes, owner.batches)
    seeds = torch.from_numpy(data.take(int(mine.sum()), 5).images).permute(0, 3, 1, 2).float()
    return {
        "intrinsic": record.payload.probes[mine],
        "sensitive samples": to_images(sensitive_samples(differentiable, seeds)),
        "boundary entropy": to_images(boundary_entropy(differentiable, seeds)),
    }


class Judge:
    """One probe set with what the record's compressed copies answer to it."""

    def __init__(self, images: Images, owner: Owner, data: CleanImages, own: Trials | None, *, light: bool) -> None:
        self.targets: Labels = owner.predict(images).argmax(axis=1).astype(np.int64)
        self.trials = own if own is not None or light else self._asked(images, owner, data)

    @property
    def rules(self) -> tuple[str, ...]:
        return ("any label",) if self.trials is None else ("labels", "soft", "any label")

    def _asked(self, images: Images, owner: Owner, data: CleanImages) -> Trials:
        maker, hows, labels, margins = CopyMaker(owner, data, 1), [""], [], []
        answered = owner.predict(images)
        labels.append(answered.argmax(axis=1))
        margins.append(log_margins(answered, self.targets))
        for how in COMPRESSED:
            try:
                with maker.copy(how) as predict:
                    answered = predict(images)
            except FingerprintError:
                continue
            hows.append(how)
            labels.append(answered.argmax(axis=1))
            margins.append(log_margins(answered, self.targets))
        return Trials(tuple(hows), np.stack(labels).astype(np.int64), np.stack(margins), self.targets)

    def say(self, outputs: Floats, rule: str, queries: int = QUERIES) -> str:
        labels, some = outputs.argmax(axis=1).astype(np.int64)[:queries], slice(0, queries)
        if rule == "any label":
            return "intact" if (labels == self.targets[some]).all() else "altered"
        t = self.trials
        assert t is not None
        trials = Trials(t.hows, t.labels[:, some], t.margins[:, some], t.targets[some])
        soft = log_margins(outputs[some], self.targets[some]) if rule == "soft" else None
        return IntegrityTest(trials, LIMITS, ALPHA).decide(labels, soft)[0]


@dataclass(frozen=True)
class Kept:
    """What suspects answered to the record's own probes, so that a decision can be tried again without them."""

    hows: list[str]
    accuracies: list[float]
    outputs: list[Floats]

    def save(self, path: Path, record: Fingerprint) -> None:
        everything = Trials.of(record, np.arange(len(record.payload.probes)))
        agreement = [1.0, *(-1.0 if t.agreement is None else t.agreement for t in record.manifest.trials)]
        np.savez_compressed(
            path, hows=np.array(self.hows), accuracies=np.array(self.accuracies), outputs=np.stack(self.outputs),
            trial_hows=np.array(everything.hows), trial_labels=everything.labels, trial_margins=everything.margins,
            targets=everything.targets, serving=record.payload.family == 1, agreement=np.array(agreement),
        )  # fmt: skip


def evaluate(
    owner: Owner,
    record: Fingerprint,
    data: CleanImages,
    thief: CleanImages,
    test: CleanImages,
    *,
    light: bool,
    every: int,
    kept: Kept,
) -> list[Row]:
    """Every suspect under every probe set."""
    images = sets_of(record, owner, data)
    mine = np.nonzero(record.payload.family == 1)[0]
    judges = {
        n: Judge(i, owner, data, Trials.of(record, mine) if n == "intrinsic" else None, light=light)
        for n, i in images.items()
    }
    everything = Trials.of(record, np.arange(len(record.payload.probes)))
    serving = record.payload.family == 1
    attributors = {soft: attributor(everything, serving, soft=soft) for soft in (False, True)}
    seen, losses = views_of(record), record.payload.trial_contrast
    hows = ["", *(trial.transform for trial in record.manifest.trials)]
    declared = np.array([is_compression(how) and within(how, LIMITS) for how in hows])
    assert test.labels is not None
    base = float((owner.predict(test.images).argmax(axis=1) == test.labels).mean())
    maker, rows = CopyMaker(owner, thief, 77), []
    print(f"owner accuracy {base:.3f}; {len(record.manifest.trials)} trials; {len(serving)} probes", flush=True)
    for number, how in enumerate(suspects(zlib.crc32(b"suspects"))):
        if number % every or (light and how.startswith("distil")):
            continue
        begun = time.perf_counter()
        try:
            with maker.copy(how, 1000 + number) as predict:
                accuracy = float((predict(test.images).argmax(axis=1) == test.labels).mean())
                answers = {name: predict(part) for name, part in images.items()}
                whole = predict(record.payload.probes)
                viewed = None if seen is None else predict(seen)
        except FingerprintError as error:
            print(f"{how}: left out ({error.message})", flush=True)
            continue
        kept.hows.append(how)
        kept.accuracies.append(accuracy)
        kept.outputs.append(whole)
        found = {
            f"{name}, {rule}": judges[name].say(answers[name], rule) for name in images for rule in judges[name].rules
        }
        margins = log_margins(whole, record.payload.targets)
        labels = whole.argmax(axis=1).astype(np.int64)
        named = {"soft" if soft else "labels": a.name(labels, margins).kind for soft, a in attributors.items()}
        by_queries = {n: judges["intrinsic"].say(answers["intrinsic"], "labels", n) for n in (20, 40, 80, 140)}
        alarm = None
        if viewed is not None and losses is not None and np.isfinite(viewed).all():
            alarm = alarmed(nt_xent(viewed), losses, declared, len(viewed)).p_value
        rows.append(Row(how, accuracy, group_of(how, base - accuracy), found, dict(named), alarm, by_queries))
        took = time.perf_counter() - begun
        print(f"{how:44} {accuracy:.3f} {found['intrinsic, labels']:8} {found['intrinsic, soft']:8} "
              f"{named['labels']} {named['soft']} {took:.1f} s", flush=True)  # fmt: skip
    return rows


def shown(rows: Sequence[Row]) -> str:
    """The tables, in Markdown."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    rules = list(rows[0].found)
    lines = ["| suspects | n | " + " | ".join(rules) + " |", "|---" * (len(rules) + 2) + "|"]
    for group, members in groups.items():
        cells = [_counts([m.found[rule] for m in members], group) for rule in rules]
        lines.append(f"| {group} | {len(members)} | " + " | ".join(cells) + " |")
    lines += ["", "| suspects | n | contrastive alarm raised (p <= 0.02) |", "|---|---|---|"]
    for group, members in groups.items():
        raised = sum(m.alarm is not None and m.alarm <= 0.02 for m in members)
        lines.append(f"| {group} | {len(members)} | {raised} |")
    lines += ["", "| fault sneaking | n | 20 queries | 40 | 80 | 140 |", "|---|---|---|---|---|---|"]
    for group, members in groups.items():
        if group.startswith("sneak"):
            cells = [str(sum(m.by_queries[n] != "intact" for m in members)) for n in (20, 40, 80, 140)]
            lines.append(f"| {group} | {len(members)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| made by | n | named rightly, labels | don't know | named rightly, soft | don't know |",
        "|---" * 6 + "|",
    ]
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[kind_of(row.how)].append(row)
    for kind, members in kinds.items():
        cells = []
        for mode in ("labels", "soft"):
            said = [m.named[mode] for m in members]
            cells += [f"{said.count(kind) / len(said):.2f}", str(said.count(None))]
        lines.append(f"| {kind} | {len(members)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _counts(said: Sequence[str], group: str) -> str:
    """Accepted for compression; found, and of these how many `altered`, for the rest."""
    if "compression" in group:
        return f"intact {said.count('intact')}, unknown {said.count('unknown')}, altered {said.count('altered')}"
    found = len(said) - said.count("intact")
    return f"{found / len(said):.0%} ({said.count('altered')} altered)"


def networks() -> dict[str, Callable[[], torch.nn.Sequential]]:
    """Small networks for scikit-learn's digits. Nothing in this tool was developed on the first."""
    nn = torch.nn
    return {
        "digits": lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(384, 48), nn.ReLU(), nn.Linear(48, 10),
        ),
        "digits-wide": lambda: nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(),
            nn.Linear(64, 10),
        ),
        "digits-deep": lambda: nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 20, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(20, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        ),
    }  # fmt: skip


def digits(folder: Path, name: str) -> tuple[Path, CleanImages]:
    """A small CNN on scikit-learn's digits, trained on a third of them."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = (found.images * 15.9).astype(np.uint8)[..., None], found.target.astype(np.int64)
    torch.manual_seed(11)
    net = networks()[name]()
    order = np.random.default_rng(3).permutation(len(images))
    images, labels = images[order], labels[order]
    inputs, targets = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0, torch.from_numpy(labels)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(25):
        for rows in torch.split(torch.randperm(600), 50):
            optimizer.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(net(inputs[rows]), targets[rows]))
            optimizer.step()
    batch = torch.export.Dim("n", min=1, max=65536)
    path = folder / f"{name}.pt2"
    torch.export.save(torch.export.export(net.eval(), (inputs[:2],), dynamic_shapes=({0: batch},)), path)
    spec = {"layout": "NCHW", "shape": [1, 8, 8], "dtype": "float32", "range": [0, 1], "mean": [0], "std": [1]}
    sidecar_path(path).write_text(json.dumps({**spec, "channels": "L", "classes": 10}))
    return path, CleanImages(images, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("owner", help="one of the digits networks, or a model file with a sidecar")
    parser.add_argument("--data", type=Path, help="labelled training images")
    parser.add_argument("--test", type=Path, help="labelled images that no model saw")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--light",
        action="store_true",
        help="no trained copies in the record, no distilled suspects, competitors' probes by their own rule only",
    )
    parser.add_argument("--every", type=int, default=1, help="only every so many suspects")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, rest, test = _inputs(given.owner, given.data, given.test, folder)
        half = len(rest) // 2
        assert rest.labels is not None
        data, thief = (CleanImages(rest.images[s], rest.labels[s]) for s in (slice(0, half), slice(half, None)))
        arrays = {"images": data.images} if given.light else {"images": data.images, "labels": data.labels}
        np.savez(folder / "data.npz", **arrays)
        begun = time.perf_counter()
        options = CreateOptions("benchmark", data=folder / "data.npz", seed=5, screen=0, integrity=QUERIES)
        record = create(path, options)
        print(f"create took {time.perf_counter() - begun:.0f} s", flush=True)
        owner = opened(path)
        kept = Kept([], [], [])
        rows = evaluate(owner, record, data, thief, test, light=given.light, every=given.every, kept=kept)
    kept.save(given.out / f"integrity-{path.stem}.npz", record)
    (given.out / f"integrity-{path.stem}.json").write_text(json.dumps([replace(r).__dict__ for r in rows], indent=1))
    (given.out / f"integrity-{path.stem}.md").write_text(shown(rows) + "\n")
    print(shown(rows))


def opened(path: Path) -> Owner:
    owner = Owner(path, None)
    found = find_spec(path, None)
    assert found is not None
    owner.bind(found.spec)
    owner.find_gradients(Silent())
    return owner


def _inputs(owner: str, data: Path, test: Path, folder: Path) -> tuple[Path, CleanImages, CleanImages]:
    """The owner's file, images for owner and thief, and images for accuracy."""
    if owner in networks():
        path, images = digits(folder, owner)
        assert images.labels is not None
        return (
            path,
            CleanImages(images.images[:1200], images.labels[:1200]),
            CleanImages(images.images[1200:], images.labels[1200:]),
        )
    path, bound = Path(owner), opened(Path(owner))
    shape = bound.spec.image_shape
    rest = load_images(data, shape, bound.classes).take(6000, 1)
    return path, rest, load_images(test, shape, bound.classes).take(EVALUATED, 2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
