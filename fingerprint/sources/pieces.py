"""Models that were cut into numbered files: told by their names, sizes and what they give when joined."""

from __future__ import annotations

import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from fingerprint.limits import DEFAULT, Limits
from fingerprint.runtimes.formats import Format, sniff

_NUMBER = re.compile(r"(?<!\d)\d{1,5}(?!\d)")
_TAIL = re.compile(r"(\.[A-Za-z]\w*)*")  # what may follow the number
_LETTERS = re.compile(r"[a-z]{2}")  # split(1): xaa, xab, ...
_NOT_JOINED = (None, Format.LFS_POINTER, Format.SHARED_LIBRARY, Format.DAMAGED_ZIP)


class JoinedFile(io.RawIOBase):
    """Several files as one, for reading. `sizes` are taken once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        self._sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: sum(self._sizes)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        """See `io.RawIOBase.readinto`."""
        view, start = memoryview(cast(bytearray, buffer)), 0
        for file, size in zip(self._files, self._sizes, strict=True):
            if self._at < start + size:
                file.seek(self._at - start)
                data = file.read(min(len(view), start + size - self._at))
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            start += size
        return 0

    def close(self) -> None:
        """Close all."""
        for file in self._files:
            file.close()
        super().close()


def split_models(paths: Sequence[Path], limits: Limits = DEFAULT) -> Iterator[tuple[Path, ...]]:
    """Groups of files in one folder that are one model, or one archive, in pieces.

    A group's names differ in a number only (from 0 or 1 without a gap; or in the two letters of split(1)), all pieces
    but the last have one size, none but the first has a format of its own, and joined they have one.
    """
    groups: dict[tuple[str, str, str], dict[int, Path]] = defaultdict(dict)
    for path in paths:
        for key, number in _positions(path.name):
            groups[key][number] = path
    used: set[Path] = set()
    for group in groups.values():
        first = min(group)
        if 1 < len(group) <= limits.pieces and first in (0, 1) and max(group) == first + len(group) - 1:
            pieces = tuple(group[number] for number in sorted(group))
            if used.isdisjoint(pieces) and _is_one(pieces, limits):
                used.update(pieces)
                yield pieces


def _positions(name: str) -> Iterator[tuple[tuple[str, str, str], int]]:
    """What a name has in common with the other pieces, and the piece's number, for every number it could be."""
    for match in _NUMBER.finditer(name):
        if _TAIL.fullmatch(name, match.end()):
            yield ("number", name[: match.start()], name[match.end() :]), int(match.group())
    if _LETTERS.fullmatch(name[-2:]):
        first, second = (ord(letter) - ord("a") for letter in name[-2:])
        yield ("letters", name[:-2], ""), 26 * first + second


def _is_one(pieces: Sequence[Path], limits: Limits) -> bool:
    try:
        sizes = [piece.stat().st_size for piece in pieces]
        if len(set(sizes[:-1])) != 1 or not 0 < sizes[-1] <= sizes[0] or sum(sizes) > limits.model_bytes:
            return False
        if any(sniff(piece, limits) is not None for piece in pieces[1:]):
            return False
        with io.BufferedReader(JoinedFile(pieces)) as joined:  # which reads on where a piece ends
            return sniff(joined, limits) not in _NOT_JOINED
    except OSError:
        return False


def join(pieces: Sequence[Path], target: Path) -> None:
    """Write the pieces into one file."""
    with JoinedFile(pieces) as joined, target.open("xb") as file:
        while block := joined.read(1 << 20):
            file.write(block)
