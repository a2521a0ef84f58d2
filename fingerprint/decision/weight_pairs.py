"""Which tensor of a suspect corresponds to which of the owner's, and how alike they are: from summaries.

What a pair is called (`State`) describes it, by what fp16, a grid of few levels, or the smallest values set to zero
leave at most; the p-value is a test. It is exact for a suspect whose network was initialised at random by itself. The
hidden channels of such a network have no order: whatever order it was trained in is as likely as any other. So the
agreement of each of the owner's rows with the suspect's row of the same number, summed over rows, is ranked among the
same sums after random permutations of the suspect's rows. A layer with as many rows as the model has classes is left
out: classes have an order. Several layers are merged by Rüger's rule, valid under any dependence: twice the median.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fingerprint.frozen import dataclass
from fingerprint.runtimes.sketch import PROJECTED, View, WeightSketch

Matrix = NDArray[np.float64]
State = Literal["identical", "reordered", "rearranged", "scaled", "rounded", "pruned", "changed", "unlike"]

PERMUTATIONS = 9_999  # of the rows of one layer; the smallest p-value is one over this and one
MOST_RANKED = 128  # rows of one layer that are ranked
MOST_MATCHED = 4_096  # rows of a layer that are looked for in another order
MOST_CHOICES = 64  # tensors of one shape that one of the owner's is compared with
FEWEST_ROWS = 4  # of a layer that can be ranked: 4! orders
LEVEL = 0.01  # of the merged p-value
ALIVE = 1e-3  # of the longest row of a layer: shorter ones count as gone
EXACT = 4e-3  # relative error of bf16 (fp16 has an eighth of it), and what folding normalisation into weights leaves
GRID = 256.0  # levels of 8 bits
ZEROS = 0.02  # more of a tensor's values that must be zero for it to count as pruned
ROUNDING = 4.0  # times the error of a grid that rounding to it may leave: rows may share one scale
PRUNING = 1.5  # times the length of the smallest values that pruning may take away
REARRANGED = 0.5  # of a layer's rows that must be found in another order
_SEED = 9_101


@dataclass(frozen=True)
class Pair:
    """One tensor of the owner with its counterpart."""

    owner: int
    suspect: int
    state: State
    correlation: float | None = None
    p_value: float | None = None


def matrices(sketch: WeightSketch) -> NDArray[np.int64]:
    """Tensors that are compared one by one."""
    return np.nonzero((sketch.column("dimensions") >= 2) & (sketch.column("size") >= 64))[0]


def pairs_of(owner: WeightSketch, suspect: WeightSketch, classes: int) -> Iterator[Pair]:
    """Each of the owner's matrices with at most one of the suspect's: exact ones first, then the most alike."""
    left, free = set(matrices(owner).tolist()), set(matrices(suspect).tolist())
    exact: tuple[tuple[State, NDArray[np.uint8], NDArray[np.uint8]], ...] = (
        ("identical", owner.digests, suspect.digests),
        ("reordered", owner.reordered, suspect.reordered),
    )
    for state, mine, theirs in exact:
        places: dict[bytes, list[int]] = {}
        for j in sorted(free):
            places.setdefault(bytes(theirs[j]), []).append(j)
        for i in sorted(left):
            found = places.get(bytes(mine[i]), [])
            if not found or (state == "reordered" and len(found) > 1):
                continue
            same = [j for j in found if suspect.names[j] == owner.names[i]]
            j = (same or found)[0]
            found.remove(j)
            left.discard(i)
            free.discard(j)
            yield Pair(i, j, state, 1.0 if state == "identical" else None, _surely(owner, i, classes))
    yield from _alike(owner, suspect, sorted(left), sorted(free), classes)


def _surely(owner: WeightSketch, tensor: int, classes: int) -> float | None:
    """The p-value of a layer that is bit for bit there: no other order of its rows agrees as well."""
    rankable = any(_rankable(view, classes) for view in owner.views if view.tensor == tensor)
    return 1.0 / (PERMUTATIONS + 1) if rankable else None


def _rankable(view: View, classes: int) -> bool:
    return len(view.projections) >= FEWEST_ROWS and len(view.projections) != classes


def _alike(
    owner: WeightSketch, suspect: WeightSketch, left: list[int], free: list[int], classes: int
) -> Iterator[Pair]:
    """Those of the same shape, the most alike first. Having chosen among several costs: p-values are multiplied."""
    mine, theirs = _by_tensor(owner), _by_tensor(suspect)
    scored = []
    for i in left:
        candidates = [(j, views) for j in free if (views := _same_shape(mine.get(i, []), theirs.get(j, [])))]
        chosen = [c for c in candidates if suspect.names[c[0]] == owner.names[i]] or candidates[:MOST_CHOICES]
        scored += [(_score(*views), -i, j, len(chosen), views) for j, views in chosen]
    taken = set[int]()
    for _, minus, j, choices, views in sorted(scored, key=lambda entry: entry[:3], reverse=True):
        if -minus in taken or -j - 1 in taken:
            continue
        taken |= {-minus, -j - 1}
        yield _judged(owner, suspect, (-minus, j), views, choices, classes)


def _by_tensor(sketch: WeightSketch) -> dict[int, list[View]]:
    found: dict[int, list[View]] = {}
    for view in sketch.views:
        found.setdefault(view.tensor, []).append(view)
    return found


def _same_shape(mine: list[View], theirs: list[View]) -> tuple[View, View] | None:
    """A view of each, with the same number of rows and columns."""
    pairs = [(one, other) for one in mine for other in theirs if one.shape == other.shape]
    return max(pairs, key=lambda pair: _score(*pair), default=None)


def _agreement(one: View, other: View) -> Matrix:
    """(R, R) cosines of the owner's first rows with the suspect's, estimated from their projections."""
    a, b = (view.projections[:MOST_RANKED].astype(np.float64) for view in (one, other))
    lengths = [np.sqrt(np.square(x).sum(axis=1, keepdims=True)) + 1e-12 for x in (a, b)]
    return np.asarray((a / lengths[0]) @ (b / lengths[1]).T)


def _score(one: View, other: View) -> float:
    return float(_cosines(one, other).mean())


def _cosines(one: View, other: View) -> NDArray[np.float64]:
    """(R,) squared cosines of the rows of the same number, estimated from their projections."""
    a, b = (view.projections.astype(np.float64) for view in (one, other))
    lengths = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1)) + 1e-12
    return np.asarray(np.square((a * b).sum(axis=1) / lengths))


def _judged(
    owner: WeightSketch,
    suspect: WeightSketch,
    tensors: tuple[int, int],
    views: tuple[View, View],
    choices: int,
    classes: int,
) -> Pair:
    i, j = tensors
    one, other = views
    # filters that training or pruning took away say nothing
    alive = (one.lengths > ALIVE * one.lengths.max()) & (other.lengths > ALIVE * other.lengths.max())
    choices *= 4 if one.shape[0] == one.shape[1] else 1  # a square matrix may lie either way, in both
    p_value = min(1.0, choices * rank(_agreement(one, other))) if _rankable(one, classes) else None
    signs = np.sign((one.projections * other.projections).sum(axis=1, keepdims=True))
    away = np.sqrt(np.square(one.projections - signs * other.projections).sum(axis=1))[alive]
    error = float(np.median(away)) if alive.any() else 1.0
    cosines = _cosines(one, other)[alive]  # chance adds one over the number of projections
    excess = (float(cosines.mean()) - 1.0 / PROJECTED) / (1.0 - 1.0 / PROJECTED) if alive.any() else 0.0
    correlation = float(np.sqrt(np.clip(excess, 0.0, 1.0)))
    more = suspect.column("zeros")[j] / suspect.column("size")[j] - owner.column("zeros")[i] / owner.column("size")[i]
    levels = float(suspect.column("levels")[j])
    gridded = levels <= GRID < owner.column("levels")[i]
    state: State = "changed"
    if (p_value is not None and p_value > LEVEL) or (p_value is None and correlation < 0.5):
        state = "rearranged" if rearranged(one, other) >= REARRANGED else "unlike"
        p_value = None if state == "rearranged" else p_value
    elif len(away) and float(away.max()) <= EXACT:
        state = "scaled"
    elif gridded and error <= ROUNDING * _of_rounding(one, levels) + EXACT:
        state = "rounded"
    elif more > ZEROS and error <= PRUNING * _of_pruning(one, more) + (ROUNDING * _of_rounding(one, levels) * gridded):
        state = "pruned"
    return Pair(i, j, state, correlation, p_value)


def _of_rounding(view: View, levels: float) -> float:
    """The relative error that rounding rows to a grid of so many levels leaves, median over rows."""
    width = view.quantiles[:, -1] - view.quantiles[:, 0]  # in root mean squares
    return float(np.median(width) / max(levels - 1.0, 1.0) / np.sqrt(12.0))


def _of_pruning(view: View, share: float) -> float:
    """The relative length of the smallest values (a share of them), median over rows."""
    squares = np.square(view.quantiles.astype(np.float64))
    weight = np.ones(squares.shape[1])
    weight[[0, -1]] = 0.5  # the ends of a row stand for half as many values (trapezoidal rule)
    order = np.argsort(squares, axis=1)
    energy, mass = np.take_along_axis(squares * weight, order, axis=1), weight[order]
    before = np.cumsum(mass, axis=1) - mass
    taken = np.clip((share * weight.sum() - before) / mass, 0.0, 1.0)  # of each quantile
    return float(np.median(np.sqrt((energy * taken).sum(axis=1) / (energy.sum(axis=1) + 1e-12))))


def rearranged(one: View, other: View) -> float:
    """The share of the owner's rows that have a counterpart among the suspect's by their sorted values, in any order.

    A row has one where they are each other's nearest and less than half as far apart as the row is from any other of
    the owner's (the ratio test of Lowe, IJCV 2004). It has no error level: `benchmarks/weights.py` measures how often
    independent networks pass.
    """
    a, b = (view.quantiles.astype(np.float64) for view in (one, other))
    if not FEWEST_ROWS <= len(a) <= MOST_MATCHED:
        return 0.0
    across, among = _distances(a, b), _distances(a, a)
    np.fill_diagonal(among, np.inf)
    nearest = across.argmin(axis=1)
    mutual = across.argmin(axis=0)[nearest] == np.arange(len(a))
    close = across[np.arange(len(a)), nearest] < 0.5 * among.min(axis=1)
    return float((mutual & close).mean())


def _distances(a: Matrix, b: Matrix) -> Matrix:
    """(A, B) Euclidean, of rows."""
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def merge(p_values: list[float]) -> float | None:
    """Rüger's rule: of K p-values, the k-th smallest times K / k is one whatever their dependence. k: half of K, up."""
    if not p_values:
        return None
    count, k = len(p_values), (len(p_values) + 1) // 2
    return min(1.0, float(np.sort(p_values)[k - 1]) * count / k)


def rank(agreement: Matrix) -> float:
    """p-value of the rows' own order among random ones, of the cosines (R, R) of rows with rows.

    Exact where the columns' order is random: P(p <= u) <= u.
    """
    squares = np.square(agreement)
    sums = squares[np.arange(len(squares))[None, :], _orders(len(squares))].sum(axis=1)
    return float((1 + (sums >= np.trace(squares) - 1e-12).sum()) / (PERMUTATIONS + 1))


@cache
def _orders(count: int) -> NDArray[np.uint8]:
    """(PERMUTATIONS, count) random orders, the same for every layer of so many rows, `MOST_RANKED` at most."""
    rng = np.random.default_rng([_SEED, count])
    return rng.permuted(np.tile(np.arange(count, dtype=np.uint8), (PERMUTATIONS, 1)), axis=1)
