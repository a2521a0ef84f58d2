"""AOTInductor packages (`.pt2` with a shared library), without importing the compiler that made them.

Such a package is native code: opening it runs what its author wrote. What shapes it takes is not written in it, but the
checks that the compiler put into it tell: they are switched on, and asked with tensors that own no memory.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.limits import DEFAULT
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.interface import LoadedModel
from fingerprint.runtimes.process import quiet
from fingerprint.runtimes.torch_model import raise_if_out_of_memory, reason

if TYPE_CHECKING:
    import torch

Run = Callable[[list["torch.Tensor"]], list["torch.Tensor"]]

_INNER = "/aotinductor/"  # folder of the compiled model inside a package
_CHECKS = b"unmatched dim value at "  # stands in libraries that can check their input
_SIZE = re.compile(r"(unmatched dim value|dim value is too small|dim value is too large) at (\d+), expected[^\d]*(\d+)")
_FIXED, _SMALL, _LARGE = "unmatched dim value", "dim value is too small", "dim value is too large"
_MOST = 1 << 40  # images; more than any bound
_DTYPES = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64")
_ASKED = 12  # answers to questions about one input, at most


class PackageModel(LoadedModel):
    """A package with one input."""

    def __init__(self, path: Path) -> None:
        os.environ["AOTI_RUNTIME_CHECK_INPUTS"] = "1"  # a shape that it was not compiled for is an error, not a crash
        if not _has_checks(path):
            raise UnsupportedModel(
                "it is an AOTInductor package of an old PyTorch, which can't check its input",
                remedy="Compile it again with a PyTorch of this release, or give the program that it was made from.",
            )
        with quiet():
            self._run = _opened(path).run
            self.signature, self.batch_range = _asked(self._run)

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        import torch

        images = torch.from_numpy(batch if batch.flags.writeable and batch.flags.c_contiguous else batch.copy())
        try:
            return np.asarray(self._run([images])[0].float().numpy(), np.float32)
        except (RuntimeError, IndexError) as error:
            raise_if_out_of_memory(error)
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {reason(error)}") from error


def _has_checks(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_CHECKS) >= 0


def weights(path: Path) -> dict[str, NDArray[np.generic]]:
    """The constants of a package by name. Opens it."""
    with quiet():
        runner = _opened(path)  # its memory is the tensors'
        return {name: tensor.numpy().copy() for name, tensor in runner.extract_constants_map(False).items()}


def _opened(path: Path) -> torch._C._aoti.AOTIModelContainerRunnerCpu:
    """The library. It is unpacked here: torch's own loader of packages insists on a folder in /tmp."""
    import torch

    try:
        with tempfile.TemporaryDirectory(prefix="fingerprint-") as folder:
            library = _unpacked(path, Path(folder))
            return torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1)
    except (UnreadableModel, UnsupportedModel, MemoryError):
        raise
    except Exception as error:  # a damaged library fails anywhere in torch's reader
        raise_if_out_of_memory(error)
        raise UnreadableModel(f"AOTInductor can't read it: {reason(error)}") from error


def _unpacked(path: Path, folder: Path) -> Path:
    """The shared library of a package with what lies beside it, in a folder; their names lose their folders."""
    with zipfile.ZipFile(path) as archive:
        wanted = [info for info in archive.infolist() if _INNER in info.filename and not info.filename.endswith(".cpp")]
        if sum(info.file_size for info in wanted) > DEFAULT.model_bytes:
            raise UnreadableModel(f"it unpacks to more than the limit of {DEFAULT.model_bytes} bytes")
        for info in wanted:
            try:
                with archive.open(info) as source, (folder / Path(info.filename).name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            except OSError as error:
                text = f"its library of {info.file_size} bytes can't be unpacked: {error.strerror or error}"
                raise UnsupportedModel(text) from error
    libraries = sorted(folder.glob("*.so"))
    if len(libraries) != 1:
        raise UnsupportedModel(f"it holds {len(libraries)} shared libraries; one is needed")
    return libraries[0]


def _asked(run: Run) -> tuple[Signature, tuple[int, int | None]]:
    """Signature and batch range, from what the checks say to shapes that are wrong."""
    dtype = next((name for name in _DTYPES if "dtype" not in _objection(run, (0, 0, 0, 0), name)), "float32")
    sizes, open_ = [0, 0, 0, 0], [True] * 4
    for _ in range(_ASKED):
        found = _SIZE.search(_objection(run, tuple(sizes), dtype))
        if found is None:
            break
        axis = int(found[2])
        if axis >= len(sizes) or sizes[axis] == int(found[3]):
            raise UnsupportedModel("its input is no batch of images")
        sizes[axis], open_[axis] = int(found[3]), found[1] != _FIXED
    shape = tuple(None if free else size for size, free in zip(sizes, open_, strict=True))
    signature = Signature(shape=shape, dtype=dtype)
    if shape[0] is not None:
        return signature, (shape[0], shape[0])
    found = _SIZE.search(_objection(run, (_MOST, *sizes[1:]), dtype))
    largest = int(found[3]) if found and found[1] == _LARGE and found[2] == "0" else None
    return replace(signature, shape=(None, *shape[1:])), (max(1, sizes[0]), largest)


def _objection(run: Run, shape: tuple[int, ...], dtype: str) -> str:
    """What the checks say to an input of this shape. Its strides are all 0, so that something is always wrong."""
    import torch

    try:
        run([torch.zeros((1, 1, 1, 1), dtype=getattr(torch, dtype)).expand(shape)])
    except (RuntimeError, IndexError) as error:
        return str(error)
    return ""
