"""One copy of a suspect file that nobody can change: what was hashed is what is loaded.

On Linux an anonymous file in memory, sealed against writing, growing and shrinking; elsewhere a private read-only file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from fingerprint.errors import UnreadableModel, UsageError
from fingerprint.limits import DEFAULT, Limits
from fingerprint.runtimes.formats import Format, describe, sniff

_BLOCK = 1 << 20  # bytes copied at a time
_HEAD = 16  # bytes shown of an unknown file


class SealedFile:
    """A sealed copy. Close it, or use it as a context manager.

    Attributes:
        sha256: hex digest of the content.
        size: bytes.
        format: told from the copy's content, None where unknown.
        fd: an open descriptor of the copy.
        location: the private file where there is one, None for a copy in memory.
        head: the first bytes.
    """

    def __init__(self, file: BinaryIO, location: Path | None, sha256: str, size: int, limits: Limits) -> None:
        self._file = file
        self.location = location
        self.sha256 = sha256
        self.size = size
        self.fd = file.fileno()
        file.seek(0)
        self.head = file.read(_HEAD)
        self.format: Format | None = sniff(file, limits)

    @classmethod
    def of(cls, path: str | os.PathLike[str], limits: Limits = DEFAULT, *, in_memory: bool = True) -> Self:
        """Copy a file once, hashing it on the way.

        Args:
            path: a regular file; links are followed.
            limits: `model_bytes` holds, also for a file that grows meanwhile.
            in_memory: use a sealed anonymous file where the system has them.

        Raises:
            UsageError: no such file, or not a regular one.
            UnreadableModel: past the size limit, or it can't be read.
        """
        source = _open_regular(Path(path), limits)
        try:
            sealed = in_memory and hasattr(os, "memfd_create")
            file, location = _anonymous() if sealed else _private()
            try:
                sha256, size = _copy(source, file, limits)
                _seal(file, location)
                return cls(file, location, sha256, size, limits)
            except BaseException:
                _discard(file, location)
                raise
        except OSError as error:
            raise UnreadableModel(f"it can't be read: {error.strerror or error}") from error
        finally:
            os.close(source)

    @property
    def path(self) -> Path:
        """Where this process can open the copy."""
        return self.location or Path(f"/proc/self/fd/{self.fd}")

    def describe(self) -> str:
        """What an unknown copy starts with."""
        return describe(self.head)

    def close(self) -> None:
        """Give the memory or the file back."""
        if not self._file.closed:
            _discard(self._file, self.location)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
