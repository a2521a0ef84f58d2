"""Ask a model for its answers, in batches whose size is found by timing the real work.

No pass is made for timing alone: the search runs on the inputs that must be answered anyway, and what it found is kept
for the next call.
"""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from fingerprint.engine.adapt import Adapter
from fingerprint.engine.asker import Asker, WrongBatch, vectors
from fingerprint.errors import DegenerateModel, UnsupportedModel
from fingerprint.limits import GIB, MIB
from fingerprint.model import Floats, Images
from fingerprint.runtimes.interface import LoadedModel

_FIRST_BYTES = 1 * MIB  # adapted inputs in the first batch
_FIRST = (4, 32)  # least and most inputs in the first batch
_MOST_BYTES = 64 * MIB  # adapted inputs in any batch
_MOST_GROWTH = 1 * GIB  # memory that larger batches may take beyond the first one's
_GAIN = 1.02  # a larger batch is better if it is faster per input by this factor
_LOSS = 0.95  # the search goes on while a doubled batch is not slower per input than this share of the best,
_AGAIN = 0.8  # and times it again, once, above this share: the first batch of a size pays for its memory
_CHEAP_S = 0.02  # or however slow it looked, if it took no longer than this
_WORTH_S = 0.15  # seconds of work below which no other batch is set up for a file that was converted for one, all told
_DISTINCT = 8  # different inputs after which equal answers are called constant


@dataclass
class _Search:
    """One model's search: double while it does not cost; many small gains add up. Where none gains: halve."""

    size: int  # that the next batch should have
    most: int
    least: int = 1
    fixed: bool = False
    best: int = 0
    best_rate: float = 0.0  # inputs per second
    cold: bool = True  # the first batch pays for memory and code that later ones reuse
    settled: bool = False
    again: bool = False  # this size was timed once and looked slow
    first: int = 0  # the size that was timed first
    down: bool = False  # smaller ones than the first are tried
    memory: int = 0  # resident bytes after the first batch
    rests: dict[int, int] = field(default_factory=dict)  # sizes between the best and the next one: how often tried
    even: int = 0  # size of the equal parts that a call was last divided into
    own_s: float = 0.0  # seconds spent in batches of the size that the file was converted for

    def tries_whole(self, remaining: int) -> bool:
        """Whether a call that holds too little for the size to be tried next should be tried in one batch.

        Twice: the first batch of a size pays for its memory.
        """
        between = not self.settled and self.best < remaining < self.size
        return between and self.best > 0 and self.rests.get(remaining, 0) < 2

    def record(self, count: int, seconds: float) -> None:
        """Learn from one batch. Smaller batches than the best so far (the last one of a call) say nothing."""
        if self.settled:
            return
        if count != self.size:
            if self.tries_whole(count):
                self.rests[count] = self.rests.get(count, 0) + 1
                rate = count / max(seconds, 1e-9)
                if rate > self.best_rate * _GAIN:
                    self.best, self.best_rate = count, rate
            return
        if self.cold:
            self.cold, self.memory = False, resident_bytes()
            return
        rate = count / max(seconds, 1e-9)
        self.first = self.first or count
        near = rate > self.best_rate * _LOSS
        slow = rate <= self.best_rate * _AGAIN
        cheap = seconds < _CHEAP_S
        if rate > self.best_rate * _GAIN:
            self.best, self.best_rate = count, rate
        if not near and not self.again and (self.down or cheap or not slow):
            self.again = True
            return
        self.again = False
        if self.down:
            self._halve(count, go_on=not slow)
            return
        room = 2 * (resident_bytes() - self.memory) < _MOST_GROWTH
        if near and room and 2 * count <= self.most:
            self.size = 2 * count
        else:
            self.down = True
            self._halve(count, go_on=self.best == self.first)

    def _halve(self, count: int, *, go_on: bool) -> None:
        """Try half as many; from the first size on if `count` was the last that was tried upwards."""
        half = min(count, self.first) // 2
        if go_on and half >= self.least:
            self.size = half
        else:
            self.size, self.settled = self.best, True

    def smaller(self, failed: int, *, one: bool) -> bool:
        """After a batch of `failed` inputs: try half as many, or one by one. False where that can't help."""
        if self.fixed or failed <= self.least:
            return False
        self.most = self.least if one else max(self.least, failed // 2)
        self.size = self.best = self.most
        self.settled = True
        return True


@dataclass
class BatchTuner:
    """Remembers the best batch size of each loaded model. Pass the same one again to skip the search.

    known: what an earlier process found best for the one model that this tuner will see.
    """

    most_bytes: int = _MOST_BYTES
    known: int | None = None
    _searches: WeakKeyDictionary[LoadedModel, _Search] = field(default_factory=WeakKeyDictionary)

    def search(self, loaded: LoadedModel, input_bytes: int) -> _Search:
        """The search of this model, begun if there is none."""
        found = self._searches.get(loaded)
        if found is None:
            low, high = loaded.batch_range
            fixed = loaded.signature.batch or (low if low == high else None)
            most = max(low, min(high or self.most_bytes, self.most_bytes // input_bytes))
            first = min(most, max(low, min(_FIRST[1], max(_FIRST[0], _FIRST_BYTES // input_bytes))))
            found = _Search(fixed or first, fixed or most, low, fixed is not None, settled=fixed is not None)
            if self.known is not None and fixed is None:
                found.size = found.best = max(low, min(most, self.known))
                found.settled = True
            self._searches[loaded] = found
        return found

    def found(self, loaded: LoadedModel) -> int | None:
        """The size that the search of this model ended with; None while it goes on, or where the file fixes it."""
        search = self._searches.get(loaded)
        return search.best if search is not None and search.settled and not search.fixed else None


def answer(loaded: LoadedModel, adapter: Adapter, images: Images, tuner: BatchTuner | None = None) -> Floats:
    """All answers of a model, checked.

    Args:
        loaded: an opened model.
        adapter: for this model and the caller's spec.
        images: (N, H, W, C) canonical 8-bit images.
        tuner: keeps the batch size between calls.

    Returns:
        float32 (N, K), K >= 2.

    Raises:
        DegenerateModel: not finite, of changing or no width, or the same for all of at least 8 different inputs.
        UnsupportedModel: the answers are maps or single numbers, not one vector per input.
    """
    search = (tuner or BatchTuner()).search(loaded, adapter.input_bytes)
    if search.fixed and loaded.concurrent > 1 and len(images) > search.size:
        return check_answers(_several_at_a_time(loaded, adapter, search, images), images)
    if loaded.own_batch is not None and not search.settled and search.own_s < _WORTH_S:
        whole = _at_own_size(loaded, adapter, images, loaded.own_batch, search)
        if whole is not None:
            return check_answers(whole, images)
    with Asker(loaded, adapter) as asked:
        return check_answers(_batch_by_batch(asked, search, images), images)


def _batch_by_batch(asked: Asker, search: _Search, images: Images) -> Floats:
    outputs: Floats | None = None
    done = 0
    while done < len(images):
        part = images[done : done + _next_size(search, len(images) - done)]
        left = images[done + len(part) :]
        following = left[: _next_size(search, len(left))] if search.settled and len(left) else None
        started = time.perf_counter()
        try:
            rows = asked(part, following)
        except (MemoryError, UnsupportedModel, WrongBatch) as error:
            if not search.smaller(len(part), one=not isinstance(error, MemoryError)):
                raise
            continue
        search.record(len(part), time.perf_counter() - started)
        if outputs is None:
            outputs = np.empty((len(images), rows.shape[1]), np.float32)
        if rows.shape[1] != outputs.shape[1]:
            raise DegenerateModel(f"its answers change width from {outputs.shape[1]} to {rows.shape[1]}")
        outputs[done : done + len(part)] = rows
        done += len(part)
    return np.empty((0, 0), np.float32) if outputs is None else outputs


def _at_own_size(loaded: LoadedModel, adapter: Adapter, images: Images, own: int, search: _Search) -> Floats | None:
    """All answers in the batch that the file was converted for, if setting up another would not pay; else None.

    What was spent so is added up: a file that is asked again and again is worth the search.
    """
    if len(images) <= 2 * own:
        return None
    begun = time.perf_counter()
    cold = _in_pieces(loaded, adapter, images[:own], own)
    started = time.perf_counter()
    warm = _in_pieces(loaded, adapter, images[own : 2 * own], own)
    left = (time.perf_counter() - started) * (len(images) / own - 2)
    if left > _WORTH_S:
        return None
    parts = [cold, warm, _in_pieces(loaded, adapter, images[2 * own :], own)]
    if len({part.shape[1] for part in parts}) != 1:
        raise DegenerateModel("its answers change width")
    search.own_s += time.perf_counter() - begun
    return np.concatenate(parts)


def _in_pieces(loaded: LoadedModel, adapter: Adapter, images: Images, own: int) -> Floats:
    """Answers in batches of `own`; inputs are adapted in larger blocks, for each call has its price."""
    found = []
    block = own * max(1, _FIRST[1] // own)
    for start in range(0, len(images), block):
        adapted = adapter(images[start : start + block])
        missing = -len(adapted) % own
        if missing:
            adapted = np.concatenate([adapted, np.repeat(adapted[-1:], missing, axis=0)])
        found += [vectors(loaded.predict(adapted[i : i + own]), own) for i in range(0, len(adapted), own)]
    if len({rows.shape[1] for rows in found}) != 1:
        raise DegenerateModel("its answers change width")
    return np.concatenate(found)[: len(images)]


def _several_at_a_time(loaded: LoadedModel, adapter: Adapter, search: _Search, images: Images) -> Floats:
    """A file of a fixed batch: its batches are too small to fill the cores, so several run at a time."""
    batches = math.ceil(len(images) / search.size)
    share = search.size * math.ceil(batches / loaded.concurrent)  # whole batches for each thread

    def work(start: int) -> list[Floats]:
        asked = Asker(loaded, adapter)
        ends = range(start, min(start + share, len(images)), search.size)
        return [asked(images[i : min(i + search.size, start + share)]) for i in ends]

    with ThreadPoolExecutor(loaded.concurrent, thread_name_prefix="batch") as executor:
        parts = [rows for found in executor.map(work, range(0, len(images), share)) for rows in found]
    widths = {rows.shape[1] for rows in parts}
    if len(widths) != 1:
        raise DegenerateModel(f"its answers change width from {min(widths)} to {max(widths)}")
    return np.concatenate(parts)


def check_answers(outputs: Floats, images: Images) -> Floats:
    """Refuse nonsense.

    Raises:
        DegenerateModel: see `answer`.
    """
    if not np.isfinite(outputs).all():
        bad = int((~np.isfinite(outputs).all(axis=1)).sum())
        raise DegenerateModel(f"it answers NaN or infinity for {bad} of {len(outputs)} inputs")
    constant = len(outputs) >= _DISTINCT and bool((outputs == outputs[0]).all())
    if constant and len({image.tobytes() for image in images}) >= _DISTINCT:
        raise DegenerateModel("its answers do not depend on the input")
    return outputs


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _next_size(search: _Search, remaining: int) -> int:
    """Inputs in the next batch: while searching, a size that can be timed; else equal parts, so that shapes repeat."""
    if not search.settled and search.size <= remaining:
        return search.size
    if search.tries_whole(remaining):
        return remaining
    best = search.best or search.size
    parts = max(1, round(remaining / best), math.ceil(remaining / search.most))
    if search.fixed:
        return math.ceil(remaining / parts)
    even = [remaining // n for n in (parts, parts + 1, parts - 1) if n and remaining % n == 0]
    if search.even and remaining % search.even == 0:
        even.insert(0, search.even)
    for size in even:  # a runtime that is set up anew for another shape is not, between equals
        if best <= 2 * size and size <= min(search.most, 2 * best):
            search.even = size
            return size
    return math.ceil(remaining / parts)
