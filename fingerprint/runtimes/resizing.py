"""Files that were converted for one batch size, and may bear others.

A file can be resized without an error and still mix the images of a batch (a slice that ends at 1 is broadcast to the
others), so the first resized answer is compared with an answer of the file's own size. Inputs that get one answer, as
blank ones do, prove nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnsupportedModel
from fingerprint.model import Floats
from fingerprint.runtimes.interface import LoadedModel

AGREE = 1e-3  # largest difference between a resized answer and the file's own, relative to the largest output


class ResizingModel(LoadedModel):
    """A model that takes batches of any size; in pieces of `own_batch` where the file does not bear another.

    `own_batch` is the size that the file names; None: it leaves it open, and no proof is needed.
    """

    output_step = 0.0  # between neighbouring values of a quantized output
    _bears = True  # other sizes, as far as is known
    _proven = False

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        if self.own_batch is None or self._proven or len(batch) == self.own_batch:
            return self._run(batch)
        if self._bears:
            answer = self._resized(batch, self.own_batch)
            if answer is not None:
                return answer
        parts = [self._run(part) for part in pieces(batch, self.own_batch)]
        return np.concatenate(parts)[: len(batch)]

    @abstractmethod
    def _run(self, batch: NDArray[np.generic]) -> Floats:
        """Answer a batch as it is. Raises UnsupportedModel where this size does not run."""

    @abstractmethod
    def _give_up_resizing(self) -> None:
        """Go back to the file's own size; `_run` is given no other from now on."""

    def _agree(self, found: Floats, expected: Floats) -> bool:
        """Equal up to rounding: `output_step` is that of a quantized output."""
        slack = max(2.0 * self.output_step, AGREE * (1.0 + float(np.abs(expected).max(initial=0.0))))
        return found.shape == expected.shape and bool((np.abs(found - expected) <= slack).all())

    def _resized(self, batch: NDArray[np.generic], own: int) -> Floats | None:
        """The answer to a batch of another size, or None where the file does not bear it."""
        try:
            witness = self._run(next(pieces(batch[-1:], own)))[:1]
            answer = self._run(batch)
            if len(answer) == len(batch) and self._agree(answer[-1:], witness):
                self._proven = not self._agree(answer, np.repeat(witness, len(answer), axis=0))
                return answer
        except UnsupportedModel:
            pass
        self._bears = False
        self._give_up_resizing()
        return None


def pieces(batch: NDArray[np.generic], size: int) -> Iterator[NDArray[np.generic]]:
    """Pieces of exactly `size`; the last one is filled up with its last image."""
    for start in range(0, len(batch), size):
        part = batch[start : start + size]
        missing = size - len(part)
        yield np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part


def one_line(error: BaseException) -> str:
    """What an error of a runtime says, in one printable line."""
    text = " ".join(str(error).split())[:300]
    return "".join(c if c.isprintable() else "?" for c in text) or type(error).__name__
