"""The contrastive alarm by itself: how often it is raised for declared compression, and for tampering.

    python benchmarks/contrast.py digits [digits-wide digits-deep] [--images 64] [--out .bench]

Owners, suspects and limits are those of benchmarks/integrity.py; the owner's copies are its weight edits. No record is
made. Fault sneaking and distillation are left out: the first changes next to nothing on clean images, the second
shares no features with the owner.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections import defaultdict
from pathlib import Path

import integrity_suspects as shared
import numpy as np
import torch

from fingerprint.api.copies import COMPRESSED, CopyMaker
from fingerprint.data import CleanImages
from fingerprint.decision.allow import is_compression, within
from fingerprint.decision.contrast import ContrastEvidence, alarmed, nt_xent, views
from fingerprint.errors import FingerprintError


def measured(name: str, count: int, folder: Path) -> dict[str, list[ContrastEvidence]]:
    """Evidence on every suspect of one owner, by the row of the table in which it is counted."""
    path, images = shared.digits(folder, name)
    assert images.labels is not None
    parts = [CleanImages(images.images[s], images.labels[s]) for s in (slice(600), slice(600, 1200), slice(1200, None))]
    data, thief, test = parts
    owner = shared.opened(path)
    seen = views(data.take(count, 1).images, 7)
    maker, losses = CopyMaker(owner, data, 1), [nt_xent(owner.predict(seen))]
    for how in (how for how in COMPRESSED if is_compression(how) and within(how, shared.LIMITS)):
        with maker.copy(how) as predict:
            losses.append(nt_xent(predict(seen)))
    recorded, declared = np.array(losses, np.float32), np.ones(len(losses), np.bool_)
    base = float((owner.predict(test.images).argmax(axis=1) == test.labels).mean())
    maker, found = CopyMaker(owner, thief, 77), defaultdict[str, list[ContrastEvidence]](list)
    for number, how in enumerate(shared.suspects(zlib.crc32(b"suspects"))):
        if how.startswith(("sneak", "distil")) or "compile" in how:
            continue
        try:
            with maker.copy(how, 1000 + number) as predict:
                accuracy = float((predict(test.images).argmax(axis=1) == test.labels).mean())
                outputs = predict(seen)
        except FingerprintError:
            continue
        if np.isfinite(outputs).all():
            group = shared.group_of(how, base - accuracy)
            found[group].append(alarmed(nt_xent(outputs), recorded, declared, len(seen)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("owners", nargs="+", choices=list(shared.networks()))
    parser.add_argument("--images", type=int, default=64, help="clean images, of which two views each are asked")
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.owners:
        with tempfile.TemporaryDirectory() as folder:
            found = measured(name, given.images, Path(folder))
        one = next(iter(next(iter(found.values()))))
        print(f"\n{name}: owner's loss {one.owner:.3f}, {one.copies} declared copies, {one.queries} queries\n")
        print("| suspects | n | alarm raised | median p |\n|---|---|---|---|")
        for group, members in found.items():
            p = float(np.median([m.p_value for m in members]))
            print(f"| {group} | {len(members)} | {sum(m.alarm for m in members)} | {p:.2g} |", flush=True)
        rows = {group: [m.__dict__ for m in members] for group, members in found.items()}
        (given.out / f"contrast-{name}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
