"""Threads of this process; each has the suspects of its tasks opened in processes of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from fingerprint.engine.executors.interface import Codec, Executor, Prepared, Ready, Work

T = TypeVar("T")
R = TypeVar("R")
_WAITING = 256  # results that wait for an earlier one at most


class LocalExecutor(Executor):
    """As many tasks at a time as there are workers, and as many prepared behind them.

    Args:
        workers: threads.
    """

    name = "local"

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(
        self, tasks: Iterable[T], make: Callable[[], Work[T, R]], codec: Codec[T, R], ready: Ready[T, R]
    ) -> Iterator[R]:
        """See `Executor.run`. The next task is taken when a result is asked for and there is room."""
        del codec
        pending: deque[_Done[R] | _Running[R]] = deque()
        running: list[_Running[R]] = []
        work, coming = make(), iter(tasks)
        threads = ThreadPoolExecutor(self.workers, thread_name_prefix="audit")
        try:
            more = True
            while more or pending:
                while more and len(pending) < _WAITING:
                    running = [one for one in running if not one.done()]
                    if len(running) >= 2 * self.workers:
                        break
                    task = next(coming, _END)
                    if isinstance(task, _End):
                        more = False
                        break
                    known = ready(task)
                    if known is not None:
                        pending.append(_Done(known))
                        continue
                    running.append(_Running(threads, work.prepare(task)))
                    pending.append(running[-1])
                if pending:
                    yield pending.popleft().result()
        finally:
            for one in pending:
                one.drop()
            work.close()  # first, so that what runs ends now
            threads.shutdown(wait=True, cancel_futures=True)


class _End:
    """No task."""


_END = _End()


class _Done(Generic[R]):
    """A result that was ready."""

    def __init__(self, value: R) -> None:
        self._value = value

    def result(self) -> R:
        """It."""
        return self._value

    def drop(self) -> None:
        """Nothing is held."""


class _Running(Generic[R]):
    """A task that waits for a thread, or has one."""

    def __init__(self, threads: ThreadPoolExecutor, prepared: Prepared[R]) -> None:
        self._prepared = prepared
        self._future: Future[R] = threads.submit(prepared.run)

    def result(self) -> R:
        """Wait for it."""
        return self._future.result()

    def done(self) -> bool:
        """Whether there is no need to wait."""
        return self._future.done()

    def drop(self) -> None:
        """Take it from the threads if none has it."""
        if self._future.cancel():
            self._prepared.drop()
