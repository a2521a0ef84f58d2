"""False claims: what dishonest claimants win with and without the checks of a dispute, and whether honest ones pass.

    python benchmarks/false_claims.py --data DIR [--out .bench/false_claims] [--budget 30] [--seeds 30]
                                      [--part honest|transferable|mislabelled|picked|nonce|all] [--shard 1/1]

DIR holds the folder cifar10 of real models and images, and a manifest.json that names authors. Claimants own a real
model and invent their calibration, as anyone can who signs his own record: 12 references by 12 authors that match
little, and copies that keep 7 of 10 probes, so that less is asked of a derivative. Against 10 models of other people
that none of them saw:
  transferable   adversarial examples made on an ensemble of 5 models, the claimant's among them
  mislabelled    natural probes made from images half of whose labels are wrong
  ground seeds   the best of many K, by its match on one model, the victim; each K at the full effort of `create`
  picked probes  of all candidates of these K, those that the victim answers as the claimant's model does
  picked apart   of these, those that none of the ensemble's other models answers so: made to pass an audit
Each claim is `derived` on a model; it is accepted "with the challenge" if the uniqueness audit on the other nine
passes, "with K" if the probes come out again from model and K, "with the nonce" if fresh probes say `derived` too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks_common import Entry, stage

from fingerprint.api.challenge import ChallengeOptions, challenge, judge
from fingerprint.api.choosing import ProbeSet, make_probes
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner
from fingerprint.api.references import measure_references
from fingerprint.api.reproduce import compare_probes, fresh, reproduce
from fingerprint.data import load_images
from fingerprint.decision.lineage import LineageTest, Settings
from fingerprint.engine.allocator import keep_freed_memory
from fingerprint.engine.environment import spin_briefly
from fingerprint.engine.session import WorkerPool
from fingerprint.errors import FingerprintError
from fingerprint.model import Images, Labels
from fingerprint.probes.gradient import DifferentiableOwner, target_margin, to_images
from fingerprint.progress import Silent
from fingerprint.record import Copy, FamilyMatch, Fingerprint, Probes, Reference
from fingerprint.spec import load_spec, sidecar_path

ALPHA = 0.01
Row = dict[str, object]
SEED = 20261123
CLAIMANT = "akamaster_resnet20.pt2"
ENSEMBLE = (
    "atreides_resnet20.onnx",
    "benjames03_resnet20.onnx",
    "atreides_base_cnn_exp0p2.onnx",
    "tutnet_denisdrobyshev.onnx",
)
INDEPENDENT = (
    "atreides_resnet20_neo.onnx",
    "atreides_resnet20_v12.onnx",
    "atreides_plainnet20.onnx",
    "atreides_resnet56_neo.onnx",
    "atreides_base_cnn_exp0p4.onnx",
    "atreides_base_cnn_exp0p9.onnx",
    "benjames03_lenet.onnx",
    "tutnet_adityaas.onnx",
    "lenet_gatardo_cifar10_cnn.onnx",
    "mlperftiny_resnet8_float.tflite",
)
HONEST = (
    "akamaster_resnet20.pt2",
    "akamaster_resnet32.onnx",
    "atreides_resnet20.onnx",
    "atreides_plainnet20.onnx",
    "atreides_base_cnn_exp0p2.onnx",
    "atreides_base_cnn_exp0p5.onnx",
    "benjames03_resnet20.onnx",
    "benjames03_lenet.onnx",
    "tutnet_denisdrobyshev.onnx",
    "lenet_gatardo_cifar10_cnn.onnx",
)


GROUND = (1, 3, 10, 30, 100, 300)
CLAIMANTS = ("transferable", "mislabelled", "picked", "nonce")
AKAMASTER = tuple(f"akamaster_resnet{depth}.onnx" for depth in (20, 32, 44, 56))


def invented(count: int, name: str) -> tuple[Reference, ...]:
    """References that the claimant made up."""
    rng = np.random.default_rng(SEED)
    matches = rng.binomial(count, 0.12, 12)
    return tuple(
        Reference(sha256=f"{i:064x}", author=f"nobody {i}", families={name: FamilyMatch(matches=int(m), queries=count)})
        for i, m in enumerate(matches)
    )


def invented_copies(base: Fingerprint, count: int, name: str) -> tuple[Copy, ...]:
    """The listed copies, as if each kept 7 of 10 probes: `derived` then asks for fewer matches."""
    found = {name: FamilyMatch(matches=round(0.7 * count), queries=count)}
    return tuple(copy.model_copy(update={"families": found, "agreement": None}) for copy in base.manifest.copies)


def forged(base: Fingerprint, owner: Owner, images: Images, targets: Labels) -> Fingerprint:
    """The record with other probes and an invented calibration: all of it is the claimant's to write."""
    count = len(images)
    family = base.manifest.families[0].model_copy(update={"count": count, "weight": 1.0})
    payload = replace(
        base.payload,
        probes=images,
        targets=targets,
        family=np.zeros(count, np.uint8),
        responses=owner.predict(images),
        salts=np.random.default_rng(SEED).integers(0, 256, (count, 32), dtype=np.uint8),
        reference_orders=None,
        groups=None,
    )
    shape = images.shape[1:]
    manifest = base.manifest.model_copy(
        update={
            "families": (family,),
            "probes": Probes(count=count, shape=shape, merkle_root=payload.merkle_root()),
            "references": invented(count, family.name),
            "copies": invented_copies(base, count, family.name),
        }
    )
    return replace(base, manifest=manifest, payload=payload)


def transferable(paths: Sequence[Path], data: Path, count: int) -> tuple[Images, Labels]:
    """Targeted momentum steps on the margins of all models at once, 24 levels at most from a clean image."""
    owners = []
    for path in paths:
        owner = Owner(path, None)
        owner.bind(load_spec(sidecar_path(path)))
        module = owner.local.loaded.differentiable()
        owners.append(DifferentiableOwner(module, owner.spec, owner.classes, owner.batches))
    clean = load_images(data, (32, 32, 3), 10, 2 * count)
    generator = torch.Generator().manual_seed(SEED)
    start = torch.from_numpy(clean.images).permute(0, 3, 1, 2).float()
    assert clean.labels is not None
    targets = (torch.from_numpy(clean.labels) + torch.randint(1, 10, (len(clean),), generator=generator)) % 10
    images, momentum = start.clone(), torch.zeros_like(start)
    for _ in range(20):
        gradient = torch.zeros_like(start)
        for owner_module in owners:
            for rows in torch.split(torch.arange(len(start)), 100):
                gradient[rows] += owner_module.margin_and_gradient(images[rows], targets[rows], 20.0)[1]
        momentum = 0.9 * momentum + gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
        images = (images - 3.0 * momentum.sign()).clamp(start - 24.0, start + 24.0).clamp(0.0, 255.0)
    images = images.round()
    with torch.no_grad():
        margins = torch.stack([target_margin(o.logits(images), targets) for o in owners])
    best = margins.min(dim=0).values.argsort(descending=True)[:count]
    return to_images(images[best]), targets[best].numpy()


def mislabelled(data: Path, out: Path) -> Path:
    """CIFAR images, half of them with a wrong label."""
    clean = load_images(data, (32, 32, 3), 10, 800)
    assert clean.labels is not None
    wrong = np.random.default_rng(SEED).random(len(clean)) < 0.5
    np.savez(out, images=clean.images, labels=np.where(wrong, (clean.labels + 3) % 10, clean.labels))
    return out


def asked(record: Fingerprint, models: Sequence[Path]) -> list[tuple[str, Reference]]:
    """What each model answers to a record's probes."""
    manifest = record.manifest
    with WorkerPool() as pool:
        spec = manifest.input_spec.to_input_spec()
        found, _ = measure_references(models, manifest.families, record.payload, spec, (), pool, progress=Silent())
    return [(path.name, reference) for path, reference in zip(models, found, strict=True)]


def dispute(name: str, record: Fingerprint, suspects: Sequence[Path], again: str) -> Row:
    """One claimant against all models: how many claims win, and how many still with the audit on the other nine."""
    answers = asked(record, suspects)
    everybody = judge(record.manifest, answers, ALPHA)
    derived = list(everybody.accused or ())
    outcomes = {
        suspect: judge(record.manifest, [m for m in answers if m[0] != suspect], ALPHA).outcome for suspect in derived
    }
    row: Row = {
        "claimant": name,
        "mean_match": float(np.mean(everybody.transfer.rates)),
        "largest_match": float(np.max(everybody.transfer.rates)),
        "claimed": derived,
        "with_challenge": [suspect for suspect, outcome in outcomes.items() if outcome == "passed"],
        "reproduced": again,
        "with_K": derived if again in ("identical", "close") else [],
        "outcomes": sorted(set(outcomes.values())),
    }
    print(row, flush=True)
    return row


def with_nonce(record: Fingerprint, own: Path, suspects: Sequence[Path]) -> Row:
    """Fresh probes, each model judged with the other nine as references: whom they still call derived."""
    made = fresh(record, own, "drawn by the judge later")
    answers = asked(made, suspects)
    derived = []
    for name, suspect in answers:
        others = tuple(r for other, r in answers if other != name)
        test = LineageTest(made.manifest.model_copy(update={"references": others}), Settings(ALPHA, label_only=True))
        if test.decide(dict(suspect.families), made.manifest.probes.count).lineage == "derived":
            derived.append(name)
    rates = judge(made.manifest, answers, ALPHA).transfer.rates
    row: Row = {
        "claimant": "nonce",
        "derived": derived,
        "mean_match": float(np.mean(rates)),
        "largest_match": max(rates),
    }
    print(row, flush=True)
    return row


def owner_of(path: Path) -> Owner:
    """The claimant's opened model."""
    owner = Owner(path, None)
    owner.bind(load_spec(sidecar_path(path)))
    return owner


def main() -> None:
    """Run all claimants, then honest records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".bench/false_claims"))
    parser.add_argument("--budget", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--part", choices=("honest", *CLAIMANTS, "all"), default="all")
    parser.add_argument("--shard", default="1/1", help="of the honest records: 1/2 and 2/2 may run side by side")
    given = parser.parse_args()
    keep_freed_memory()
    spin_briefly()
    started = time.monotonic()
    shard, shards = (int(part) for part in given.shard.split("/"))
    folder = given.out / f"{given.part}-{shard}"
    folder.mkdir(parents=True, exist_ok=True)
    entries = stage(given.data, folder)
    if given.part in ("honest", "all"):
        rows = [honest_row(entries[n], entries, given.budget) for n in HONEST[shard - 1 :: shards]]
        (folder / "honest.json").write_text(json.dumps(rows, indent=1))
        print(f"honest records that pass: {sum(h['outcome'] == 'passed' for h in rows)} of {len(rows)}", flush=True)
    for part in CLAIMANTS if given.part == "all" else (given.part,):
        if part in CLAIMANTS:
            found = claimant(part, entries, given.data / "cifar10/test.zip", folder, given.budget, given.seeds)
            (folder / f"{part}.json").write_text(json.dumps(found, indent=1))
    print(f"{time.monotonic() - started:.0f} s")


def claimant(part: str, entries: dict[str, Entry], images: Path, folder: Path, budget: int, seeds: int) -> list[Row]:
    """One kind of claimant; `nonce`: what fresh probes say, which do not depend on what was claimed."""
    own, suspects = entries[CLAIMANT].path, [entries[n].path for n in INDEPENDENT]
    owner = owner_of(own)
    if part == "mislabelled":
        return lied(own, images, folder, suspects, budget)
    base = create(own, CreateOptions("claim", budget=budget, screen=0))
    if part == "nonce":
        return [with_nonce(base, own, suspects)]
    if part == "transferable":
        made = transferable([own, *(entries[n].path for n in ENSEMBLE)], images, budget)
        record = forged(base, owner, *made)
        return [dispute("transferable", record, suspects, reproduce(record, own).agreement)]
    runs = []
    for number in range(seeds):
        runs.append(make_probes(own, CreateOptions("claim", budget=budget, screen=0)))
        if number % 10 == 9:
            print(f"{number + 1} K", flush=True)
    victim, shadows = owner_of(suspects[0]), [owner_of(entries[n].path) for n in ENSEMBLE]
    return [
        *ground(runs, base, owner, victim, suspects),
        picked("picked probes", runs, base, owner, victim, [], suspects, budget),
        picked("picked apart", runs, base, owner, victim, shadows, suspects, budget),
    ]


def lied(own: Path, images: Path, folder: Path, suspects: Sequence[Path], budget: int) -> list[Row]:
    """Natural probes from mislabelled images; and the same with honest references, at create time."""
    wrong = mislabelled(images, folder / "mislabelled.npz")
    options = CreateOptions("claim", budget=budget, screen=0, data=wrong, families=["natural"])
    natural = create(own, options)
    lies = {"references": invented(budget, "natural"), "copies": invented_copies(natural, budget, "natural")}
    natural = replace(natural, manifest=natural.manifest.model_copy(update=lies))
    row = dispute("mislabelled", natural, suspects, reproduce(natural, own, data=wrong).agreement)
    try:
        create(own, replace(options, references=suspects[:8]))
        refused = "made"
    except FingerprintError as error:
        refused = f"refused: {error.message}"
    print("mislabelled, with honest references:", refused, flush=True)
    return [{**row, "create_with_references": refused}]


def ground(
    runs: Sequence[ProbeSet], base: Fingerprint, owner: Owner, victim: Owner, suspects: Sequence[Path]
) -> list[Row]:
    """The K whose honest probes match the victim best, of 1, 3, 10 and so on: they come out again from it."""
    rates = [float((victim.predict(r.images).argmax(axis=1) == r.targets).mean()) for r in runs]
    print(f"match of {len(runs)} K on the victim: mean {np.mean(rates):.3f}, deviation {np.std(rates):.3f}", flush=True)
    rows = []
    for count in (n for n in GROUND if n <= len(runs)):
        best = int(np.argmax(rates[:count]))
        record = forged(base, owner, runs[best].images, runs[best].targets)
        again = compare_probes(record, runs[best]).agreement
        row = dispute(f"best of {count} K", record, suspects, again)
        rows.append({**row, "ground": count, "match_on_victim": rates[best], "mean_of_K": float(np.mean(rates))})
    return rows


def picked(
    name: str, runs: Sequence[ProbeSet], base: Fingerprint, owner: Owner, victim: Owner, shadows: Sequence[Owner],
    suspects: Sequence[Path], budget: int,
) -> Row:  # fmt: skip
    """Candidates that the victim answers alike and no shadow does; compared with what the K of most of them makes."""
    images = np.concatenate([r.candidate_images for r in runs])
    targets = np.concatenate([r.candidate_targets for r in runs])
    good = victim.predict(images).argmax(axis=1) == targets
    for shadow in shadows:
        good &= shadow.predict(images).argmax(axis=1) != targets
    alike = np.nonzero(good)[0][:budget]
    record = forged(base, owner, images[alike], targets[alike])
    again = max((compare_probes(record, run) for run in runs), key=lambda found: found.close)
    row = dispute(f"{name} ({len(alike)} of {len(images)} candidates)", record, suspects, again.agreement)
    return {**row, "fit": int(good.sum())}


def honest_row(entry: Entry, entries: dict[str, Entry], budget: int) -> Row:
    """An honest record of one model, challenged with models of other authors."""
    judges = [entries[n].path for n in (*INDEPENDENT, *ENSEMBLE, *AKAMASTER) if entries[n].author != entry.author]
    try:
        record = create(entry.path, CreateOptions(entry.name, budget=budget, screen=0))
    except FingerprintError as error:
        return {"owner": entry.name, "outcome": "not made", "reason": error.message}
    found = challenge(record, judges, ChallengeOptions(ALPHA))
    rates = [rate for _, rate in found.models]
    row: Row = {
        "owner": entry.name, "outcome": found.outcome, "reason": found.reason, "models": len(rates),
        "mean_match": float(np.mean(rates)), "largest_match": float(np.max(rates)), "bound": found.bound,
    }  # fmt: skip
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
