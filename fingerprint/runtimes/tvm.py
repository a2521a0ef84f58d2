"""Shared libraries that Apache TVM made (`.so`, Relax) on the CPU.

Such a file is native code: opening it runs what its author wrote. Whoever opens a suspect decides about that before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.process import called, quiet
from fingerprint.runtimes.resizing import one_line

if TYPE_CHECKING:
    import tvm

_FUNCTION = "main"
_CHECKED = re.compile(r"vm\.builtin\.match_shape\s+in: %0, \S+, i(\d+), ([^c]*)c\[")  # of the first parameter
_EQUALS = "i0"  # "this dimension equals the number that follows"; all else leaves it open


class TvmModel(LoadedModel):
    """The function `main` of a module, on TVM's virtual machine."""

    def __init__(self, path: Path) -> None:
        self._package, relax = import_module("tvm"), import_module("tvm.relax")
        ffi = import_module("tvm_ffi")
        try:
            with quiet(), called(path, "model.so") as library:
                module = ffi.load_module(str(library))
                self._function: Callable[..., object] = relax.VirtualMachine(module, self._package.cpu())[_FUNCTION]
                listing = str(module["as_text"]())
        except Exception as error:  # TVM's own classes derive from Exception alone
            raise _unreadable(error) from error
        self.signature = Signature(shape=_shape(listing), dtype="float32")

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        try:
            answer = self._function(self._package.runtime.tensor(np.ascontiguousarray(batch)))
            return np.array(_first(answer).numpy(), np.float32)
        except UnsupportedModel:
            raise
        except Exception as error:  # as above
            if isinstance(error, MemoryError):
                raise
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {one_line(error)}") from error


class TvmRuntime(Runtime):
    """`.so` modules of TVM's Relax compiler."""

    name: ClassVar[str] = "tvm"
    extra: ClassVar[str | None] = "tvm"
    formats: ClassVar[tuple[str, ...]] = (Format.TVM,)

    def version(self) -> str:
        """See `Runtime.version`."""
        return version_of("apache-tvm", self.extra)

    def check(self) -> None:
        """See `Runtime.check`."""
        require("tvm", "apache-tvm", self.extra)

    def preload(self) -> None:
        """See `Runtime.preload`."""
        self.check()
        with quiet():
            import_module("tvm.relax")

    def load(self, path: Path, format: str, options: LoadOptions) -> TvmModel:
        """See `Runtime.load`. `threads` is set for the whole process."""
        self.preload()
        if options.threads:
            import_module("tvm").get_global_func("runtime.config_threadpool")(1, options.threads)
        return TvmModel(path)


def _shape(listing: str) -> tuple[int | None, ...]:
    """Shape of the first parameter, from the check of it in the compiled code; empty where there is none."""
    found = _CHECKED.search(listing)
    if found is None:
        return ()
    words = [word.strip() for word in found[2].split(",") if word.strip()]
    pairs = list(zip(words[::2], words[1::2], strict=False))[: int(found[1])]
    return tuple(int(value[1:]) if code == _EQUALS and value[1:].isdigit() else None for code, value in pairs)


def _first(answer: object) -> tvm.runtime.Tensor:
    """The first tensor of a tuple of outputs."""
    while not hasattr(answer, "numpy"):
        if not hasattr(answer, "__getitem__") or not len(answer):  # type: ignore[arg-type]
            raise UnsupportedModel(f"it answers with {type(answer).__name__}, not with a tensor")
        answer = answer[0]
    return answer


def _unreadable(error: Exception) -> UnreadableModel | UnsupportedModel:
    if isinstance(error, MemoryError):
        raise error
    text = one_line(error)
    if isinstance(error, AttributeError | KeyError):
        return UnsupportedModel(f"it is no module of TVM's Relax compiler with a function {_FUNCTION!r}: {text}")
    return UnreadableModel(f"TVM can't read it: {text}")
