"""Weights of torch files: exported programs (.pt2), TorchScript, state dicts."""

from __future__ import annotations

import zipfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fingerprint.errors import TransformError
from fingerprint.transforms.files import first_line, format_of, write_through_memory
from fingerprint.transforms.interface import Weights
from fingerprint.transforms.weights.axes import graph_axes, program_names
from fingerprint.transforms.weights.interface import WeightFile, is_weight
from fingerprint.transforms.weights.script import script_axes, script_tensors

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")  # keys under which checkpoints keep theirs


class TorchWeights(WeightFile):
    """Named torch tensors that are edited in place and then saved with the object that holds them."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], axes: dict[str, int]) -> None:
        self.tensors = only_weights(tensors)
        self.weights = {name: as_numpy(tensor) for name, tensor in self.tensors.items()}
        self.axes = {name: axis for name, axis in axes.items() if name in self.weights}

    def _write(self, out: Path, weights: Weights) -> None:
        before = {name: self.tensors[name].detach().clone() for name in weights}
        try:
            for name, value in weights.items():
                assign(self.tensors[name], value)
            self._save(out)
        finally:
            for name, old in before.items():
                self.tensors[name].detach().copy_(old)

    @abstractmethod
    def _save(self, out: Path) -> None:
        """Save the holder of the tensors as it is now."""


class ProgramWeights(TorchWeights):
    """A torch.export program. Example inputs that the file embeds are left out of the copy."""

    def __init__(self, path: Path) -> None:
        import torch

        self._extra = dict.fromkeys(_extra_names(path), "")
        with _readable(path):
            self._program = torch.export.load(path, extra_files=self._extra)
        constants = {k: v for k, v in self._program.constants.items() if isinstance(v, torch.Tensor)}
        axes = graph_axes(self._program.graph, program_names(self._program))
        super().__init__({**self._program.state_dict, **constants}, axes)

    def _save(self, out: Path) -> None:
        import torch

        self._program.example_inputs = None
        write_through_memory(lambda file: torch.export.save(self._program, file, extra_files=self._extra), out)


class ScriptWeights(TorchWeights):
    """A TorchScript module; a frozen one keeps its weights as constants of the graph."""

    def __init__(self, path: Path) -> None:
        import torch

        self._extra = dict.fromkeys(_extra_names(path), "")
        with _readable(path):
            self._module = torch.jit.load(  # type: ignore[no-untyped-call]
                path, map_location="cpu", _extra_files=self._extra
            )
        super().__init__(script_tensors(self._module), script_axes(self._module))

    def _save(self, out: Path) -> None:
        import torch

        write_through_memory(lambda file: torch.jit.save(self._module, file, _extra_files=self._extra), out)


class StateDictWeights(TorchWeights):
    """A state dict (weights only), plain or under a key such as `state_dict` of a checkpoint."""

    def __init__(self, path: Path) -> None:
        self._content, tensors = _read_state_dict(path)
        super().__init__(tensors, {})

    def _save(self, out: Path) -> None:
        import torch

        write_through_memory(lambda file: torch.save(self._content, file), out)


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a `.pth` (weights only) or `.safetensors` file.

    Raises:
        TransformError: neither.
    """
    from safetensors.torch import load_file

    if format_of(path) == "safetensors":
        with _readable(path):
            return load_file(path)
    return _read_state_dict(path)[1]


def _read_state_dict(path: Path) -> tuple[object, dict[str, torch.Tensor]]:
    """What the file holds, and the tensors of the state dict in it."""
    import torch

    with _readable(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise TransformError(f"{path} holds a {type(content).__name__}, not a state dict")
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    return content, {name: value for name, value in inner.items() if isinstance(value, torch.Tensor)}


def only_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Dense float tensors that are weights; of tied ones (same memory, same shape), the first name."""
    import torch

    floats = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    found: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, tensor in tensors.items():
        if tensor.dtype in floats and tensor.layout == torch.strided and is_weight(tensor.shape):
            found.setdefault((tensor.data_ptr(), tuple(tensor.shape)), name)
    return {name: tensors[name] for name in found.values()}


def as_numpy(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A float32 copy."""
    return np.array(tensor.detach().cpu().float().numpy(), np.float32)


def assign(tensor: torch.Tensor, value: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    """New values in place, in the tensor's own dtype; values that did not change stay bit by bit."""
    import torch

    old = tensor.detach()
    new = torch.from_numpy(np.ascontiguousarray(value)).to(old.device)
    old.copy_(torch.where(old.float() == new, old, new.to(old.dtype)))


def _extra_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.split("/extra/", 1)[1] for name in archive.namelist() if "/extra/" in name]
    except (OSError, zipfile.BadZipFile):
        return []


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns whatever torch raises on a bad file into one error."""
    try:
        yield
    except Exception as error:
        raise TransformError(f"{path} can't be read: {first_line(error)}") from error
