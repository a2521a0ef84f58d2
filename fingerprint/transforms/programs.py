"""Any source as a torch module or exported program: what the exporters start from."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import MissingExtra, TransformError, UsageError
from fingerprint.frozen import dataclass
from fingerprint.transforms.files import format_of
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.tracing import export_module, open_batch

if TYPE_CHECKING:
    import onnx
    import torch

_EXPORTERS = re.compile(r"val_\d+")  # how PyTorch's ONNX exporter names values
_STATES = ("state-dict", "safetensors")


@dataclass(frozen=True)
class TensorInput:
    """The one input of a model: shape without the batch, dtype by its torch name, and the batch if it is fixed."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    batch: int | None = None

    def zeros(self, batch: int) -> torch.Tensor:
        """An example input that gives nothing away; of the fixed batch where there is one."""
        import torch

        return torch.zeros((self.batch or batch, *self.shape), dtype=getattr(torch, self.dtype))


def load_program(source: Path, context: DeriveContext) -> torch.export.ExportedProgram:
    """A torch or ONNX file as an exported program, without example inputs and stack traces.

    The batch is dynamic where the model allows it, else what the file fixes, else 1.

    Raises:
        TransformError: not a source for this. MissingExtra: a needed package is not installed.
    """
    import torch

    if format_of(source) == "pt2":
        program = torch.export.load(source)
    else:
        module, given = load_module(source, context)
        program = export_module(module, given.zeros, traced=format_of(source) not in _STATES)
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # holds paths of the machine that made it
    return program


def load_module(source: Path, context: DeriveContext) -> tuple[torch.nn.Module, TensorInput]:
    """A torch or ONNX file as a module, and what it takes.

    Raises:
        TransformError, MissingExtra, UsageError.
    """
    import torch

    format = format_of(source)
    if format == "pt2":
        program = torch.export.load(source)
        return program_module(program), program_input(program)
    if format == "onnx":
        return _from_onnx(source, context)
    if format == "torchscript":
        module: torch.jit.ScriptModule = torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
        return module.eval(), spec_input(source, context)
    if format in _STATES:
        return _from_factory(source, context.factory), spec_input(source, context)
    raise TransformError(
        f"a {format} file can't be turned back into a program",
        remedy="Convert the .pt2, TorchScript or .onnx it is from.",
    )


def program_module(program: torch.export.ExportedProgram) -> torch.fx.GraphModule:
    """The module of a program, without the check of its input, which can't be traced."""
    module: torch.fx.GraphModule = program.module(check_guards=False)
    module._forward_pre_hooks.clear()
    open_batch(module)
    return module


def program_input(program: torch.export.ExportedProgram) -> TensorInput:
    """The one input of an exported program.

    Raises:
        TransformError: it takes several inputs, or one whose shape is open.
    """
    names = program.graph_signature.user_inputs
    shapes = [node.meta["val"] for node in program.graph.nodes if node.name in names]
    if len(shapes) != 1 or not all(isinstance(size, int) for size in shapes[0].shape[1:]):
        raise TransformError("only programs with one input, open in its batch at most, can be converted")
    batch, *shape = shapes[0].shape
    return TensorInput(
        tuple(shape), str(shapes[0].dtype).removeprefix("torch."), batch if isinstance(batch, int) else None
    )


def spec_input(source: Path, context: DeriveContext) -> TensorInput:
    """The input according to the spec.

    Raises:
        TransformError: there is no spec.
    """
    if context.spec is None:
        raise TransformError(
            f"{source.name} does not say what input it takes", remedy="Give --spec FILE, or put a sidecar beside it."
        )
    return TensorInput(context.spec.shape, "float16" if context.spec.dtype == "float16" else "float32")


def _from_onnx(source: Path, context: DeriveContext) -> tuple[torch.nn.Module, TensorInput]:
    try:
        import onnx2fx
    except ImportError as error:
        raise MissingExtra("onnx2fx", "onnx") from error
    from fingerprint.transforms.onnx_files import load_onnx, onnx_input

    model = _renamed(load_onnx(source))
    shape, dtype = onnx_input(model)
    module: torch.nn.Module = onnx2fx.convert(model)
    if not shape or None in shape[1:]:
        return module.eval(), spec_input(source, context)
    return module.eval(), TensorInput(tuple(size for size in shape[1:] if size is not None), dtype, shape[0])


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without names that PyTorch's ONNX exporter gives itself: of those it writes some twice."""
    from onnx.compose import add_prefix

    if not any(_EXPORTERS.fullmatch(tensor.name) for tensor in model.graph.initializer):
        return model
    return add_prefix(model, "from_", rename_nodes=False, rename_inputs=False, rename_outputs=False)


def _from_factory(source: Path, factory: str | None) -> torch.nn.Module:
    from fingerprint.transforms.weights.torch_files import load_state_dict

    if factory is None or ":" not in factory:
        raise UsageError(
            f"{source.name} holds weights, no program", remedy="Name what builds the module: --factory module:callable."
        )
    name, _, attribute = factory.partition(":")
    module: torch.nn.Module = getattr(import_module(name), attribute)()
    module.load_state_dict(load_state_dict(source))
    return module.eval()
