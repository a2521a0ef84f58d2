"""What each knob of the characteristic probes does to robustness and transfer, for one real owner.

    python benchmarks/knobs.py --data DIR [--model cifar10/akamaster_resnet20.pt2] [--count 50] [--strangers N]
                               [--only margin,noise,...] [--out .bench]

DIR holds folders of real models with their .spec.json and images (train.zip beside the owner, for the starts that need
some). Every setting makes --count candidates, without the selection that `create` adds, and asks the compressed copies
whose match rate a record states and every unrelated ONNX model of the owner's folder. Uniqueness Score = mean match of
the copies - mean match of the unrelated models. Writes knobs.json and knobs.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import fingerprint
from fingerprint.api.owner import Owner
from fingerprint.data import CleanImages, load_images
from fingerprint.decision.statistics import target_margins
from fingerprint.engine.environment import spin_briefly
from fingerprint.engine.local import open_local
from fingerprint.errors import FingerprintError
from fingerprint.model import Floats, Images, Labels, labels_of
from fingerprint.probes.interface import ProbeContext
from fingerprint.probes.registry import family
from fingerprint.probes.selection import RECORDED_COPIES, SELECTION_COPIES
from fingerprint.progress import Silent
from fingerprint.runtimes.interface import LoadOptions
from fingerprint.spec import load_spec, sidecar_path

Answer = Callable[[Images], Labels]
SEED = b"knobs of characteristic probes"
KNOBS: dict[str, Sequence[str]] = {
    "defaults": ("kinds=C", "kinds=RC", "kinds=LTRC"),
    "margin": tuple(f"kinds={kind},kappa={k}" for kind in ("C", "RC", "LTRC") for k in (1, 2, 3, 5, 8)),
    "noise": tuple(f"kinds=RC,delta={d}" for d in (0.05, 0.1, 0.2, 0.4, 0.8)),
    "draws": tuple(f"kinds=RC,draws={m}" for m in (1, 2, 5, 10)),
    "cut": tuple(f"kinds=LTRC,cut={c}" for c in (0.125, 0.25, 0.5, 0.75)),
    "start": tuple(f"kinds=C,start={s}" for s in ("uniform", "smooth", "flat", "data", "blend")),
    "step": tuple(f"kinds=C,rate={r}" for r in (1, 2, 4, 8, 16)),
}


@dataclass(frozen=True)
class Row:
    """One setting. robustness, transfer: mean match of copies and of unrelated models; passes: example-passes."""

    knob: str
    setting: str
    made: int
    robustness: float
    weakest: float
    transfer: float
    highest: float
    uniqueness: float
    passes: int
    seconds: float


class Bench:
    """The owner, its copies and its strangers."""

    def __init__(self, model: Path, strangers: int | None) -> None:
        self.owner = Owner(model, None)
        self.owner.bind(load_spec(sidecar_path(model)))
        self.owner.find_gradients(Silent())
        if self.owner.module is None:
            raise SystemExit(f"{model} gives no gradients")
        images = model.with_name("train.zip")
        spec = self.owner.spec
        self.data: CleanImages | None = (
            load_images(images, spec.image_shape, self.owner.classes, 2000) if images.is_file() else None
        )
        self.strangers = dict(list(self._strangers(model))[:strangers])

    def _strangers(self, model: Path) -> Iterator[tuple[str, Answer]]:
        """Every other ONNX model of the folder with as many classes; not the owner in another format."""
        base = model.name.split(".")[0]
        for path in sorted(model.parent.glob("*.onnx")):
            if path.name.split(".")[0] == base or not sidecar_path(path).is_file():
                continue
            opened, spec = open_local(path, "onnx", LoadOptions()), load_spec(sidecar_path(path))

            def answer(images: Images, opened=opened, spec=spec) -> Labels:  # type: ignore[no-untyped-def]
                return labels_of(opened.predict(images, spec), spec.class_offset)

            yield path.name, answer

    def survival(self, images: Images, targets: Labels) -> Floats:
        """Margins on the copies that selection asks, as `create` gives them."""
        margins = []
        for how in SELECTION_COPIES:
            with self.owner.copy(how) as predict:
                outputs = predict(images)
            margin = target_margins(outputs, targets)
            margin[outputs.max(axis=1) == outputs.min(axis=1)] = -np.inf
            margins.append(margin)
        return np.stack(margins)

    def measure(self, knob: str, setting: str, count: int) -> Row | str:
        """One setting, or why nothing came out."""
        context = ProbeContext(
            predict=self.owner.predict,
            module=self.owner.module,
            survival=self.survival,
            spec=self.owner.spec,
            classes=self.owner.classes,
            data=self.data,
            seed=SEED,
            progress=Silent(),
            batches=self.owner.batches,
        )
        before, started = self.owner.passes, time.monotonic()
        try:
            found = family(f"characteristic:{setting}").generate(context, count)
        except FingerprintError as error:
            return error.message
        passes, seconds = found.passes + self.owner.passes - before, time.monotonic() - started
        copies = []
        for how in RECORDED_COPIES:
            with self.owner.copy(how) as predict:
                copies.append(float((labels_of(predict(found.images)) == found.targets).mean()))
        others = [float((answer(found.images) == found.targets).mean()) for answer in self.strangers.values()]
        robustness, transfer = float(np.mean(copies)), float(np.mean(others))
        uniqueness = robustness - transfer
        made = len(found)
        return Row(
            knob, setting, made, robustness, min(copies), transfer, max(others), uniqueness, passes, round(seconds, 1)
        )


def markdown(title: str, rows: Sequence[Row], failed: dict[str, str]) -> str:
    """The table, and what did not come out."""
    lines = [
        f"### {title}\n",
        "| knob | setting | made | robustness | weakest copy | transfer | highest stranger | Uniqueness | passes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.knob} | {r.setting} | {r.made} | {r.robustness:.3f} | {r.weakest:.2f} | {r.transfer:.3f} | "
        f"{r.highest:.2f} | {r.uniqueness:+.3f} | {r.passes} |"
        for r in rows
    ]
    return "\n".join([*lines, *(f"\n{setting}: {why}" for setting, why in failed.items())]) + "\n"


def main() -> None:
    """Parse, sweep, write."""
    spin_briefly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="cifar10/akamaster_resnet20.pt2")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--strangers", type=int)
    parser.add_argument("--only", default=",".join(KNOBS))
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    arguments = parser.parse_args()
    bench = Bench(arguments.data / arguments.model, arguments.strangers)
    if not bench.strangers:
        raise SystemExit("there is no unrelated model beside the owner")
    arguments.out.mkdir(parents=True, exist_ok=True)
    title = f"{arguments.model}, {arguments.count} candidates each, {len(bench.strangers)} unrelated models"
    result = {"version": fingerprint.__version__, "model": arguments.model, "strangers": list(bench.strangers)}
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for knob in arguments.only.split(","):
        for setting in KNOBS[knob]:
            found = bench.measure(knob, setting, arguments.count)
            if isinstance(found, str):
                failed[setting] = found
            else:
                rows.append(found)
                print(found, flush=True)
            # after every row: a sweep that is stopped has not been for nothing
            (arguments.out / "knobs.json").write_text(
                json.dumps({**result, "rows": [asdict(r) for r in rows], "failed": failed}, indent=1)
            )
            (arguments.out / "knobs.md").write_text(markdown(title, rows, failed))
    print(markdown(title, rows, failed))


if __name__ == "__main__":
    main()
