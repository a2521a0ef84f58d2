"""What an executor is: it does the same work on many tasks, some at a time, and answers in the order of the tasks.

Every executor takes tasks as it needs them and holds a bounded number of them, however many there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Prepared(Protocol[R_co]):
    """A task that was begun."""

    def run(self) -> R_co:
        """Do it. Called once, in any thread."""
        ...

    def drop(self) -> None:
        """It will not be run: give back what it holds."""
        ...


class Work(ABC, Generic[T, R]):
    """What is done with every task. One per process; used from several threads. Use it as a context manager."""

    @abstractmethod
    def prepare(self, task: T) -> Prepared[R]:
        """Begin what can be done before the task's turn comes, and return at once."""

    @abstractmethod
    def close(self) -> None:
        """End everything at once; tasks that still run fail or are cut short."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Codec(ABC, Generic[T, R]):
    """Tasks and results as text, for executors whose work is done elsewhere. It can be pickled."""

    @abstractmethod
    def key(self, task: T) -> str:
        """What a task is called. Two tasks of one name are the same."""

    @abstractmethod
    def pack(self, task: T) -> str:
        """A task as text."""

    @abstractmethod
    def unpack(self, text: str) -> T:
        """The task of a text that `pack` made."""

    @abstractmethod
    def encode(self, result: R) -> str:
        """A result as text."""

    @abstractmethod
    def decode(self, task: T, text: str) -> R:
        """The result of a task, of a text that `encode` made."""


Ready = Callable[[T], R | None]  # the result of a task that needs no work, else None


class Executor(ABC):
    """One way to do the work."""

    name: str

    @abstractmethod
    def run(
        self, tasks: Iterable[T], make: Callable[[], Work[T, R]], codec: Codec[T, R], ready: Ready[T, R]
    ) -> Iterator[R]:
        """Results in the order of the tasks. Closing the generator ends the work.

        Args:
            tasks: taken as they are needed.
            make: makes the work; called once per process. It can be pickled.
            codec: tasks and results as text.
            ready: asked first, in the caller's thread.
        """
