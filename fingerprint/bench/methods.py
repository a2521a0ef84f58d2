"""What the benchmark compares: each single family, published baselines, and the combination.

A method is a list of families and a statistic over their panels. Baselines are our reconstructions from the papers;
their probes are made without screening nets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fingerprint.bench.combine import (
    Cohort,
    beyond_highest,
    combined,
    mean_of_rates,
    normalised_mixture,
    root_of_squares,
)
from fingerprint.bench.panel import Panel
from fingerprint.decision.relations import (
    all_pairs,
    composite_share,
    composite_thresholds,
    decision_distance,
    repeated_transitions,
    sample_correlation,
    sample_correlation_of_labels,
)
from fingerprint.decision.statistics import correlation, fisher_z
from fingerprint.frozen import dataclass

Scores = NDArray[np.float64]
Statistic = Callable[[Sequence[Panel], Cohort], Scores]
UNSCREENED = "unscreened:"  # before a family's name: made without screening nets
TWINNED = "twinned:"  # before a family's name: screened by the owner's twins, where it has some, else as usual


def bare(name: str) -> str:
    """A family's name without what says how it was screened."""
    return name.removeprefix(UNSCREENED).removeprefix(TWINNED)


@dataclass(frozen=True)
class Method:
    """families: whose probes it asks, the first alone where queries are few. soft: whether it needs the outputs."""

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


def sac(panels: Sequence[Panel], cohort: Cohort) -> Scores:
    """SAC (NeurIPS 2022) of the soft outputs, (M,)."""
    (panel,) = panels
    assert panel.outputs is not None  # noqa: S101  (as above)
    return _each(sample_correlation(panel.responses, outputs) for outputs in panel.outputs)


def sac_of_labels(panels: Sequence[Panel], cohort: Cohort) -> Scores:
    """SAC with labels alone, (M,)."""
    (panel,) = panels
    return _each(sample_correlation_of_labels(panel.targets, labels) for labels in panel.labels)


def model_diff(panels: Sequence[Panel], cohort: Cohort) -> Scores:
    """ModelDiff (ISSTA 2021) over neighbouring probes, (M,). Needs soft outputs."""
    (panel,) = panels
    assert panel.outputs is not None  # noqa: S101  (as above)
    pairs = all_pairs(panel.groups if (panel.groups >= 0).any() else None, len(panel.targets))
    return _each(decision_distance(panel.responses, outputs, pairs) for outputs in panel.outputs)


def transitions(panels: Sequence[Panel], cohort: Cohort) -> Scores:
    """Repeated label changes along trajectories (ADV-TRA, NeurIPS 2024), (M,)."""
    (panel,) = panels
    return _each(repeated_transitions(panel.targets, labels, panel.groups) for labels in panel.labels)


def composites(panels: Sequence[Panel], cohort: Cohort) -> Scores:
    """Share of composites that reach a threshold of their own (IrisFP, CVPR 2026), (M,); -1 where none can be judged.

    The thresholds come from the cohort's references, a cluster as one model, and from nobody else. IrisFP's come from
    stolen models, too; here no derivative calibrates, so what a reference would match if it inherited stands for them.
    """
    (panel,) = panels
    known, matches = cohort.references, panel.matches
    thresholds = composite_thresholds(None, matches[known], panel.groups, weights=cohort.weights(known))
    return _each(composite_share(found, panel.groups, thresholds) for found in matches)


def _each(values: Iterable[float | None]) -> Scores:
    return np.array([-1.0 if value is None else value for value in values])


# name, family, statistic, soft outputs: reconstructions from the papers, without our screening and statistics
BASELINES: tuple[tuple[str, str, Statistic, bool], ...] = (
    ("AKH", "natural", match_rate, False),
    ("SAC-like", "natural", sac_of_labels, False),
    ("SAC-like, soft outputs", "natural", sac, True),
    ("ModelDiff-like, soft outputs", "natural", model_diff, True),
    ("IPGuard-like", "boundary", match_rate, False),
    ("IrisFP-like", "composite", composites, False),
    ("ADV-TRA-like", "trajectory", transitions, False),
)


def methods(
    families: Sequence[str], combination: Sequence[str], alternatives: Sequence[Sequence[str]] = ()
) -> list[Method]:
    """Every single family by match rate and by soft outputs, the baselines, and combinations of some families.

    `alternatives`: other families to combine; `UNSCREENED` or `TWINNED` before a name says how it is screened.
    """
    found = [Method(name, (name,), match_rate) for name in families]
    found += [Method(f"{name}, soft outputs", (name,), output_correlation, soft=True) for name in families]
    for name, family, statistic, soft in BASELINES:
        if family in {bare(name) for name in families}:
            found.append(Method(name, (UNSCREENED + family,), statistic, soft))
    several = tuple(combination)
    found += [
        Method("combined", several, beyond_highest, combines=True),
        Method("combined, Bayes factor", several, combined, combines=True),
        Method("combined, squares", several, root_of_squares, combines=True),
        Method("combined, normalised", several, partial(root_of_squares, evidence=normalised_mixture), combines=True),
        Method("combined, match rate", several, match_rate, combines=True),
        Method("combined, mean of match rates", several, mean_of_rates, combines=True),
    ]
    found += [
        Method(f"combined: {' + '.join(names)}", tuple(names), beyond_highest, combines=True) for names in alternatives
    ]
    return found
