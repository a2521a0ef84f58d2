"""Formats without a magic number of their own: MNN's flatbuffers, and shared libraries that TVM made."""

from __future__ import annotations

import struct
from typing import BinaryIO

from fingerprint.limits import MIB

_TVM = (b"__tvm_ffi_", b"__tvm_module_ctx", b"__tvm_dev_mblob", b"__tvm_main__")  # symbols of its modules
_SEARCHED = 64 * MIB  # bytes of a shared library that are searched for them
_OPS, _OUTPUTS, _TENSORS = 3, 4, 7  # slots of MNN's Net: oplists, outputName, tensorName
_SLOTS = 16  # of Net and of its later versions, at most
_NAMES = 5  # tensor names looked at
_LONGEST = 4096  # bytes of a name


def is_tvm(file: BinaryIO) -> bool:
    """Whether a shared library holds the symbols of a TVM module."""
    file.seek(0)
    kept, read = b"", 0
    while read < _SEARCHED and (block := file.read(MIB)):
        if any(symbol in kept + block for symbol in _TVM):
            return True
        kept, read = block[-32:], read + len(block)
    return False


def is_mnn(file: BinaryIO, size: int) -> bool:
    """Whether a file is an MNN network: a flatbuffer whose root has operators and printable tensor names.

    Only a few offsets are followed, each checked against the size.
    """
    try:
        buffer = _Flatbuffer(file, size)
        root = buffer.offset(0)
        slots = buffer.slots(root)
        return buffer.length(root, slots, _OPS) > 0 and _named(buffer, root, slots)
    except (ValueError, struct.error):
        return False


def _named(buffer: _Flatbuffer, root: int, slots: tuple[int, ...]) -> bool:
    count = buffer.length(root, slots, _TENSORS)
    names = buffer.vector(root, slots, _TENSORS)
    return count > 0 and all(buffer.printable(names + 4 * i) for i in range(min(count, _NAMES)))


class _Flatbuffer:
    """Bounded reads. Everything that points outside the file is a ValueError."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, at: int, count: int) -> bytes:
        if at < 0 or at + count > self._size:
            raise ValueError("outside the file")
        self._file.seek(at)
        return self._file.read(count)

    def number(self, at: int) -> int:
        return int(struct.unpack("<I", self.read(at, 4))[0])

    def offset(self, at: int) -> int:
        """Where the offset at `at` points; never nowhere."""
        step = self.number(at)
        if step < 4:
            raise ValueError("no offset")
        return at + step

    def slots(self, table: int) -> tuple[int, ...]:
        """The table's slots: offsets from its start, 0 where absent."""
        vtable = table - int(struct.unpack("<i", self.read(table, 4))[0])
        length, inline = struct.unpack("<HH", self.read(vtable, 4))
        if length % 2 or not 4 + 2 * _TENSORS < length <= 4 + 2 * _SLOTS or not 4 <= inline <= 4 + 8 * _SLOTS:
            raise ValueError("no table of this kind")
        found = struct.unpack(f"<{length // 2 - 2}H", self.read(vtable + 4, length - 4))
        if any(slot and not 4 <= slot < inline for slot in found):
            raise ValueError("a slot outside its table")
        return found

    def vector(self, table: int, slots: tuple[int, ...], slot: int) -> int:
        """Where the entries of a vector begin."""
        if not slots[slot]:
            raise ValueError("absent")
        return self.offset(table + slots[slot]) + 4

    def length(self, table: int, slots: tuple[int, ...], slot: int) -> int:
        at = self.vector(table, slots, slot)
        count = self.number(at - 4)
        if 4 * count > self._size - at:
            raise ValueError("a vector outside the file")
        return count

    def printable(self, at: int) -> bool:
        """Whether the string that an entry points to is one."""
        text = self.offset(at)
        length = self.number(text)
        if length > _LONGEST:
            return False
        return self.read(text + 4, length).decode("utf-8", "replace").isprintable()
