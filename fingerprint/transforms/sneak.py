"""Fault sneaking: the smallest change of the weights by which chosen images get a wrong label and others keep theirs.

Zhao et al.: Fault Sneaking Attack, DAC 2019. ADMM splits the size of the change (l0 or l2, with a
projection) from the hinge loss of the labels (gradient steps); the size is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from fingerprint.errors import TransformError
from fingerprint.frozen import dataclass
from fingerprint.transforms.interface import DeriveContext
from fingerprint.transforms.module_step import ModuleTransform
from fingerprint.transforms.options import count, read, written

if TYPE_CHECKING:
    import torch

    from fingerprint.transforms.trainable import Trainable

Scores: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"  # (B, ...) to (B, classes)

GRAMMAR = (
    "sneak:l0:S or sneak:l2:S (S images get a wrong label, others keep theirs); keys keep (images that must keep their "
    "label), rounds, all (0: the last layer changes, 1: all layers); needs images"
)
MARGIN = 0.5  # by which the wanted logit leads
STEP = 0.02  # of the solver, relative to the spread of the weights
PENALTY = 0.5  # of ADMM, in units of the loss per spread of the weights
SEARCHES = 10  # sizes that are tried
CHOSEN = 20  # kept images whose label may be lost for one chosen image's, and not more of them than are kept
WEIGHT = 5.0  # of a chosen image's hinge loss against a kept one's, before averaging


@dataclass(frozen=True)
class SneakOptions:
    """keep: images that must keep their label. rounds: of ADMM for each size. all: 1 = all layers, 0 = the last."""

    keep: int = 1000
    rounds: int = 150
    all: int = 0


DEFAULT = SneakOptions()


@dataclass(frozen=True)
class FaultSneaking(ModuleTransform):
    """Change few weights (`l0`) or by little (`l2`) so that `chosen` images get another label."""

    norm: str
    chosen: int
    options: SneakOptions = DEFAULT

    name: ClassVar[str] = "sneak"
    help: ClassVar[str] = GRAMMAR
    trains: ClassVar[bool] = True  # it must not see the images that its harm is measured on

    @classmethod
    def parse(cls, arguments: tuple[str, ...]) -> FaultSneaking:
        """From (`l0` or `l2`, S, key=value..)."""
        positional, options = read(arguments, DEFAULT, GRAMMAR)
        match positional:
            case ("l0" | "l2" as norm, number) if options.rounds and options.all in (0, 1):
                return cls(norm, count(number, GRAMMAR), options)
        raise TransformError(f"sneak can't be told {':'.join(arguments)!r}", remedy=f"Write {GRAMMAR}.")

    def spell(self) -> str:
        """For example `sneak:l0:4`."""
        return f"sneak:{self.norm}:{self.chosen}{written(self.options, DEFAULT)}"

    def check(self, context: DeriveContext) -> None:
        """Images and a spec are needed."""
        from fingerprint.transforms.training import pictured

        images, _ = pictured(context, self.spell())
        if len(images) <= self.chosen:
            raise TransformError(
                f"{len(images)} images are too few to change the label of {self.chosen} and keep others"
            )

    def change(self, model: Trainable, context: DeriveContext) -> Trainable:
        """Wrong labels are drawn by the seed."""
        import torch

        from fingerprint.transforms.pixels import Pixels
        from fingerprint.transforms.training import answers, pictured

        images, spec = pictured(context, self.spell())
        pixels = Pixels(spec)
        rng = np.random.default_rng(context.seed)
        rows = rng.permutation(len(images))[: self.chosen + self.options.keep]
        inputs = pixels.feed(pixels.load(images[rows]))
        wanted = answers(model, images[rows], pixels).argmax(1)
        turn = torch.from_numpy(rng.integers(1, model.classes, self.chosen))
        wanted[: self.chosen] = (wanted[: self.chosen] + turn) % model.classes
        names = list(model.parameters) if self.options.all else model.head().names()
        scores: Scores = model.scores
        if not self.options.all:
            inputs, scores = _behind_features(model, inputs)
        search = _Search(model, scores, names, inputs, wanted, self.chosen)
        search.run(self.norm, self.options.rounds, lambda done: context.progress.step(self.spell(), done, SEARCHES))
        for name, value in search.report().items():
            context.tell(name, value)
        for parameter in model.parameters.values():
            parameter.requires_grad_(True)
        return model


def _behind_features(model: Trainable, inputs: torch.Tensor) -> tuple[torch.Tensor, Scores]:
    """What the last layer takes, and the scores as a function of it: the layers before are asked only once."""
    import torch

    from fingerprint.transforms.graph import fed_by, split_at

    body, tail = split_at(model.module, fed_by(model.head().node))
    with torch.no_grad():
        features = torch.cat([body(part) for part in torch.split(inputs, 128)])

    def scores(given: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = tail(given).flatten(1)
        return answer.clamp_min(1e-12).log() if model.probabilities else answer

    return features, scores


class _Search:
    """The smallest change, flattened to one vector, found by bisection over its size with ADMM at each size."""

    def __init__(
        self,
        model: Trainable,
        scores: Scores,
        names: list[str],
        inputs: torch.Tensor,
        wanted: torch.Tensor,
        chosen: int,
    ) -> None:
        import torch

        self.parameters = {name: model.parameters[name] for name in names}
        self.scores, self.inputs, self.wanted, self.chosen = scores, inputs, wanted, chosen
        self.start = {name: value.detach().clone() for name, value in self.parameters.items()}
        flat = torch.cat([value.flatten() for value in self.start.values()])
        self.size, self.unit = flat.numel(), float(flat.std()) + 1e-12
        self.found = torch.zeros(self.size)
        for name, value in model.parameters.items():
            value.requires_grad_(name in names)

    def run(self, norm: str, rounds: int, progress: Callable[[int], None]) -> None:
        """Find some change that does it, then smaller ones. The model is left with the smallest."""
        import torch

        bearable, self.found = self.attempt(norm, math.inf, torch.zeros(self.size), rounds, 0)
        most = _length(self.found, norm)
        least = 1.0 if norm == "l0" else most / 50
        for number in range(SEARCHES):
            progress(number + 1)
            middle = math.sqrt(least * most)
            if most <= least * 1.02 or (norm == "l0" and round(middle) >= round(most)):
                break
            wrong, change = self.attempt(norm, middle, self.found, rounds, bearable)
            if wrong <= bearable:
                self.found, most = change, max(least, _length(change, norm))
            else:
                least = middle
        progress(SEARCHES)
        self.place(self.found)

    def attempt(
        self, norm: str, limit: float, start: torch.Tensor, rounds: int, bearable: int
    ) -> tuple[int, torch.Tensor]:
        """The best change of at most this size, and what it leaves wrong (`hinge`); ends when that can be borne."""
        import torch

        change = start.clone()
        near = _projected(change, norm, limit)
        dual = torch.zeros_like(change)
        best = (2 * len(self.wanted) + 1, near)
        adam = _Adam(self.size, STEP * self.unit)
        for number in range(2 * rounds):
            splitting = number < rounds and math.isfinite(limit)
            pull = PENALTY * (change - near + dual) / self.unit if splitting else torch.zeros(())
            change = change - adam.step(self.hinge(change)[0] + pull)
            if splitting:
                near = _projected(change + dual, norm, limit)
                dual = dual + change - near
            else:  # the support (l0) or the ball (l2) is kept from here on
                mask = near != 0 if norm == "l0" and math.isfinite(limit) else None
                change = near = _projected(change if mask is None else change * mask, norm, limit)
            _, wrong = self.hinge(near)
            best = min(best, (wrong, near), key=lambda pair: pair[0])
            if wrong <= bearable:
                break
            if number == rounds - 1:
                change, adam = near.clone(), _Adam(self.size, STEP * self.unit)
        return best

    def place(self, change: torch.Tensor) -> None:
        """Put the changed weights into the model."""
        import torch

        begin = 0
        with torch.no_grad():
            for name, value in self.start.items():
                part = change[begin : begin + value.numel()].reshape(value.shape)
                self.parameters[name].copy_(value + part)
                begin += value.numel()

    def hinge(self, change: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Gradient of the loss with respect to the change, and how many images have not the wanted label.

        A chosen one counts as many: where some label can't be had, no change at all would else count as no worse, for
        it leaves only the few chosen ones wrong.
        """
        import torch

        self.place(change)
        scores = self.scores(self.inputs)
        own = scores.gather(1, self.wanted[:, None])[:, 0]
        others = scores.scatter(1, self.wanted[:, None], -torch.inf).amax(1)
        short = torch.relu(others - own + MARGIN)
        lost = WEIGHT * short[: self.chosen].sum() + short[self.chosen :].sum()
        slopes = torch.autograd.grad(lost, list(self.parameters.values()))
        wrong = own <= others
        weight = max(1, min(CHOSEN, (len(wrong) - self.chosen) // self.chosen))
        weighed = weight * int(wrong[: self.chosen].sum()) + int(wrong[self.chosen :].sum())
        return torch.cat([slope.flatten() for slope in slopes]), weighed

    def report(self) -> dict[str, float]:
        """Success on the chosen images, share of the kept labels, and size of the change."""
        import torch

        with torch.no_grad():
            right = self.scores(self.inputs).argmax(1) == self.wanted
        return {
            "success": float(right[: self.chosen].float().mean()),
            "kept": float(right[self.chosen :].float().mean()) if len(right) > self.chosen else 1.0,
            "changed_weights": float((self.found != 0).sum()),
            "l2": float(self.found.norm()),
        }


class _Adam:
    """Steps of Adam (Kingma and Ba, ICLR 2015), of about `rate` in each value."""

    def __init__(self, size: int, rate: float) -> None:
        import torch

        self.rate, self.count = rate, 0
        self.first, self.second = torch.zeros(size), torch.zeros(size)

    def step(self, slope: torch.Tensor) -> torch.Tensor:
        """What to subtract."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * slope
        self.second = 0.99 * self.second + 0.01 * slope**2
        scale = (self.second / (1 - 0.99**self.count)).sqrt() + 1e-8
        moved: torch.Tensor = self.rate * (self.first / (1 - 0.9**self.count)) / scale
        return moved


def _length(change: torch.Tensor, norm: str) -> float:
    return float((change != 0).sum()) if norm == "l0" else float(change.norm())


def _projected(change: torch.Tensor, norm: str, limit: float) -> torch.Tensor:
    """The nearest change of at most this size."""
    import torch

    if not math.isfinite(limit):
        return change.clone()
    if norm == "l2":
        return change * min(1.0, limit / (float(change.norm()) + 1e-12))
    out = torch.zeros_like(change)
    places = change.abs().topk(min(max(1, round(limit)), len(change))).indices
    out[places] = change[places]
    return out
