"""Plots as coordinates for the template, which draws them as inline SVG (ADR 0018 says why no plotting library)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from fingerprint.frozen import dataclass
from fingerprint.record import Copy, Manifest, Reference
from fingerprint.report.text import percent, plural

LEFT, RIGHT = 14.0, 406.0  # of the plotting area in the drawing's units; the drawing is 420 wide
FLOOR = 74.0  # the axis of a strip
PILE = 54.0  # height that the references of a strip may pile up to
STEP = 7.5  # between two references on one pile, where there is room
CURVE_HEIGHT = 130.0


@dataclass(frozen=True)
class Strip:
    """One family's match rates on one axis. All positions are in the drawing's units."""

    family: str
    references: tuple[tuple[float, float], ...]  # (x, y)
    copies: tuple[float, ...]  # x of the owner's transformed copies
    bound: float | None
    suspect: float
    words: str


@dataclass(frozen=True)
class Curve:
    """The wealth of a sequential test's bet that the suspect is no stranger, on a log scale, over the answers seen."""

    points: str  # of a polyline
    zero: float  # y of the wealth at the start
    last: tuple[float, float]
    first: str  # of the axis
    final: str
    top: str
    words: str


def strips(verdict: Mapping[str, Any], manifest: Manifest) -> list[Strip]:
    """One strip for each family that the suspect was asked and the record's references answered."""
    found = []
    for family in verdict.get("families") or ():
        references = _rates(manifest.references, family["name"])
        if references and family["queries"]:
            found.append(_strip(family, references, _rates(manifest.copies, family["name"])))
    return found


def _rates(models: Sequence[Reference] | Sequence[Copy], family: str) -> list[float]:
    answered = [m.families[family] for m in models if family in m.families]
    return [a.matches / a.queries for a in answered if a.queries]


def _strip(family: Mapping[str, Any], references: Sequence[float], copies: Sequence[float]) -> Strip:
    rate, bound = family["match_rate"], family["bound"]
    words = (
        f"The suspect gives the owner's label on {percent(rate)} of the {family['name']} probes. "
        f"{plural(len(references), 'unrelated reference model')} gave it on {percent(min(references))} to "
        f"{percent(max(references))} (median {percent(median(references))})."
    )
    if copies:
        made = plural(len(copies), "transformed copy", "transformed copies")
        words += f" {made} of the owner's model: {percent(min(copies))} to {percent(max(copies))}."
    if bound is not None:
        words += f" At the error level used, a model stands out above {percent(bound)}."
    return Strip(
        family=family["name"],
        references=tuple(_piles(references)),
        copies=tuple(sorted({_x(c) for c in copies})),
        bound=None if bound is None else _x(bound),
        suspect=_x(rate),
        words=words,
    )


def _x(rate: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, rate)), 1)


def _piles(rates: Sequence[float]) -> list[tuple[float, float]]:
    """Dots; those of the same hundredth lie on one another."""
    heights: dict[int, int] = {}
    for rate in rates:
        heights[round(rate * 100)] = heights.get(round(rate * 100), 0) + 1
    step = min(STEP, PILE / max(heights.values()))
    placed: dict[int, int] = {}
    dots = []
    for rate in sorted(rates):
        place = round(rate * 100)
        dots.append((_x(place / 100), round(FLOOR - 5 - step * placed.get(place, 0), 1)))
        placed[place] = placed.get(place, 0) + 1
    return dots


def curve(verdict: Mapping[str, Any]) -> Curve | None:
    """The evidence as it grew, where the verdict carries it as pairs (answers, log10 of the wealth)."""
    pairs = [_pair(item) for item in verdict.get("evidence") or ()]
    points = [pair for pair in pairs if pair is not None]
    if len(points) < 2:
        return None
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = min(0.0, *ys), max(0.0, *ys)
    wide, tall = (max(xs) - min(xs)) or 1.0, (high - low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (RIGHT - LEFT) * (x - min(xs)) / wide
        return round(across, 1), round(22 + (CURVE_HEIGHT - 30) * (high - y) / tall, 1)

    placed = [place(x, y) for x, y in points]
    words = (
        f"After {xs[-1]:g} answers the bet that this is no stranger had multiplied its stake {_fold(ys[-1])}; "
        f"at its highest {_fold(max(ys))}. A stranger multiplies it n-fold with a chance of at most 1 in n."
    )
    line = " ".join(f"{x},{y}" for x, y in placed)
    top = f"10^{high:.3g}"
    return Curve(line, place(min(xs), 0.0)[1], placed[-1], f"{min(xs):g}", f"{max(xs):g}", top, words)


def _fold(exponent: float) -> str:
    """10^exponent in words: `43,000-fold`; a power where that has too many digits, or is less than one."""
    if not 0.0 <= exponent < 6.0:
        return f"10^{exponent:.3g}-fold"
    rounded = float(f"{10.0**exponent:.2g}")
    return f"{rounded:,.0f}-fold" if rounded >= 10 else f"{rounded:g}-fold"


def _pair(item: object) -> tuple[float, float] | None:
    if isinstance(item, Mapping):
        item = (item.get("queries"), item.get("log10_wealth"))
    if not isinstance(item, Sequence) or len(item) != 2 or not all(isinstance(v, int | float) for v in item):
        return None
    return float(item[0]), float(item[1])
