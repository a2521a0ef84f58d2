"""The tensors of a TorchScript module, and which of their axes count output channels, read off its graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_PRODUCTS = {"aten::matmul": 1, "aten::mm": 1, "aten::bmm": 1, "aten::addmm": 2}  # operation: place of the right factor
_TRANSPOSED = 6  # place of `transposed` in aten::_convolution


def outer_scripts(module: torch.nn.Module) -> list[tuple[str, torch.jit.ScriptModule]]:
    """The TorchScript modules inside a module, by name, without those inside of them ("" = the module itself)."""
    import torch

    found: list[tuple[str, torch.jit.ScriptModule]] = []
    for name, part in module.named_modules():
        inside = any(not outer or name.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(part, torch.jit.ScriptModule) and not inside:
            found.append((name, part))
    return found


def script_tensors(module: torch.jit.ScriptModule) -> dict[str, torch.Tensor]:
    """Parameters, buffers and graph constants; a frozen module keeps its weights as constants."""
    found: dict[str, torch.Tensor] = dict(module.state_dict(keep_vars=True))
    graph: Any = module.inlined_graph
    for node in _all(graph, "prim::Constant"):
        if _is_tensor(node):
            found[_constant_name(node)] = node.t("value")
    return found


def script_axes(module: torch.jit.ScriptModule) -> dict[str, int]:
    """Output-channel axes by weight name; only what differs from 0."""
    graph: Any = module.inlined_graph
    axes: dict[str, int] = {}
    for place, axis, node in _users(graph):
        if name := _name(list(node.inputs())[place].node()):
            axes[name] = axis
    return axes


def _users(graph: Any) -> Iterator[tuple[int, int, Any]]:  # noqa: ANN401
    """(place of the weight, its axis, operation) where the axis is not 0."""
    for kind, place in _PRODUCTS.items():
        for node in _all(graph, kind):
            yield place, -1, node
    for size in (1, 2, 3):
        for node in _all(graph, f"aten::conv_transpose{size}d"):
            yield 1, 1, node
    for node in _all(graph, "aten::_convolution"):
        if list(node.inputs())[_TRANSPOSED].toIValue():
            yield 1, 1, node


def _all(graph: Any, kind: str) -> list[Any]:  # noqa: ANN401
    return list(graph.findAllNodes(kind, recurse=True))


def _is_tensor(node: Any) -> bool:  # noqa: ANN401
    return bool(node.hasAttribute("value") and node.kindOf("value") == "t")


def _constant_name(node: Any) -> str:  # noqa: ANN401
    return f"constant.{node.output().debugName()}"


def _name(node: Any) -> str | None:  # noqa: ANN401
    """The dotted name of an attribute read, or of a constant."""
    if node.kind() == "prim::Constant":
        return _constant_name(node) if _is_tensor(node) else None
    parts: list[str] = []
    while node.kind() == "prim::GetAttr":
        parts.insert(0, node.s("name"))
        node = next(iter(node.inputs())).node()
    return ".".join(parts) or None
