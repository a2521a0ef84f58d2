"""fingerprint derive: make a derivative of a model, to test a fingerprint with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags
from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from fingerprint.transforms.derive import Derived
    from fingerprint.transforms.interface import DeriveContext

app = typer.Typer(rich_markup_mode=None, add_completion=False)
IMAGES = 512  # clean images that a transformation may calibrate with


@app.command(no_args_is_help=True)
@flags.with_common
def derive(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file.", show_default=False)],
    how: Annotated[
        str,
        typer.Option(
            "--how",
            metavar="SPEC",
            show_default=False,
            help="Steps joined by '+', such as prune:magnitude:0.5+compile:onnx.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="PATH", help="File to write; its suffix names the format.", show_default=False),
    ],
    spec: flags.Spec = None,
    data: flags.Data = None,
    factory: flags.Factory = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Decides everything that is random.")] = 0,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out",
            metavar="PATH",
            show_default=False,
            help="Images to measure on. Default: a fifth of --data where a step trains, else all of it.",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes",
            metavar="N",
            min=2,
            show_default=False,
            help="Class folders in --data, where they are not the model's (transfer).",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, show_default=False, help="Images to use. Default: 512 or all."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    *,
    common: flags.Common,
) -> None:
    """Make a derivative of a model, by the steps that are named.

    With --data it also tells the accuracy that is left, and how often the derivative answers as its source does.
    docs/transformations.md lists every step and its keys.

    \b
    Examples:
      fingerprint derive model.onnx --how prune:magnitude:0.5 --out pruned.onnx
      fingerprint derive model.pt2 --how compile:litert --out model.tflite
      fingerprint derive model.onnx --how quantize:static:int8 --data images/ --out int8.onnx
      fingerprint derive model.pt2 --how prune:magnitude:0.9+retrain --data train.zip --out pruned.pt2
      fingerprint derive model.onnx --how distil:hard:cnn:epochs=10 --data train.zip --seed 7 --out student.onnx
    """
    from cli.output import emit
    from fingerprint.errors import UsageError
    from fingerprint.report.text import printable

    wanted = common.targets()
    if not model.is_file():
        raise UsageError(f"no such model file: {model}")
    from cli.terminal import Terminal
    from fingerprint.transforms.derive import derive as make
    from fingerprint.transforms.interface import DeriveContext

    with Terminal(quiet=common.quiet) as terminal:
        pictures = Pictures(data, held_out, classes, limit)
        context = _context(model, how, spec, pictures, DeriveContext(None, None, factory, seed=seed, progress=terminal))
        made = make(model, how, out, context, overwrite=overwrite)
    emit(
        wanted,
        {"derived": _describe(made)},
        lambda page: (
            printable(str(made.path)) + f"\nhow     {printable(made.how)}\nsha256  {made.sha256}\n" + _kept(made)
        ),
    )


@dataclass(frozen=True)
class Pictures:
    """What the flags say of images."""

    data: Path | None
    held_out: Path | None
    classes: int | None
    limit: int | None


def _context(model: Path, how: str, spec: Path | None, pictures: Pictures, context: DeriveContext) -> DeriveContext:
    from fingerprint.errors import SpecError, UsageError
    from fingerprint.spec import find_spec
    from fingerprint.transforms.derive import parse_how

    found = find_spec(model, spec)
    trains = any(step.trains for step in parse_how(how))
    if pictures.data is None:
        if pictures.held_out is not None:
            raise UsageError("--held-out is of use with --data only")
        return replace(context, spec=found.spec if found else None)
    if found is None:
        raise SpecError(
            "--data needs to know the size of the images",
            remedy=f"Give --spec FILE, or {model.name}.spec.json beside it.",
        )
    from fingerprint.data import load_images

    shape, classes = found.spec.image_shape, pictures.classes or found.spec.classes
    limit = pictures.limit or (None if trains else IMAGES)
    images = load_images(pictures.data, shape, classes, limit)
    held = load_images(pictures.held_out, shape, classes) if pictures.held_out else None
    return replace(context, spec=found.spec, images=images.images, labels=images.labels, held_out=held)


def _kept(made: Derived) -> str:
    """Lines on what the derivative keeps."""
    from fingerprint.report.text import printable

    lines = []
    if made.difference is not None:
        lines.append(f"agrees  with its source within {made.difference:.1g} of the largest answer, on random inputs")
    if made.accuracy is not None:
        source = "" if made.source_accuracy is None else f" (source {made.source_accuracy:.1%})"
        lines.append(f"keeps   accuracy {made.accuracy:.1%}{source} on {made.measured} images")
    if made.agreement is not None:
        lines.append(f"keeps   {made.agreement:.1%} of its source's labels on {made.measured} images")
    lines += [f"tells   {printable(m.step)}: {m.name} {m.value:.4g}" for m in made.measures]
    return "".join(line + "\n" for line in lines)


def _describe(made: Derived) -> dict[str, object]:
    return {
        "path": str(made.path),
        "how": made.how,
        "sha256": made.sha256,
        "spec": made.spec.to_dict() if made.spec else None,
        "difference": made.difference,
        "accuracy": made.accuracy,
        "source_accuracy": made.source_accuracy,
        "agreement": made.agreement,
        "measured": made.measured,
        "measures": [{"step": m.step, "name": m.name, "value": m.value} for m in made.measures],
    }
