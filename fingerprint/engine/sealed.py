"""One copy of a suspect that nobody can change: what was hashed is what is loaded.

On Linux an anonymous file in memory, sealed against writing, growing and shrinking; elsewhere a private read-only file.
A model in several files (`runtimes.parts`) has such a copy of each of them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from fingerprint.errors import UnreadableModel, UsageError
from fingerprint.frozen import dataclass
from fingerprint.limits import DEFAULT, Limits
from fingerprint.runtimes.formats import Format, describe, sniff
from fingerprint.runtimes.parts import companions, joint_sha256, main_file, main_part, package_part

_BLOCK = 1 << 20  # bytes copied at a time
_HEAD = 16  # bytes shown of an unknown file


@dataclass(frozen=True)
class SealedPart:
    """A copy of one file. `name` is neutral (`runtimes.parts`), empty where the model has no other part."""

    name: str
    file: BinaryIO
    location: Path | None
    sha256: str
    size: int

    @property
    def fd(self) -> int:
        """An open descriptor."""
        return self.file.fileno()

    def discard(self) -> None:
        """Give the memory or the file back."""
        if not self.file.closed:
            _discard(self.file, self.location)


class SealedFile:
    """A sealed copy. Close it, or use it as a context manager.

    Attributes:
        parts: one copy per file of the model, the main one first.
        sha256: hex digest of the content; of several parts as `runtimes.parts` says.
        size: bytes, of all parts.
        format: told from the main copy's content, None where unknown.
        fd: an open descriptor of the main copy.
        location: its private file where there is one, None for a copy in memory.
        head: its first bytes.
    """

    def __init__(self, parts: tuple[SealedPart, ...], format: Format | None) -> None:
        main, *others = parts
        self.parts = parts
        self.location, self.fd = main.location, main.fd
        self.sha256 = joint_sha256({part.name: part.sha256 for part in parts}) if others else main.sha256
        self.size = sum(part.size for part in parts)
        self.format = format
        main.file.seek(0)
        self.head = main.file.read(_HEAD)

    @classmethod
    def of(cls, path: str | os.PathLike[str], limits: Limits = DEFAULT, *, in_memory: bool = True) -> Self:
        """Copy a model once, hashing it on the way.

        Args:
            path: a regular file, or any part of a model in several files; links are followed.
            limits: `model_bytes` holds for the sum, also for a file that grows meanwhile.
            in_memory: use sealed anonymous files where the system has them.

        Raises:
            UsageError: no such file, or not a regular one.
            UnreadableModel: past the size limit, a part is missing, or it can't be read.
        """
        main = main_file(Path(path))
        parts: list[SealedPart] = []
        try:
            parts.append(_sealed(main, limits, in_memory))
            format = sniff(parts[0].file, limits)
            others = companions(main, format)
            if others:
                parts[0] = replace(parts[0], name=main_part(format) or package_part(main))
            for name, place in others.items():
                left = limits.model_bytes - sum(part.size for part in parts)
                parts.append(replace(_sealed(place, replace(limits, model_bytes=left), in_memory), name=name))
            return cls(tuple(parts), format)
        except BaseException as error:
            for part in parts:
                part.discard()
            if isinstance(error, OSError):
                raise UnreadableModel(f"it can't be read: {error.strerror or error}") from error
            raise

    @property
    def path(self) -> Path:
        """Where this process can open the main copy."""
        return self.location or Path(f"/proc/self/fd/{self.fd}")

    def describe(self) -> str:
        """What an unknown copy starts with."""
        return describe(self.head)

    def close(self) -> None:
        """Give the memory or the files back."""
        for part in self.parts:
            part.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sealed(path: Path, limits: Limits, in_memory: bool) -> SealedPart:
    """A copy of one file."""
    source = _open_regular(path, limits)
    try:
        file, location = _anonymous() if in_memory and hasattr(os, "memfd_create") else _private()
        try:
            sha256, size = _copy(source, file, limits)
            _seal(file, location)
            return SealedPart("", file, location, sha256, size)
        except BaseException:
            _discard(file, location)
            raise
    finally:
        os.close(source)


def _open_regular(path: Path, limits: Limits) -> int:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        source = os.open(path, flags)  # O_NONBLOCK: a named pipe must not hang us
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except OSError as error:
        raise UnreadableModel(f"it can't be opened: {error.strerror}") from error
    status = os.fstat(source)
    if not stat.S_ISREG(status.st_mode):
        os.close(source)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise UsageError(f"{path} is {what}; a model file is needed")
    if status.st_size > limits.model_bytes:
        os.close(source)
        raise UnreadableModel(f"it has {status.st_size} bytes, more than the limit of {limits.model_bytes}")
    return source


def _anonymous() -> tuple[BinaryIO, None]:
    fd = os.memfd_create("suspect", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    return os.fdopen(fd, "w+b", buffering=0), None


def _private() -> tuple[BinaryIO, Path]:
    import tempfile

    fd, name = tempfile.mkstemp(prefix="fingerprint-suspect-")  # 0600
    return os.fdopen(fd, "w+b", buffering=0), Path(name)


def _copy(source: int, target: BinaryIO, limits: Limits) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while block := os.read(source, _BLOCK):
        size += len(block)
        if size > limits.model_bytes:
            raise UnreadableModel(f"it grew past the limit of {limits.model_bytes} bytes while it was read")
        digest.update(block)
        view = memoryview(block)
        while view:
            view = view[target.write(view) :]
    return digest.hexdigest(), size


def _seal(file: BinaryIO, location: Path | None) -> None:
    if location is not None:
        location.chmod(0o400)
        return
    import fcntl

    fcntl.fcntl(
        file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    )


def _discard(file: BinaryIO, location: Path | None) -> None:
    file.close()
    if location is not None:
        location.unlink(missing_ok=True)
