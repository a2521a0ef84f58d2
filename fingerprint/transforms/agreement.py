"""Whether a converted file answers like its source, on a few random inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import MissingExtra, ModelError, TransformError
from fingerprint.runtimes.interface import LoadedModel, LoadOptions
from fingerprint.runtimes.registry import runtime_for
from fingerprint.transforms.files import format_of
from fingerprint.transforms.interface import DeriveContext

IMAGES = 3  # random inputs that are compared
TOLERANCE = 1e-3  # largest difference of an answer, relative to the largest one
HALF_TOLERANCE = 5e-2  # with weights or arithmetic in 16 bits
_REMEDY = "The converter does not bear this model: convert to another format, or from its .onnx."


def check_opens(made: Path, context: DeriveContext) -> None:
    """Open what a tool has written, where its runtime is here: tools write files that their own runtime refuses.

    Raises:
        TransformError: it can't be opened.
    """
    if _can_run(made):
        _opened_made(made, context)


def difference(source: Path, made: Path, context: DeriveContext, tolerance: float) -> float | None:
    """Largest difference of the answers, relative to the largest answer of the source.

    None where they can't be compared here: a runtime is not installed or does not exist on this machine, or the source
    takes no plain float input of a known shape.

    Raises:
        TransformError: they differ by more than `tolerance`, or have another shape.
    """
    if not (_can_run(source) and _can_run(made)):
        return None
    one, other = _opened(source, context), _opened_made(made, context)
    shape = _shape(one, context)
    if shape is None or one.signature.dtype != "float32" or other.signature.dtype not in ("float32", ""):
        return None
    inputs = np.random.default_rng(0).random((IMAGES, *shape), np.float32)
    expected, found = _answers(one, inputs), _answers(other, inputs)
    if expected.size != found.size:
        raise TransformError(f"the converted file answers {found.shape} where the source answers {expected.shape}")
    worst = float(np.abs(found.reshape(expected.shape) - expected).max() / max(1e-9, float(np.abs(expected).max())))
    if not worst <= tolerance:
        raise TransformError(
            f"the converted file answers differently (by {worst:.3g} of the largest answer, {tolerance:g} is borne)",
            remedy=_REMEDY,
        )
    return worst


def _can_run(path: Path) -> bool:
    try:
        return runtime_for(format_of(path)).executes
    except MissingExtra:
        return False


def _opened(path: Path, context: DeriveContext) -> LoadedModel:
    format = format_of(path)
    return runtime_for(format).load(path, format, LoadOptions(threads=1, factory=context.factory))


def _opened_made(made: Path, context: DeriveContext) -> LoadedModel:
    try:
        return _opened(made, context)
    except ModelError as error:
        raise TransformError(f"the converted file can't be opened: {error.message}", remedy=_REMEDY) from error


def _shape(loaded: LoadedModel, context: DeriveContext) -> tuple[int, ...] | None:
    sizes = [size for size in loaded.signature.shape[1:] if size is not None]
    if sizes and len(sizes) == len(loaded.signature.shape) - 1:
        return tuple(sizes)
    return tuple(context.spec.shape) if context.spec else None


def _answers(loaded: LoadedModel, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """One by one, or as many as the file demands."""
    size = loaded.signature.batch or loaded.batch_range[0]
    rows = [loaded.predict(np.repeat(image[None], size, axis=0))[:1] for image in inputs]
    return np.concatenate(rows)
