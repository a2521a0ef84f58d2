"""What a derivative keeps: its accuracy, and how often it answers as its source does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.data import CleanImages
from fingerprint.errors import MissingExtra, ModelError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.model import InputSpec, Labels
from fingerprint.runtimes.interface import LoadedModel, LoadOptions
from fingerprint.runtimes.registry import runtime_for
from fingerprint.transforms.feed import real_valued
from fingerprint.transforms.files import format_of
from fingerprint.transforms.interface import DeriveContext

IMAGES = 2000  # measured on at most
HELD_OUT = 0.2  # share of the images that no step sees
BATCH = 128


@dataclass(frozen=True)
class Kept:
    """Accuracy of the derivative and of its source, their agreement (shares, None where unknown), and on how many."""

    accuracy: float | None = None
    source_accuracy: float | None = None
    agreement: float | None = None
    images: int = 0


def held_apart(context: DeriveContext, trains: bool) -> DeriveContext:
    """The context with `held_out` filled, where there are images: a part that no step sees, or all if none trains."""
    if context.images is None or context.held_out is not None or not context.measure:
        return context
    images, labels = context.images, context.labels
    every = CleanImages(images, labels)
    if not trains or len(images) < 10:
        return replace(context, held_out=every)
    order = np.random.default_rng(context.seed).permutation(len(images))
    apart, kept = (np.sort(part) for part in np.split(order, [round(HELD_OUT * len(images))]))
    return replace(
        context,
        images=images[kept],
        labels=None if labels is None else labels[kept],
        held_out=CleanImages(images[apart], None if labels is None else labels[apart]),
    )


def measure(
    source: Path, made: Path, context: DeriveContext, spec: InputSpec | None, *, same_task: bool = True
) -> Kept:
    """Compare the two files on the held-out images.

    Args:
        source: what it was made from.
        made: the derivative.
        context: held-out images, and the spec of the source.
        spec: of the derivative.
        same_task: whether labels mean the same to both.
    """
    if not context.measure or context.held_out is None or context.spec is None or spec is None:
        return Kept()
    held = context.held_out.take(IMAGES, context.seed)
    after = _labels(made, held, spec, context.factory)
    before = _labels(source, held, context.spec, context.factory) if same_task else None
    both = before is not None and after is not None
    return Kept(
        _share(after, held.labels),
        _share(before, held.labels),
        _share(before, after) if both else None,
        len(held) if before is not None or after is not None else 0,
    )


def _share(one: Labels | None, other: Labels | None) -> float | None:
    return None if one is None or other is None else float((one == other).mean())


def _labels(path: Path, held: CleanImages, spec: InputSpec, factory: str | None) -> Labels | None:
    """Common labels (N,), None where this machine can't run the file or it answers no classes."""
    format = format_of(path)
    try:
        runtime = runtime_for(format)
        if not runtime.executes:
            return None
        loaded = runtime.load(path, format, LoadOptions(threads=1, factory=factory))
        outputs = _outputs(loaded, held, spec)
    except (MissingExtra, ModelError, UsageError):
        return None
    flat = outputs.reshape(len(outputs), -1)
    return np.asarray(flat.argmax(axis=1) - spec.class_offset, np.int64)


def _outputs(loaded: LoadedModel, held: CleanImages, spec: InputSpec) -> NDArray[np.float32]:
    most = loaded.batch_range[1] or BATCH
    size = loaded.signature.batch or loaded.own_batch or min(BATCH, most)
    parts = []
    for start in range(0, len(held), size):
        inputs = _stored(real_valued(held.images[start : start + size], spec), loaded)
        count = len(inputs)
        least = loaded.signature.batch or loaded.batch_range[0]
        full = np.resize(inputs, (least, *inputs.shape[1:])) if count < least else inputs
        parts.append(loaded.predict(full)[:count])
    return np.concatenate(parts)


def _stored(inputs: NDArray[np.float32], loaded: LoadedModel) -> NDArray[np.generic]:
    """In the dtype that the file takes."""
    signature = loaded.signature
    dtype = np.dtype(signature.dtype or "float32")
    if not np.issubdtype(dtype, np.integer):
        return inputs.astype(dtype)
    limits = np.iinfo(dtype)
    scaled = np.rint(inputs / (signature.scale or 1.0)) + (signature.zero_point or 0)
    stored: NDArray[np.generic] = np.clip(scaled, limits.min, limits.max).astype(dtype)
    return stored
