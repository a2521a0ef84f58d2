"""derive: make a derivative of a model file, as a chain of steps describes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec
from fingerprint.spec import sidecar_path
from fingerprint.transforms.agreement import HALF_TOLERANCE, TOLERANCE, check_opens, difference
from fingerprint.transforms.compile import Compile
from fingerprint.transforms.converters import MAKERS, NNCF
from fingerprint.transforms.files import format_of, move_model, parts_of, sha256_of, suffix_of, workspace
from fingerprint.transforms.interface import DeriveContext, Transform, WeightTransform
from fingerprint.transforms.measure import held_apart, measure
from fingerprint.transforms.plan import Step, plan
from fingerprint.transforms.quantize_files import FileQuantization

GROUP = "fingerprint.transforms"


@dataclass(frozen=True)
class Measure:
    """Something that a step measured of itself, such as the sparsity that it reached."""

    step: str
    name: str
    value: float


@dataclass(frozen=True)
class Derived:
    """A derived model.

    Attributes:
        how: every step that ran.
        sha256: of all its parts.
        spec: what its sidecar says, None if none was written.
        difference: largest difference of its answers from those before the last conversion, relative to the largest
            answer; None where that was not or could not be compared.
        accuracy: share of held-out images that get their label; None without labels.
        source_accuracy: the same of the source; None where it knows other classes.
        agreement: share of held-out images that get the label that the source gives them.
        measured: number of held-out images.
        measures: what the steps say of themselves.
    """

    path: Path
    how: str
    sha256: str
    spec: InputSpec | None
    difference: float | None = None
    accuracy: float | None = None
    source_accuracy: float | None = None
    agreement: float | None = None
    measured: int = 0
    measures: tuple[Measure, ...] = ()


def parse_how(text: str) -> tuple[Transform, ...]:
    """Read `--how`: steps joined by `+`, each `name[:argument[:argument]]`.

    Raises:
        TransformError: empty, an unknown name or argument (the remedy lists the grammar), or a broken plug-in.
    """
    steps: list[Transform] = []
    for part in text.split("+"):
        name, *arguments = part.strip().split(":")
        steps.append(_named(name, text).parse(tuple(arguments)))
    return tuple(steps)


def spell(steps: Sequence[Transform]) -> str:
    """The canonical text of a chain (`parse_how` reads it back)."""
    return "+".join(step.spell() for step in steps)


def grammar() -> str:
    """One line for each installed transformation: what `--how` and `--allow` understand."""
    lines = []
    for name in sorted(entry_points(group=GROUP).names):
        try:
            lines.append(f"  {_named(name, name).help}")
        except TransformError as error:
            lines.append(f"  {name}: {error.message}")
    return "\n".join(lines)


def _named(name: str, text: str) -> type[Transform]:
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if not points:
        raise TransformError(
            f"there is no transformation {name!r} in {text!r}", remedy=f"Join steps by '+':\n{grammar()}"
        )
    if len(points) > 1:
        raise TransformError(f"several plug-ins offer the transformation {name}: {', '.join(sorted(points))}")
    (point,) = points.values()
    try:
        found: type[Transform] = point.load()
    except Exception as error:
        raise TransformError(f"the transformation {name} ({point.value}) can't be loaded: {error}") from error
    return found


def derive(source: Path, how: str, out: Path, context: DeriveContext, *, overwrite: bool = False) -> Derived:
    """Make a derivative and, where the spec is known, its sidecar `OUT.spec.json`.

    A step that `out` or a later step calls for is put in: `prune:magnitude:0.5` of a .pt2 with an `out` that ends in
    .onnx also compiles. Nothing is left behind on failure.

    Raises:
        TransformError: the chain can't be read, planned or run; `out` is the source or exists already.
        MissingExtra: a package that a step needs is not installed.
    """
    steps = plan(source, parse_how(how), out)
    _check_out(source, out, overwrite, context.spec is not None)
    context = held_apart(context, any(step.transform.trains for step in steps))
    _check_needs(steps, context)
    measures: list[Measure] = []
    try:
        with workspace(out.parent) as folder:
            made, worst = _run(source, steps, folder, context, out.suffix, measures)
            spec = _spec_of(made, _spec_after(steps, context))
            same = all(step.transform.same_task for step in steps)
            kept = measure(source, made, context, spec, same_task=same)
            digest = sha256_of(made)
            _publish(made, out, spec, folder)
    except OSError as error:
        raise TransformError(f"{out} can't be written: {error.strerror or error}") from error
    return Derived(
        out,
        spell([step.transform for step in steps]),
        digest,
        spec,
        worst,
        kept.accuracy,
        kept.source_accuracy,
        kept.agreement,
        kept.images,
        tuple(measures),
    )


def _spec_after(steps: Sequence[Step], context: DeriveContext) -> InputSpec | None:
    for step in steps:
        context = replace(context, spec=step.transform.spec_after(context))
    return context.spec


def _check_needs(steps: Sequence[Step], context: DeriveContext) -> None:
    """Find out what is missing before minutes are spent."""
    for step in steps:
        step.transform.check(context)
        if step.format in MAKERS and not isinstance(step.transform, WeightTransform):
            quantizes = step.format == "openvino" and isinstance(step.transform, FileQuantization)
            (NNCF if quantizes else MAKERS[step.format]).python()


def _run(
    source: Path, steps: Sequence[Step], folder: Path, context: DeriveContext, suffix: str, measures: list[Measure]
) -> tuple[Path, float | None]:
    """What the last step made (under this suffix), and how far its answers are from those before, if it converts."""
    current, worst = source, None
    asked = context.tell
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        made = folder / f"step-{number}{suffix if last and step.format == 'coreml' else suffix_of(step.format)}"

        def tell(name: str, value: float, spelled: str = step.transform.spell()) -> None:
            measures.append(Measure(spelled, name, value))
            asked(name, value)

        step.transform.apply(current, made, replace(context, tell=tell))
        worst = _difference(step.transform, current, made, context)
        context = replace(context, spec=step.transform.spec_after(context))
        if current != source:
            for part in parts_of(current):
                part.unlink()
        current = made
    for part in parts_of(current):
        if part.is_file():
            part.chmod(part.stat().st_mode & 0o666)  # some converters leave executables
    return current, worst


def _difference(step: Transform, source: Path, made: Path, context: DeriveContext) -> float | None:
    if isinstance(step, FileQuantization) or (isinstance(step, Compile) and step.whole):
        check_opens(made, context)
        return None
    if not isinstance(step, Compile) or step.target not in MAKERS.keys() | {"litert"}:
        return None
    return difference(source, made, context, HALF_TOLERANCE if step.half else TOLERANCE)


def _check_out(source: Path, out: Path, overwrite: bool, sidecar: bool) -> None:
    if out.exists() and source.exists() and out.samefile(source):
        raise TransformError("the derivative can't replace its source", remedy="Give another --out.")
    if not out.parent.is_dir():
        raise TransformError(f"{out.parent} is no folder", remedy="Make it first.")
    for path in (*dict.fromkeys((*parts_of(out), out)), *((sidecar_path(out),) if sidecar else ())):
        if path.is_dir() or (path.exists() and not overwrite):
            raise TransformError(f"{path} exists already", remedy="Give another --out, or --overwrite.")


def _spec_of(path: Path, spec: InputSpec | None) -> InputSpec | None:
    """The source's spec with the dtype of the derived file: layout and shape stay, whatever the steps."""
    if spec is None:
        return None
    format = format_of(path)
    if format == "tflite":
        from fingerprint.transforms.weights.flatbuffer import input_dtype

        return replace(spec, dtype=input_dtype(path))
    return spec


def _publish(made: Path, out: Path, spec: InputSpec | None, folder: Path) -> None:
    """Put the sidecar and the model in place; an interrupt in between leaves neither."""
    sidecar = sidecar_path(out)
    if spec is None:
        move_model(made, out)
        return
    fresh = not sidecar.exists()
    temporary = folder / "spec.json"
    temporary.write_text(json.dumps(spec.to_dict(), indent=1) + "\n")
    try:
        temporary.replace(sidecar)
        move_model(made, out)
    except BaseException:
        if fresh:
            sidecar.unlink(missing_ok=True)
        raise
