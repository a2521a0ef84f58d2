"""A copy of a model's graph whose weights are drawn anew."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

from fingerprint.transforms.graph import operation, products
from fingerprint.transforms.trainable import Trainable, exported

if TYPE_CHECKING:
    import torch

DEEP = 4  # convolutions from which a graph without normalization gets some
_EPSILON = 1e-5
_MOMENTUM = 0.1


def fresh_copy(model: Trainable) -> Trainable:
    """The same graph, every weight and running statistic drawn anew from torch's global generator.

    A graph of several convolutions without normalization, as ONNX exporters leave it, could hardly be trained from
    scratch: it gets one behind each convolution, as its architecture had before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own pytree deprecations
        module = copy.deepcopy(model.module).cpu()
    if not any(operation(node) in ("batch_norm", "layer_norm", "group_norm") for node in module.graph.nodes):
        _normalize(module)
    made = Trainable(exported(module, model.given), f"a fresh copy of {model.what}")
    made.reset_all()
    made.probabilities = model.probabilities
    return made


def _normalize(module: torch.fx.GraphModule) -> None:
    import torch

    weights = dict([*module.named_parameters(), *module.named_buffers()])
    found = [(node, name) for node, name, _ in products(module.graph) if "conv" in operation(node)]
    if len(found) < DEEP:
        return
    for number, (node, name) in enumerate(found):
        size = int(node.meta["val"].shape[1]) if "val" in node.meta else weights[name].shape[0]
        norm = torch.nn.BatchNorm2d(size, _EPSILON, _MOMENTUM)
        module.add_submodule(f"restored_{number}", norm)
        with module.graph.inserting_after(node):
            made = module.graph.call_module(f"restored_{number}", (node,))
        node.replace_all_uses_with(made)
        made.args = (node,)
    module.eval()
    module.recompile()
