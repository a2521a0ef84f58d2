"""Filters taken out of the graph, so that the model gets smaller (Li et al., ICLR 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.graph import argument, leaves, operation
from fingerprint.transforms.interface import DeriveContext, Transform
from fingerprint.transforms.module_step import ModuleTransform

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable

_PASSING = frozenset(
    {
        "relu",
        "relu_",
        "relu6",
        "leaky_relu",
        "gelu",
        "silu",
        "sigmoid",
        "tanh",
        "hardtanh",
        "hardswish",
        "elu",
        "dropout",
        "max_pool2d",
        "avg_pool2d",
        "adaptive_avg_pool2d",
        "clamp",
        "clone",
        "contiguous",
    }
)  # operations that keep channels apart
_GROUPS = {"conv2d": 6, "convolution": 8}  # place of the number of groups
_TRANSPOSED = 6  # place of that flag in `convolution`


@dataclass(frozen=True)
class PruneShrink(ModuleTransform):
    """The share `fraction` of the filters, those of least l2 norm, of every convolution whose filters only further
    convolutions read: what runs into a sum (a residual connection) or a dense layer stays.
    """

    fraction: float

    name: ClassVar[str] = "prune"
    help: ClassVar[str] = "prune:shrink:F"

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> Transform:
        """See `Prune.parse`."""
        from fingerprint.transforms.prune import Prune

        return Prune.parse(arguments)

    def spell(self) -> str:
        """For example `prune:shrink:0.25`."""
        return f"prune:shrink:{self.fraction!r}"

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Cut weights, biases, normalizations and the inputs of the readers."""
        before = sum(value.numel() for value in model.parameters.values())
        cuts = [found for node in model.module.graph.nodes if (found := _cut_of(node, model))]
        if not cuts:
            raise TransformError(
                f"{model.what} has no filters that could be taken out", remedy="Use prune:filter:F, which zeroes them."
            )
        for cut in cuts:
            cut.apply(model, self.fraction)
        from fingerprint.transforms.wrappers import rewrapped

        context.tell("parameters_left", sum(value.numel() for value in model.parameters.values()) / before)
        return rewrapped(model.module, model, self.spell())


@dataclass(frozen=True)
class _Cut:
    """Tensors whose axis 0 counts the filters, and weights whose axis 1 reads them. `weight` decides."""

    weight: str
    outputs: tuple[str, ...]
    readers: tuple[str, ...]

    def apply(self, model: Trainable, fraction: float) -> None:
        """Keep the filters of largest norm, in their order; one at least."""
        weight = model.parameters[self.weight].detach()
        count = max(1, len(weight) - round(fraction * len(weight)))
        kept = weight.flatten(1).norm(dim=1).topk(count).indices.sort().values
        tensors = dict(model.tensors())
        for name in self.outputs:
            _replace(model, name, tensors[name].detach().index_select(0, kept))
        for name in self.readers:
            _replace(model, name, dict(model.tensors())[name].detach().index_select(1, kept))


def _replace(model: Trainable, name: str, value: torch.Tensor) -> None:
    if name in model.parameters:
        model.replace(name, value)
        return
    owner, _, leaf = name.rpartition(".")
    setattr(model.module.get_submodule(owner), leaf, value.contiguous())


def _cut_of(node: torch.fx.Node, model: Trainable) -> _Cut | None:
    """What must be cut to take filters out of a convolution; None where something else reads them."""
    constant = leaves(model.module.graph)
    if not _plain(node):
        return None
    outputs = [name for place in (1, 2) for name in _names(node, place, constant)]
    readers: list[str] = []
    waiting = [(node, user) for user in node.users]
    while waiting:
        given, user = waiting.pop()
        if argument(user, 0) is not given:
            return None
        if _plain(user):
            readers += _names(user, 1, constant)
            continue
        if operation(user) == "batch_norm":
            outputs += [name for place in (1, 2, 3, 4) for name in _names(user, place, constant)]
        elif operation(user) not in _PASSING:
            return None
        waiting += [(user, later) for later in user.users]
    if not readers or any(name not in dict(model.tensors()) for name in (*outputs, *readers)):
        return None
    return _Cut(outputs[0], tuple(dict.fromkeys(outputs)), tuple(dict.fromkeys(readers)))


def _plain(node: torch.fx.Node) -> bool:
    """A convolution over all channels, not transposed."""
    place = _GROUPS.get(operation(node))
    if place is None or (operation(node) == "convolution" and node.args[_TRANSPOSED]):
        return False
    return bool(len(node.args) <= place or node.args[place] == 1)


def _names(node: torch.fx.Node, place: int, constant: dict[torch.fx.Node, list[str]]) -> list[str]:
    given = argument(node, place)
    return constant[given][:1] if given is not None else []
