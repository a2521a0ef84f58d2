"""What scores say: AUC, true-positive rates at a bounded false-positive rate, Uniqueness Score, ARUC, intervals.

Positives are derivatives, negatives are unrelated models; a higher score means more related. Scores are comparable
within a cell only (one owner's fingerprint with one calibration), so that pairs and thresholds never cross cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fingerprint.decision.distributions import beta_cdf
from fingerprint.frozen import dataclass

Scores = NDArray[np.float64]
CONFIDENCE = 0.95
DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Cell:
    """Scores that can be compared with each other.

    positives (P,), negatives (Q,); groups: which cluster each belongs to (an author's models, one base and what was
    derived of it) for the bootstrap.
    """

    positives: Scores
    negatives: Scores
    positive_groups: tuple[str, ...]
    negative_groups: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def auc(cells: Sequence[Cell]) -> float:
    """Share of pairs (positive, negative) of one cell in which the positive scores higher; ties count half.

    NaN where there is no pair.
    """
    won, pairs = 0.0, 0
    for cell in cells:
        difference = cell.positives[:, None] - cell.negatives[None]
        won += float((difference > 0).sum()) + 0.5 * float((difference == 0).sum())
        pairs += difference.size
    return won / pairs if pairs else float("nan")


def hits(cells: Sequence[Cell], rate: float) -> tuple[int, int]:
    """How many positives pass a threshold that lets at most `rate` of the cell's negatives pass, and of how many.

    The threshold of a cell is the smallest score that does so; with rate 0 a hit scores above every negative.
    """
    found = total = 0
    for cell in cells:
        if len(cell.negatives):
            allowed = int(rate * len(cell.negatives))
            threshold = np.sort(cell.negatives)[::-1][allowed]
            found += int((cell.positives > threshold).sum())
            total += len(cell.positives)
    return found, total


def tpr(cells: Sequence[Cell], rate: float) -> Interval:
    """True-positive rate at that false-positive rate, with a Clopper-Pearson interval."""
    found, total = hits(cells, rate)
    return proportion(found, total)


def proportion(found: float, total: int, confidence: float = CONFIDENCE) -> Interval:
    """A share and its Clopper-Pearson interval (Biometrika 1934).

    found: of `total`; no whole number where each was judged several times: then between the neighbours' limits, by the
    same quantiles of the beta distribution.
    """
    if not total:
        return Interval(float("nan"), 0.0, 1.0)
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if found == 0 else _beta_quantile(tail, found, total - found + 1)
    high = 1.0 if found == total else _beta_quantile(1.0 - tail, found + 1, total - found)
    return Interval(found / total, low, high)


def upper_limit(found: int, total: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson limit of a rate that was seen `found` times in `total`."""
    return 1.0 if found >= total else _beta_quantile(confidence, found + 1, total - found)


def _beta_quantile(share: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if beta_cdf(middle, a, b) < share else (low, middle)
    return (low + high) / 2.0


def auc_interval(cells: Sequence[Cell], seed: int, draws: int = DRAWS) -> Interval:
    """AUC with a percentile interval: whole clusters of models are drawn again, with replacement (bootstrap)."""
    rng = np.random.default_rng(seed)
    won, pairs = np.zeros(draws), np.zeros(draws)
    for cell in cells:
        if not len(cell.positives) or not len(cell.negatives):
            continue
        difference = cell.positives[:, None] - cell.negatives[None]
        wins = (difference > 0) + 0.5 * (difference == 0)
        positives, negatives = _times(cell.positive_groups, draws, rng), _times(cell.negative_groups, draws, rng)
        won += ((positives @ wins) * negatives).sum(axis=1)
        pairs += positives.sum(axis=1) * negatives.sum(axis=1)
    if not pairs.all():
        return Interval(auc(cells), float("nan"), float("nan"))
    low, high = np.quantile(won / pairs, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(auc(cells), float(low), float(high))


def _times(groups: tuple[str, ...], draws: int, rng: np.random.Generator) -> Scores:
    """How often each model is drawn, (draws, models), when its clusters are drawn with replacement."""
    names, inverse = np.unique(np.array(groups), return_inverse=True)
    counts = rng.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=draws)
    return np.asarray(counts[:, inverse], np.float64)


def roc(cells: Sequence[Cell]) -> tuple[Scores, Scores]:
    """False- and true-positive rates of the cells' mean ROC, as step functions on a common grid (201,), (201,)."""
    grid = np.linspace(0.0, 1.0, 201)
    curves = []
    for cell in cells:
        if not len(cell.positives) or not len(cell.negatives):
            continue
        ordered = np.sort(cell.negatives)[::-1]
        thresholds = ordered[np.minimum((grid * len(ordered)).astype(int), len(ordered) - 1)]
        passed = (cell.positives[None] > thresholds[:, None]).mean(axis=1)
        curves.append(np.where(grid >= 1.0, 1.0, passed))
    return grid, np.mean(curves, axis=0) if curves else np.full_like(grid, np.nan)


def aruc(positives: Scores, negatives: Scores) -> float:
    """Area under min(robustness, uniqueness) over all match-rate thresholds (IPGuard, AsiaCCS 2021).

    Args:
        positives: match rates in [0, 1] of derivatives; robustness at a threshold is the share that reaches it.
        negatives: match rates of unrelated models; uniqueness is the share that stays below.
    """
    if not len(positives) or not len(negatives):
        return float("nan")
    thresholds = np.linspace(0.0, 1.0, 1001)[1:]
    robust = (positives[None] >= thresholds[:, None]).mean(axis=1)
    unique = (negatives[None] < thresholds[:, None]).mean(axis=1)
    return float(np.minimum(robust, unique).mean())


def uniqueness(compressed: Scores, negatives: Scores) -> float:
    """Uniqueness Score: mean match of compressed copies minus mean match of unrelated models (Wang et al., 2021)."""
    return float(compressed.mean() - negatives.mean()) if len(compressed) and len(negatives) else float("nan")
