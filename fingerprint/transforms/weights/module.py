"""Weights of a torch module in memory."""

from __future__ import annotations

import copy
import io
import warnings
from typing import TYPE_CHECKING

from fingerprint.errors import TransformError
from fingerprint.transforms.interface import WeightTransform

if TYPE_CHECKING:
    import torch


def edit_module(module: torch.nn.Module, transform: WeightTransform) -> torch.nn.Module:
    """A deep copy with edited float weights of two or more dimensions, among parameters and buffers.

    The module itself stays as it is. A tensor keeps its dtype and device.

    Raises:
        TransformError: there are no such weights, or one is not finite.
    """
    from fingerprint.transforms.weights.axes import module_axes
    from fingerprint.transforms.weights.torch_files import as_numpy, assign, only_weights

    edited, found = _copied(module)
    tensors = only_weights(found)
    if not tensors:
        raise TransformError("this model holds no float weights of two or more dimensions")
    weights = {name: as_numpy(tensor) for name, tensor in tensors.items()}
    for name, value in transform.edit(weights, module_axes(edited)).items():
        assign(tensors[name], value)
    return edited


def _copied(module: torch.nn.Module) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A copy that shares no memory, and its tensors by name."""
    import torch

    from fingerprint.transforms.weights.script import outer_scripts, script_tensors

    if isinstance(module, torch.jit.ScriptModule):
        script = _reloaded(module)
        return script, script_tensors(script)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own pytree deprecations, which nobody here can act on
        edited = copy.deepcopy(module)
    found = {**dict(edited.named_parameters()), **dict(edited.named_buffers())}
    for name, script in outer_scripts(edited):
        fresh = _reloaded(script)
        edited.set_submodule(name, fresh)
        found |= {f"{name}.{weight}": tensor for weight, tensor in script_tensors(fresh).items()}
    return edited, found


def _reloaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """A real copy: deepcopy leaves the constants of the graph shared, and a frozen module keeps its weights there."""
    import torch

    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    loaded: torch.jit.ScriptModule = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    return loaded
