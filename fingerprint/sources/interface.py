"""What a source is: a place where suspects come from, and what it says of each of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from fingerprint.frozen import dataclass

if TYPE_CHECKING:
    from fingerprint.model import InputSpec

INSIDE = "!/"  # between a container and the path inside it, as in a JAR URL
Seen: TypeAlias = Literal["opaque", "unreadable", "unsupported", "skipped"]


@dataclass(frozen=True)
class Finding:
    """Why a suspect that was found can't be examined: the status and the reason of its result."""

    status: Seen
    reason: str


@dataclass(frozen=True)
class Artifact:
    """A suspect, or a container of suspects. It can be pickled, so that another process may open it.

    Attributes:
        path: where it lies; of a split file the first piece. Not a file where `locator` is given.
        name: its provenance path, as reports show it: `app.apk!/assets/model.tflite`.
        kind: a `file` to examine, an `archive` to unpack, `pieces` of one file, or a `remote` folder to fetch.
        finding: why it can't be examined, known without opening it.
        pieces: all files of a split one, in order.
        locator: the kind of source that fetches it, a line feed, and what that needs for it.
        spec: how it wants its input, where the place says so; a sidecar or `--spec` wins.
        note: what the place says of it, for the reason of a result without a verdict.
        asked: the caller named it, so that it gives a result whatever it is.
    """

    path: Path
    name: str
    kind: Literal["file", "archive", "pieces", "remote"] = "file"
    finding: Finding | None = None
    pieces: tuple[Path, ...] = ()
    locator: str | None = None
    spec: InputSpec | None = None
    note: str = ""
    asked: bool = False


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
        """Everything there that is, claims to be, or may hold a model; found as it is asked for."""

    @classmethod
    def fetch(cls, locator: str, folder: Path) -> None:
        """Bring a `remote` artifact into an empty folder.

        Raises:
            UnreadableModel: it can't be had. MissingExtra: what fetches it is not installed.
        """
        raise NotImplementedError(f"{cls.name} has no remote artifacts: {locator} to {folder}")
