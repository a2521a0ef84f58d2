"""A benchmark of a user's own models: owners, unrelated files, and nets trained here on the same images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fingerprint.api.references import find_references
from fingerprint.bench.nets import SMALLEST_SIDE
from fingerprint.bench.plan import Base, Plan, Row, in_halves
from fingerprint.bench.rows import rows
from fingerprint.bench.scratch import Recipe
from fingerprint.errors import SpecError, UsageError
from fingerprint.model import InputSpec
from fingerprint.runtimes.parts import model_sha256
from fingerprint.spec import find_spec

MATCHED = 3  # strangers to which every row is applied
EPOCHS = {"small": 12, "full": 40}
LARGE = ("resnet20", "plain", "vgg", "plain-hidden", "resnet8")
SMALL = ("small", "small-wide")
RATES = {"resnet20": 0.2, "resnet8": 0.2}


def plan_of(
    owners: Sequence[Path],
    unrelated: Sequence[Path],
    train: int,
    scale: str,
    seed: int,
    how: Sequence[str] = (),
) -> Plan:
    """A plan of model files with sidecars.

    Args:
        owners: their models, all with images of one shape and as many classes.
        unrelated: files and folders of strangers, their authors in the sidecars (unstated: each its own).
        train: how many nets are trained from scratch as strangers; the first of them are matched, then files.
        scale: `small` or `full`: how long is trained.
        seed: decides everything.
        how: chains to apply instead of the scale's rows.

    Raises:
        UsageError: no owner, fewer than four strangers, or an owner among them.
        SpecError: a file without a sidecar, or owners of different shapes.
    """
    if not owners:
        raise UsageError("no owner is given")
    spec = _spec_of(owners)
    files = find_references(unrelated) if unrelated else []
    own = {model_sha256(path)[0] for path in owners}
    if same := [path for path in files if model_sha256(path)[0] in own]:
        raise UsageError(f"{same[0]} is an owner's own file and can't be unrelated")
    if train + len(files) < MATCHED + 1:
        raise UsageError(f"{train + len(files)} strangers are too few", remedy="Give more --unrelated, or --train 6.")
    mine = [Base(f"owner {path.name}", _author(path), path=path) for path in owners]
    kinds = LARGE if min(spec.height, spec.width) >= SMALLEST_SIDE else SMALL
    trained = [_trained(kinds[i % len(kinds)], i, scale, seed) for i in range(train)]
    others = [Base(f"{number} {path.name}", _author(path), path=path) for number, path in enumerate(files, start=1)]
    strangers = (*trained, *others)
    counted = Counter(base.author for base in (*mine, *strangers))
    return Plan(
        name="own",
        spec=spec,
        classes=spec.classes or 0,
        owners=tuple(mine),
        strangers=strangers,
        matched=tuple(base.name for base in strangers[:MATCHED]),
        rows=tuple(Row(text, "given", text, _suffix(text)) for text in how) or rows(scale),
        halves=in_halves([author for author, _ in counted.most_common()]),
        seed=seed,
    )


def _suffix(how: str) -> str:
    return ".onnx" if how.endswith("compile:onnx") or "quantize:static" in how else ".pt2"


def _spec_of(owners: Sequence[Path]) -> InputSpec:
    """What nets that are trained here take: images of the owners' shape."""
    found = []
    for path in owners:
        if not path.is_file():
            raise UsageError(f"no such model file: {path}")
        spec = find_spec(path, None)
        if spec is None or spec.spec.classes is None:
            raise SpecError(
                f"{path} has no input spec that tells the number of classes", remedy=f"Write {path.name}.spec.json."
            )
        found.append(spec.spec)
    kinds = {(s.image_shape, (s.classes or 0) - s.class_offset) for s in found}
    if len(kinds) > 1:
        raise SpecError("the owners take images of different shapes or know different numbers of classes")
    ((height, width, depth), classes) = kinds.pop()
    half = (0.5,) * depth
    return InputSpec(
        "NCHW", (depth, height, width), mean=half, std=half, channels="L" if depth == 1 else "RGB", classes=classes
    )


def _author(path: Path) -> str:
    found = find_spec(path, None)
    return (found.spec.author if found else None) or f"unstated: {path}"


def _trained(kind: str, number: int, scale: str, seed: int) -> Base:
    name = f"trained-{number + 1}-{kind}"
    shift = 1 if kind in SMALL else 3
    recipe = Recipe(kind, EPOCHS[scale], seed * 1000 + number, rate=RATES.get(kind, 0.05), shift=shift)
    return Base(name, name, recipe=recipe, other="cnn" if kind.startswith("resnet") else "vgg")
