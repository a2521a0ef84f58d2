"""What a source is: a place where suspects come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Artifact:
    """A file to audit. `name` is its provenance path, as reports show it."""

    path: Path
    name: str


class Source(ABC):
    """One kind of place."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def accepts(cls, location: str) -> bool:
        """Whether this kind of source can read the location."""

    @abstractmethod
    def __init__(self, location: str) -> None:
        """Bind to a location. Raises UsageError where it can't be read."""

    @abstractmethod
    def artifacts(self) -> Iterator[Artifact]:
        """Everything there that is, or claims to be, a model."""
