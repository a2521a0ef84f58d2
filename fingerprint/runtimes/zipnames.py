"""The member names of a zip archive, read under limits, without unpacking anything."""

from __future__ import annotations

import struct
from typing import BinaryIO

from fingerprint.errors import UnreadableModel
from fingerprint.limits import Limits

_END = struct.Struct("<4s4H2LH")  # end of central directory
_END64 = struct.Struct("<4sQ2H2L4Q")  # its zip64 form
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")  # one entry of the central directory
_COMMENT = 65535  # longest archive comment


def zip_names(file: BinaryIO, size: int, limits: Limits) -> list[str]:
    """Names of all members, in the order of the directory.

    Args:
        file: a seekable binary file.
        size: its length in bytes.
        limits: `archive_members`, `archive_bytes` (sum of the unpacked sizes) and `header_bytes` (the directory) hold.

    Raises:
        UnreadableModel: no directory (a cut file), a damaged one, or one past the limits.
    """
    count, length, offset = _directory(file, size)
    if count > limits.archive_members or length > limits.header_bytes:
        raise UnreadableModel(
            f"the archive lists {count} members in {length} bytes, more than the limit of {limits.archive_members}"
        )
    file.seek(offset)
    directory = file.read(length)
    if len(directory) != length:
        raise UnreadableModel("the archive's directory is cut")
    return _entries(directory, count, limits)


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """(members, bytes, offset) of the central directory."""
    start = max(0, size - _END.size - _COMMENT)
    file.seek(start)
    tail = file.read(size - start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise UnreadableModel("it starts like a zip archive but has no directory at its end")
    _, _, _, _, count, length, offset, _ = _END.unpack_from(tail, at)
    if count == 0xFFFF or length == 0xFFFFFFFF or offset == 0xFFFFFFFF:
        count, length, offset = _directory64(file, start + at)
    if offset + length > size:
        raise UnreadableModel("the archive's directory points outside the file")
    return count, length, offset


def _directory64(file: BinaryIO, end: int) -> tuple[int, int, int]:
    if end < _LOCATOR64.size:
        raise UnreadableModel("the archive's zip64 directory is missing")
    file.seek(end - _LOCATOR64.size)
    magic, _, where, _ = _LOCATOR64.unpack(file.read(_LOCATOR64.size))
    if magic != b"PK\x06\x07" or where > end:
        raise UnreadableModel("the archive's zip64 directory is damaged")
    file.seek(where)
    record = file.read(_END64.size)
    if len(record) != _END64.size or record[:4] != b"PK\x06\x06":
        raise UnreadableModel("the archive's zip64 directory is damaged")
    *_, count, length, offset = _END64.unpack(record)
    return count, length, offset


def _entries(directory: bytes, count: int, limits: Limits) -> list[str]:
    names: list[str] = []
    at = unpacked = 0
    for _ in range(count):
        if len(directory) - at < _ENTRY.size or directory[at : at + 4] != b"PK\x01\x02":
            raise UnreadableModel("the archive's directory is damaged")
        fields = _ENTRY.unpack_from(directory, at)
        unpacked += fields[9]  # 0xFFFFFFFF for a member over 4 GiB: counted as that
        name, extra, comment = fields[10:13]
        at += _ENTRY.size
        names.append(directory[at : at + name].decode("utf-8", "replace"))
        at += name + extra + comment
    if unpacked > limits.archive_bytes:
        raise UnreadableModel(f"the archive unpacks to {unpacked} bytes, more than the limit of {limits.archive_bytes}")
    return names
