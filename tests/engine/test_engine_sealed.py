"""The sealed copy: what was hashed is what is loaded, and nobody can change it."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fingerprint.engine.sealed import SealedFile
from fingerprint.errors import UnreadableModel, UsageError
from fingerprint.limits import DEFAULT

BOTH = pytest.mark.parametrize("in_memory", [True, False])


@BOTH
def test_copy_and_digest(files: dict[str, Path], in_memory: bool) -> None:
    content = files["onnx"].read_bytes()
    with SealedFile.of(files["onnx"], in_memory=in_memory) as sealed:
        assert sealed.sha256 == hashlib.sha256(content).hexdigest()
        assert sealed.size == len(content) and sealed.format == "onnx"
        assert sealed.path.read_bytes() == content
    with pytest.raises(OSError):
        os.fstat(sealed.fd)
    sealed.close()


def test_changing_the_source_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"first")
    with SealedFile.of(path) as sealed:
        path.write_bytes(b"other")
        assert sealed.path.read_bytes() == b"first"


def test_nobody_can_write(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"content")
    with SealedFile.of(tmp_path / "m") as sealed:
        with pytest.raises(PermissionError):
            os.pwrite(sealed.fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(sealed.fd, 0)
        with pytest.raises(PermissionError), sealed.path.open("r+b") as file:
            file.write(b"x")
            file.flush()


def test_private_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"content")
    with SealedFile.of(tmp_path / "m", in_memory=False) as sealed:
        assert sealed.location is not None
        assert sealed.location.stat().st_mode & 0o777 == 0o400
    assert not sealed.location.exists()


@BOTH
def test_limits(tmp_path: Path, in_memory: bool) -> None:
    (tmp_path / "m").write_bytes(bytes(100))
    with pytest.raises(UnreadableModel, match="more than the limit"):
        SealedFile.of(tmp_path / "m", replace(DEFAULT, model_bytes=99), in_memory=in_memory)
    with SealedFile.of(tmp_path / "m", replace(DEFAULT, model_bytes=100), in_memory=in_memory) as sealed:
        assert sealed.format is None and "00 00" in sealed.describe()


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    with SealedFile.of(tmp_path / "m") as sealed:
        assert sealed.size == 0 and sealed.format is None


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path, "a folder"),
        (tmp_path / "pipe", "no regular file"),
        ("/dev/zero", "no regular file"),
    ):
        with pytest.raises(UsageError, match=words):
            SealedFile.of(path)
    with pytest.raises(UsageError, match="no such file"):
        SealedFile.of(tmp_path / "absent")


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    with SealedFile.of(tmp_path / "link") as sealed:
        assert sealed.size == 7


def test_descriptors_do_not_leak(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"PK\3\4 cut")
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        SealedFile.of(tmp_path / "m").close()
        with pytest.raises(UnreadableModel):
            SealedFile.of(tmp_path / "m", replace(DEFAULT, model_bytes=3))
    assert sorted(Path("/proc/self/fd").iterdir())[:-1] == before[:-1]
