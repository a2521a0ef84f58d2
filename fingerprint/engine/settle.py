"""Settling how a suspect wants its input where neither a spec nor the file says it: on *clean* inputs only.

Never by maximising the match on probes (DESIGN section 5). Settings that explain the clean inputs equally well are all
kept, and the caller pays for trying each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fingerprint.data import CleanImages
from fingerprint.decision.distributions import binomial_tail
from fingerprint.errors import DegenerateModel, SpecError
from fingerprint.model import Floats, Images, InputSpec, Layout, Signature, labels_of

Predict = Callable[[Images, InputSpec], Floats]

SEPARATED = 0.01  # a setting this unlikely to be as good as the best is dropped (exact McNemar test)
ABOVE_CHANCE = 1e-3  # the best setting must be better than guessing at this level
MOST_KEPT = 3  # equally good settings that are tried at most

NORMALIZATIONS: tuple[tuple[tuple[float, float], tuple[float, ...], tuple[float, ...]], ...] = (
    ((0.0, 1.0), (0.0,), (1.0,)),
    ((-1.0, 1.0), (0.0,), (1.0,)),
    ((0.0, 255.0), (0.0,), (1.0,)),
    ((0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.0, 1.0), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
)


@dataclass(frozen=True)
class Settled:
    """Settings that explain the clean inputs: best first; empty = unsure. accuracy belongs to the best."""

    specs: tuple[InputSpec, ...]
    accuracy: float
    images: int
    queries: int


def candidates(signature: Signature, like: InputSpec, classes: int) -> list[InputSpec]:
    """Input specs that fit what the file says, the owner's own normalization first.

    Args:
        signature: of the suspect's file.
        like: the owner's spec, for whatever the file leaves open.
        classes: number of common classes.

    Raises:
        SpecError: the file takes no image batch.
    """
    layout, height, width, depth = _geometry(signature, like)
    shape = (depth, height, width) if layout == "NCHW" else (height, width, depth)
    offsets = (1, 0) if signature.classes == classes + 1 else (0,)
    base = replace(like, layout=layout, shape=shape, dtype=signature.dtype, classes=signature.classes, author=None)
    found: list[InputSpec] = []
    for numbers, mean, std in _normalizations(signature, like):
        if len(mean) not in (1, depth):
            continue
        for offset in offsets:
            spec = replace(
                base,
                range=numbers,
                mean=mean * (depth if len(mean) == 1 else 1),
                std=std * (depth if len(std) == 1 else 1),
                channels="L" if depth == 1 else ("RGB" if like.channels == "L" else like.channels),
                class_offset=offset,
            )
            if spec not in found:
                found.append(spec)
    return found


def _geometry(signature: Signature, like: InputSpec) -> tuple[Layout, int, int, int]:
    if not signature.shape:
        return like.layout, like.height, like.width, like.depth
    if len(signature.shape) != 4:
        raise SpecError(f"the model's input has shape {signature.shape}; a batch of images (4 dimensions) is needed")
    layout = signature.layout or like.layout
    channel, rest = (1, (2, 3)) if layout == "NCHW" else (3, (1, 2))
    depth = signature.shape[channel] or like.depth
    if depth not in (1, 3):
        raise SpecError(f"the model's input has shape {signature.shape}; images have 1 or 3 channels")
    return layout, signature.shape[rest[0]] or like.height, signature.shape[rest[1]] or like.width, depth


def _normalizations(
    signature: Signature, like: InputSpec
) -> Iterator[tuple[tuple[float, float], tuple[float, ...], tuple[float, ...]]]:
    if signature.dtype in ("uint8", "int8") and signature.scale:
        lowest = 0 if signature.dtype == "uint8" else -128
        zero = signature.zero_point or 0
        yield ((lowest - zero) * signature.scale, (lowest + 255 - zero) * signature.scale), (0.0,), (1.0,)
    yield like.range, like.mean, like.std
    yield from NORMALIZATIONS


def settle(predict: Predict, options: list[InputSpec], clean: CleanImages, classes: int) -> Settled:
    """Choose among input specs by accuracy on labelled clean images.

    Args:
        predict: raw outputs (N, K') of the suspect on 8-bit images under a spec.
        options: from `candidates`.
        clean: images with labels (true ones, or the owner's answers where none are known).
        classes: number of common classes.
    """
    assert clean.labels is not None  # noqa: S101  (callers give labelled images)
    right = np.stack([_right(predict, spec, clean) for spec in options])  # (S, N)
    scores = right.sum(axis=1)
    best = int(scores.argmax())
    queries = right.size
    accuracy = float(scores[best]) / len(clean)
    if binomial_tail(int(scores[best]), len(clean), 1.0 / classes) > ABOVE_CHANCE:
        return Settled((), accuracy, len(clean), queries)
    order = [int(i) for i in np.argsort(-scores, kind="stable") if _as_good(right[best], right[i])]
    return Settled(tuple(options[i] for i in order[:MOST_KEPT]), accuracy, len(clean), queries)


def _right(predict: Predict, spec: InputSpec, clean: CleanImages) -> NDArray[np.bool_]:
    """Which images (N,) are answered right; none, where this setting makes the model answer nonsense."""
    try:
        return np.asarray(labels_of(predict(clean.images, spec), spec.class_offset) == clean.labels)
    except DegenerateModel:
        return np.zeros(len(clean), np.bool_)


def _as_good(best: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether `other` is not significantly worse than `best` on the same images (one-sided exact McNemar test)."""
    only_best, only_other = int((best & ~other).sum()), int((other & ~best).sum())
    return binomial_tail(only_best, only_best + only_other, 0.5) > SEPARATED
