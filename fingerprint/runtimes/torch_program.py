"""torch.export programs (`.pt2`).

`torch.export.load` can execute code that a file's author wrote: it falls back to unrestricted unpickling.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import UnreadableModel, UnsupportedModel
from fingerprint.model import Signature
from fingerprint.runtimes.devices import CPU
from fingerprint.runtimes.torch_model import TorchModel, raise_if_out_of_memory, ranges_from_batch, reason

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

_TAKEN = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64")  # dtypes that numpy has too
_EXPORT_MODULES = (
    "torch.export",
    "torch._export.serde.serialize",
    "torch.export.pt2_archive._package",
    "torch._functorch.aot_autograd",
    "torch.fx.experimental.symbolic_shapes",
    "torch.export._trace",
    "torch.export._unlift",
)


def warm() -> None:
    """Import what the first `torch.export.load` of a process would import: over a thousand modules."""
    for module in _EXPORT_MODULES:
        with contextlib.suppress(ImportError):  # private ones: named for speed, not needed
            importlib.import_module(module)


def load_program(path: Path, device: str = CPU) -> TorchModel:
    """Open a program on a device.

    Raises:
        UnreadableModel: damaged.
        UnsupportedModel: its inputs are not one batch of images.
    """
    import torch

    try:
        with path.open("rb") as file:
            program = torch.export.load(file)
        signature, batch_range = _program_signature(program)
        if batch_range[0] == 1 and any(ranges_from_batch(str(node.target)) for node in program.graph.nodes):
            batch_range = (1, 1)
        if device != CPU:
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return TorchModel(program.module(), signature, batch_range, device)
    except (UnsupportedModel, MemoryError):
        raise
    except Exception as error:  # a damaged program fails anywhere in torch's deserializer
        raise_if_out_of_memory(error)
        raise UnreadableModel(f"torch.export can't read it: {reason(error)}") from error


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
    return max(1, int(lower)), int(upper) if upper.is_Integer and upper < 2**31 else None  # not int_oo
