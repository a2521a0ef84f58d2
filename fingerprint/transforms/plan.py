"""Which steps a chain needs: the ones that were asked for, and the conversions between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.compile import SOURCES, Compile
from fingerprint.transforms.files import EDITABLE, SUFFIXES, format_of
from fingerprint.transforms.interface import Transform, WeightTransform
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.quantize_files import FileQuantization


@dataclass(frozen=True)
class Step:
    """A transformation and the format of what it makes."""

    transform: Transform
    format: str


def plan(source: Path, chain: Sequence[Transform], out: Path) -> tuple[Step, ...]:
    """The chain with the conversions that it needs put in.

    Raises:
        TransformError: `out` has no suffix that names a format, or no step leads there.
    """
    format = start = format_of(source)
    wanted = SUFFIXES.get(out.suffix.lower(), (start,) if out.suffix == source.suffix else ())
    if not wanted:
        raise TransformError(f"{out.name}: the suffix names no format", remedy=f"Use one of {', '.join(SUFFIXES)}.")
    steps: list[Step] = []
    quantized = False
    for index, transform in enumerate(chain):
        if isinstance(transform, FileQuantization):
            target = _container(transform, chain[index + 1 :], wanted, format)
            if target != format:
                steps.append(_step(Compile.to(target), format))
                format = target
            quantized = True
        if isinstance(transform, Compile) and quantized:
            _check_made(transform, format)
            continue
        if isinstance(transform, ModuleTransform) and quantized:
            raise TransformError(
                f"a quantized file can't go through {transform.spell()}",
                remedy=f"Write {transform.spell()} before the quantization.",
            )
        steps.append(_step(transform, format))
        format = steps[-1].format
    if format not in wanted:
        if quantized:
            _check_made(Compile.to(wanted[0]), format)
        steps.append(_step(Compile.to(wanted[0]), format))
    _check_lasting(steps)
    return tuple(steps)


def _check_lasting(steps: Sequence[Step]) -> None:
    """Raise TransformError if a later step would silently undo what a step made."""
    for number, step in enumerate(steps):
        formats = step.transform.lasting if isinstance(step.transform, ModuleTransform) else None
        for later in steps[number + 1 :] if formats else ():
            if formats and later.format not in formats:
                raise TransformError(
                    f"a {later.format} file can't hold what {step.transform.spell()} makes",
                    remedy=f"Formats that can: {', '.join(formats)}.",
                )


def _check_made(step: Compile, format: str) -> None:
    """A compile step behind a quantization of files ran before it. Raise TransformError if it could not."""
    if step.format != format or step.half:
        raise TransformError(
            f"a quantized {format} file can't be converted by {step.spell()}",
            remedy=f"Write {step.spell()} before the quantization.",
        )


def _step(transform: Transform, format: str) -> Step:
    """The step from a source of this format.

    Raises:
        TransformError: it can't start there.
    """
    if isinstance(transform, (Compile, FileQuantization)):
        transform.check_format(format)
    elif isinstance(transform, WeightTransform) and format not in EDITABLE:
        raise TransformError(
            f"the weights of a {format} file can't be edited", remedy="Editable: " + ", ".join(EDITABLE) + "."
        )
    elif isinstance(transform, ModuleTransform):
        if format not in SOURCES:
            raise TransformError(
                f"a {format} file can't be turned back into a program for {transform.spell()}",
                remedy="Take the model that it was made from: " + ", ".join(SOURCES) + ".",
            )
        return Step(transform, "pt2")
    return Step(transform, transform.format if isinstance(transform, Compile) else format)


def _container(step: FileQuantization, later: Sequence[Transform], wanted: Sequence[str], now: str) -> str:
    """The format in which a file quantization runs: what the next compile step makes, else what `out` is, else now."""
    following = next((t.format for t in later if isinstance(t, Compile)), wanted[0])
    return following if following in step.formats else now
