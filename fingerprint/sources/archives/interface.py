"""What an archive is to the unpacker: members in order, each with a stream of its bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fingerprint.frozen import dataclass
from fingerprint.limits import Limits


@dataclass(frozen=True)
class Member:
    """A regular file in an archive. `content` is None where it is encrypted or packed in a way that is not read.

    `refused` says so in words; `encrypted` which of the two. A stream is good until the next member is asked for.
    """

    name: str
    content: IO[bytes] | None
    refused: str = ""
    encrypted: bool = False


class Archive(ABC):
    """An opened archive. Use it as a context manager."""

    @abstractmethod
    def __init__(self, path: Path, limits: Limits) -> None:
        """Open it. Raises UnreadableModel."""

    @abstractmethod
    def members(self) -> Iterator[Member]:
        """Regular files in the archive's order. Folders, links and devices are passed over.

        Raises:
            UnreadableModel: damaged, or past a limit.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file."""
