"""A compact summary of a model's weights, from which two files can be compared without either at hand.

Every tensor is seen as rows, one for each output channel. Kept of it: a digest of the values; a digest that is the same
in whatever order its channels, and the values inside each, come; how many values are zero and on how fine a grid they
lie. Of every row: `PROJECTED` random projections, the same for everybody, divided by the row's length (so that a
factor for each channel, as conversion folds normalisation into weights, changes nothing), and `QUANTILES` quantiles of
its values in units of their root mean square, which no order of input channels changes.

A summary is made by the same code for the owner, in its own process, and for a suspect, in the isolated worker; it is
about 130 bytes a channel. Weights can't be computed back from it, but whoever has it can recognise a copy: in a record
it lies in the encrypted part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel
from fingerprint.frozen import dataclass
from fingerprint.runtimes.formats import Format

PROJECTED = 16  # random projections of a row
QUANTILES = 16
MOST_TENSORS = 2048
MOST_ROWS = 65_536  # of all tensors together: 8 MiB
MOST_VALUES = 64_000_000  # of all tensors whose rows are kept
FEWEST_VALUES = 64  # of a tensor that says something
NAME_BYTES = 120
MOST_BYTES = 64 << 20  # of a summary on the wire
_SEED = 1_604  # of the projections, public
_COLUMNS = ("size", "dimensions", "zeros", "levels")


@dataclass(frozen=True)
class View:
    """A tensor as rows of `columns` values, of some Euclidean lengths (R,).

    projections (R, PROJECTED) of rows brought to length one; quantiles (R, QUANTILES), in root mean squares.
    """

    tensor: int
    columns: int
    lengths: NDArray[np.float32]
    projections: NDArray[np.float32]
    quantiles: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.projections), self.columns


@dataclass(frozen=True)
class WeightSketch:
    """The summary of a model's floating-point and 8-bit tensors of one or more dimensions.

    names (T); digests, reordered (T, 32) uint8; table (T, 4) of values, dimensions, zeros, and levels: the range of a
    row over the smallest gap between its values, plus one, the largest of the rows (2^b or less for b bits); of a
    matrix the smaller of its two views.
    views: two of every matrix (its rows, its columns), one of every larger tensor.
    """

    names: tuple[str, ...]
    digests: NDArray[np.uint8]
    reordered: NDArray[np.uint8]
    table: NDArray[np.float64]
    views: tuple[View, ...]

    def to_bytes(self) -> NDArray[np.uint8]:
        """(B,) safetensors bytes."""
        from safetensors.numpy import save

        rows = [np.zeros((0, PROJECTED), np.float32), np.zeros((0, QUANTILES), np.float32)]
        index = [(view.tensor, len(view.projections), view.columns) for view in self.views]
        tensors: dict[str, NDArray[np.generic]] = {
            "names": np.frombuffer("\n".join(self.names).encode(), np.uint8),
            "digests": self.digests,
            "reordered": self.reordered,
            "table": self.table,
            "views": np.array(index, np.int64).reshape(-1, 3),
            "lengths": np.concatenate([np.zeros(0, np.float32), *(view.lengths for view in self.views)]),
            "projections": np.concatenate([rows[0], *(view.projections for view in self.views)]),
            "quantiles": np.concatenate([rows[1], *(view.quantiles for view in self.views)]),
        }
        raw = save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
        return np.frombuffer(raw, np.uint8)

    @classmethod
    def from_bytes(cls, data: bytes) -> WeightSketch:
        """Parse what a worker or a record holds; everything is checked.

        Raises:
            UnreadableModel: it is no summary.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            found = load(data)
            names = tuple(map(_printable, found["names"].tobytes().decode("utf-8", "replace").split("\n")))
            names = names if len(found["digests"]) else ()
            sketch = cls(names, found["digests"], found["reordered"], found["table"], _views(found))
        except (SafetensorError, KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            raise UnreadableModel(f"the summary of its weights is unsound: {error}") from error
        count = len(names)
        sound = (
            count <= MOST_TENSORS
            and sketch.digests.shape == sketch.reordered.shape == (count, 32)
            and sketch.digests.dtype == sketch.reordered.dtype == np.uint8
            and sketch.table.shape == (count, len(_COLUMNS))
            and sketch.table.dtype == np.float64
            and np.isfinite(sketch.table).all()
            and (sketch.table >= [1, 1, 0, 0]).all()
        )
        if not sound:
            raise UnreadableModel("the summary of its weights is unsound")
        return sketch

    def column(self, name: str) -> NDArray[np.float64]:
        """(T,) one column of the table: size, dimensions, zeros or levels."""
        return self.table[:, _COLUMNS.index(name)]


def _views(found: Mapping[str, NDArray[np.generic]]) -> tuple[View, ...]:
    index, projections, quantiles = found["views"], found["projections"], found["quantiles"]
    lengths, rows = found["lengths"], len(projections)
    if (
        index.dtype != np.int64
        or index.shape[1:] != (3,)
        or projections.dtype != np.float32
        or quantiles.dtype != np.float32
        or lengths.dtype != np.float32
        or lengths.shape != (rows,)
        or projections.shape != (rows, PROJECTED)
        or quantiles.shape != (rows, QUANTILES)
        or rows > MOST_ROWS
        or len(index) > 2 * MOST_TENSORS
        or (len(index) and (index.min() < 0 or index[:, 0].max() >= len(found["digests"])))
        or sum(index[:, 1].tolist()) != rows
        or (len(index) and np.bincount(index[:, 0]).max() > 2)
        or not all(np.isfinite(part).all() for part in (lengths, projections, quantiles))
    ):
        raise ValueError("its rows contradict each other")
    views, start = [], 0
    for tensor, count, columns in index.tolist():
        part = slice(start, start + count)
        parts = (lengths[part].copy(), projections[part].copy(), quantiles[part].copy())
        views.append(View(tensor, columns, *parts))  # type: ignore[arg-type]
        start += count
    return tuple(views)


def sketch(weights: Mapping[str, NDArray[np.generic]], format: str) -> WeightSketch:
    """The summary of constant tensors as `Runtime.weights` gives them.

    Args:
        weights: by name.
        format: of the file, which says how its convolutions lie.
    """
    kept = {n: v for n, v in weights.items() if v.ndim >= 1 and v.size >= 2 and _is_number(v)}
    kept = dict(list(kept.items())[:MOST_TENSORS])
    digests, reordered, table, views = [], list[bytes](), [], list[View]()
    rows = values = 0
    for number, value in enumerate(kept.values()):
        plain = _channels_first(value, format)
        digests.append(hashlib.sha256(f"{value.dtype} {plain.shape}".encode() + np.ascontiguousarray(plain).tobytes()))
        real = _as_real(plain)
        flat = real.reshape(len(real), -1) if real.ndim > 1 else real[None]
        within = value.size + values <= MOST_VALUES and np.isfinite(real).all()
        order = np.sort(flat, axis=1) if within else flat
        reordered.append(_order_free(order if real.ndim > 1 else order.T))
        levels, wanted = _levels(order) if within else 0.0, within and real.ndim > 1 and value.size >= FEWEST_VALUES
        if wanted and rows + len(flat) <= MOST_ROWS:
            views.append(_view(number, flat, order))
            rows, values = rows + len(flat), values + flat.size
        if wanted and real.ndim == 2 and rows + flat.shape[1] <= MOST_ROWS:
            turned = np.ascontiguousarray(flat.T)  # some formats keep matrices the other way round
            ordered = np.sort(turned, axis=1)
            views.append(_view(number, turned, ordered))
            rows, levels = rows + len(turned), min(levels, _levels(ordered))
        table.append((value.size, value.ndim, int((real == 0).sum()), levels))
    return WeightSketch(
        tuple(_printable(name) for name in kept),
        np.frombuffer(b"".join(d.digest() for d in digests), np.uint8).reshape(-1, 32),
        np.frombuffer(b"".join(reordered), np.uint8).reshape(-1, 32),
        np.array(table, np.float64).reshape(-1, len(_COLUMNS)),
        tuple(views),
    )


def _is_number(value: NDArray[np.generic]) -> bool:
    return bool(np.issubdtype(value.dtype, np.floating)) or value.dtype in (np.int8, np.uint8)


def _as_real(value: NDArray[np.generic]) -> NDArray[np.float32]:
    """8-bit weights without the zero point that is usual for their type."""
    return value.astype(np.float32) - np.float32(128.0 if value.dtype == np.uint8 else 0.0)


def _channels_first(value: NDArray[np.generic], format: str) -> NDArray[np.generic]:
    """(O, I, H, W) of a convolution; TensorFlow Lite keeps (O, H, W, I), and (1, H, W, C) of a depthwise one."""
    if format != Format.TFLITE or value.ndim != 4:
        return value
    return value.transpose(3, 0, 1, 2) if value.shape[0] == 1 else value.transpose(0, 3, 1, 2)


def _view(tensor: int, matrix: NDArray[np.float32], ordered: NDArray[np.float32]) -> View:
    length = np.sqrt(np.square(matrix, dtype=np.float64).sum(axis=1)).astype(np.float32)[:, None] + 1e-30
    rng = np.random.default_rng([_SEED, matrix.shape[1]])
    projected = (matrix / length) @ rng.standard_normal((matrix.shape[1], PROJECTED), np.float32)
    at = np.linspace(0, matrix.shape[1] - 1, QUANTILES)
    low = np.floor(at).astype(np.int64)
    high, share = np.minimum(low + 1, matrix.shape[1] - 1), (at - low).astype(np.float32)
    quantiles = ordered[:, low] * (1 - share) + ordered[:, high] * share
    quantiles = quantiles * (np.float32(matrix.shape[1] ** 0.5) / length)
    projected /= np.float32(PROJECTED**0.5)
    return View(tensor, matrix.shape[1], length[:, 0], projected, quantiles.astype(np.float32))


def _order_free(ordered: NDArray[np.float32]) -> bytes:
    """Digest of rows (R, C) of sorted values, in whatever order the rows come. -0.0 counts as 0.0."""
    plain = np.ascontiguousarray(ordered + np.float32(0.0))
    rows = sorted(hashlib.sha256(row.tobytes()).digest() for row in plain)
    return hashlib.sha256(b"".join(rows)).digest()


def _levels(ordered: NDArray[np.float32]) -> float:
    """How many steps of its finest gap a row spans, the largest of all rows (R, C) of sorted values."""
    if ordered.shape[1] < 2:
        return 0.0
    gaps = np.diff(ordered.astype(np.float64), axis=1)
    width = (ordered[:, -1] - ordered[:, 0]).astype(np.float64)
    smallest = np.where(gaps > 1e-6 * width[:, None], gaps, np.inf).min(axis=1)  # rounding of equal values is no gap
    return float((width / smallest).max() + 1.0) if len(ordered) else 0.0


def _printable(name: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in name[:NAME_BYTES])
    return shown or "?"
