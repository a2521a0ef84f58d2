"""A model file as a torch module that can be trained, and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.files import write_through_memory
from fingerprint.transforms.graph import Switch, normalize, products, roles
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.programs import TensorInput, load_program, program_input, program_module
from fingerprint.transforms.tools import tool
from fingerprint.transforms.tracing import export_module
from fingerprint.transforms.weights.axes import graph_axes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Head:
    """The last layer: its node, the names of its weight and bias, and the weight's axis that counts classes."""

    node: torch.fx.Node
    weight: str
    bias: str | None
    axis: int

    def names(self) -> list[str]:
        """Of weight and bias."""
        return [self.weight, *([self.bias] if self.bias else [])]


class Trainable:
    """An exported graph whose weights are parameters.

    Batch normalization and dropout are operations of the graph, so that they can be set to training. Where an exporter
    has folded the normalization into the convolutions (ONNX), there is none, and the folded weights are trained.
    """

    def __init__(self, program: torch.export.ExportedProgram, what: str) -> None:
        self.what = what
        self.given: TensorInput = program_input(program)
        if self.given.batch is not None or self.given.dtype != "float32":
            raise TransformError(
                f"{what} can't be trained: its batch is fixed, or its input is {self.given.dtype}",
                remedy="Take the file with float32 input and an open batch that it was made from.",
            )
        self.module = program_module(program)
        normalize(self.module.graph)
        self.module.recompile()
        self.roles = roles(self.module.graph)
        self.parameters = _parameters(self.module, list(self.roles))
        self._switch = Switch(self.module)
        self.probabilities = self._gives_probabilities()

    def _gives_probabilities(self) -> bool:
        import torch

        size = math.prod(self.given.shape)
        example = torch.linspace(-1, 1, 2 * size).reshape(2, *self.given.shape)
        with torch.no_grad():
            answer = self.module(example)
        if not isinstance(answer, torch.Tensor) or answer.ndim < 2 or answer[0].numel() != answer.shape[1]:
            raise TransformError(f"{self.what} answers no vector of classes: it can't be trained here")
        self.classes = int(answer.shape[1])
        sums = answer.flatten(1).sum(1)
        return bool((answer >= 0).all() and (sums - 1).abs().max() < 1e-3)

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, or the logarithm of probabilities: (B, classes) float32."""
        return self._as_scores(self.module(inputs))

    def scores_with(self, weights: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """As `scores`, with other values for the named parameters."""
        import torch

        return self._as_scores(torch.func.functional_call(self.module, weights, (inputs,)))

    def _as_scores(self, answer: torch.Tensor) -> torch.Tensor:
        flat = answer.flatten(1).float()
        return flat.clamp_min(1e-12).log() if self.probabilities else flat

    def training(self, on: bool) -> None:
        """Statistics of the batch and random dropout on or off."""
        self._switch.training(on)

    def head(self) -> Head:
        """The last layer.

        Raises:
            TransformError: there is no convolution or matrix product by a constant.
        """
        found = None
        for found in products(self.module.graph):  # noqa: B007  (the last one)
            pass
        if found is None:
            raise TransformError(f"{self.what} has no last layer that could be found")
        node, weight, bias = found
        return Head(node, weight, bias, graph_axes(self.module.graph, {}).get(weight, 0))

    def weights(self) -> list[str]:
        """Names of the parameters of two or more dimensions."""
        return [name for name, value in self.parameters.items() if value.ndim >= 2]

    def reset(self, name: str) -> None:
        """Draw a parameter or running statistic anew (He initialisation; torch's global generator)."""
        import torch

        tensor, role = dict(self.tensors())[name], self.roles.get(name)
        with torch.no_grad():
            if role in ("scale", "variance"):
                tensor.fill_(1.0)
            elif role in ("bias", "mean"):
                tensor.zero_()
            elif role == "weight":
                axis = graph_axes(self.module.graph, {}).get(name, 0)
                tensor.normal_(0, math.sqrt(2 * tensor.shape[axis] / tensor.numel()))
            else:
                tensor.normal_(0, 0.02)

    def reset_all(self) -> None:
        """Draw every parameter and running statistic anew. The last layer starts small."""
        import torch

        for name in dict.fromkeys([*self.parameters, *self.roles]):
            self.reset(name)
        with torch.no_grad():
            self.parameters[self.head().weight].mul_(0.3)

    def replace(self, name: str, value: torch.Tensor) -> None:
        """Another tensor, also of another shape, in the place of a parameter."""
        import torch

        owner, leaf = _owner(self.module, name)
        delattr(owner, leaf)
        made = torch.nn.Parameter(value.detach().clone().contiguous())
        owner.register_parameter(leaf, made)
        self.parameters[name] = made

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Parameters and buffers by name."""
        yield from self.module.named_parameters()
        yield from self.module.named_buffers()

    def to(self, device: str) -> None:
        """Move all tensors."""
        self.module.to(device)

    def save(self, out: Path) -> None:
        """Write a `.pt2` with an open batch, in the mode that the source had."""
        self.training(False)
        self.to("cpu")
        save_module(self.module, self.given, out)


def load_trainable(source: Path, context: DeriveContext) -> Trainable:
    """Read a torch or ONNX file.

    Raises:
        TransformError: it can't be turned back into a program, or can't be trained. MissingExtra.
    """
    with tool(f"reading {source.name}"):
        return Trainable(load_program(source, context), source.name)


def exported(module: torch.nn.Module, given: TensorInput) -> torch.export.ExportedProgram:
    """A module as an exported program with an open batch, without notes of the machine that made it."""
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = export_module(module, given.zeros, traced=False)
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def save_module(module: torch.nn.Module, given: TensorInput, out: Path) -> None:
    """Write a module as a `.pt2`."""
    import torch

    with tool(f"writing {out.name}"):
        program = exported(module, given)
        write_through_memory(lambda file: torch.export.save(program, file), out)


@contextmanager
def seeded(context: DeriveContext) -> Iterator[None]:
    """Torch's generators start at the context's seed, and are as before afterwards."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        yield


def device_of(context: DeriveContext) -> str:
    """Where training runs: what the context says, else a GPU where there is one."""
    import torch

    return context.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _parameters(module: torch.fx.GraphModule, wanted: list[str]) -> dict[str, torch.nn.Parameter]:
    """The module's parameters; where it has none (ONNX, TorchScript), its weights and biases are made some."""
    import torch

    given = dict(module.named_parameters())
    if not given:
        kinds = roles(module.graph)
        for name in wanted:
            owner, leaf = _owner(module, name)
            tensor = getattr(owner, leaf)
            if kinds[name] not in ("mean", "variance") and tensor.is_floating_point():
                delattr(owner, leaf)
                owner.register_parameter(leaf, torch.nn.Parameter(tensor.detach().clone()))
        given = dict(module.named_parameters())
    for parameter in given.values():
        parameter.requires_grad_(parameter.is_floating_point())
    return given


def _owner(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    parent, _, leaf = name.rpartition(".")
    return module.get_submodule(parent), leaf
