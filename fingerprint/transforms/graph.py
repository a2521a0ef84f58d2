"""What the tensors of an exported graph are for, and switching its layers between training and inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Role = Literal["weight", "bias", "scale", "mean", "variance"]

_LINEAR = {"linear": (1, 2), "addmm": (2, 0), "matmul": (1, None), "mm": (1, None)}  # places of weight and bias
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "conv_transpose1d", "conv_transpose2d")
_PRODUCTS = _LINEAR | dict.fromkeys(_CONVOLUTIONS, (1, 2))
_NORMS: dict[str, tuple[int, ...]] = {  # places of scale, bias, mean, variance
    "batch_norm": (1, 2, 3, 4),
    "instance_norm": (1, 2),
    "layer_norm": (2, 3),
    "group_norm": (2, 3),
}
_NORM_ROLES: tuple[Role, ...] = ("scale", "bias", "mean", "variance")
_FLAGS = {"batch_norm": 5, "dropout": 2, "feature_dropout": 2}  # place of the argument that says: training
_FROZEN_NORM = "_native_batch_norm_legit_no_training"


def operation(node: torch.fx.Node) -> str:
    """The name of a node's operation without its overload, such as `conv2d`; empty for other nodes."""
    return str(getattr(node.target, "__name__", "")).split(".")[0] if node.op == "call_function" else ""


def argument(node: torch.fx.Node, place: int | None) -> torch.fx.Node | None:
    """The node that stands at this place of the arguments, if one does."""
    import torch

    found = node.args[place] if place is not None and place < len(node.args) else None
    return found if isinstance(found, torch.fx.Node) else None


def leaves(graph: torch.fx.Graph) -> dict[torch.fx.Node, list[str]]:
    """Names of the tensors that a node is computed from; empty where it depends on the input."""
    found: dict[torch.fx.Node, list[str]] = {}
    for node in graph.nodes:
        behind = [found[given] for given in node.all_input_nodes]
        names = [name for one in behind for name in one] if all(behind) else []
        found[node] = [str(node.target)] if node.op == "get_attr" else names
    return found


def products(graph: torch.fx.Graph) -> Iterator[tuple[torch.fx.Node, str, str | None]]:
    """Convolutions and matrix products by a constant: (node, name of the weight, name of the bias)."""
    constant = leaves(graph)
    for node in graph.nodes:
        places = _PRODUCTS.get(operation(node))
        given = argument(node, places[0]) if places else None
        if places and given is not None and constant[given]:
            bias = argument(node, places[1])
            names = constant[bias] if bias is not None else _added(node, constant)
            yield node, constant[given][0], names[0] if names else None


def _added(node: torch.fx.Node, constant: dict[torch.fx.Node, list[str]]) -> list[str]:
    """What is added to a product next, also behind a factor (an ONNX Gemm), where it is a constant."""
    for user in node.users:
        others = [constant[other] for other in user.all_input_nodes if other is not node]
        if operation(user) == "add" and others and others[0]:
            return others[0]
        if operation(user) == "mul" and all(others) and len(node.users) == 1:
            return _added(user, constant)
    return []


def roles(graph: torch.fx.Graph) -> dict[str, Role]:
    """What the tensors are for, by name; those that are neither weights nor part of a normalization are absent."""
    found: dict[str, Role] = {}
    for _, weight, bias in products(graph):
        found[weight] = "weight"
        found |= {bias: "bias"} if bias else {}
    constant = leaves(graph)
    for node in graph.nodes:
        for place, role in zip(_NORMS.get(operation(node), ()), _NORM_ROLES, strict=False):
            given = argument(node, place)
            found |= dict.fromkeys(constant[given][:1] if given is not None else [], role)
    return found


def normalize(graph: torch.fx.Graph) -> None:
    """Write batch normalization that can't be trained as the operation that can."""
    import torch

    for node in list(graph.nodes):
        if operation(node) != _FROZEN_NORM or any(operation(user) != "getitem" for user in node.users):
            continue
        *given, momentum, eps = node.args
        with graph.inserting_before(node):
            made = graph.call_function(torch.ops.aten.batch_norm.default, (*given, False, momentum, eps, False))
        made.meta = {"val": node.meta["val"][0]} if "val" in node.meta else {}
        for user in list(node.users):
            user.replace_all_uses_with(made)
            graph.erase_node(user)
        graph.erase_node(node)


class Switch:
    """Sets batch normalization and dropout of a graph module to training or back to how they were."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        self._module = module
        self._before = {n: n.args for n in module.graph.nodes if operation(n) in _FLAGS}

    def training(self, on: bool) -> None:
        """`on`: statistics of the batch, and random dropout. Off: as the file says."""
        for node, before in self._before.items():
            place = _FLAGS[operation(node)]
            node.args = (*before[:place], True, *before[place + 1 :]) if on else before
        self._module.recompile()


def fed_by(node: torch.fx.Node) -> torch.fx.Node:
    """The node that a product multiplies its weight with."""
    place = 1 if operation(node) == "addmm" else 0
    given = argument(node, place)
    assert given is not None  # noqa: S101  (a product has a factor)
    return given


def split_at(module: torch.fx.GraphModule, node: torch.fx.Node) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
    """The module up to a node and behind it, with shared tensors; behind it nothing else of the input is needed."""
    import torch

    body, tail = torch.fx.Graph(), torch.fx.Graph()
    known: dict[torch.fx.Node, torch.fx.Node] = {}
    for other in module.graph.nodes:
        known[other] = body.node_copy(other, lambda given: known[given])
        if other is node:
            break
    body.output(known[node])
    body.eliminate_dead_code()
    copied = {node: tail.placeholder("features")}
    for other in module.graph.nodes:
        known_inputs = all(given in copied for given in other.all_input_nodes)
        if other.op == "output":
            tail.output(copied[other.all_input_nodes[0]])
        elif other is not node and known_inputs and other.op != "placeholder":
            copied[other] = tail.node_copy(other, lambda given: copied[given])
    tail.eliminate_dead_code()
    return torch.fx.GraphModule(module, body), torch.fx.GraphModule(module, tail)
