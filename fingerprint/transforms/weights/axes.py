"""Which axis of a weight counts output channels, read off an fx graph. Only what differs from 0 is listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fingerprint.transforms.weights.script import outer_scripts, script_axes

if TYPE_CHECKING:
    import torch

_CASTS = frozenset({"to", "_to_copy", "detach", "alias", "clone", "contiguous", "<lambda>", "float", "half"})
_PRODUCTS = {"matmul": 1, "mm": 1, "bmm": 1, "addmm": 2, "baddbmm": 2}  # operation: place of the right factor
_TRANSPOSED = 6  # place of `transposed` in aten.convolution, and of transB in onnx2fx's _gemm


def program_names(program: torch.export.ExportedProgram) -> dict[str, str]:
    """Placeholder name to the name of its parameter, buffer or constant."""
    signature = program.graph_signature
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


def module_axes(module: torch.nn.Module) -> dict[str, int]:
    """Output-channel axes of the weights of a torch module, read off its fx graphs and its layers."""
    import torch

    axes: dict[str, int] = {}
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(part, torch.fx.GraphModule):
            axes |= {prefix + weight: axis for weight, axis in graph_axes(part.graph, {}).items()}
        elif type(part).__name__.startswith("ConvTranspose"):
            axes[f"{prefix}weight"] = 1
    for name, script in outer_scripts(module):
        axes |= {f"{name}.{weight}".lstrip("."): axis for weight, axis in script_axes(script).items()}
    return axes


def graph_axes(graph: torch.fx.Graph, names: Mapping[str, str]) -> dict[str, int]:
    """Output-channel axes by weight name. `names`: node name to weight name; get_attr nodes name themselves."""
    import torch

    axes: dict[str, int] = {}
    for node in graph.nodes:
        found = _weight_of(node)
        while found is not None:
            weight, axis = found
            if not isinstance(weight, torch.fx.Node):
                break
            name = str(weight.target) if weight.op == "get_attr" else names.get(weight.name)
            if name is not None:
                axes.setdefault(name, axis)
            found = None if name is not None else _behind(weight, axis)
    return axes


def _operation(node: torch.fx.Node) -> str:
    target = node.target
    return target if isinstance(target, str) else str(getattr(target, "__name__", "")).split(".")[0]


def _weight_of(node: torch.fx.Node) -> tuple[object, int] | None:
    """The weight argument of an operation and its output-channel axis, where that is not 0."""
    operation, args = _operation(node), node.args
    if node.op not in ("call_function", "call_method"):
        return None
    if operation in _PRODUCTS and len(args) > _PRODUCTS[operation]:
        return args[_PRODUCTS[operation]], -1
    if operation.lstrip("_").startswith("conv_transpose") and len(args) > 1:
        return args[1], 1
    if operation in ("convolution", "_convolution") and len(args) > _TRANSPOSED:
        return args[1], 1 if args[_TRANSPOSED] else 0
    if operation == "_gemm" and len(args) > _TRANSPOSED:
        return args[1], 0 if args[_TRANSPOSED] else 1
    if operation == "linear" and len(args) > 1:
        return args[1], 0
    return None


def _behind(node: torch.fx.Node, axis: int) -> tuple[object, int] | None:
    """The tensor that a cast or transposition reads, and where the axis is there."""
    operation, args = _operation(node), node.args
    if not args:
        return None
    if operation in _CASTS:
        return args[0], axis
    if operation == "t":
        return args[0], (0 if axis in (1, -1) else 1)
    if operation == "transpose" and len(args) > 2:
        return args[0], _swapped(axis, args[1], args[2])
    if operation == "permute" and len(args) > 1 and isinstance(args[1], (list, tuple)):
        moved = args[1][axis]
        return (args[0], moved) if isinstance(moved, int) else None
    return None


def _swapped(axis: int, first: object, second: object) -> int:
    if axis == first and isinstance(second, int):
        return second
    if axis == second and isinstance(first, int):
        return first
    return 1 - axis % 2 if {first, second} == {0, 1} else axis
