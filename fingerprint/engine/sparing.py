"""Leaving a core to the verifier while it starts.

A suspect that is opened ahead runs while the verifier is still importing, which takes one core. If a runtime's threads
took that one too, both would wait: the verifier for a core, and the runtime's other threads, spinning, for the one that
does not run. So such a suspect is opened in one thread less, and in all of them once it has worked for long enough that
they pay: little work is done by then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnsupportedModel
from fingerprint.model import Floats
from fingerprint.runtimes.interface import LoadedModel

_ENOUGH_S = 0.15  # seconds of work after which the verifier has started, and all cores are the suspect's


class SparingModel(LoadedModel):
    """A model that is opened again, in all threads, when it has worked for a while.

    Args:
        opened: in fewer threads.
        reopen: opens it in all threads.
    """

    def __init__(self, opened: LoadedModel, reopen: Callable[[], LoadedModel]) -> None:
        self._reopen: Callable[[], LoadedModel] | None = reopen
        self._spent, self._lock = 0.0, threading.Lock()
        self._take(opened)

    @property
    def sparing(self) -> bool:
        """Whether it still leaves a core to the verifier."""
        return self._reopen is not None

    def _take(self, opened: LoadedModel) -> None:
        self._opened: LoadedModel | None = opened
        self.signature, self.batch_range, self.own_batch = opened.signature, opened.batch_range, opened.own_batch
        self.concurrent, self.offloads = opened.concurrent, opened.offloads

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`. Raises what `reopen` raises."""
        with self._lock:  # batches may run at the same time
            if self._reopen is not None and self._spent > _ENOUGH_S:
                reopen, self._reopen = self._reopen, None
                self._opened = None  # not two of them in memory
                self._take(reopen())
            model = self._opened
        if model is None:
            raise UnsupportedModel("it could be opened once, and not again")
        started = time.perf_counter()
        try:
            return model.predict(batch)
        finally:
            self._spent += time.perf_counter() - started
