"""ExecuTorch programs (`.pte`) on the CPU, with the backends and kernels of its Python package (XNNPACK among them)."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.process import quiet
from fingerprint.runtimes.resizing import one_line

if TYPE_CHECKING:
    import torch

_METHOD = "forward"
_DTYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"}  # ScalarType
_NOT_HERE = re.compile(r"\b0x:?(14|20|30)\b")  # OperatorMissing, NotFound (a backend), DelegateInvalidCompatibility


class ExecuTorchModel(LoadedModel):
    """One method of a program. Its input has one size, or any up to that size."""

    def __init__(self, path: Path) -> None:
        bindings = _bindings()
        try:
            with quiet():
                self._program = bindings._load_program(
                    str(path), program_verification=bindings.Verification.InternalConsistency
                )
                names = {self._program.get_method_name(i) for i in range(self._program.num_methods())}
                if _METHOD not in names:
                    raise UnsupportedModel(f"it has no method {_METHOD!r}, only {', '.join(sorted(names)) or 'none'}")
                self._method = self._program.load_method(_METHOD)
        except RuntimeError as error:
            raise _refused(error) from error
        self.signature, self._bound = _signature(self._method.method_meta())
        if self._bound > 1 and self._takes(1):
            self.batch_range = (1, self._bound)
            self.signature = _open(self.signature)

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        import torch

        images = torch.from_numpy(batch if batch.flags.writeable and batch.flags.c_contiguous else batch.copy())
        try:
            answers = self._method((images,))
        except RuntimeError as error:
            raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {one_line(error)}") from error
        answer: torch.Tensor = answers[0]  # a copy of its own
        return np.asarray(answer.float().numpy(), np.float32)

    def _takes(self, size: int) -> bool:
        """Whether it answers a batch of this size: the file's plain words do not say so."""
        shape = (size, *(int(length or 1) for length in self.signature.shape[1:]))
        try:
            with quiet():
                return len(self.predict(np.zeros(shape, self.signature.dtype))) == size
        except UnsupportedModel:
            return False


class ExecuTorchRuntime(Runtime):
    """`.pte` files in one piece."""

    name: ClassVar[str] = "executorch"
    extra: ClassVar[str | None] = "executorch"
    formats: ClassVar[tuple[str, ...]] = (Format.EXECUTORCH,)

    def version(self) -> str:
        """See `Runtime.version`."""
        return version_of("executorch", self.extra)

    def check(self) -> None:
        """See `Runtime.check`."""
        require("executorch", "executorch", self.extra)

    def preload(self) -> None:
        """See `Runtime.preload`."""
        self.check()
        _bindings()

    def load(self, path: Path, format: str, options: LoadOptions) -> ExecuTorchModel:
        """See `Runtime.load`. `threads` is set for the whole process."""
        self.preload()
        if options.threads:
            with quiet():
                _bindings()._unsafe_reset_threadpool(options.threads)
        return ExecuTorchModel(path)


def _bindings() -> ModuleType:
    """The native part alone: `executorch.runtime` offers the same after importing the whole exporter (seconds)."""
    import_module("torch")  # its libraries must be there first
    return import_module("executorch.extension.pybindings._C")


def _signature(meta: object) -> tuple[Signature, int]:
    """What the method says, and its largest batch."""
    inputs: int = meta.num_inputs()  # type: ignore[attr-defined]
    outputs: int = meta.num_outputs()  # type: ignore[attr-defined]
    if inputs != 1 or not outputs:
        raise UnsupportedModel(f"it has {inputs} inputs and {outputs} outputs; one batch of images is needed")
    given, answer = meta.input_tensor_meta(0), meta.output_tensor_meta(0)  # type: ignore[attr-defined]
    shape, answers = tuple(map(int, given.sizes())), tuple(map(int, answer.sizes()))
    if given.dtype() not in _DTYPES or not shape:
        raise UnsupportedModel(f"its input is of kind {given.dtype()} and shape {shape}; a batch of images is needed")
    classes = answers[1] if len(answers) == 2 else None
    return Signature(shape, _DTYPES[given.dtype()], output_shape=answers, classes=classes), shape[0]


def _open(signature: Signature) -> Signature:
    """The same with the batch left open."""
    shape, answers = (None, *signature.shape[1:]), (None, *signature.output_shape[1:])
    return Signature(shape, signature.dtype, output_shape=answers, classes=signature.classes)


def _refused(error: RuntimeError) -> UnreadableModel | UnsupportedModel:
    text = one_line(error)
    if _NOT_HERE.search(text):
        return UnsupportedModel(f"ExecuTorch does not execute it here: {text}")
    return UnreadableModel(f"ExecuTorch can't read it: {text}")
