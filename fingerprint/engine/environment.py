"""The environment of worker processes: what a runtime needs to start and to be fast, and nothing of the caller's."""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

SCRATCH_PREFIX = "fingerprint-worker-"  # of the folder that a worker lives in
_KEPT = (
    "PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",
)  # fmt: skip
_OF_GPUS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "ROCR_VISIBLE_DEVICES")
# Freed memory stays with the process: a fresh page costs more than most layers, and large tensors would get fresh
# ones for every batch (6x on MobileNetV2 with 100 images in eager PyTorch). glibc only; others ignore it.
_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
# OpenMP threads that wait must soon sleep: beside other busy processes, GNU's default spinning makes eager PyTorch 5 to
# 20 times slower. So short a spin costs nothing where the machine is quiet; none at all costs a quarter.
SPIN = ("GOMP_SPINCOUNT", "10000")
_HOME = Path(__file__).parents[2]  # the folder that holds this package


def spin_briefly() -> None:
    """Bound the spinning of this process's OpenMP threads. Only before PyTorch is imported, which reads it once."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(*SPIN)


def worker_environment(
    scratch: Path,
    threads: int = 0,
    extra: Mapping[str, str] | None = None,
    caller: Mapping[str, str] = os.environ,
    *,
    gpu: bool = False,
) -> dict[str, str]:
    """All variables of a worker.

    Args:
        scratch: its home and temporary folder.
        threads: intra-op threads, 0 = the runtime's own choice.
        extra: added last.
        caller: this process's variables.
        gpu: whether the suspects may compute on one; else none is visible.
    """
    found = {name: caller[name] for name in _KEPT if name in caller}
    found |= {"HOME": str(scratch), "TMPDIR": str(scratch), "XDG_CACHE_HOME": str(scratch)}
    found |= _ALLOCATOR
    if gpu:
        found |= {name: caller[name] for name in _OF_GPUS if name in caller}
        found["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # equal inputs, equal sums
    else:
        found["CUDA_VISIBLE_DEVICES"] = ""
    found["ORT_DISABLE_TELEMETRY"] = "1"
    found["OPENBLAS_NUM_THREADS"] = "1"  # numpy would start threads on import, and a forked child has none of them
    found.setdefault(*SPIN)
    if threads:
        found |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if site.ENABLE_USER_SITE and site.USER_BASE:
        found["PYTHONUSERBASE"] = site.USER_BASE  # it would follow HOME
    found |= _search_path(found.get("PYTHONPATH", ""))
    return found | dict(extra or {})


def _search_path(given: str) -> dict[str, str]:
    """The worker must find this very package; an installed one it finds by itself."""
    folders = [str(Path(folder).absolute()) for folder in given.split(os.pathsep) if folder]  # it starts elsewhere
    if _HOME.name not in ("site-packages", "dist-packages") and str(_HOME) not in folders:
        folders.append(str(_HOME))
    return {"PYTHONPATH": os.pathsep.join(folders)} if folders else {}
