"""Landlock for workers: which files may be read and written, and no TCP port used (Linux 5.13 or newer).

Bound to the system calls by ctypes: the packages for it are alpha releases or unmaintained (docs/adr/0005).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # system calls, the same on all architectures
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_READS = _EXECUTE | _READ_FILE | _READ_DIR
_WRITES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # write, remove, make (ABI 1)
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # ABI 2, ABI 3
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE  # rights that a rule on a file, not a folder, can give
_TCP = 0b11  # bind, connect: ABI 4
_SCOPES = 0b11  # abstract Unix sockets, signals: ABI 6


def install(libc: ctypes.CDLL, writable: Path, readable: Iterable[Path], devices: Iterable[Path] = ()) -> bool:
    """Confine this process (`no_new_privs` must be set). False where the system has no Landlock.

    Args:
        libc: the C library.
        writable: the one folder below which files may be written (and read).
        readable: files and folders that may be read; those that do not exist are passed over. Sealed copies in memory
            belong to no folder and can be read by who holds a descriptor.
        devices: device files that may be read and written.
    """
    abi = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    if abi < 1:
        return False
    writes = _WRITES | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    attributes = struct.pack("<QQQ", writes | _READS, _TCP, _SCOPES)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        _allow(libc, ruleset, writable, writes | _READS)
        _allow(libc, ruleset, Path(os.devnull), (writes | _READS) & _OF_FILES)
        for path in devices:
            _allow(libc, ruleset, path, _READ_FILE | _WRITE_FILE)
        for path in readable:
            if path.exists():
                _allow(libc, ruleset, path, _READS if path.is_dir() else _READS & _OF_FILES)
        return bool(libc.syscall(_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("<Qi", access, target), 0)
    finally:
        os.close(target)
