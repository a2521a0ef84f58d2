"""Tar archives, and single files packed by gzip, bzip2, xz or Zstandard. Decompressed as a stream, never in memory."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from fingerprint.errors import MissingExtra, UnreadableModel
from fingerprint.limits import Limits
from fingerprint.sources.archives.interface import Archive, Member

_BLOCK = 1 << 16  # compressed bytes read at a time
_GZIP = 31  # zlib's window bits for a gzip header
_TAR_MAGIC, _TAR_AT = b"ustar", 257
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_LONGEST_HEADER = 1 << 20  # bytes of a pax header or a long name
_EXTENDED = (b"x", b"g", b"X", b"L", b"K")  # pax, global pax, Solaris pax, GNU long name, GNU long link
DAMAGE = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OSError)


class _Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Inflater:
    """zlib's own has its leftover input elsewhere."""

    def __init__(self) -> None:
        self._own = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._own.eof

    @property
    def unused_data(self) -> bytes:
        return self._own.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._own.decompress(self._own.unconsumed_tail + data, max(0, max_length))


class Unpacked(io.RawIOBase):
    """The decompressed bytes of a file as a stream; several packed streams in a row are one.

    Args:
        file: the packed file, at its start.
        make: a fresh decompressor.
    """

    def __init__(self, file: IO[bytes], make: Callable[[], _Decompressor]) -> None:
        self._file, self._make = file, make
        self._own = make()
        self._rest = b""

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer as far as one step goes. Raises EOFError where the file is cut."""
        view = memoryview(cast(bytearray, buffer))
        while True:
            if self._own.eof:
                left = self._own.unused_data or self._file.read(_BLOCK)
                if not left.strip(b"\0"):
                    return 0
                self._own, self._rest = self._make(), left
            out = self._own.decompress(self._rest, len(view))
            self._rest = b""
            if out:
                view[: len(out)] = out
                return len(out)
            if self._own.eof:
                continue
            self._rest = self._file.read(_BLOCK)
            if not self._rest:
                raise EOFError("the packed data are cut")


def unpacked(file: IO[bytes], limits: Limits) -> IO[bytes]:
    """The decompressed content of a file, or the file itself where it is not packed.

    Raises:
        MissingExtra: Zstandard's package is not installed.
    """
    head = file.read(6)
    file.seek(0)
    how = next((name for magic, name in PACKED.items() if head.startswith(magic)), None)
    if how is None:
        return file
    if how == "zstd":
        try:
            import zstandard
        except ImportError:
            raise MissingExtra("zstandard, which unpacks .zst,", "archives") from None
        most = limits.unpack_memory_bytes
        return cast("IO[bytes]", zstandard.ZstdDecompressor(max_window_size=most).stream_reader(file))
    makers: dict[str, Callable[[], _Decompressor]] = {
        "gzip": _Inflater,
        "bzip2": bz2.BZ2Decompressor,
        "xz": lambda: lzma.LZMADecompressor(memlimit=limits.unpack_memory_bytes),
    }
    return io.BufferedReader(Unpacked(file, makers[how]), 1 << 20)


class _BoundedHeaders(tarfile.TarInfo):
    """A member whose extended header may not take all the memory."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return cast(tarfile.TarInfo, super()._proc_member(tarfile_))  # type: ignore[misc]


class StreamArchive(Archive):
    """A tar archive, packed or not, or one packed file; read from front to back."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._file = path.open("rb")
        try:
            stream = unpacked(self._file, limits)
            self._stream = stream if hasattr(stream, "peek") else io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20)
            self._is_tar = self._peek()[_TAR_AT : _TAR_AT + len(_TAR_MAGIC)] == _TAR_MAGIC
        except DAMAGE as error:
            self._file.close()
            raise UnreadableModel(f"the archive is damaged: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def _peek(self) -> bytes:
        peek = cast("io.BufferedReader", self._stream).peek(512)
        return bytes(peek[:512])

    def members(self) -> Iterator[Member]:
        """See `Archive.members`."""
        if not self._is_tar:
            name = self._path.name
            short = name[: -len(self._path.suffix)] if self._path.suffix.lower() in SUFFIXES else name
            yield Member(short or name, self._stream)
            return
        try:
            with tarfile.open(fileobj=self._stream, mode="r|", tarinfo=_BoundedHeaders) as tar:
                for count, info in enumerate(tar):
                    if count >= self._limits.archive_members:
                        raise UnreadableModel(f"the archive has more than {self._limits.archive_members} members")
                    content = tar.extractfile(info) if info.isreg() else None
                    if content is not None:
                        yield Member(info.name, content)
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header
        except DAMAGE as error:
            raise UnreadableModel(f"the archive is damaged: {error}") from error

    def close(self) -> None:
        """See `Archive.close`."""
        self._stream.close()
        self._file.close()
