"""Batch sizes that were found best, remembered between runs by (file, runtime, threads).

A lost or damaged memory costs a new search and nothing else: the sizes are bounded where they are used.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Protocol

LARGEST = 65_536  # inputs in a batch
MOST = 20_000  # sizes kept; the oldest go first


class BatchMemory(Protocol):
    """Where batch sizes are remembered."""

    def recall(self, key: str) -> int | None:
        """The size for a key, or None."""
        ...

    def keep(self, key: str, size: int) -> None:
        """Remember a size."""
        ...

    def flush(self) -> None:
        """Nothing more will be remembered for now."""
        ...


class BatchFile:
    """A JSON file, read when first asked and written by `flush`. Several processes may share it; the last one wins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sizes: dict[str, int] | None = None
        self._changed = False
        self._lock = threading.Lock()

    def recall(self, key: str) -> int | None:
        """See `BatchMemory.recall`."""
        with self._lock:
            return self._read().get(key)

    def keep(self, key: str, size: int) -> None:
        """See `BatchMemory.keep`."""
        with self._lock:
            sizes = self._read()
            if sizes.get(key) != size and 0 < size <= LARGEST:
                sizes.pop(key, None)
                sizes[key] = size
                self._changed = True

    def flush(self) -> None:
        """See `BatchMemory.flush`: write what changed. A memory that can't be written is no reason to fail."""
        with self._lock:
            if not self._changed or self._sizes is None:
                return
            self._changed = False
            kept = dict(list(self._sizes.items())[-MOST:])
            spare = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                spare.write_text(json.dumps(kept))
                spare.replace(self._path)

    def _read(self) -> dict[str, int]:
        if self._sizes is None:
            self._sizes = {}
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(self._path.read_text())
                if isinstance(found, dict):
                    self._sizes = {
                        str(key): size for key, size in found.items() if type(size) is int and 0 < size <= LARGEST
                    }
        return self._sizes
