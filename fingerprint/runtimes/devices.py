"""Where a model computes: on the CPU, unless a GPU was asked for.

The CPU is the default for suspects on purpose: answers are the same on every machine, a worker is forked in
milliseconds, and a hostile file does not get near a GPU's kernel driver. A GPU that was asked for by name is used or is
an error, never silently replaced; `auto` takes what there is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fingerprint.errors import UnsupportedModel, UsageError

VARIABLE = "FINGERPRINT_DEVICE"
CPU, AUTO = "cpu", "auto"
_MOST_DIGITS = 2  # of N in cuda:N
_CUDA_SIGNS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA's driver, the same inside WSL, AMD's (torch: `cuda`)
_NODES = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/dxg", "/dev/kfd", "/dev/dri/renderD*")
_REMEDY = f"Take cpu, or auto, which takes what there is ({VARIABLE}). What this machine has: fingerprint doctor"


def wanted(device: str | None = None) -> str:
    """The device that is asked for: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` where this machine has some GPU.

    Imports nothing: whether a runtime can use the GPU is told by `Runtime.devices`, in the process that computes.

    Args:
        device: a name; None: what `FINGERPRINT_DEVICE` says, else `cpu`.

    Raises:
        UsageError: no such name, or a GPU that this machine does not have.
    """
    name = (device or os.environ.get(VARIABLE, "")).strip().lower() or CPU
    if name == CPU:
        return CPU
    if name != AUTO and not is_device(name):
        raise UsageError(f"no device is named {name!r}", remedy="Devices are auto, cpu, cuda, cuda:N and mps.")
    kinds = gpus()
    if name == AUTO:
        return AUTO if kinds else CPU
    if name.partition(":")[0] not in kinds:
        raise UsageError(f"the device {name} was asked for, and this machine shows none", remedy=_REMEDY)
    return name


def lenient() -> str:
    """As `wanted`, for files that the tool made itself and that may compute anywhere: `auto` where a GPU is wanted."""
    return CPU if wanted() == CPU else AUTO


def is_device(name: str) -> bool:
    """Whether this is the name of one device (not `auto`)."""
    kind, _, number = name.partition(":")
    numbered = kind == "cuda" and number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS
    return name in (CPU, "cuda", "mps") or numbered


def gpus() -> tuple[str, ...]:
    """Kinds of GPU that this machine shows (`cuda`, `mps`), told by the system without any package."""
    if sys.platform == "darwin":
        return ("mps",) if os.uname().machine == "arm64" else ()
    return ("cuda",) if any(Path(sign).exists() for sign in _CUDA_SIGNS) else ()


def choose(name: str, offered: Sequence[str], runtime: str) -> str:
    """The device that a model computes on.

    Args:
        name: from `wanted`.
        offered: from `Runtime.devices`, `cpu` among them.
        runtime: for the message.

    Raises:
        UnsupportedModel: a device that was asked for by name and is not offered.
    """
    if name == AUTO:
        return next((device for device in offered if device != CPU), CPU)
    if name not in offered:
        raise UnsupportedModel(
            f"the device {name} was asked for, and {runtime} offers {', '.join(offered)} for such a file",
            remedy=_REMEDY,
        )
    return name


def on_device(name: str) -> str:
    """What is put behind the name of a runtime where it does not compute on the CPU: ` on cuda`."""
    return "" if name == CPU else f" on {name}"


def nodes() -> tuple[Path, ...]:
    """The device files that a GPU's driver is reached by."""
    return tuple(path for pattern in _NODES for path in sorted(Path("/").glob(pattern.removeprefix("/"))))
