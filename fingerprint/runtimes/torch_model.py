"""An opened torch module on its device, and what its failures mean."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnsupportedModel
from fingerprint.model import Floats, Signature
from fingerprint.runtimes.devices import CPU
from fingerprint.runtimes.interface import LoadedModel

if TYPE_CHECKING:
    import torch

_RANGES = re.compile(r"choose_qparams(?!\w*per_token)|\bquantized(?:::|\.)\w*dynamic")
UNKNOWN = Signature(shape=(), dtype="float32")  # of files that do not say how they want their input


class TorchModel(LoadedModel):
    """A torch module, all of it on one device."""

    def __init__(
        self,
        module: torch.nn.Module,
        signature: Signature = UNKNOWN,
        batch_range: tuple[int, int | None] = (1, None),
        device: str = CPU,
    ) -> None:
        import torch

        self._module = module
        self._device = torch.device(device)
        self.offloads = device != CPU
        self._dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        self.signature = signature
        self.batch_range = batch_range

    def predict(self, batch: NDArray[np.generic]) -> Floats:
        """See `LoadedModel.predict`."""
        import torch

        given = torch.from_numpy(batch if batch.flags.writeable else batch.copy())
        with torch.inference_mode():
            try:
                images = given.to(self._device, self._dtype if given.is_floating_point() else None)
                answer = _first_tensor(self._module(images)).float().cpu()
            except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError, IndexError) as error:
                raise_if_out_of_memory(error)
                raise UnsupportedModel(f"it can't answer a batch of shape {batch.shape}: {reason(error)}") from error
            return np.asarray(answer.numpy(), np.float32)

    def differentiable(self) -> torch.nn.Module:
        """See `LoadedModel.differentiable`."""
        for parameter in self._module.parameters():  # TorchScript has no requires_grad_ of a whole module
            parameter.requires_grad_(False)
        return self._module


def ranges_from_batch(operators: str) -> bool:
    """Whether operators set 8-bit ranges while they run, for a whole batch: answers depend on the company."""
    return _RANGES.search(operators) is not None


def reason(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _first_tensor(answer: object) -> torch.Tensor:
    """The first tensor of a tuple, list or dict of outputs."""
    import torch

    while isinstance(answer, tuple | list | dict) and answer:
        answer = next(iter(answer.values())) if isinstance(answer, dict) else answer[0]
    if not isinstance(answer, torch.Tensor):
        raise UnsupportedModel(f"it answers with {type(answer).__name__}, not with a tensor")
    return answer


def raise_if_out_of_memory(error: BaseException) -> None:
    """Torch reports a failed allocation as a RuntimeError; make it a MemoryError."""
    if any(words in str(error) for words in ("allocate memory", "bad_alloc", "out of memory")):
        raise MemoryError(reason(error)) from error
