"""Work that a worker does while nobody has asked it anything yet: the first batches, and the search for their size.

A suspect that was opened ahead waits for the verifier to read its records. The inputs are noise: nothing is learned of
its answers, and what goes wrong will go wrong again when it is asked. They differ, so that a file whose batch is
resized shows whether it mixes the images of a batch (`runtimes.resizing`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from fingerprint.engine.batching import BatchTuner
from fingerprint.runtimes.interface import LoadedModel

_MOST_INPUTS = 128
_SOON_S = 0.005  # a question that was ready before the file was open comes within this time
_MOST_S = 0.1  # a batch that takes longer ends it: a request must not have to wait
_WORTH_S = 0.1  # a model that answers all those inputs faster gains nothing, and would take the verifier's cores


def warm_up(loaded: LoadedModel, tuner: BatchTuner, wanted: Callable[[float], bool]) -> None:
    """Run batches of noise until the batch size is settled or a request is there: `wanted(s)` waits so long for one."""
    shape, dtype = loaded.signature.shape, np.dtype(loaded.signature.dtype)
    sizes = [size for size in shape[1:] if size]
    if len(sizes) != 3 or len(shape) != 4 or wanted(_SOON_S):  # importing NumPy's generators takes longer
        return
    rng = np.random.default_rng(0)
    search, asked = tuner.search(loaded, math.prod(sizes) * dtype.itemsize), 0
    while asked + search.size <= _MOST_INPUTS and not (asked and search.settled) and not wanted(0.0):
        count = search.size
        batch = (rng.random((count, *sizes), np.float32) * (1 if dtype.kind == "f" else 127)).astype(dtype)
        started = time.perf_counter()
        loaded.predict(batch)
        spent = time.perf_counter() - started
        search.record(count, spent)
        asked += count
        if spent > _MOST_S or spent * _MOST_INPUTS < _WORTH_S * count:
            return
