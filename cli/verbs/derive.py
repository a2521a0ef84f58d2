"""fingerprint derive: make a derivative of a model, to test a fingerprint with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options as flags

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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    *,
    common: flags.Common,
) -> None:
    """Make a derivative of a model: pruned, quantized, compiled.

    \b
    Examples:
      fingerprint derive model.onnx --how prune:magnitude:0.5 --out pruned.onnx
      fingerprint derive model.pt2 --how compile:litert --out model.tflite
      fingerprint derive model.onnx --how quantize:static:int8 --data images/ --out int8.onnx
    """
    from cli.output import emit
    from fingerprint.errors import UsageError
    from fingerprint.report.text import printable

    wanted = common.targets()
    if not model.is_file():
        raise UsageError(f"no such model file: {model}")
    from fingerprint.transforms.derive import derive as make

    made = make(model, how, out, _context(model, spec, data, factory), overwrite=overwrite)
    shown = _describe(made)
    emit(
        wanted,
        {"derived": shown},
        lambda page: (
            printable(str(made.path)) + f"\nhow     {printable(made.how)}\nsha256  {made.sha256}\n" + _agreement(made)
        ),
    )


def _context(model: Path, spec: Path | None, data: Path | None, factory: str | None) -> DeriveContext:
    from fingerprint.errors import SpecError
    from fingerprint.spec import find_spec
    from fingerprint.transforms.interface import DeriveContext

    found = find_spec(model, spec)
    if data is None:
        return DeriveContext(found.spec if found else None, None, factory)
    if found is None:
        raise SpecError(
            "--data needs to know the size of the images",
            remedy=f"Give --spec FILE, or {model.name}.spec.json beside it.",
        )
    from fingerprint.data import load_images

    images = load_images(data, found.spec.image_shape, None, IMAGES)
    return DeriveContext(found.spec, images.images, factory)


def _agreement(made: Derived) -> str:
    if made.difference is None:
        return ""
    return f"agrees  with its source within {made.difference:.1g} of the largest answer, on random inputs\n"


def _describe(made: Derived) -> dict[str, object]:
    return {
        "path": str(made.path),
        "how": made.how,
        "sha256": made.sha256,
        "spec": made.spec.to_dict() if made.spec else None,
        "difference": made.difference,
    }
