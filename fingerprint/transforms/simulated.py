"""Rounding of activations in memory, as int8 runtimes do: what other tools and other calibration images may make.

A quantizer chooses a range for every activation, and rounds to 256 levels in it; which ranges depends on the tool and
the images that it looked at. Every operation's float output is rounded here unless a normalization or a rectifier takes
it up, which runtimes fuse (Jacob et al., CVPR 2018, section 2). No file is written: a copy costs two passes.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass

Rule = Literal["extremes", "percentiles", "average", "powers"]
RULES: tuple[Rule, ...] = ("extremes", "percentiles", "average", "powers")
PERCENTILE = 1e-4  # share of values cut off at each end
SAMPLE = 20_000  # values of one activation that percentiles are taken of
IMAGES = (16, 32, 64, 128, 256)  # calibration images of the schemes, in turn
BATCHES = (1, 8, 32)  # inputs whose range is taken together where ranges are found while it runs
LEVELS = 255
_FUSED = ("batch_norm", "relu", "hardtanh", "clamp")  # stems of operations that runtimes merge into the one before


@dataclass(frozen=True)
class Int8:
    """One quantizer.

    dynamic: ranges from the inputs themselves, batch by batch, of what enters a product only; else from calibration
    images, of everything. symmetric: zero in the middle. per_tensor: one scale for all weights of a tensor. rule: how
    ranges follow from batches ("powers": the extremes, and only powers of two as scales, as microcontrollers have).
    real_outputs: the last activation stays as it is. images: of calibration; batch: inputs
    that share a range while it runs.
    """

    symmetric: bool
    per_tensor: bool
    rule: Rule = "extremes"
    real_outputs: bool = False
    images: int = 64
    dynamic: bool = False
    batch: int = 32

    @property
    def weights(self) -> str:
        """What becomes of the weights, in `derive`'s grammar."""
        return "quantize:int8:tensor" if self.per_tensor else "quantize:int8"


STATIC = tuple(
    Int8(symmetric, per_tensor, rule, real, IMAGES[i % len(IMAGES)])
    for i, (rule, real, symmetric, per_tensor) in enumerate(product(RULES, (False, True), (False, True), (False, True)))
)
DYNAMIC = tuple(
    Int8(symmetric, per_tensor, dynamic=True, batch=batch)
    for batch, symmetric, per_tensor in product(BATCHES, (False, True), (False, True))
)


@dataclass(frozen=True)
class _Grid:
    """256 levels `scale` apart, from `low` levels below zero."""

    scale: float
    low: int

    @classmethod
    def over(cls, lowest: float, highest: float, symmetric: bool, *, powers: bool = False) -> _Grid:
        """The range, widened to hold zero."""
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        size, levels = (max(-lowest, highest), LEVELS // 2) if symmetric else (highest - lowest, LEVELS)
        scale = max(size, 1e-9) / levels
        scale = 2.0 ** math.ceil(math.log2(scale)) if powers else scale
        return cls(scale, -levels if symmetric else round(lowest / scale))

    def place(self, value: torch.Tensor) -> torch.Tensor:
        """The nearest levels."""
        return (value / self.scale).round_().clamp_(self.low, self.low + LEVELS).mul_(self.scale)


class Observed(torch.nn.Module):
    """A module that notes the range of every activation while calibration images pass. Then `rounded`."""

    def __init__(self, module: torch.nn.Module, scheme: Int8) -> None:
        super().__init__()
        self.module, self._scheme = module, scheme
        self._ranges: list[list[tuple[float, float]]] = []
        self._fused: set[int] = set()
        self._probabilities = True

    def forward(self, value: torch.Tensor) -> object:
        """What the module answers."""
        watch = _Watch(len(value))
        with watch:
            answer = self.module(value)
        self._ranges.append([self._range_of(part) for part in (value, *watch.found)])
        self._fused = {place + 1 for place in watch.fused}
        output = _first(answer)
        self._probabilities &= bool(output.min() >= 0.0) and bool(((output.sum(1) - 1.0).abs() < 0.02).all())
        return answer

    def _range_of(self, value: torch.Tensor) -> tuple[float, float]:
        if self._scheme.rule != "percentiles":
            lowest, highest = torch.aminmax(value)
            return float(lowest), float(highest)
        flat = value.flatten()[:: max(1, value.numel() // SAMPLE)].sort().values
        cut = round(PERCENTILE * len(flat))
        return float(flat[cut]), float(flat[len(flat) - 1 - cut])

    def rounded(self) -> torch.nn.Module:
        """The module with its activations rounded in the ranges seen.

        Raises:
            TransformError: nothing was seen, or another number of operations from batch to batch.
        """
        if not self._ranges or len({len(ranges) for ranges in self._ranges}) != 1:
            raise TransformError("activations can't be followed: the number of operations changes from batch to batch")
        lowest, highest = np.moveaxis(np.array(self._ranges), 2, 0)  # (batches, activations) each
        if self._scheme.rule == "average":
            found = np.stack([lowest.mean(axis=0), highest.mean(axis=0)], axis=1)
        else:
            found = np.stack([lowest.min(axis=0), highest.max(axis=0)], axis=1)
        grids = [
            None
            if place in self._fused
            else _Grid.over(float(low), float(high), self._scheme.symmetric, powers=self._scheme.rule == "powers")
            for place, (low, high) in enumerate(found)
        ]
        if self._scheme.real_outputs:
            grids[-1] = None
        return _Rounded(self.module, grids, self._probabilities)


class RoundedInputs(torch.nn.Module):
    """The module with what enters its products rounded in the range of each batch: ranges found while it runs."""

    def __init__(self, module: torch.nn.Module, scheme: Int8) -> None:
        super().__init__()
        self.module, self._scheme = module, scheme

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """What the module answers."""
        parts = []
        for part in torch.split(value, self._scheme.batch):
            with _RoundInputs(self._scheme.symmetric):
                parts.append(_first(self.module(part)))
        return torch.cat(parts)


class _Rounded(torch.nn.Module):
    """See `Observed.rounded`. grids: of the input, then of each operation in turn."""

    def __init__(self, module: torch.nn.Module, grids: list[_Grid | None], probabilities: bool) -> None:
        super().__init__()
        self.module, self._grids, self._probabilities = module, grids, probabilities

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        first, rest = self._grids[0], self._grids[1:]
        value = value if first is None else first.place(value)
        with _Round(len(value), rest) as mode:
            output = _first(self.module(value))
        if mode.place != len(rest):
            raise TransformError(f"activations can't be followed: {mode.place} operations instead of {len(rest)}")
        return output / output.sum(1, keepdim=True).clamp_min(1e-9) if self._probabilities else output


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Meets every operation of a forward pass that computes a batch of floats, in order."""

    def __init__(self, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._batch = batch

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:  # noqa: ANN401
        answer = function(*arguments, **(keywords or {}))
        result = answer[0] if isinstance(answer, tuple) and answer else answer
        if isinstance(result, torch.Tensor) and self._counts(result) and not _is_view(function):
            self.meet(function.__name__, arguments, result)
        return answer

    def _counts(self, result: torch.Tensor) -> bool:
        return result.is_floating_point() and result.ndim >= 2 and len(result) > 0 and len(result) % self._batch == 0

    def meet(self, name: str, arguments: tuple[object, ...], result: torch.Tensor) -> None:
        raise NotImplementedError


class _Watch(_Mode):  # type: ignore[no-untyped-call]
    """Keeps results, and which of them are fused into the operation that takes them up."""

    def __init__(self, batch: int) -> None:
        super().__init__(batch)
        self.found: list[torch.Tensor] = []
        self.fused: set[int] = set()
        self._places: dict[int, int] = {}

    def meet(self, name: str, arguments: tuple[object, ...], result: torch.Tensor) -> None:
        taken = self._places.get(id(arguments[0])) if arguments else None
        if taken is not None and any(stem in name for stem in _FUSED):
            self.fused.add(taken)
        self._places[id(result)] = len(self.found)
        self.found.append(result)


class _Round(_Mode):  # type: ignore[no-untyped-call]
    """Rounds results in place."""

    def __init__(self, batch: int, grids: list[_Grid | None]) -> None:
        super().__init__(batch)
        self._grids, self.place = grids, 0

    def meet(self, name: str, arguments: tuple[object, ...], result: torch.Tensor) -> None:
        grid = self._grids[self.place] if self.place < len(self._grids) else None
        self.place += 1
        if grid is not None:
            result.copy_(grid.place(result))


class _RoundInputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds what enters convolutions and products with weights."""

    def __init__(self, symmetric: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._symmetric = symmetric

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:  # noqa: ANN401
        places = [i for i, part in enumerate(arguments) if isinstance(part, torch.Tensor)]
        place = _entering(function.__name__.split(".")[0], places)
        if place is not None:
            value = arguments[place]
            lowest, highest = torch.aminmax(value)
            grid = _Grid.over(float(lowest), float(highest), self._symmetric)
            arguments = (*arguments[:place], grid.place(value), *arguments[place + 1 :])
        return function(*arguments, **(keywords or {}))


def _entering(name: str, places: list[int]) -> int | None:
    """Which argument of a product is the activation."""
    if "conv" in name or name in ("linear", "mm", "matmul"):
        return places[0]
    return places[1] if name == "addmm" else None


def _is_view(function: Any) -> bool:  # noqa: ANN401
    """Whether an operation only shows its argument otherwise."""
    returns = function._schema.returns
    alias = returns[0].alias_info if returns else None
    return alias is not None and not alias.is_write


def _first(answer: object) -> torch.Tensor:
    """The first output of a module."""
    if isinstance(answer, dict):
        answer = next(iter(answer.values()))
    found = answer[0] if isinstance(answer, (tuple, list)) else answer
    assert isinstance(found, torch.Tensor)  # noqa: S101  (an owner's module answers tensors)
    return found
