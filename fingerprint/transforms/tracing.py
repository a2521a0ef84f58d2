"""From a module to an exported program whose batch is dynamic where that works."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Mode = Literal["real", "symbolic"]


def export_module(
    module: torch.nn.Module, zeros: Callable[[int], torch.Tensor], traced: bool
) -> torch.export.ExportedProgram:
    """Export a module. `zeros(batch)` gives an example input; its batch stays what it is where the file fixes it.

    `traced`: trace with make_fx first. That resolves shapes which a converted ONNX graph or TorchScript computes from
    constants, and which torch.export can't see through.
    """
    import torch

    with torch.no_grad():
        if len(zeros(2)) == 2 and _keeps_batch(module, zeros(2)):
            modes: tuple[Mode | None, ...] = ("symbolic", "real") if traced else (None,)
            for mode in modes:
                try:
                    shapes = ({0: torch.export.Dim("batch", min=1)},)
                    return torch.export.export(_traced(module, zeros(2), mode), (zeros(2),), dynamic_shapes=shapes)
                except Exception:  # noqa: S112  (whatever torch finds in the way of a dynamic batch)
                    continue
        return torch.export.export(_traced(module, zeros(1), "real" if traced else None), (zeros(1),))


def open_batch(graph: torch.fx.GraphModule) -> None:
    """Write -1 for the batch where it is read off a tensor for a reshape: a number there would be frozen by a trace."""
    import torch

    reshapes = (torch.ops.aten.reshape.default, torch.ops.aten.view.default)
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in reshapes or not node.args[1]:
            continue
        sizes = list(node.args[1])
        known = [size for size in sizes if isinstance(size, int)]
        if isinstance(sizes[0], torch.fx.Node) and len(known) == len(sizes) - 1 and min(known, default=1) > 0:
            node.args = (node.args[0], [-1, *known])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _keeps_batch(module: torch.nn.Module, example: torch.Tensor) -> bool:
    """Whether two inputs give two outputs: a program that was traced with one image may fold them into one."""
    import torch

    try:
        answer = module(example)
    except Exception:
        return False
    first = answer[0] if isinstance(answer, (tuple, list)) else answer
    return isinstance(first, torch.Tensor) and first.ndim > 0 and len(first) == len(example)


def _traced(module: torch.nn.Module, example: torch.Tensor, mode: Mode | None) -> torch.nn.Module:
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    if mode is None:
        return module
    table = {torch.ops.aten._convolution.default: _convolution}
    trace = make_fx(module, table, tracing_mode=mode, pre_dispatch=True, _allow_non_fake_inputs=True)
    graph: torch.fx.GraphModule = trace(example)
    _restore_names(graph, module)
    open_batch(graph)
    return graph


def _restore_names(graph: torch.fx.GraphModule, module: torch.nn.Module) -> None:
    names = {t.data_ptr(): n for n, t in module.state_dict(keep_vars=True).items() if t.numel()}
    reads = [node for node in graph.graph.nodes if node.op == "get_attr"]
    tensors = {node.target: getattr(graph, node.target) for node in reads}
    for node in reads:
        if name := names.get(tensors[node.target].data_ptr()):
            if hasattr(graph, node.target):
                delattr(graph, node.target)
            node.target = _placed(graph, name, tensors[node.target])


def _convolution(*arguments: object) -> torch.Tensor:
    """TorchScript's convolution, without the flags of its implementation that no converter knows."""
    import torch

    answer: torch.Tensor = torch.ops.aten.convolution.default(*arguments[:9])
    return answer


def _placed(graph: torch.fx.GraphModule, name: str, tensor: torch.Tensor) -> str:
    """Put a constant under its dotted name of old; answers that name."""
    import torch

    *parents, leaf = name.split(".")
    owner: torch.nn.Module = graph
    for part in parents:
        if not hasattr(owner, part):
            owner.add_module(part, torch.nn.Module())
        owner = getattr(owner, part)
    if not hasattr(owner, leaf):
        owner.register_buffer(leaf, tensor.detach())
    return name
