"""A Linux system call filter for workers: no network, no new programs or processes, no signals to others.

A deny list: the native runtimes need too much of the kernel for an allow list that holds across versions. Written as
BPF by hand, so that workers need no package for it. Where it can't be installed, `install` says so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_CLONE_THREAD = 0x10000
_SET_FILTER, _SPEC_ALLOW = 1, 4  # of seccomp(2); the flag avoids a slow-down of all other code on older kernels
_X32 = 0x40000000  # system calls of the x32 ABI

# name: (x86_64, aarch64); None where an architecture has no such call
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242), "bind": (49, 200),
    "listen": (50, 201), "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "setns": (308, 268), "unshare": (272, 97),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "bpf": (321, 280),
    "perf_event_open": (298, 241), "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "setsid": (112, 157), "setpgid": (109, 154),
    "setrlimit": (160, 164), "open_by_handle_at": (304, 265), "init_module": (175, 105), "finit_module": (313, 273),
    "kexec_load": (246, 104), "reboot": (169, 142), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
}  # fmt: skip
_CLONE, _CLONE3, _KILL_CALL, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (62, 129), (234, 131), (302, 261)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH
_SECCOMP = (317, 277)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(libc: ctypes.CDLL) -> bool:
    """Filter the system calls of this process from now on (`no_new_privs` must be set). False where impossible."""
    if platform.system() != "Linux" or platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return False
    column, arch = _MACHINES[platform.machine()]
    code = b"".join(_build(column, arch, os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    for flags in (_SPEC_ALLOW, 0):
        if libc.syscall(_SECCOMP[column], _SET_FILTER, flags, ctypes.byref(program)) == 0:
            return True
    return False


def _build(column: int, arch: int, pid: int) -> list[bytes]:
    """The filter's instructions."""
    denied = [numbers[column] for numbers in _DENIED.values()]
    own = [_load(_ARGUMENTS), _jump(_EQUAL, pid, 0, 1), _give(_ALLOW), _give(_ERRNO | errno.EPERM)]
    thread = [_load(_ARGUMENTS), _jump(_ANY_BIT, _CLONE_THREAD, 0, 1), _give(_ALLOW), _give(_ERRNO | errno.EPERM)]
    read_only = [  # prlimit(2) may only read: its third argument, a pointer, must be null
        _load(_ARGUMENTS + 16), _jump(_EQUAL, 0, 0, 2), _load(_ARGUMENTS + 20), _jump(_EQUAL, 0, 1, 0),
        _give(_ERRNO | errno.EPERM), _give(_ALLOW),
    ]  # fmt: skip
    code = [_load(_ARCH), _jump(_EQUAL, arch, 1, 0), _give(_KILL), _load(_NUMBER)]
    if column == 0:
        code += [_jump(_AT_LEAST, _X32, 0, 1), _give(_ERRNO | errno.EPERM)]
    for number in denied:
        if number is not None:
            code += _when(number, [_give(_ERRNO | errno.EPERM)])
    code += _when(_CLONE3[column], [_give(_ERRNO | errno.ENOSYS)])  # its flags can't be seen; libc falls back to clone
    code += _when(_CLONE[column], thread)
    code += _when(_KILL_CALL[column], own) + _when(_TGKILL[column], own) + _when(_PRLIMIT[column], read_only)
    return [*code, _give(_ALLOW)]


def _when(number: int, block: list[bytes]) -> list[bytes]:
    """A block, which must end in a return, for one system call."""
    return [_jump(_EQUAL, number, 0, len(block)), *block]


def _load(offset: int) -> bytes:
    return struct.pack("<HBBI", _LOAD, 0, 0, offset)


def _jump(kind: int, value: int, then: int, other: int) -> bytes:
    return struct.pack("<HBBI", kind, then, other, value)


def _give(value: int) -> bytes:
    return struct.pack("<HBBI", _RETURN, 0, 0, value)
