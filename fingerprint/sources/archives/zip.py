"""Zip archives and what is built on them: APK, AAB, AAR, IPA, JAR."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from fingerprint.errors import UnreadableModel
from fingerprint.limits import Limits
from fingerprint.runtimes.zipnames import zip_names
from fingerprint.sources.archives.interface import Archive, Member

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}  # LZMA has no bound on its memory here
_ENCRYPTED = 0x1 | 0x40  # general purpose bits: encryption, strong encryption
_AES = 99  # the "method" of WinZip's AES
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError)


class ZipArchive(Archive):
    """Read with the standard library, after the directory's size and count were checked."""

    def __init__(self, path: Path, limits: Limits) -> None:
        with path.open("rb") as file:
            zip_names(file, path.stat().st_size, limits)  # before all of the directory is read into objects
        try:
            self._zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise UnreadableModel(f"the archive is damaged: {error}") from error

    def members(self) -> Iterator[Member]:
        """See `Archive.members`."""
        for info in self._zip.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() or kind not in (0, stat.S_IFREG):
                continue
            if info.flag_bits & _ENCRYPTED or info.compress_type == _AES:
                yield Member(info.filename, None, "it is encrypted in the archive", encrypted=True)
            elif info.compress_type not in _METHODS:
                yield Member(info.filename, None, f"it is packed by the zip method {info.compress_type}")
            else:
                try:
                    content = self._zip.open(info)
                except DAMAGE as error:
                    yield Member(info.filename, None, f"it is damaged in the archive: {error}")
                    continue
                with content:
                    yield Member(info.filename, content)

    def close(self) -> None:
        """See `Archive.close`."""
        self._zip.close()
