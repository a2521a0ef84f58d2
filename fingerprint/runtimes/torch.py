"""PyTorch: torch.export programs, AOTInductor packages, TorchScript, and state dicts with a factory.

On the CPU, or on a GPU in float32 arithmetic: TensorFloat-32, which torch takes by itself there, is turned off.

Programs can execute code that their author wrote when they are opened, and TorchScript can write files and loop for
ever: whoever opens a suspect decides about that before `load`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel
from fingerprint.runtimes.devices import CPU
from fingerprint.runtimes.formats import Format
from fingerprint.runtimes.interface import LoadOptions, Runtime
from fingerprint.runtimes.packages import require, version_of
from fingerprint.runtimes.torch_model import TorchModel, raise_if_out_of_memory, ranges_from_batch, reason
from fingerprint.runtimes.torch_package import PackageModel


class TorchRuntime(Runtime):
    """`.pt2` of both kinds, TorchScript, and `.pth` / `.safetensors` with a factory."""

    name: ClassVar[str] = "torch"
    extra: ClassVar[str | None] = None
    formats: ClassVar[tuple[str, ...]] = (
        Format.PT2,
        Format.TORCHSCRIPT,
        Format.STATE_DICT,
        Format.PICKLE,
        Format.SAFETENSORS,
        Format.AOTINDUCTOR,
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

    def warm(self, format: str) -> None:
        """See `Runtime.warm`: torch.export imports over a thousand modules when it opens its first program."""
        if format == Format.PT2:
            from fingerprint.runtimes import torch_program

            torch_program.warm()

    def devices(self, format: str) -> tuple[str, ...]:
        """See `Runtime.devices`. AOTInductor packages are machine code for the CPU."""
        import torch

        found = [CPU]
        if format != Format.AOTINDUCTOR and torch.cuda.is_available():
            found += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        if format != Format.AOTINDUCTOR and torch.backends.mps.is_available():
            found.append("mps")
        return tuple(found)

    def start(self, device: str) -> None:
        """See `Runtime.start`: a context, and arithmetic that a CPU's answers can be compared with."""
        if device == CPU:
            return
        import torch

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.zeros(1, device=device).add_(1.0).cpu()

    def load(self, path: Path, format: str, options: LoadOptions) -> TorchModel | PackageModel:
        """See `Runtime.load`. `threads` is set for the whole process."""
        import torch

        from fingerprint.runtimes.torch_program import load_program
        from fingerprint.runtimes.torch_state import build

        device = options.device or CPU
        if options.threads:
            torch.set_num_threads(options.threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if format == Format.PT2:
                return load_program(path, device)
            if format == Format.AOTINDUCTOR:
                return PackageModel(path)
            if format == Format.TORCHSCRIPT:
                return _load_script(path, device)
            return TorchModel(build(path, format, options.factory).to(device), device=device)

    def weights(self, path: Path, format: str) -> dict[str, NDArray[np.generic]]:
        """Parameters and buffers by name. TorchScript files are opened by torch; nothing else is executed."""
        if format == Format.AOTINDUCTOR:
            from fingerprint.runtimes import torch_package

            return torch_package.weights(path)
        if format == Format.PT2:
            from fingerprint.runtimes.pt2_weights import read

            return read(path)
        from fingerprint.runtimes.torch_state import arrays, read_state

        if format == Format.TORCHSCRIPT:
            return arrays(_load_script(path).differentiable().state_dict())
        return arrays(read_state(path, format))


def _load_script(path: Path, device: str = CPU) -> TorchModel:
    import torch

    try:
        module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
        alone = ranges_from_batch(str(module.inlined_graph))
        return TorchModel(module.eval(), batch_range=(1, 1 if alone else None), device=device)
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive fails anywhere in torch's reader
        raise_if_out_of_memory(error)
        raise UnreadableModel(f"TorchScript can't read it: {reason(error)}") from error
