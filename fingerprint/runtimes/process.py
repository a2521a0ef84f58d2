"""What runtimes need of the process that they run in: how many cores, silence, a file under another name."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what native code writes to stdout and stderr while a model is made, also what it still buffers.

    The descriptors of the whole process are redirected meanwhile: not for two threads at once.
    """
    _flush()
    kept: dict[int, int] = {}
    try:
        with suppress(OSError):  # a stream that is closed needs no silence
            for stream in (1, 2):
                kept[stream] = os.dup(stream)
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in kept:
            os.dup2(null, stream)
        os.close(null)
        yield
    finally:
        _flush()
        for stream, copy in kept.items():
            os.dup2(copy, stream)
            os.close(copy)


@contextmanager
def called(path: Path, name: str) -> Iterator[Path]:
    """A link to a file under this name, for packages that look at the suffix."""
    with tempfile.TemporaryDirectory(prefix="fingerprint-") as folder:
        link = Path(folder) / name
        link.symlink_to(path.absolute())
        yield link


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.flush()
    with suppress(OSError, AttributeError, TypeError):  # no C library to be found
        ctypes.CDLL(None).fflush(None)
