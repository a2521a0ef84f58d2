"""Unpack what may matter into a folder of our own, under limits: nothing an archive says decides where a byte lands.

Members keep their folders, so that sidecars and models in several files stay together; a name that would lead outside,
or that the file system can't hold, is replaced, and the report shows it as the archive spells it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fingerprint.errors import UnreadableModel
from fingerprint.limits import MIB, Limits
from fingerprint.runtimes.formats import Format
from fingerprint.sources.archives.compressed import DAMAGE as STREAM_DAMAGE
from fingerprint.sources.archives.compressed import StreamArchive
from fingerprint.sources.archives.interface import Archive, Member
from fingerprint.sources.archives.zip import DAMAGE, ZipArchive
from fingerprint.sources.claims import claims_to_be_model
from fingerprint.sources.interface import Finding

ARCHIVES = {Format.ZIP, Format.APK, Format.IPA, Format.ARCHIVE}
_HEAD = 4096  # bytes of a member that are read before it is known whether the rest is wanted
_BLOCK = 1 << 20
_FREE = 64 * MIB  # unpacked bytes before the ratio counts
_LONGEST_PART = 200  # bytes of one part of a path
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_NO_MODEL: tuple[tuple[int, bytes], ...] = (  # what an app is full of, and is no model whatever it is called
    (0, b"\x89PNG\r\n"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (8, b"WEBP"), (0, b"dex\n"), (0, b"\xca\xfe\xba\xbe"),
    (0, b"OggS"), (4, b"ftyp"), (0, b"%PDF-"), (0, b"OTTO"), (0, b"wOFF"), (0, b"wOF2"), (0, b"\x00\x01\x00\x00\x00"),
    (0, b"\x03\x00\x08\x00"), (0, b"\x02\x00\x0c\x00"),
)  # fmt: skip


class Unpacker:
    """Unpacks one container and all that is nested in it; what it writes counts against one allowance.

    Args:
        limits: `archive_bytes`, `archive_members`, `archive_ratio`, `model_bytes`, `member_name_bytes`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._members, self._bytes, self._packed = 0, 0, 0

    def unpack(self, archive: Path, into: Path) -> tuple[dict[str, str], list[tuple[str, Finding]]]:
        """Unpack an archive.

        Returns:
            Path below `into` -> the member's own name where they differ; and what could not be unpacked, and why.

        Raises:
            UnreadableModel: it can't be opened at all. MissingExtra.
        """
        self._packed += archive.stat().st_size
        renamed: dict[str, str] = {}
        left: list[tuple[str, Finding]] = []
        opened = _open(archive, self._limits)
        try:
            for member in opened.members():
                self._member(member, into, renamed, left)
        except UnreadableModel as error:
            left.append(("", Finding("unreadable", f"{error.message}; what follows was not looked at.")))
        finally:
            opened.close()
        return renamed, left

    def _member(self, member: Member, into: Path, renamed: dict[str, str], left: list[tuple[str, Finding]]) -> None:
        self._members += 1
        if self._members > self._limits.archive_members:
            raise UnreadableModel(f"it holds more than {self._limits.archive_members} files")
        if member.content is None:
            if member.encrypted or claims_to_be_model(member.name):
                status = "opaque" if member.encrypted else "unsupported"
                left.append((member.name, Finding(status, _sentence(member.refused))))  # type: ignore[arg-type]
            return
        try:
            head = _read(member.content, _HEAD)
            if _no_model(head):
                return
            target, name = _place(into, member.name, self._members, self._limits)
            if name != member.name or str(target.relative_to(into)) != member.name:
                renamed[str(target.relative_to(into))] = member.name
            self._write(head, member.content, target)
        except (*DAMAGE, *STREAM_DAMAGE) as error:
            if not isinstance(error, OSError) or error.errno is None:
                left.append((member.name, Finding("unreadable", f"It is damaged in the archive: {error}.")))
                return
            raise UnreadableModel(f"it can't be unpacked: {error.strerror}") from error
        except _TooLarge as error:
            left.append((member.name, Finding("unreadable", str(error))))

    def _write(self, head: bytes, content: IO[bytes], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        size, block = 0, head
        try:
            with target.open("xb") as file:
                while block:
                    size += len(block)
                    self._count(len(block))
                    if size > self._limits.model_bytes:
                        raise _TooLarge(f"It unpacks to more than the limit of {self._limits.model_bytes} bytes.")
                    file.write(block)
                    block = content.read(_BLOCK)
        except BaseException:
            target.unlink(missing_ok=True)
            self._bytes -= size if self._bytes > size else 0
            raise

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limits.archive_bytes:
            raise UnreadableModel(f"it unpacks to more than the limit of {self._limits.archive_bytes} bytes")
        if self._bytes > _FREE and self._bytes > self._limits.archive_ratio * max(1, self._packed):
            raise UnreadableModel(f"it unpacks to more than {self._limits.archive_ratio} times its size")


class _TooLarge(Exception):
    """One member is past the limit of a model."""


def _open(path: Path, limits: Limits) -> Archive:
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"PK"):
        return ZipArchive(path, limits)
    if head.startswith(b"7z\xbc\xaf\x27\x1c"):
        raise UnreadableModel(
            "it is a 7z archive, which this tool does not unpack", remedy="Repack it as .zip or .tar."
        )
    return StreamArchive(path, limits)


def _read(content: IO[bytes], size: int) -> bytes:
    """`size` bytes, or what there is."""
    parts = b""
    while len(parts) < size and (block := content.read(size - len(parts))):
        parts += block
    return parts


def _no_model(head: bytes) -> bool:
    return any(head[at : at + len(magic)] == magic for at, magic in _NO_MODEL)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _place(into: Path, name: str, number: int, limits: Limits) -> tuple[Path, str]:
    """Where a member goes: a path below `into` that nothing has yet."""
    parts = list(_parts(name[: limits.member_name_bytes], number))
    target = into.joinpath(*parts)
    if len(str(target)) > limits.member_name_bytes // 2 or _taken(target, into):
        target = into / f"~{number}" / parts[-1]
    return target, name


def _parts(name: str, number: int) -> Iterator[str]:
    plain = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")] or ["unnamed"]
    for part in plain:
        safe = _UNSAFE.sub("_", part)
        try:
            size = len(safe.encode())
        except UnicodeEncodeError:
            safe, size = safe.encode("utf-8", "replace").decode(), len(safe)
        yield f"~{number}" if part == ".." or size > _LONGEST_PART else safe


def _taken(target: Path, into: Path) -> bool:
    """Whether the place is used, or a file stands where a folder is needed."""
    return target.exists() or any(p.is_file() for p in target.parents if p != into and into in p.parents)
