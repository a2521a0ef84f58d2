"""What a worker process gives up before it opens a suspect: memory, time, files, network, other processes.

A plain process contains a crash; this contains what a hostile file can do with a hole in a runtime. Every layer that
the system lacks is left out, and `confine` tells which ones hold.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
from collections.abc import Collection
from pathlib import Path

from fingerprint.engine import landlock, seccomp
from fingerprint.frozen import dataclass
from fingerprint.limits import MIB

_SET_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38  # of prctl(2)
_FILE_BYTES = 64 * MIB  # largest file a worker may write
_OPEN_FILES = 512
_SYSTEM_FILES = (
    "/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/libexec", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64",
    "/opt/intel", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/localtime",
    "/dev/urandom", "/dev/random", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm",
    "/proc/sys/kernel", "/proc/filesystems", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm",
)  # fmt: skip
_CPU_GRACE_S = 5  # between SIGXCPU and SIGKILL


@dataclass(frozen=True)
class Confinement:
    """Limits of one worker: bytes of address space beyond its start, CPU seconds, the folder that it may write to, and
    what it may read besides the runtime (a factory's folder, a sealed copy that is a file), and the device files of a
    GPU that it computes on."""

    memory_bytes: int
    cpu_s: int
    scratch: Path
    readable: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()


def confine(limits: Confinement, parent: int | None = None) -> tuple[str, ...]:
    """Give up what a suspect must not have.

    Args:
        limits: what may be used.
        parent: the process whose death must be this one's too (Linux).

    Returns:
        Names of the layers that hold, of: memory, cpu, files, landlock, seccomp.
    """
    held = [name for name, ok in _resource_limits(limits).items() if ok]
    if platform.system() != "Linux":
        return tuple(held)
    libc = ctypes.CDLL(None, use_errno=True)
    if parent is not None:
        libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
    _be_killed_first()
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return tuple(held)
    if landlock.install(libc, limits.scratch, (*runtime_files(), *limits.readable), limits.devices):
        held.append("landlock")
    if seccomp.install(libc):
        held.append("seccomp")
    return tuple(held)


def holds_code(held: Collection[str]) -> bool:
    """Whether these layers contain a file that carries code: it can't write, read secrets, use the network, start
    processes, or take more than its share."""
    return {"memory", "cpu", "files", "landlock", "seccomp"} <= set(held)


def runtime_files() -> tuple[Path, ...]:
    """What a runtime reads: Python, its packages, system libraries, and what the kernel says of the machine."""
    import sys

    packages = [Path(folder) for folder in {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path} if folder]
    own = Path("/proc") / str(os.getpid())
    return (*packages, own, *(Path(name) for name in _SYSTEM_FILES))


def _resource_limits(limits: Confinement) -> dict[str, bool]:
    memory = address_space_bytes() + limits.memory_bytes
    _limit(resource.RLIMIT_CORE, 0, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES, _OPEN_FILES)
    return {
        "memory": _limit(resource.RLIMIT_AS, memory, memory),
        "cpu": _limit(resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + _CPU_GRACE_S),
        "files": _limit(resource.RLIMIT_FSIZE, _FILE_BYTES, _FILE_BYTES),
    }


def _limit(kind: int, soft: int, hard: int) -> bool:
    """Lower a limit; never raise one that is lower already."""
    _, now = resource.getrlimit(kind)
    if now != resource.RLIM_INFINITY:
        soft, hard = min(soft, now), min(hard, now)
    try:
        resource.setrlimit(kind, (soft, hard))
    except (ValueError, OSError):
        return False
    return True


def address_space_bytes() -> int:
    """Address space of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _be_killed_first() -> None:
    """When the machine runs out of memory, let it be the suspect that goes."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return
