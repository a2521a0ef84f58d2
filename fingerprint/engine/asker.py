"""One batch after another: adapted, padded, answered, shaped.

On the CPU, adapting takes its time from the model. Where the model computes elsewhere, the next batch is adapted in a
second thread meanwhile (numpy lets go of the interpreter while it looks up).
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fingerprint.engine.adapt import Adapter
from fingerprint.errors import DegenerateModel, UnsupportedModel
from fingerprint.model import Floats, Images
from fingerprint.runtimes.interface import LoadedModel

Batch = NDArray[np.generic]


class WrongBatch(DegenerateModel):
    """A model that leaves its batch open answered for another number of inputs than it was given."""


class Asker:
    """Asks one model; reuses the memory of its inputs. Use it as a context manager where batches follow each other."""

    def __init__(self, loaded: LoadedModel, adapter: Adapter) -> None:
        self._loaded, self._adapter = loaded, adapter
        self._buffers: list[Batch | None] = [None, None]  # one is filled while the other is answered
        self._turn = 0
        self._ahead: tuple[Images, Future[Batch]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapt") if loaded.offloads else None

    def __call__(self, images: Images, following: Images | None = None) -> Floats:
        """Answers (B, K) to images (B, H, W, C).

        Args:
            images: one batch.
            following: the next batch, if it is known; it may be adapted while this one is answered.

        Raises:
            WrongBatch, DegenerateModel, UnsupportedModel, MemoryError.
        """
        batch = self._taken(images)
        if following is not None and self._thread is not None:
            self._turn = 1 - self._turn
            self._ahead = following, self._thread.submit(self._adapted, following, self._turn)
        rows = self._loaded.predict(batch)
        return vectors(rows, len(batch))[: len(images)]

    def _taken(self, images: Images) -> Batch:
        """The adapted batch: the one that was begun ahead, if these are its images."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            batch = ahead[1].result()
            if _same(ahead[0], images):
                return batch
        return self._adapted(images, self._turn)

    def _adapted(self, images: Images, turn: int) -> Batch:
        size = self._loaded.signature.batch or max(len(images), self._loaded.batch_range[0])
        shape, buffer = (size, *self._adapter.spec.shape), self._buffers[turn]
        if buffer is None or buffer.shape != shape:
            self._buffers[turn] = buffer = np.empty(shape, self._adapter.dtype)
        self._adapter(images, buffer[: len(images)])
        buffer[len(images) :] = buffer[len(images) - 1]  # what a fixed batch lacks
        return buffer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown()


def _same(one: Images, other: Images) -> bool:
    """Whether two views show the same images."""
    first, second = (view.__array_interface__["data"] for view in (one, other))
    return one.shape == other.shape and first == second


def vectors(rows: Floats, expected: int) -> Floats:
    """(B, K) of what the model answered for B inputs."""
    if rows.ndim < 1 or rows.shape[0] != expected:
        raise WrongBatch(f"it answers an array of shape {rows.shape} for {expected} inputs")
    if 0 in rows.shape[1:]:
        raise DegenerateModel("it answers no numbers at all (zero classes)")
    if sum(size > 1 for size in rows.shape[1:]) != 1:
        what = "one number" if rows.size == rows.shape[0] else f"an array of shape {rows.shape[1:]}"
        raise UnsupportedModel(
            f"it answers {what} per input; only classifiers, with one score per class, can be compared"
        )
    return rows.reshape(rows.shape[0], -1)
