"""One share of the work: for job arrays on several machines, whose databases are merged afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeVar

from fingerprint.engine.executors.interface import Codec, Executor, Ready, Work
from fingerprint.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")


class ShardExecutor(Executor):
    """Gives the tasks of one share to another executor.

    The share of a task hangs on its name alone: every machine that sees the same names agrees, whatever else it sees.

    Args:
        inner: does the work.
        index: 1 to `count`.
        count: shares in all.
    """

    name = "shard"

    def __init__(self, inner: Executor, index: int, count: int) -> None:
        if not 1 <= index <= count:
            raise UsageError(f"the share {index}/{count} makes no sense", remedy="Give --shard 1/4, 2/4, 3/4, 4/4.")
        self.inner, self.index, self.count = inner, index, count

    @classmethod
    def parse(cls, text: str, inner: Executor) -> Self:
        """Read `I/N`. Raises UsageError."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise UsageError(f"--shard {text!r} is not I/N", remedy="For example: --shard 1/4")
        return cls(inner, int(index), int(count))

    def run(
        self, tasks: Iterable[T], make: Callable[[], Work[T, R]], codec: Codec[T, R], ready: Ready[T, R]
    ) -> Iterator[R]:
        """See `Executor.run`."""
        own = (task for task in tasks if share_of(codec.key(task), self.count) == self.index)
        yield from self.inner.run(own, make, codec, ready)


def share_of(key: str, count: int) -> int:
    """The share, 1 to `count`, of a task."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1
