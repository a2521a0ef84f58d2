"""PyTorch on the CPU: torch.export programs, TorchScript, and state dicts with a factory.

`torch.export.load` can execute code that a file's author wrote (it falls back to unrestricted unpickling), and
TorchScript can write files and loop for ever: whoever opens a suspect decides about that before `load`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadedModel, LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_UNKNOWN = Signature(shape=(), dtype="float32")
_TAKEN = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64")  # dtypes that numpy has too


class TorchModel(LoadedModel):
    """A torch module on the CPU."""

    def __init__(
        self, module: torch.nn.Module, signature: Signature = _UNKNOWN, batch_range: tuple[int, int | None] = (1, None)
    ) -> None:
        import torch

        self._module = module
        self._dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        self.signature = signature
        self.batch_range = batch_range

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        import torch

        images = torch.from_numpy(batch if batch.flags.writeable else batch.copy())
        if images.is_floating_point():
            images = images.to(self._dtype)
        with torch.inference_mode():
            try:
                answer = self._module(images)
            except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, IndexError) as error:
                _out_of_memory(error)
                raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {reason(error)}") from error
            return np.asarray(_first_tensor(answer).float().numpy(), np.float32)

    def differentiable(self) -> torch.nn.Module:
        """See `LoadedModel.differentiable`."""
        for parameter in self._module.parameters():  # TorchScript has no requires_grad_ of a whole module
            parameter.requires_grad_(False)
        return self._module


class TorchRuntime(Runtime):
    """`.pt2`, TorchScript, and `.pth` / `.safetensors` with a factory."""

    name: ClassVar[str] = "torch"
    extra: ClassVar[str | None] = None
    formats: ClassVar[tuple[str, ...]] = (
        Format.PT2,
        Format.TORCHSCRIPT,
        Format.STATE_DICT,
        Format.PICKLE,
        Format.SAFETENSORS,
    )

    def version(self) -> str:
        """See `Runtime.version`."""
        return version_of("torch", self.extra)

    def check(self) -> None:
        """See `Runtime.check`."""
        require("torch", "torch", self.extra)

    def preload(self) -> None:
        """See `Runtime.preload`."""
        import torch

        del torch

    def load(self, path: Path, format: str, options: LoadOptions) -> TorchModel:
        """See `Runtime.load`. `threads` is set for the whole process."""
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if format == Format.PT2:
                return _load_program(path)
            if format == Format.TORCHSCRIPT:
                return _load_script(path)
            from fingerprint.runtimes.torch_state import build

            return TorchModel(build(path, format, options.factory))

    def weights(self, path: Path, format: str) -> dict[str, NDArray[np.generic]]:
        """Parameters and buffers by name. TorchScript files are opened by torch; nothing else is executed."""
        if format == Format.PT2:
            from fingerprint.runtimes.pt2_weights import read

            return read(path)
        from fingerprint.runtimes.torch_state import arrays, read_state

        if format == Format.TORCHSCRIPT:
            return arrays(_load_script(path).differentiable().state_dict())
        return arrays(read_state(path, format))


def reason(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _load_program(path: Path) -> TorchModel:
    import torch

    try:
        with path.open("rb") as file:
            program = torch.export.load(file)
        signature, batch_range = _program_signature(program)
        return TorchModel(program.module(), signature, batch_range)
    except (UnsupportedModel, MemoryError):
        raise
    except Exception as error:  # a damaged program fails anywhere in torch's deserializer
        _out_of_memory(error)
        raise UnreadableModel(f"torch.export can't read it: {reason(error)}") from error


def _load_script(path: Path) -> TorchModel:
    import torch

    try:
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return TorchModel(module.eval())
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive fails anywhere in torch's reader
        _out_of_memory(error)
        raise UnreadableModel(f"TorchScript can't read it: {reason(error)}") from error


def _program_signature(program: ExportedProgram) -> tuple[Signature, tuple[int, int | None]]:
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise UnsupportedModel(f"it has {len(inputs)} inputs; one batch of images is needed")
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    given = values.get(str(inputs[0]))
    if given is None or not given.ndim:
        raise UnsupportedModel("its input is no tensor; a batch of images is needed")
    dtype = str(given.dtype).removeprefix("torch.")
    answer = next((values.get(str(name)) for name in program.graph_signature.user_outputs), None)
    shape = _dimensions(answer) if answer is not None and hasattr(answer, "shape") else ()
    signature = Signature(
        shape=_dimensions(given),
        dtype=dtype if dtype in _TAKEN else "float32",
        output_shape=shape,
        classes=shape[1] if len(shape) == 2 else None,
    )
    return signature, _batch_range(program, given)


def _dimensions(value: torch.Tensor) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _batch_range(program: ExportedProgram, given: torch.Tensor) -> tuple[int, int | None]:
    """What the program's own constraints allow for an open batch dimension."""
    batch = given.shape[0]
    if isinstance(batch, int):
        return batch, batch
    bounds = program.range_constraints.get(batch.node.expr)
    if bounds is None:
        return 1, None
    lower, upper = bounds.lower, bounds.upper
    return max(1, int(lower)), int(upper) if upper.is_finite and int(upper) < 2**31 else None


def _first_tensor(answer: object) -> torch.Tensor:
    """The first tensor of a tuple, list or dict of outputs."""
    import torch

    while isinstance(answer, tuple | list | dict) and answer:
        answer = next(iter(answer.values())) if isinstance(answer, dict) else answer[0]
    if not isinstance(answer, torch.Tensor):
        raise UnsupportedModel(f"it answers with {type(answer).__name__}, not with a tensor")
    return answer


def _out_of_memory(error: BaseException) -> None:
    """Torch reports a failed allocation as a RuntimeError; make it a MemoryError."""
    if "allocate memory" in str(error) or "bad_alloc" in str(error):
        raise MemoryError(reason(error)) from error
