"""Plots for a paper: ROC, robustness against transfer, match rate by sparsity and bit width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.bench.results import Results
from fingerprint.bench.rows import COMPRESSION
from fingerprint.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (7.2, 3.6)  # inches, the legend at the right included


def draw(results: Results, out: Path) -> list[Path]:
    """Write roc, tradeoff, sparsity and bits as .png and .svg; those without data are left out.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("plots need matplotlib", extra="bench") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    written = []
    plots: dict[str, Callable[[Axes, Results], bool]] = {
        "roc": _roc,
        "tradeoff": _tradeoff,
        "sparsity": lambda axes, found: _by_x(axes, found, bits=False),
        "bits": lambda axes, found: _by_x(axes, found, bits=True),
    }
    for name, plot in plots.items():
        figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
        if plot(axes, results):
            axes.grid(alpha=0.3)
            figure.legend(fontsize=7, loc="outside right upper")
            for suffix in (".png", ".svg"):
                figure.savefig(out / f"{name}{suffix}", dpi=150)
                written.append(out / f"{name}{suffix}")
        plt.close(figure)
    return written


def _roc(axes: Axes, results: Results) -> bool:
    axes.set_prop_cycle(color=_colours())
    for curve in results.curves:
        if curve.method.startswith("combined") and curve.method != "combined":
            continue  # variants of the combination, which the tables compare
        wide = 2.4 if curve.method == "combined" else 1.0
        axes.step(curve.fpr, curve.tpr, where="post", label=curve.method, linewidth=wide)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", xlim=(-0.01, 1), ylim=(0, 1.01))
    axes.set_title(f"{results.plan}: all rows, {results.main_queries} queries, label only", fontsize=9)
    return bool(results.curves)


def _tradeoff(axes: Axes, results: Results) -> bool:
    axes.set_prop_cycle(color=_colours())
    for found in results.families:
        matched = [rate for row, rate in found.robustness.items() if row in _rows_of(results, COMPRESSION)]
        if matched:
            axes.scatter(found.transferability, sum(matched) / len(matched), label=f"{found.family}, {found.owner}")
    axes.set(xlabel="transfer: mean match of strangers", ylabel="robustness: mean match of compressed copies")
    axes.set_title(f"{results.plan}: Uniqueness Score is the distance above the diagonal", fontsize=9)
    axes.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    return bool(axes.collections)


def _by_x(axes: Axes, results: Results, *, bits: bool) -> bool:
    axes.set_prop_cycle(color=_colours())
    places = {row.name: row.x for row in results.rows if row.x is not None and (row.x > 1) == bits}
    for found in results.families:
        points = sorted((x, found.robustness[row]) for row, x in places.items() if row in found.robustness)
        if points:
            line = axes.plot(*zip(*points, strict=True), marker="o", label=f"{found.family}, {found.owner}")
            axes.axhline(found.highest_stranger[1], color=line[0].get_color(), linestyle=":", linewidth=0.8)
    axes.set(
        xlabel="bits per weight" if bits else "share of weights that are zero", ylabel="match rate", ylim=(0, 1.02)
    )
    axes.set_title(f"{results.plan}: derivatives; dotted: the stranger that matches most", fontsize=9)
    return bool(axes.lines)


def _colours() -> list[tuple[float, float, float]]:
    """Twenty colours, the strong ones first."""
    from matplotlib import colormaps

    pairs = [colormaps["tab20"](number)[:3] for number in range(20)]
    return [*pairs[::2], *pairs[1::2]]


def _rows_of(results: Results, group: str) -> set[str]:
    return {row.name for row in results.rows if row.group == group}
