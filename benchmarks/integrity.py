"""Integrity and attribution: how often declared compression is accepted, tampering detected, a transformation named.

    python benchmarks/integrity.py digits --out out/
    python benchmarks/integrity.py digits-deep --out out/
    python benchmarks/integrity.py FILE.pt2 --data train.zip --test test.zip --out out/ --light

One owner per run. Its record is made as `create --integrity 140` does, from a part of the images; suspects are
made from another part, at strengths and seeds that the record does not hold, some by quantizers in other settings;
accuracy is measured on images that neither saw. The same suspects answer the same number of competitors' probes:
sensitive samples (He, Zhang and Lee, CVPR 2019) and boundary samples of highest entropy over the top classes, both our
re-implementation; their published rule is "any other label is tampering", and beside it stands this tool's statistic
on their probes. `--out` keeps the record and every answer: a run
that was killed goes on where it was, and `--judge` judges what there is without asking for more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from integrity_probes import boundary_entropy, sensitive_samples
from integrity_suspects import LIMITS, Answered, Suspects, digits, group_of, networks, opened

from fingerprint.api.contrast import views_of
from fingerprint.api.copies import COMPRESSED, SIMULATED, CopyMaker
from fingerprint.api.create import create
from fingerprint.api.create_options import CreateOptions
from fingerprint.api.owner import Owner
from fingerprint.data import CleanImages, load_images
from fingerprint.decision.allow import is_compression, kind_of, within
from fingerprint.decision.attribution_soft import attributor
from fingerprint.decision.contrast import alarmed, nt_xent
from fingerprint.decision.integrity import IntegrityTest, Trials, log_margins
from fingerprint.errors import FingerprintError
from fingerprint.model import Floats, Images
from fingerprint.probes.gradient import DifferentiableOwner, to_images
from fingerprint.record import Fingerprint, Manifest, Payload

QUERIES = 140
BY_QUERIES = (20, 40, 80, 140)
ALPHA = 0.01
FEWER: tuple[tuple[str, ...], ...] = (("quantize:int8",), ())  # what else may be declared: less
EVALUATED = 1000  # images on which accuracy is measured


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
    by_limits: dict[str, str]


def sets_of(record: Fingerprint, owner: Owner, data: CleanImages, kept: Path) -> dict[str, Images]:
    """All inputs that suspects are asked: probe sets of the same size, the record's other probes, its views.

    Those of `kept` if they were made for the same probes.
    """
    if kept.is_file():
        with np.load(kept) as found:
            if np.array_equal(found["record"], record.payload.probes):
                return dict(found)
    assert owner.module is not None
    mine = record.payload.family == 1
    differentiable = DifferentiableOwner(owner.module, owner.spec, owner.classes, owner.batches)
    seeds = torch.from_numpy(data.take(int(mine.sum()), 5).images).permute(0, 3, 1, 2).float()
    seen = views_of(record)
    sets = {
        "record": record.payload.probes,
        "sensitive samples": to_images(sensitive_samples(differentiable, seeds)),
        "boundary entropy": to_images(boundary_entropy(differentiable, seeds)),
        **({} if seen is None else {"views": seen}),
    }
    np.savez_compressed(kept, **sets)  # type: ignore[arg-type]
    return sets


class Judge:
    """One probe set with what the owner and, where they are known, its compressed copies answer to it."""

    def __init__(self, outputs: Floats, trials: Trials | None) -> None:
        self.targets, self.trials = outputs.argmax(axis=1).astype(np.int64), trials

    @property
    def rules(self) -> tuple[str, ...]:
        return ("any label",) if self.trials is None else ("labels", "soft", "any label")

    def say(self, outputs: Floats, rule: str, queries: int = QUERIES, limits: Sequence[str] = LIMITS) -> str:
        labels, some = outputs.argmax(axis=1).astype(np.int64)[:queries], slice(0, queries)
        if rule == "any label":
            return "intact" if (labels == self.targets[some]).all() else "altered"
        t = self.trials
        assert t is not None
        trials = Trials(t.hows, t.labels[:, some], t.margins[:, some], t.targets[some])
        soft = log_margins(outputs[some], self.targets[some]) if rule == "soft" else None
        return IntegrityTest(trials, limits, ALPHA).decide(labels, soft)[0]


def asked(images: Images, owner: Owner, data: CleanImages) -> Trials:
    """What compressed copies answer to a competitor's probes."""
    maker, answers = CopyMaker(owner, data, 1), {"": owner.predict(images)}
    for how in (*COMPRESSED, *SIMULATED):
        try:
            with maker.copy(how) as predict:
                answers[how] = predict(images)
        except FingerprintError:
            continue
    targets = answers[""].argmax(axis=1).astype(np.int64)
    labels = np.stack([found.argmax(axis=1) for found in answers.values()]).astype(np.int64)
    margins = np.stack([log_margins(found, targets) for found in answers.values()])
    return Trials(tuple(answers), labels, margins, targets)


def judged(
    record: Fingerprint,
    owned: Mapping[str, Floats],
    others: Mapping[str, Trials],
    found: Sequence[Answered],
    base: float,
) -> list[Row]:
    """Every suspect under every probe set. owned: the owner's answers; others: trials of competitors' probes."""
    serving = record.payload.family == 1
    everything = Trials.of(record, np.arange(len(record.payload.probes)))
    judges = {"intrinsic": Judge(owned["record"][serving], Trials.of(record, np.nonzero(serving)[0]))}
    judges |= {name: Judge(owned[name], others.get(name)) for name in ("sensitive samples", "boundary entropy")}
    attributors = {soft: attributor(everything, serving, soft=soft) for soft in (False, True)}
    losses = record.payload.trial_contrast
    hows = ["", *(trial.transform for trial in record.manifest.trials)]
    declared = np.array([is_compression(how) and within(how, LIMITS) for how in hows])
    rows = []
    for one in found:
        whole = one.outputs["record"]
        answers = {**one.outputs, "intrinsic": whole[serving]}
        said = {f"{n}, {rule}": judge.say(answers[n], rule) for n, judge in judges.items() for rule in judge.rules}
        margins, labels = log_margins(whole, record.payload.targets), whole.argmax(axis=1).astype(np.int64)
        named = {"soft" if soft else "labels": a.name(labels, margins).kind for soft, a in attributors.items()}
        by_queries = {n: judges["intrinsic"].say(answers["intrinsic"], "labels", n) for n in BY_QUERIES}
        by_limits = {
            ", ".join(less) or "nothing": judges["intrinsic"].say(answers["intrinsic"], "labels", limits=less)
            for less in FEWER
        }
        viewed, alarm = one.outputs.get("views"), None
        if viewed is not None and losses is not None and np.isfinite(viewed).all():
            alarm = alarmed(nt_xent(viewed), losses, declared, len(viewed)).p_value
        group = group_of(one.how, base - one.accuracy)
        rows.append(Row(one.how, one.accuracy, group, said, dict(named), alarm, by_queries, by_limits))
    return rows


def shown(rows: Sequence[Row]) -> str:
    """The tables, in Markdown."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    rules = list(rows[0].found)
    lines = ["| suspects | n | " + " | ".join(rules) + " |", "|---" * (len(rules) + 2) + "|"]
    for group, members in sorted(groups.items()):
        cells = [_counts([m.found[rule] for m in members], group) for rule in rules]
        lines.append(f"| {group} | {len(members)} | " + " | ".join(cells) + " |")
    lines += ["", "| suspects | n | contrastive alarm raised (p <= 0.02) |", "|---|---|---|"]
    for group, members in sorted(groups.items()):
        raised = sum(m.alarm is not None and m.alarm <= 0.02 for m in members)
        lines.append(f"| {group} | {len(members)} | {raised} |")
    lines += ["", "| fault sneaking | n | " + " | ".join(f"{n} queries" for n in BY_QUERIES) + " |", "|---" * 6 + "|"]
    for group, members in sorted(groups.items()):
        if group.startswith("sneak"):
            cells = [str(sum(m.by_queries[n] != "intact" for m in members)) for n in BY_QUERIES]
            lines.append(f"| {group} | {len(members)} | " + " | ".join(cells) + " |")
    lines += ["", "| labels, declared: | n | " + " | ".join(rows[0].by_limits) + " |", "|---" * (len(FEWER) + 2) + "|"]
    for group, members in sorted(groups.items()):
        if group != "undeclared compression":
            cells = [
                _with_less(members, less, name, group) for less, name in zip(FEWER, rows[0].by_limits, strict=True)
            ]
            lines.append(f"| {group} | {len(members)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_attributions(rows)])


def _attributions(rows: Sequence[Row]) -> list[str]:
    """Who is named what, by labels and by soft outputs."""
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[kind_of(row.how.split(" by ")[0])].append(row)
    lines = []
    for mode in ("labels", "soft"):
        lines += [f"| made by ({mode}) | n | " + " | ".join(kinds) + " | don't know |", "|---" * (len(kinds) + 3) + "|"]
        for kind, members in kinds.items():
            said = [m.named[mode] for m in members]
            cells = [*(str(said.count(other)) for other in kinds), str(said.count(None))]
            lines.append(f"| {kind} | {len(members)} | " + " | ".join(cells) + " |")
        right = [[m.named[mode] == kind for m in members] for kind, members in kinds.items()]
        overall = float(np.mean([one for part in right for one in part]))
        lines += [
            "",
            f"{mode}: {overall:.2f} of suspects, {np.mean([np.mean(part) for part in right]):.2f} of kinds",
            "",
        ]
    return lines


def _counts(said: Sequence[str], group: str) -> str:
    """Accepted for compression; found, and of these how many `altered`, for the rest."""
    if "compression" in group:
        return f"intact {said.count('intact')}, unknown {said.count('unknown')}, altered {said.count('altered')}"
    found = len(said) - said.count("intact")
    return f"{found / len(said):.0%} ({said.count('altered')} altered)"


def _with_less(members: Sequence[Row], limits: Sequence[str], name: str, group: str) -> str:
    """Of compression within these limits, how many are accepted; of the rest, how many are found."""
    if "compression" in group:
        inside = [m for m in members if within(m.how.split(" by ")[0], limits)]
        return f"{sum(m.by_limits[name] == 'intact' for m in inside)} of {len(inside)} intact"
    return str(sum(m.by_limits[name] != "intact" for m in members))


def recorded(path: Path, data: CleanImages, out: Path, *, labelled: bool) -> Fingerprint:
    """The owner's record, made or as it was kept in `out`."""
    manifest, payload = out / f"record-{path.stem}.json", out / f"record-{path.stem}.safetensors"
    if manifest.is_file() and payload.is_file():
        return Fingerprint(Manifest.model_validate_json(manifest.read_text()), Payload.from_bytes(payload.read_bytes()))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        arrays = {"images": data.images, **({"labels": data.labels} if labelled else {})}
        np.savez(Path(folder) / "data.npz", **arrays)  # type: ignore[arg-type]
        options = CreateOptions("benchmark", data=Path(folder) / "data.npz", seed=5, screen=0, integrity=QUERIES)
        record = create(path, options)
    print(f"create took {time.perf_counter() - begun:.0f} s", flush=True)
    payload.write_bytes(record.payload.to_bytes())
    manifest.write_text(record.manifest.model_dump_json())
    return record


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
    parser.add_argument("--judge", action="store_true", help="judge the answers that --out holds, ask for no more")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path, rest, test = _inputs(given.owner, given.data, given.test, given.out)
    half = len(rest) // 2
    assert rest.labels is not None and test.labels is not None
    data, thief = (CleanImages(rest.images[s], rest.labels[s]) for s in (slice(0, half), slice(half, None)))
    record, owner = recorded(path, data, given.out, labelled=not given.light), opened(path)
    sets = sets_of(record, owner, data, given.out / f"sets-{path.stem}.npz")
    owned = {name: owner.predict(images) for name, images in sets.items()}
    base = float((owner.predict(test.images).argmax(axis=1) == test.labels).mean())
    print(f"owner accuracy {base:.3f}; {len(record.manifest.trials)} trials; {len(sets['record'])} probes", flush=True)
    suspects = Suspects(owner, thief, test, sets, given.out / f"answers-{path.stem}")
    found = suspects.answered(every=given.every, distilled=not given.light, ask=not given.judge)
    rivals = () if given.light else ("sensitive samples", "boundary entropy")
    rows = judged(record, owned, {name: asked(sets[name], owner, data) for name in rivals}, found, base)
    (given.out / f"integrity-{path.stem}.json").write_text(json.dumps([row.__dict__ for row in rows], indent=1))
    (given.out / f"integrity-{path.stem}.md").write_text(shown(rows) + "\n")
    print(shown(rows))


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
