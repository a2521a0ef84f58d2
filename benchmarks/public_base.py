"""Kinship without theft: models made from one public base, with and without the base named as ancestor.

    python benchmarks/public_base.py [--data DIR] [--out .bench/public_base] [--owners 3]
                                     [--part digits|teachable|heads|all]

Digits: a base is trained; owners' models and siblings are fine-tuned from it, on one half of the digits and on the
other, lightly (40 steps) or heavily (another task first: all labels shifted, then back). Suspects: 6 siblings, 4
strangers, copies pruned by 0.3 and quantized to int8. Records: without the ancestor, with it and innocent kin, and with
the base as a screen model besides, all of `difference` probes; and of the default ones, which `create` may refuse here.

DIR: see `public_base_heads`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import digits
from public_base_heads import Row, heads_scene, judged, teachable_scene

from fingerprint.api.create_options import CreateOptions
from fingerprint.spec import load_spec, sidecar_path
from fingerprint.transforms.derive import derive
from fingerprint.transforms.interface import DeriveContext

SEED = 20261123
COPIES = ("prune:magnitude:0.3", "quantize:int8")
REFERENCES = 14


def main() -> None:
    """All scenes, one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(".bench/public_base"))
    parser.add_argument("--owners", type=int, default=3)
    parser.add_argument("--part", choices=("digits", "teachable", "heads", "all"), default="all")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    if given.part in ("digits", "all"):
        for heavy in (False, True):
            rows += digit_scene(given.out / ("heavy" if heavy else "light"), given.owners, heavy)
    if given.data is not None and given.part in ("teachable", "all"):
        rows += teachable_scene(given.data, given.out)
    if given.data is not None and given.part in ("heads", "all"):
        rows += heads_scene(given.data, given.out, given.owners)
    (given.out / f"{given.part}.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))


def table(rows: list[Row]) -> str:
    """One line per scene, record and kind of suspect: how many are derived, and what they match."""
    lines = []
    groups = dict.fromkeys((r["scene"], r["record"], r["kind"]) for r in rows)
    for key in groups:
        own = [r for r in rows if (r["scene"], r["record"], r["kind"]) == key]
        rates = [float(str(r["match_rate"])) for r in own]
        beyond = [f"{r['matches']}/{r['counted']}" for r in own if r["counted"] is not None]
        warned = sum(bool(r["warns"]) for r in own)
        p = [float(str(r["p_value"])) for r in own if r["p_value"] is not None]
        derived = sum(r["lineage"] == "derived" for r in own)
        lines.append(
            f"{' | '.join(str(k) for k in key)} | derived {derived} of {len(own)} | "
            f"match {min(rates):.2f} to {max(rates):.2f} | beyond {' '.join(dict.fromkeys(beyond))} | "
            f"p {min(p, default=1.0):.2g} to {max(p, default=1.0):.2g} | kinship told {warned}"
        )
    return "\n".join(lines)


# -- digits ------------------------------------------------------------------------------------------------------------


def tune(model: nn.Sequential, rows: torch.Tensor, seed: int, *, heavy: bool) -> nn.Sequential:
    """Fine-tune a copy on some digits. Heavy: first on labels that are shifted by one, so that much is relearned."""
    torch.manual_seed(seed)
    copy = digits.build(24, 3)
    copy.load_state_dict(model.state_dict())
    pictures, labels = digits.images()
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    y = torch.from_numpy(labels)
    optimiser = torch.optim.Adam(copy.parameters(), 3e-3 if heavy else 1e-3)
    for shift, steps in ((1 + seed % 2, 150), (0, 200)) if heavy else ((0, 40),):
        for _ in range(steps):
            batch = rows[torch.randint(len(rows), (64,))]
            loss = nn.functional.cross_entropy(copy(x[batch]), (y[batch] + shift) % 10)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return copy.eval()


def digit_scene(folder: Path, owners: int, heavy: bool) -> list[Row]:
    """Owners in four records each, against siblings, strangers and copies."""
    folder.mkdir(parents=True, exist_ok=True)
    base = digits.train(seed=1, width=24, depth=3)
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(SEED))
    ancestor = digits.save(base, folder / "base.onnx", "public")
    others = {
        f"sibling {i}": digits.save(tune(base, order[700:1400], 3 + i, heavy=heavy), folder / f"sibling-{i}.onnx")
        for i in range(6)
    } | {
        f"stranger {i}": digits.save(digits.train(seed=50 + i, width=20 + 4 * (i % 2)), folder / f"stranger-{i}.onnx")
        for i in range(4)
    }
    references = [
        digits.save(digits.train(seed=100 + i, width=16 + 4 * (i % 3)), folder / f"reference-{i}.onnx", f"author-{i}")
        for i in range(REFERENCES)
    ]
    data = digits.save_images(folder / "digits.npz")
    rows, own = list[Row](), ["difference"]
    for number in range(owners):
        tuned = tune(base, order[:700], 1000 + number, heavy=heavy)
        owner = digits.save(tuned, folder / f"owner-{number}.onnx", "owner")
        suspects = dict(others)
        for how in COPIES:
            suspects[f"copy {how}"] = path = folder / f"owner-{number}-{how.replace(':', '-')}.onnx"
            for old in (path, sidecar_path(path)):
                old.unlink(missing_ok=True)
            derive(owner, how, path, DeriveContext(load_spec(sidecar_path(owner))))
        for record, more in (
            ("no ancestor, default families", {}),
            ("no ancestor", {"families": own}),
            ("ancestor, kin", {"families": own, "ancestors": [ancestor]}),
            ("ancestor, kin, base screens", {"families": own, "ancestors": [ancestor], "screen_models": [ancestor]}),
        ):
            options = CreateOptions("digits", data=data, references=references, seed=SEED + number, **more)
            scene = f"digits, {'heavy' if heavy else 'light'} fine-tuning"
            rows += judged((scene, str(number), record), owner, options, suspects, "auto")
    return rows


if __name__ == "__main__":
    main()
