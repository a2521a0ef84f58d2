"""What the benchmark compares: each single family, published baselines, and the combination.

A method is a list of families and a statistic over their panels. Baselines are our reconstructions from the papers; AKH
is natural probes without any screening.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.bench.combine import Cohort, combined
from fingerprint.bench.panel import Panel
from fingerprint.decision.statistics import correlation, fisher_z

Scores = NDArray[np.float64]
Statistic = Callable[[Sequence[Panel], Cohort], Scores]
UNSCREENED = "unscreened:"  # before a family's name: made without screening nets


@dataclass(frozen=True)
class Method:
    """families: whose probes it asks, in equal shares. soft: whether it needs the outputs."""

    name: str
    families: tuple[str, ...]
    statistic: Statistic
    soft: bool = False
    combines: bool = False


def match_rate(panels: Sequence[Panel], cohort: Cohort) -> Scores:
    """Share of probes to which a model gives the owner's label, (M,), all families alike."""
    return np.asarray(np.concatenate([panel.matches for panel in panels], axis=1).mean(axis=1))


def output_correlation(panels: Sequence[Panel], cohort: Cohort) -> Scores:
    """Correlation of centred log outputs with the owner's, Fisher-transformed, mean over families, (M,)."""
    found = np.zeros((len(panels), len(panels[0].labels)))
    for row, panel in enumerate(panels):
        assert panel.outputs is not None  # noqa: S101  (methods with soft=True are given outputs)
        for model, outputs in enumerate(panel.outputs):
            value = correlation(panel.responses, outputs[:, : panel.responses.shape[1]])
            found[row, model] = -np.inf if value is None else fisher_z(value)
    return np.asarray(found.mean(axis=0))


def methods(families: Sequence[str], combination: Sequence[str]) -> list[Method]:
    """Every single family by match rate and by soft outputs, the baselines, and the combination of some families."""
    found = [Method(name, (name,), match_rate) for name in families]
    found += [Method(f"{name}, soft outputs", (name,), output_correlation, soft=True) for name in families]
    if "natural" in families:
        found.append(Method("AKH", (UNSCREENED + "natural",), match_rate))
    found.append(Method("combined", tuple(combination), combined, combines=True))
    return found
