"""Settling how a suspect wants its input, and what its labels mean, where neither a spec nor the file says it.

On *clean* inputs only, never by maximising the match on probes (DESIGN section 5). Settings that explain the clean
inputs equally well are all kept, and the caller pays for trying each of them. The true setting, if it is among the
candidates, is dropped with probability `SEPARATED` at most; if nothing else explains them better than the truth does. A
file that blurs what it is given does: more contrast makes up for it. So the owner's own normalization, which a copy
shares with him, is tried as well unless it explains far less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from fingerprint.data import CleanImages
from fingerprint.engine.adapt import Adapter
from fingerprint.engine.clean_answers import CleanAnswers, Hearing, Predict
from fingerprint.engine.labels import LabelMap, cross_fitted, learn
from fingerprint.engine.readings import ABOVE_CHANCE, Reading, Setting
from fingerprint.errors import SpecError
from fingerprint.frozen import dataclass
from fingerprint.model import Channels, InputSpec, Labels, Layout, Signature

__all__ = ["ABOVE_CHANCE", "NORMALIZATIONS", "Setting", "Settled", "candidates", "settle"]

SEPARATED = 0.01  # largest probability that the true setting is dropped for another (exact McNemar tests)
MAPPED_ACCURACY = 0.5  # of a learned map, on the classes that it knows: below, the model does some other task
MOST_KEPT = 4  # equally good settings that are tried at most
OWN_KEEPS = 0.8  # the first candidate's normalization is tried too where it explains this share of what the best does
LOOKS = (64, 256)  # clean images after which candidates that are worse are dropped; who is left gets the rest

NORMALIZATIONS: tuple[tuple[tuple[float, float], tuple[float, ...], tuple[float, ...]], ...] = (
    ((0.0, 1.0), (0.0,), (1.0,)),
    ((-1.0, 1.0), (0.0,), (1.0,)),
    ((0.0, 255.0), (0.0,), (1.0,)),
    ((0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.0, 1.0), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
)


@dataclass(frozen=True)
class Settled:
    """What explains the clean inputs: best first; empty = unsure.

    accuracy: of the best setting on the `images`; queries: inputs sent; error: probability at most that the true
    setting was dropped, if it was among the candidates; crowded: more settings were as good than are kept;
    relabelled: the labels seem to mean something else, and there were too few images to learn what: a mismatch says
    nothing.
    """

    settings: tuple[Setting, ...]
    accuracy: float
    images: int
    queries: int
    error: float = SEPARATED
    crowded: bool = False
    relabelled: bool = False


def candidates(signature: Signature, like: InputSpec) -> list[InputSpec]:
    """Input specs that fit what the file says, the owner's own first. Class offsets are left for `settle`.

    Args:
        signature: of the suspect's file.
        like: the owner's spec, for whatever the file leaves open.

    Raises:
        SpecError: the file takes no image batch.
    """
    found: dict[tuple[object, ...], InputSpec] = {}
    for layout, height, width, depth in _geometries(signature, like):
        shape = (depth, height, width) if layout == "NCHW" else (height, width, depth)
        base = replace(like, layout=layout, shape=shape, classes=signature.classes, author=None, class_offset=0)
        base = replace(base, dtype=signature.dtype if signature.shape else like.dtype)
        for channels in _channels(like, depth):
            for numbers, *values in _normalizations(signature, like):
                if len(values[0]) not in (1, depth):
                    continue
                mean, std = (v * (depth if len(v) == 1 else 1) for v in values)
                spec = replace(base, range=numbers, mean=mean, std=std, channels=channels)
                found.setdefault(_function(spec, signature), spec)
    return list(found.values())


def _function(spec: InputSpec, signature: Signature) -> tuple[object, ...]:
    """What tells two specs apart in what they feed."""
    return spec.layout, spec.shape, spec.channels, Adapter(spec, signature).tables.tobytes()


def _channels(like: InputSpec, depth: int) -> Iterable[Channels]:
    """Grey, or both orders, the owner's first."""
    if depth == 1:
        return ("L",)
    return ("BGR", "RGB") if like.channels == "BGR" else ("RGB", "BGR")


def _geometries(signature: Signature, like: InputSpec) -> list[tuple[Layout, int, int, int]]:
    """Layout, height, width, depth: one, or both layouts where nothing tells which."""
    if signature.shape and len(signature.shape) != 4:
        raise SpecError(f"the model's input has shape {signature.shape}; a batch of images (4 dimensions) is needed")
    other: Layout = "NHWC" if like.layout == "NCHW" else "NCHW"
    layouts = (signature.layout,) if signature.layout else (like.layout, other)
    found = [g for g in (_geometry(signature, layout, like) for layout in layouts) if g is not None]
    if not found:
        raise SpecError(f"the model's input has shape {signature.shape}; images have 1 or 3 channels")
    return found


def _geometry(signature: Signature, layout: Layout, like: InputSpec) -> tuple[Layout, int, int, int] | None:
    shape = signature.shape or (None,) * 4
    channel, (row, column) = (1, (2, 3)) if layout == "NCHW" else (3, (1, 2))
    depth = shape[channel] or like.depth
    return (layout, shape[row] or like.height, shape[column] or like.width, depth) if depth in (1, 3) else None


def _normalizations(
    signature: Signature, like: InputSpec
) -> Iterator[tuple[tuple[float, float], tuple[float, ...], tuple[float, ...]]]:
    if signature.dtype in ("uint8", "int8") and signature.scale:
        lowest = 0 if signature.dtype == "uint8" else -128
        zero = signature.zero_point or 0
        yield ((lowest - zero) * signature.scale, (lowest + 255 - zero) * signature.scale), (0.0,), (1.0,)
    elif signature.dtype == "int8":  # without a scale: the pixel less 128; uint8 is among the usual ones
        yield (-128.0, 127.0), (0.0,), (1.0,)
    yield like.range, like.mean, like.std
    yield from NORMALIZATIONS


def settle(asked: Predict | Hearing, options: list[InputSpec], clean: CleanImages, classes: int) -> Settled:
    """Choose among input specs, and meanings of the labels, by accuracy on labelled clean images.

    Every spec is read with its labels as they are, with a background class in front (where the model has one more than
    `classes`), and with a map learned from the other half of the images; a map counts only where it explains
    significantly more.

    Args:
        asked: raw outputs (N, K') of the suspect on 8-bit images under a spec; or a `Hearing`, where several settlings
            of one suspect share what it answered.
        options: from `candidates`.
        clean: images with labels (true ones, or the owner's answers where none are known).
        classes: number of common classes.
    """
    assert clean.labels is not None  # noqa: S101  (callers give labelled images)
    hearing = asked if isinstance(asked, Hearing) else Hearing(CleanAnswers(asked))
    return _Race(hearing, clean, clean.labels, classes).run(options)


class _Race:
    """Several looks: a first one at all candidates, the next ones at those that may still be the best."""

    def __init__(self, hearing: Hearing, clean: CleanImages, truth: Labels, classes: int) -> None:
        self._hearing, self._clean, self._truth, self._classes = hearing, clean, truth, classes
        self._answers: dict[InputSpec, Labels] = {}
        self._widths: dict[InputSpec, int] = {}  # 0: no answer
        self._first: InputSpec | None = None

    def run(self, options: list[InputSpec]) -> Settled:
        """Look, drop, look again."""
        looks = sorted({min(look, len(self._clean)) for look in (*LOOKS, len(self._clean))})
        level = SEPARATED / len(looks) / max(1, 2 * len(options) - 1)
        self._first = options[0] if options else None
        good: list[Reading] = []
        for end in looks:
            self._look(options, end)
            readings = [r for spec in options if self._widths[spec] for r in self._readings(spec, level)]
            best = max(readings, key=lambda r: r.score, default=None)  # the first of equals
            good = [] if best is None else [r for r in readings if r.as_good_as(best, level)]
            least = OWN_KEEPS if end == looks[-1] else OWN_KEEPS / 2  # few images teach few meanings of labels
            good += [r for r in readings if r not in good and self._may_be_own(r, good, least)]
            explained = best is not None and best.above_chance(ABOVE_CHANCE / len(looks) / len(self._widths))
            if explained:  # else the first look was too short to learn what the labels mean
                options = list(dict.fromkeys(r.base for r in good))
        if not explained:
            accuracy = max((r.accuracy for r in good), default=0.0)
            return Settled((), accuracy, len(self._clean), self._hearing.queries)
        good.sort(key=lambda r: -r.score)
        chosen, rest = good[:MOST_KEPT], good[MOST_KEPT:]
        if not any(map(self._is_own, chosen)):
            chosen[-1] = next(filter(self._is_own, rest), chosen[-1])
        settings = tuple(r.setting for r in chosen)
        crowded, relabelled = len(good) > MOST_KEPT, any(r.relabelled(SEPARATED / len(good)) for r in good)
        return Settled(
            settings,
            good[0].accuracy,
            len(self._clean),
            self._hearing.queries,
            crowded=crowded,
            relabelled=relabelled,
        )

    def _is_own(self, reading: Reading) -> bool:
        """Whether pixels become numbers as in the first candidate: the owner's normalization, or the file's scale."""
        spec, first = reading.base, self._first
        return first is not None and (spec.range, spec.mean, spec.std) == (first.range, first.mean, first.std)

    def _may_be_own(self, reading: Reading, good: list[Reading], least: float) -> bool:
        """Whether it has the owner's normalization, otherwise feeds as a good one does, and explains enough."""
        spec = reading.base
        alike = any((r.base.layout, r.base.channels) == (spec.layout, spec.channels) for r in good)
        return alike and self._is_own(reading) and reading.score >= least * max(r.score for r in good)

    def _look(self, options: list[InputSpec], end: int) -> None:
        """Ask the clean images up to `end` that were not asked yet."""
        for spec in options:
            known = self._answers.setdefault(spec, np.zeros(0, np.int64))
            if len(known) >= end or self._widths.get(spec) == 0:
                continue
            heard = self._hearing(self._clean, len(known), end, spec)
            self._widths[spec] = heard.width
            self._answers[spec] = np.concatenate([known, heard.labels])

    def _readings(self, spec: InputSpec, level: float) -> list[Reading]:
        """How a spec's answers can be read: by offsets; or by a learned map, where that explains more."""
        answers, width = self._answers[spec], self._widths[spec]
        truth = self._truth[: len(answers)]
        offsets = (1, 0) if width == self._classes + 1 else (0,)
        plain = [
            Reading(spec, replace(spec, classes=width, class_offset=offset), m, m.of_targets(truth), answers, truth)
            for offset in offsets
            for m in (LabelMap.shifted(self._classes, width, offset),)
        ]
        learned = learn(answers, truth, self._classes, width)
        if len(set(learned.to_suspect)) < 2 or not (learned.distinct or width < self._classes):
            return plain
        expected = cross_fitted(answers, truth, self._classes, width)
        shown = expected >= 0
        if not shown.any() or (expected == answers)[shown].mean() < MAPPED_ACCURACY:
            return plain
        if plain[0].explains(learned):  # other classes may be taken for one that it has: no reason to compare them
            return plain
        mapped = Reading(spec, replace(spec, classes=width), learned, expected, answers, truth)
        return plain if any(r.as_good_as(mapped, level) for r in plain) else [mapped]
