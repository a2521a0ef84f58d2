"""Files written whole or not at all, and read under a size limit."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fingerprint.errors import StoreError

TEMPORARY_PREFIX = ".tmp-"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def write_atomic(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` to `path`, mode 0600: after a crash the file is the old one or the new one, never a part.

    Raises:
        FileExistsError: `path` exists and `overwrite` is False.
        StoreError: no space, no permission, or the device failed. Nothing was changed.
    """
    temporary = path.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
    try:
        _write_new(temporary, data)
        _publish(temporary, path, overwrite=overwrite)
        sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> StoreError:
    """What a failed write means to a person."""
    if error.errno in _NO_SPACE:
        return StoreError(
            f"no space left to write {path}", remedy="Free some space and try again; nothing was lost or half-written."
        )
    return StoreError(
        f"can't write {path}: {error.strerror or error}", remedy="Check that the folder exists and that you may write."
    )


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike rename, fails where `path` exists
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from error
        temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def refuse_writable(path: Path, status: os.stat_result, mode: str) -> None:
    """Raise when a file or folder of ours can be changed by other users. `mode`: what it should be, for chmod.

    Raises:
        StoreError: it can.
    """
    if status.st_mode & 0o022 and status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX:
        raise StoreError(
            f"{path} can be changed by other users (mode {status.st_mode & 0o777:04o})",
            remedy=f"Run: chmod {mode} {path}",
        )


def private_folder(folder: Path) -> Path:
    """Create `folder` and its parents with mode 0700 where they are missing; leave existing ones alone.

    Raises:
        StoreError: it can't be created.
    """
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        for parent in reversed(missing):
            parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(parent.parent)
    except OSError as error:
        raise write_error(folder, error) from error
    if not folder.is_dir():
        raise StoreError(f"{folder} is not a folder")
    return folder


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Descriptor and status of a regular file.

    Raises:
        OSError: it does not exist, can't be read, or is a folder, pipe or device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield descriptor, status
    finally:
        os.close(descriptor)


def read_limited(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        OSError: as `open_regular`, or larger than `limit` (EFBIG).
    """
    with open_regular(path) as (descriptor, status):
        return read_descriptor(descriptor, status, limit)


def read_descriptor(descriptor: int, status: os.stat_result, limit: int) -> bytes:
    """All bytes of an open file of at most `limit` bytes.

    Raises:
        OSError: larger than `limit` (EFBIG), or the device failed.
    """
    with os.fdopen(os.dup(descriptor), "rb") as file:
        data = b"" if status.st_size > limit else file.read(limit + 1)
    if status.st_size > limit or len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit} bytes")
    return data
