"""Files are written whole or not at all, and read under a limit."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fingerprint.errors import StoreError
from store.files import private_folder, read_limited, write_atomic


def test_writes_with_mode_0600_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_refuses_to_overwrite_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one", overwrite=False)
    with pytest.raises(FileExistsError):
        write_atomic(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("exists", [False, True])
def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("store.files.os.link", refuse)
    path = tmp_path / "file"
    if exists:
        path.write_bytes(b"one")
        with pytest.raises(FileExistsError):
            write_atomic(path, b"two", overwrite=False)
        assert path.read_bytes() == b"one"
    else:
        write_atomic(path, b"two", overwrite=False)
        assert path.read_bytes() == b"two"


@pytest.mark.parametrize(
    ("function", "number"), [("write", errno.ENOSPC), ("fsync", errno.EDQUOT), ("fsync", errno.EIO)]
)
def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"store.files.os.{function}", fail)
    with pytest.raises(StoreError) as caught:
        write_atomic(path, b"new")
    assert ("no space" in caught.value.message) == (number != errno.EIO)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_partial_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("store.files.os.write", lambda descriptor, data: write(descriptor, data[:3]))
    write_atomic(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_missing_folder_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't write"):
        write_atomic(tmp_path / "absent" / "file", b"x")


def test_read_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than the limit"):
        read_limited(path, 4)


def test_reads_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(OSError, match="not a regular file"):
            read_limited(tmp_path / name, 10)


def test_private_folder_keeps_existing_modes(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = private_folder(tmp_path / "a" / "b")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (folder, folder.parent, tmp_path)] == [0o700, 0o700, 0o755]
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        private_folder(tmp_path / "file" / "below")
    with pytest.raises(StoreError, match="not a folder"):
        private_folder(tmp_path / "file")
